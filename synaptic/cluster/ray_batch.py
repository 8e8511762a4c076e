"""The items of a batch on the nodes of a Ray cluster: an actor on each holds a session, and records its runs there.

What has a row is known here, by the batch; what a run has done until now, only by the journal of the node that it was
on, which is asked when the batch goes on. Runs of a node that is lost begin anew on the others.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self

from synaptic import cluster, runtime
from synaptic.agents import discover_agents
from synaptic.cluster.lent import warn_of
from synaptic.cluster.ray_cluster import START_SECONDS, RayNode, end_actor, joined, nodes, start_actor, unavailable
from synaptic.errors import AgentError, BackendUnavailable, JournalError, Problem, SynapticError
from synaptic.messages import ignore_report
from synaptic.pipeline import Pipeline, agents_beside, named_tools
from synaptic.waiting import Rules, steady_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from synaptic.agents import Agent
    from synaptic.messages import Reporter
    from synaptic.runtime import Row
    from synaptic.settings import Settings

_AGAIN_SECONDS: Final = 30.0
"""Until a node is tried again on which nothing starts, or whose actor was lost."""
_END_SECONDS: Final = 15.0
"""For an actor to end what it has begun."""
_OWNED_LOOKS: Final = 60
_OWNED_SECONDS: Final = 0.5
"""Between looks for the process of an earlier call to end, as Ray ends it once it has noticed that its program went."""


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """What a node has to know: it need not have the pipeline's file, nor the agents of this machine.

    Attributes:
        settings: Those of this machine; an address on the loopback is each node's own.
        text: The pipeline.
        source: What messages call it.
        path: Its file here: what it uses is looked for beside it, on the node.
        model: Goes before the pipeline's own default.
        agents: Those of this machine, by name.
        beside: Those beside the pipeline's file, which go before them.
        tools: Modules or files of Python functions, which the node has to have.
        approved: Whether what a step asks a person is approved.
        at_once: Runs that are made at the same time, on all nodes together.
    """

    settings: Settings
    text: str
    source: str
    path: Path | None
    model: str | None
    agents: Mapping[str, Agent]
    beside: Mapping[str, Agent]
    tools: tuple[str, ...]
    approved: bool
    at_once: int

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        settings: Settings,
        *,
        model: str | None = None,
        tools: Sequence[str] = (),
        approved: bool = False,
        at_once: int = 1,
    ) -> Self:
        """Return the order to run a pipeline with the agents that are found here.

        Raises:
            UsageError: If one of them is wrong.
        """
        book, document = discover_agents(), pipeline.document
        agents = {name: book[name] for name in book}
        problems: list[Problem] = []
        found = agents_beside(pipeline, agents, problems, [])
        if problems:
            raise AgentError.of(problems)
        beside = {name: agent for name, agent in found.items() if agent is not None}
        # A session in an actor is no program of its own: it takes no further part in the cluster.
        settings = settings.model_copy(update={"ray_address": None})
        source, path = document.source, pipeline.path
        return cls(settings, document.text, source, path, model, agents, beside, tuple(tools), approved, at_once)


class NodeRuns:
    """The actor."""

    def __init__(self, order: BatchOrder) -> None:
        self._session = runtime.Session(
            order.settings,
            agents=order.beside,
            steady=order.agents,
            tools=named_tools(order.tools),
            approver=runtime.approve_all if order.approved else None,
            priority="batch",
            runs_at_once=order.at_once,
        )
        pipeline = Pipeline.parse(order.text, order.source, path=order.path)
        self._runs = runtime.SessionRuns(self._session, pipeline, order.model)
        self._under_way: set[asyncio.Task[Any]] = set()

    async def check(self, inputs: Mapping[str, Any]) -> None:
        """See `ItemRuns`."""
        await self._runs.check(inputs)

    async def row(self, inputs: Mapping[str, Any], run_id: str) -> Row:
        """See `ItemRuns`."""
        with self._noted():
            return await self._runs.row(inputs, run_id)

    async def knows(self, run_id: str) -> bool:
        """Return whether a run is recorded here."""
        return await asyncio.to_thread(_at_work, run_id) is not None

    async def row_again(self, run_id: str) -> Row | None:
        """See `ItemRuns`; another process that works on the run is on its way to its end, and waited for."""
        with self._noted():
            for _ in range(_OWNED_LOOKS):
                if not await asyncio.to_thread(_at_work, run_id):
                    break
                await asyncio.sleep(_OWNED_SECONDS)
            return await self._runs.row_again(run_id)

    async def close(self) -> None:
        """Cut off what is under way, and close the session."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._session.aclose()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None, "Ray runs an actor's coroutines as tasks"
        self._under_way.add(task)
        try:
            yield
        finally:
            self._under_way.discard(task)


def _at_work(run_id: str) -> bool | None:
    """Return whether another process works on a run; ``None`` if it is not recorded here."""
    try:
        with runtime.Journal() as journal:
            run = journal.run(run_id)
    except JournalError:
        return None
    return run.at_work and not run.owner.is_this


class _LostError(Exception):
    """A node, or its actor, is gone."""


@dataclass(slots=True, eq=False)
class _Place:
    """An actor that runs items, and on how many it is."""

    node: RayNode
    actor: Any
    busy: int = 0


