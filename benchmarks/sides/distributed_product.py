"""Distributed inference as a program of this package has it, spread on purpose over workers that would fit into one."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sides.bare_distributed import PROMPT, worker
from sides.links import Link
from synaptic.backends.distributed.backend import DistributedBackend
from synaptic.backends.distributed.placement.decide import place
from synaptic.backends.distributed.placement.types import Offer, ServingNeeds
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.drafts import LONGEST
from synaptic.errors import NoPlacement
from synaptic.messages import ChatRequest, Continued, Delta, Finished, Message, Restarted, Timings, Usage
from synaptic.models.model_source import open_model
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from synaptic.backends.base import Backend
    from synaptic.backends.distributed.coordinator.states import CoordinatorStatus
    from synaptic.backends.distributed.engine.engine import Engine
    from synaptic.backends.distributed.placement.types import Placement
    from synaptic.models.layers import ModelShape

CONTEXT = 2048
GIB = 1 << 30
FINER = 1.02


@dataclass(frozen=True)
class Answer:
    """What one call gave.

    Attributes:
        text: All of it.
        rate: Tokens a second while generating, as the server counts them; of the last of several servers.
        tokens: Generated ones, as the last server counts them.
        seconds: The whole call.
        arrivals: When each piece came, in seconds of the monotonic clock.
        continued: How often another server took it over.

    """

    text: str
    rate: float
    tokens: int
    seconds: float
    arrivals: tuple[float, ...]
    continued: int


async def ask(backend: Backend, tokens: int, prompt: str = PROMPT) -> Answer:
    """Have one call answered greedily.

    Raises:
        SynapticError: Why it was not.

    """
    request = ChatRequest(
        messages=(Message("user", prompt),), temperature=0.0, max_tokens=tokens, repetition_guard=False
    )
    began = time.monotonic()
    text, arrivals, continued, rate, count = "", [], 0, 0.0, 0
    async with aclosing(backend.stream(request)) as chunks:
        async for chunk in chunks:
            match chunk:
                case Delta() if chunk.text:
                    text += chunk.text
                    arrivals.append(time.monotonic())
                case Restarted():
                    text = ""
                    continued += 1
                case Continued():
                    continued += 1
                case Finished(usage=Usage() as usage, timings=Timings(generation_seconds=float() as seconds)):
                    count, rate = usage.completion_tokens, usage.completion_tokens / seconds
    return Answer(text, rate, count, time.monotonic() - began, tuple(arrivals), continued)


async def agents(backend: Backend, count: int, tokens: int) -> dict[str, float]:
    """Have ``count`` calls answered at once; return tokens a second, of the whole time and while generating."""
    began = time.perf_counter()
    prompts = [f"{PROMPT} This is story number {number}." for number in range(count)]
    answers = await asyncio.gather(*(ask(backend, tokens, prompt) for prompt in prompts))
    return {
        "all": sum(answer.tokens for answer in answers) / (time.perf_counter() - began),
        "decode": sum(answer.rate for answer in answers),
    }


@dataclass
class Product:
    """The backend, with its model loaded.

    Attributes:
        ready_seconds: From nothing until it was loaded and had generated a token.

    """

    backend: DistributedBackend
    model: str
    ready_seconds: float

    @property
    def status(self) -> CoordinatorStatus:
        """How its one coordinator stands."""
        return self.backend.coordinators()[0]

    @property
    def placement(self) -> Placement:
        """Where the layers are."""
        placement = self.status.placement
        assert placement is not None, "it was loaded"
        return placement


@asynccontextmanager
async def over_managed(
    model: Path, count: int, *, threads: int = 1, slots: int = 1, external: Sequence[dict[str, Any]] = ()
) -> AsyncGenerator[Product]:
    """Load ``model`` over ``count`` workers that the program starts, and more of the settings' own if given.

    Each may take only so much memory that all of them are needed.
    """
    shape = await open_model(str(model))
    together = count + len(external)
    bound = least_memory(shape, together, ServingNeeds(context=CONTEXT, slots=slots, draft=LONGEST)) / GIB
    settings = _settings(
        model,
        slots,
        local_workers=count,
        local_worker_threads=threads,
        local_worker_memory_gib=bound,
        rpc_backends=[{**one, "memory_gib": bound} for one in external],
    )
    async with _loaded(settings) as product:
        yield product


@asynccontextmanager
async def over_links(
    engine: Engine,
    model: Path,
    count: int,
    *,
    slots: int = 1,
    threads: int = 1,
    mbit: float = 0,
    rtt_ms: float = 0,
    drafts: bool = True,
) -> AsyncGenerator[Product]:
    """Load ``model`` over workers that somebody else runs, each behind a link; without a rate or delay, on loopback."""
    shape = await open_model(str(model))
    async with AsyncExitStack() as stack:
        backends = []
        for part in split(len(shape.layers), count):
            endpoint, _ = await stack.enter_async_context(worker(engine, threads=threads))
            port = int(endpoint.rpartition(":")[2])
            if mbit or rtt_ms:
                port = stack.enter_context(Link("127.0.0.1", port, mbit=mbit, rtt_ms=rtt_ms)).port
            backends.append({"host": "127.0.0.1", "port": port, "memory_gib": 4.0, "layers": part})
        settings = _settings(model, slots, local_workers=0, rpc_backends=backends, drafts=drafts)
        yield await stack.enter_async_context(_loaded(settings))


def split(layers: int, count: int) -> list[int]:
    """Return how many layers each of ``count`` workers gets, the first ones one more where it does not divide."""
    return [layers // count + (number < layers % count) for number in range(count)]


def least_memory(shape: ModelShape, count: int, wanted: ServingNeeds) -> int:
    """Return about the least bytes that each of ``count`` equal workers needs so that the model fits on them."""
    memory = shape.weight_bytes / count
    while not _fits(shape, count, int(memory), wanted):
        memory *= FINER
    return int(memory * FINER)


def _fits(shape: ModelShape, count: int, memory: int, wanted: ServingNeeds) -> bool:
    offers = [
        Offer(endpoint=Endpoint("127.0.0.1", number + 1), device=0, memory_bytes=memory) for number in range(count)
    ]
    try:
        place(shape, offers, wanted)
    except NoPlacement:
        return False
    return True


def _settings(model: Path, slots: int, **more: Any) -> Settings:
    return Settings(
        model=str(model),
        distributed_context=CONTEXT,
        distributed_parallel=slots,
        coordinator_idle=None,
        **more,
    )


@asynccontextmanager
async def _loaded(settings: Settings) -> AsyncGenerator[Product]:
    backend = DistributedBackend(settings)
    try:
        began = time.perf_counter()
        await backend.start()
        assert settings.model is not None
        yield Product(backend, settings.model, time.perf_counter() - began)
    finally:
        await backend.aclose()
