"""Which backend serves the calls: one decision table, then the probes that the row asks for.

The table is the one in the README.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from synaptic.backends import distributed, ollama
from synaptic.backends import pool as pools
from synaptic.backends.base import Backend, BackendContext, capabilities_of, create_backend
from synaptic.backends.tunnels import Tunnels
from synaptic.errors import (
    AddressUnusable,
    BackendError,
    BackendUnavailable,
    EngineUnavailable,
    ExitCode,
    ModelNotFound,
)
from synaptic.messages import BackendNotice, Reporter, Route, Timeouts
from synaptic.models import MODEL_NAME, did_you_mean_model, has_model, pull_hint
from synaptic.settings import NodeSettings
from synaptic.waiting import Patience, WaitNotices, until_ready

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from synaptic.backends.pool import PoolBackend
    from synaptic.settings import Settings

T = TypeVar("T")
PROBE_SECONDS = 2.0


class RoutingRow(Enum):
    """The rows of the routing table; the value is the reason that is shown."""

    FORCED = "the setting 'backend' names it"
    NODES = "task distribution on, distributed inference off"
    COORDINATOR = "task distribution off, distributed inference on: the coordinator only"
    NODES_OR_COORDINATOR = "task distribution and distributed inference on"
    ONE_NODE = "task distribution and distributed inference off: the first node that is named"
    NOTHING_NAMED = "no nodes are named"


def considered(settings: Settings) -> tuple[str, ...]:
    """Return the names of the backends to look at: those that calls may go to, as they are tried, and the embedded."""
    match table_row(settings):
        case RoutingRow.FORCED:
            return (settings.backend or "",)
        case RoutingRow.COORDINATOR:
            return ("distributed", "embedded")
        case RoutingRow.NODES_OR_COORDINATOR:
            return ("ollama", "distributed", "embedded")
        case RoutingRow.NODES | RoutingRow.ONE_NODE | RoutingRow.NOTHING_NAMED:
            return ("ollama", "embedded")


def serving(settings: Settings) -> tuple[str, ...]:
    """Return those of the considered backends that a call can end at: the embedded one only where no node is named."""
    row, names = table_row(settings), considered(settings)
    return names if row in {RoutingRow.FORCED, RoutingRow.NOTHING_NAMED} else names[:-1]


def table_row(settings: Settings) -> RoutingRow:
    """Return the row of the routing table that applies."""
    if settings.backend is not None:
        return RoutingRow.FORCED
    if settings.distributed_inference_enabled:
        return RoutingRow.NODES_OR_COORDINATOR if settings.task_distribution_enabled else RoutingRow.COORDINATOR
    if not settings.nodes:
        return RoutingRow.NOTHING_NAMED
    return RoutingRow.NODES if settings.task_distribution_enabled else RoutingRow.ONE_NODE


def node_pool(settings: Settings, environ: Mapping[str, str] | None = None) -> PoolBackend | None:
    """Return a pool of the nodes that calls may go to, whatever models they have; ``None`` where none is named for it.

    For what is done with the nodes before any has a model: they cannot be routed to then.
    """
    environ = os.environ if environ is None else environ
    match table_row(settings):
        case RoutingRow.NODES | RoutingRow.NODES_OR_COORDINATOR:
            nodes = list(settings.nodes)
        case RoutingRow.ONE_NODE:
            nodes = list(settings.nodes[:1])
        case RoutingRow.FORCED if settings.backend == ollama.NAME:
            nodes = list(settings.nodes[:1]) or [NodeSettings(url=ollama.default_url(environ))]
        case _:
            nodes = []
    return pools.PoolBackend(settings, nodes, environ=environ) if nodes else None


@dataclass(frozen=True, slots=True)
class Routed:
    """A backend that is ready to be asked, and why it is this one."""

    backend: Backend
    route: Route


async def open_backend(settings: Settings, report: Reporter, environ: Mapping[str, str] | None = None) -> Routed:
    """Return the backend that serves the calls. A server that is not ready yet is waited for (``first_token_timeout``).

    Raises:
        BackendUnavailable: If nothing that the row allows answers, or can be used.
        ModelNotFound: If what answers does not have the model.
    """
    router = _Router(settings, report, os.environ if environ is None else environ)
    chosen: Routed | None = None
    try:
        chosen = await router.route(table_row(settings))
    except BackendError as exc:
        if exc.exit_code is ExitCode.NO_BACKEND:
            raise
        raise BackendUnavailable(exc.message, hint=exc.hint, backend=exc.backend, node=exc.node) from exc
    finally:
        for backend in router.opened:
            if chosen is None or backend is not chosen.backend:
                await backend.aclose()
    return chosen


class _Router:
    """Asks around for one decision. ``opened`` are all the backends that it made on the way."""

    def __init__(self, settings: Settings, report: Reporter, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.report = report
        self.environ = environ
        self.opened: list[Backend] = []

    async def route(self, row: RoutingRow) -> Routed:
        """Return the backend that the row leads to."""
        if row is RoutingRow.FORCED:
            return await self.forced(self.settings.backend or "")
        if row is RoutingRow.COORDINATOR:
            return await self.coordinator(row)
        if row is RoutingRow.NODES_OR_COORDINATOR:
            return await self.nodes_or_coordinator(row)
        if row is RoutingRow.NODES:
            return await self.nodes(row)
        if row is RoutingRow.ONE_NODE:
            return await self.named_node(row)
        return await self.local()

    async def forced(self, name: str) -> Routed:
        """Use the backend of that name."""
        return await self._checked(self._create(name), RoutingRow.FORCED.value)

    async def local(self) -> Routed:
        """Use a local Ollama that answers, else the embedded model."""
        node = self._create("ollama")
        address = capabilities_of(node).place
        try:
            return await self._checked(node, f"{RoutingRow.NOTHING_NAMED.value}; an Ollama answers at {address}")
        except ModelNotFound as exc:
            missing: BackendError = exc
            reason = f"{RoutingRow.NOTHING_NAMED.value}; the Ollama at {address} has no model: the embedded model"
        except BackendError as exc:
            missing = _nothing_serves(self.settings.model, address, exc)
            what = f"no Ollama answers at {address}" if isinstance(exc, BackendUnavailable) else exc.message
            reason = f"{RoutingRow.NOTHING_NAMED.value} and {what}: the embedded model"
        backend = self._create("embedded")
        if self.settings.model is not None and not has_model(await backend.models(), self.settings.model):
            raise missing
        if isinstance(missing, ModelNotFound):
            pull = "an Ollama answers but has no model: pull one (ollama pull llama3.2) for better answers"
            self.report(BackendNotice("ollama", pull, "warning"))
        return await self._routed(backend, reason)

    async def named_node(self, row: RoutingRow) -> Routed:
        """Use the first node of the settings; no other is contacted."""
        first = self.settings.nodes[:1]
        if Tunnels([node.url for node in first]).needed:  # which a pool of one node keeps open
            pool, refusals = await self._pool(first)
            if refusals:
                raise self._no_node(pool, refusals)
            return await self._pooled(pool, row.value)
        return await self._checked(self._create("ollama"), row.value)

    async def nodes(self, row: RoutingRow) -> Routed:
        """Use the pool of the nodes, if one of them can serve the model."""
        pool, refusals = await self._pool()
        if refusals:
            raise self._no_node(pool, refusals)
        return await self._pooled(pool, row.value)

    async def nodes_or_coordinator(self, row: RoutingRow) -> Routed:
        """Use the pool if a node can serve the model, else the workers."""
        pool, refusals = await self._pool()
        if not refusals:
            return await self._pooled(pool, f"{row.value}: a node has the model")
        try:
            return await self.coordinator(row)
        except BackendError as exc:
            missing = self._no_node(pool, refusals)
            raise type(missing)(
                f"{missing.message}, and neither can the workers: {exc.message}", hint=exc.hint
            ) from exc

    async def coordinator(self, row: RoutingRow) -> Routed:
        """Use the coordinator that the settings name, else one that was started before, else our own.

        No node is contacted.
        """
        url = self.settings.coordinator_url
        if url is not None and (adopted := await self._adopted(url)) is not None:
            return await self._routed(adopted, f"{row.value}; a server answers at {url}")
        record = distributed.record_of(self.settings.model)
        if record is not None:
            service = distributed.AdoptedBackend(record, distributed.slot_count(self.settings))
            self.opened.append(service)
            return await self._routed(service, f"{row.value}; a service has it loaded")
        # Our own is started by the first call.
        return await self._checked(self._create("distributed"), row.value)

    async def _adopted(self, url: str) -> Backend | None:
        """Return the server at an address, ``None`` if none is there; its owner ends it, not this program.

        Raises:
            BackendError: If one is there that cannot be used: a second coordinator beside it would find its workers
                taken.
        """
        backend = self._create("llama-server", url)

        async def probe() -> None:
            async with asyncio.timeout(PROBE_SECONDS):
                await backend.models()

        try:
            await self._when_ready(probe, "distributed")
        except (AddressUnusable, EngineUnavailable):
            raise
        except (BackendUnavailable, TimeoutError) as exc:
            reason = exc.message if isinstance(exc, BackendError) else f"nothing came within {PROBE_SECONDS:g} s"
            own = "a coordinator of our own is used"
            self.report(BackendNotice("distributed", f"no server answers at coordinator_url ({reason}): {own}"))
            return None
        return backend

    async def _when_ready(self, ask: Callable[[], Awaitable[T]], backend: str) -> T:
        """Return what ``ask`` returns, once the server that it asks is ready."""
        patience = Patience.of(Timeouts(self.settings.first_token_timeout))
        return await until_ready(ask, patience, WaitNotices(self.report, backend))

    async def _pool(self, chosen: Sequence[NodeSettings] = ()) -> tuple[PoolBackend, list[str]]:
        """Return the pool, and for each node why it cannot serve the model; none if one can."""
        nodes = chosen or self.settings.nodes or [NodeSettings(url=ollama.default_url(self.environ))]
        pool = pools.PoolBackend(self.settings, nodes, report=self.report, environ=self.environ)
        self.opened.append(pool)
        await pool.start()

        async def refusals() -> list[str]:
            whys = pool.refusals(self.settings.model)
            if whys and (waits := pool.not_ready()) is not None:
                raise waits
            return whys

        return pool, await self._when_ready(refusals, pool.name)

    async def _pooled(self, pool: PoolBackend, reason: str) -> Routed:
        names = [member.state.name for member in pool.members.values()]
        where = names[0] if len(names) == 1 else f"{len(names)} nodes"
        return await self._routed(pool, reason, where)

    def _no_node(self, pool: PoolBackend, refusals: Sequence[str]) -> BackendError:
        model = self.settings.model
        reasons = "; ".join(refusals)
        if pool.answers:
            hint = pull_hint(model, pool.model_names(), run="run on one of them")
            return ModelNotFound(f"no node can serve {model or 'a model'} ({reasons})", hint=hint)
        hint = pool.advice() or "look at them with: synaptic nodes check"
        return BackendUnavailable(f"nothing can serve {model or 'the call'} ({reasons})", hint=hint)

    async def _checked(self, backend: Backend, reason: str) -> Routed:
        """Route calls to ``backend`` unless it says that it cannot serve the model."""
        check = capabilities_of(backend).check
        if check is not None:
            await self._when_ready(lambda: check(self.settings.model), backend.name)
        return await self._routed(backend, reason)

    async def _routed(self, backend: Backend, reason: str, node: str | None = None) -> Routed:
        model = self.settings.model or await self._default_model(backend)
        return Routed(backend, Route(backend.name, node or capabilities_of(backend).place, model, reason))

    async def _default_model(self, backend: Backend) -> str | None:
        choose = capabilities_of(backend).default_model
        if choose is not None:
            return await choose()
        models = await self._when_ready(backend.models, backend.name)
        return models[0].name if models else None

    def _create(self, name: str, url: str | None = None) -> Backend:
        backend = create_backend(name, BackendContext(self.settings, url, self.report, self.environ))
        self.opened.append(backend)
        return backend


def _nothing_serves(model: str | None, address: str | None, error: BackendError) -> BackendUnavailable:
    reason = error.message if address is None or address in error.message else f"{address}: {error.message}"
    meant = did_you_mean_model(model, [MODEL_NAME]) if model else ""
    instead = "; or leave the model out to use the embedded one" if model else ""
    hint = f"{error.hint or 'start Ollama (ollama serve)'}; name a node in the settings{instead}"
    return BackendUnavailable(
        f"nothing can serve {model or 'the call'} ({reason})", hint=f"{meant} If not: {hint}" if meant else hint
    )
