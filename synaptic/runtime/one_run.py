"""The functions of the library: one run each, in a session of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from synaptic.errors import ModelNotFound, UsageError
from synaptic.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from synaptic.agents import Agent
    from synaptic.backends import Backend
    from synaptic.messages import Message
    from synaptic.pipeline import Pipeline, Tool
    from synaptic.runtime.approval import Approver
    from synaptic.runtime.events import Event, EventHandler, RunResult
    from synaptic.settings import Settings


async def run(
    query: str | None = None,
    *,
    pipeline: str | Path | Pipeline | None = None,
    inputs: Mapping[str, Any] | None = None,
    documents: Sequence[Mapping[str, str] | str] = (),
    settings: Settings | None = None,
    backend: Backend | None = None,
    agents: Mapping[str, Agent] | None = None,
    tools: Mapping[str, Tool] | None = None,
    approver: Approver | None = None,
    model: str | None = None,
    conversation: Sequence[Message] = (),
    on_event: EventHandler | None = None,
) -> RunResult:
    """Answer one question with a graph of agents; see ``Session`` and ``Session.run``.

    Raises:
        ModelNotFound: If the model that is asked for is not there.
        SynapticError: What ``Session.run`` raises.
    """
    async with Session(settings, backend=backend, agents=agents, tools=tools, approver=approver) as session:
        result = await session.run(
            query,
            pipeline=pipeline,
            inputs=inputs,
            documents=documents,
            model=model,
            conversation=conversation,
            on_event=on_event,
        )
    if isinstance(result.error, ModelNotFound) and not result.answer:
        raise result.error
    return result


def run_sync(query: str | None = None, **options: Any) -> RunResult:
    """Do what ``run`` does, from code that is not async.

    Raises:
        ModelNotFound: If the model that is asked for is not there.
        SynapticError: What ``Session.run`` raises.
        UsageError: If an event loop is already running here; ``await run(...)`` instead.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run(query, **options))
    raise UsageError("run_sync() was called where an event loop runs", hint="write: await synaptic.run(...)")


@asynccontextmanager
async def _running(
    query: str | None, options: dict[str, Any], events: asyncio.Queue[Event | None]
) -> AsyncIterator[asyncio.Task[RunResult]]:
    task = asyncio.create_task(run(query, on_event=events.put_nowait, **options))
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stream_events(query: str | None = None, **options: Any) -> AsyncIterator[Event]:
    """Yield the events of one run as they happen; leaving the loop early cancels the run.

    Takes the options of ``run``.

    Raises:
        SynapticError: What ``run`` raises. A run that fails ends with its ``RunFinished`` event instead.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    async with _running(query, options, events) as task:
        while (event := await events.get()) is not None:
            yield event
        await task