class RayRuns:
    """Runs items on the nodes of a cluster, each on the one that has the fewest; use it with ``async with``.

    Nodes that come up later are used, too.

    Args:
        address: Of the cluster; see `joined`.
        order: What is run.
        report: Told which node is not used, or is lost.
    """

    def __init__(self, address: str, order: BatchOrder, report: Reporter = ignore_report) -> None:
        self._address = address
        self._order = order
        self._report = report
        self._places: list[_Place] = []
        self._there = asyncio.Event()
        self._not_before: dict[str, float] = {}
        self._until_closed = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Join the cluster, and start an actor on each of its nodes.

        Raises:
            UsageError: If Ray is not installed, or the address is none.
            BackendUnavailable: If the cluster is not reached, or nothing starts on any node.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(joined(self._address))
            stack.push_async_callback(self._end)
            found = await nodes()
            # As many runs each as the nodes share, so that an engine that a node starts is as large as is of use.
            self._order = replace(self._order, at_once=math.ceil(self._order.at_once / max(1, len(found))))
            await asyncio.gather(*(self._start(node) for node in found))
            if not self._places:
                raise BackendUnavailable("no node of the Ray cluster can run the batch", backend="ray")
            looking = asyncio.create_task(self._look())
            stack.push_async_callback(_cancelled, looking)
            self._until_closed = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._until_closed.aclose()

    async def check(self, inputs: Mapping[str, Any]) -> None:
        """See `ItemRuns`: one node speaks for all.

        Raises:
            UsageError: If the pipeline or an agent is wrong.
            BackendError: If nothing can serve the calls there, or the node is lost meanwhile.
        """
        place = await self._least_busy()
        try:
            await self._ask(place, "check", inputs)
        except _LostError as error:
            raise unavailable(place.node, "was lost before the batch began") from error

    async def row(self, inputs: Mapping[str, Any], run_id: str) -> Row | None:
        """See `ItemRuns`."""
        try:
            place = await self._least_busy()
        except BackendUnavailable as error:
            return runtime.failed_row(error)
        with suppress(_LostError):
            row: Row = await self._ask(place, "row", inputs, run_id)
            return row
        return None

    async def row_again(self, run_id: str) -> Row | None:
        """See `ItemRuns`: a node goes on that has the run in its journal."""
        known = await asyncio.gather(*(self._knows(place, run_id) for place in self._places))
        places = [place for place in known if place is not None]
        if places:
            with suppress(_LostError):
                row: Row | None = await self._ask(min(places, key=_busy), "row_again", run_id)
                return row
        return None

    async def _knows(self, place: _Place, run_id: str) -> _Place | None:
        with suppress(_LostError):
            return place if await self._ask(place, "knows", run_id) else None
        return None

    async def _least_busy(self) -> _Place:
        """Return the place with the fewest runs; where there is none, wait for one.

        Raises:
            BackendUnavailable: If none comes.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                while not self._places:
                    self._there.clear()
                    await self._there.wait()
        except TimeoutError as error:
            raise BackendUnavailable("all nodes of the Ray cluster are lost", backend="ray") from error
        return min(self._places, key=_busy)

    async def _ask(self, place: _Place, method: str, *arguments: object) -> Any:
        """Have an actor do something.

        Raises:
            SynapticError: As it does.
            _LostError: If it, or its node, is gone.
        """
        errors = import_module("ray.exceptions")
        place.busy += 1
        try:
            return await getattr(place.actor, method).remote(*arguments)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            self._lose(place)
            raise _LostError from error
        finally:
            place.busy -= 1

    def _lose(self, place: _Place) -> None:
        if place in self._places:
            self._places.remove(place)
            self._not_before[place.node.id] = steady_time() + _AGAIN_SECONDS
            end_actor(place.actor)  # it may be this program alone that does not reach it
            warn_of(unavailable(place.node, "is lost: its runs go on elsewhere"), self._report)

    async def _start(self, node: RayNode) -> None:
        try:
            actor = await start_actor(NodeRuns, node, self._order)
        except SynapticError as error:
            self._not_before[node.id] = steady_time() + _AGAIN_SECONDS if cluster.passes(error) else math.inf
            warn_of(error, self._report)
        else:
            self._places.append(_Place(node, actor))
            self._there.set()

    async def _look(self) -> None:
        """Start an actor wherever there is none, now and then."""
        there: list[RayNode] = []
        while True:
            await asyncio.sleep(Rules.NEW_NODES.delay(1))
            used = {place.node.id for place in self._places}
            now = steady_time()
            with suppress(BackendUnavailable):  # the cluster is away for a moment
                there = await nodes()
            new = [one for one in there if one.id not in used and self._not_before.get(one.id, now) <= now]
            await asyncio.gather(*(self._start(node) for node in new))

    async def _end(self) -> None:
        places, self._places = self._places, []
        await asyncio.gather(*(_closed(place) for place in places))


def _busy(place: _Place) -> int:
    return place.busy


async def _closed(place: _Place) -> None:
    """Have an actor end in order, or end it."""
    try:
        with suppress(TimeoutError, import_module("ray.exceptions").RayError):
            async with asyncio.timeout(_END_SECONDS):
                await place.actor.close.remote()
    finally:
        end_actor(place.actor)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
