"""A pool over scripted nodes, and what must hold after whatever was done to them."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faulty_node import FaultyNode
from faulty_node_script import write_script

from synaptic.backends.pool.backend import PoolBackend, PoolOptions
from synaptic.backends.pool.dispatch import Limits
from synaptic.errors import BackendError
from synaptic.messages import ChatRequest, Continued, Delta, Finished, Message, Restarted, Timeouts
from synaptic.settings import NodeSettings, Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from synaptic.messages import BackendReport, Chunk

MODEL = "m"
OPTIONS = PoolOptions(limits=Limits(wait=30.0, recovery=20.0), num_ctx=4096, keep_alive="5m")
TIMEOUTS = Timeouts(first_token=20.0, idle=20.0)


@dataclass
class Answer:
    """What came of one call."""

    text: str = ""
    node: str | None = None
    finish: str | None = None
    ends: int = 0
    restarts: list[Restarted] = field(default_factory=list)
    continued: list[Continued] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    error: BackendError | None = None


def question(text: str = "Say it.", *, tokens: int = 8, **options: Any) -> ChatRequest:
    options = {"model": MODEL, "timeouts": TIMEOUTS, **options}
    return ChatRequest(messages=(Message("user", text),), max_tokens=tokens, **options)


def whole_text(node: FaultyNode, request: ChatRequest) -> str:
    """Return what a node that behaves says to ``request``."""
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    body = {"messages": messages, "options": {"num_predict": request.max_tokens}}
    return "".join(write_script(node.config, body).tokens)


async def ask(pool: PoolBackend, request: ChatRequest) -> Answer:
    """Make one call to its end; an error is part of the answer."""
    answer = Answer()
    try:
        async with aclosing(pool.stream(request)) as chunks:
            async for chunk in chunks:
                answer.chunks.append(chunk)
                if isinstance(chunk, Restarted):
                    answer.restarts.append(chunk)
                    answer.text = ""
                elif isinstance(chunk, Continued):
                    answer.continued.append(chunk)
                elif isinstance(chunk, Delta):
                    answer.text += chunk.text
                elif isinstance(chunk, Finished):
                    answer.ends += 1
                    answer.finish, answer.node = chunk.finish_reason, chunk.node
    except BackendError as exc:
        answer.error = exc
    return answer


async def ask_many(pool: PoolBackend, count: int, **options: Any) -> list[Answer]:
    """Make so many different calls at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(pool, question(f"Question {n}", **options))) for n in range(count)]
    return [task.result() for task in tasks]


def open_files() -> int:
    """Return how many file descriptors the process has."""
    gc.collect()
    held = Path("/proc/self/fd")
    return len(list(held.iterdir())) if held.exists() else 0


@dataclass
class Trial:
    """A pool, its nodes, and what it reported."""

    pool: PoolBackend
    nodes: Sequence[Any]
    reports: list[BackendReport]

    def state(self, index: int) -> Any:
        return self.pool.members[index].state

    async def settled(self) -> None:
        """Check that nothing is left of the calls, within a few seconds."""
        async with asyncio.timeout(60):
            while self.pool.dispatcher.in_flight or len(self.pool.dispatcher.waiting):
                await asyncio.sleep(0.01)
        for member in self.pool.members.values():
            assert member.state.in_flight == 0
            assert member.state.ends == []
            assert member.state.busy_models == {}
        for node in self.nodes:
            if isinstance(node, FaultyNode):
                await node.wait_until_idle()
                assert node.counters.peak_in_flight <= self.cap_of(node), "the node had more calls than it takes"

    def cap_of(self, node: FaultyNode) -> int:
        return next(member.state.limit for member in self.pool.members.values() if member.url == node.url)


@asynccontextmanager
async def pool_over(
    nodes: Sequence[Any], *, parallel: int | Sequence[int] = 1, settings: Settings | None = None, **options: Any
) -> AsyncIterator[Trial]:
    """Give a pool over running nodes; afterwards nothing may be left of it: no call, no task, no descriptor."""
    limits = {name: options.pop(name) for name in ("queue", "wait", "recovery") if name in options}
    caps = [parallel] * len(nodes) if isinstance(parallel, int) else list(parallel)
    chosen = [
        NodeSettings(url=node.url, parallel=cap, name=f"n{i}")
        for i, (node, cap) in enumerate(zip(nodes, caps, strict=True))
    ]
    reports: list[BackendReport] = []
    tasks, files = asyncio.all_tasks(), open_files()
    pool = PoolBackend(
        settings or Settings(),
        chosen,
        report=reports.append,
        options=replace(OPTIONS, limits=replace(OPTIONS.limits, **limits), **options),
    )
    try:
        await pool.start()
        trial = Trial(pool, nodes, reports)
        yield trial
        await trial.settled()
    finally:
        await pool.aclose()
    await asyncio.sleep(0.05)
    served = {
        task
        for task in asyncio.all_tasks() - tasks
        if "pool" in repr(task.get_coro()) or "http" in repr(task.get_coro())
    }
    assert not served, f"left running: {served}"
    assert open_files() <= files + len(nodes), "descriptors are left open"
