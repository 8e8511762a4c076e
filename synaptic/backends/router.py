"""Which backend serves the calls: one decision table, then the probes that the row asks for.

The table is the one in the README.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from synaptic.backends.base import Backend, BackendContext, ChoosesModel, create_backend
from synaptic.backends.http import without_password
from synaptic.errors import BackendError, BackendUnavailable, ModelNotFound
from synaptic.messages import BackendNotice, ModelInfo, Reporter, Route
from synaptic.models import full_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.backends.ollama import OllamaBackend
    from synaptic.backends.pool import PoolBackend
    from synaptic.settings import NodeSettings, Settings

PROBE_SECONDS = 2.0


class Row(Enum):
    """The rows of the routing table; the value is the reason that is shown."""

    FORCED = "the setting 'backend' names it"
    NODES = "task distribution on, distributed inference off"
    COORDINATOR = "task distribution off, distributed inference on: the coordinator only"
    NODES_OR_COORDINATOR = "task distribution and distributed inference on"
    ONE_NODE = "task distribution and distributed inference off: the first node that is named"
    NOTHING_NAMED = "no nodes are named"


def table_row(settings: Settings) -> Row:
    """Return the row of the routing table that applies."""
    if settings.backend is not None:
        return Row.FORCED
    if settings.distributed_inference_enabled:
        return Row.NODES_OR_COORDINATOR if settings.task_distribution_enabled else Row.COORDINATOR
    if not settings.nodes:
        return Row.NOTHING_NAMED
    return Row.NODES if settings.task_distribution_enabled else Row.ONE_NODE


@dataclass(frozen=True, slots=True)
class Routed:
    """A backend that is ready to be asked.

    Attributes:
        capacity: Calls that it takes at once, of all runs together; ``None`` is no limit.

    """

    backend: Backend
    route: Route
    capacity: int | None


async def open_backend(settings: Settings, report: Reporter, environ: Mapping[str, str] | None = None) -> Routed:
    """Return the backend that serves the calls.

    Raises:
        BackendUnavailable: If nothing that the row allows answers.
        ModelNotFound: If what answers does not have the model.

    """
    router = _Router(settings, report, os.environ if environ is None else environ)
    chosen: Routed | None = None
    try:
        chosen = await router.route(table_row(settings))
    finally:
        for backend in router.opened:
            if chosen is None or backend is not chosen.backend:
                await backend.aclose()
    return chosen


class _Node(NamedTuple):
    """A node of the settings, or the local one that ``OLLAMA_HOST`` names."""

    url: str
    parallel: int = 1
    settings: NodeSettings | None = None

    @property
    def shown(self) -> str:
        """The address as it may be printed."""
        return without_password(self.url)


@dataclass(frozen=True, slots=True)
class _Probe:
    """What a node said when it was asked for its models."""

    node: _Node
    backend: OllamaBackend
    models: Sequence[ModelInfo]
    error: BackendError | None

    def serves(self, model: str | None) -> bool:
        return self.error is None and has_model(self.models, model)

    def why_not(self, model: str | None) -> str:
        if self.error is not None:
            named = self.node.shown in self.error.message
            return self.error.message if named else f"{self.node.shown}: {self.error.message}"
        where = self.node.shown
        return f"{where}: does not have {model!r}" if model else f"{where}: has no model"


def has_model(models: Sequence[ModelInfo], model: str | None) -> bool:
    """Return whether ``model`` is among them (``llama3`` is ``llama3:latest``); with none named, whether any is."""
    if model is None:
        return bool(models)
    return full_name(model) in {full_name(info.name) for info in models}


class _Router:
    """Asks around for one decision. ``opened`` are all the backends that it made on the way."""

    def __init__(self, settings: Settings, report: Reporter, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.report = report
        self.environ = environ
        self.opened: list[Backend] = []

    async def route(self, row: Row) -> Routed:
        """Return the backend that the row leads to."""
        if row is Row.FORCED:
            return await self.forced(self.settings.backend or "")
        if row is Row.COORDINATOR:
            return await self.coordinator(row)
        if row is Row.NODES_OR_COORDINATOR:
            return await self.nodes_or_coordinator(row)
        if row is Row.NODES:
            return await self.nodes(row)
        if row is Row.ONE_NODE:
            return await self.named_node(row)
        return await self.local()

    async def forced(self, name: str) -> Routed:
        """Use the backend of that name."""
        if name == "ollama":
            return await self.named_node(Row.FORCED)
        if name == "llama-server":
            url = self.settings.coordinator_url
            return await self._routed(self._create(name, url), Row.FORCED.value, url, None)
        if name == "distributed":
            return await self._own_coordinator(Row.FORCED)
        backend = self._create(name)
        capacity = self.settings.embedded_parallel if name == "embedded" else None
        return await self._routed(backend, Row.FORCED.value, None, capacity)

    async def local(self) -> Routed:
        """Use a local Ollama that answers, else the embedded model."""
        node = self._local_node()
        probe = await self._probe(node)
        if probe.serves(self.settings.model):
            return await self._node(probe, f"{Row.NOTHING_NAMED.value}; an Ollama answers at {node.shown}")
        backend = self._create("embedded")
        known = await backend.models()
        if self.settings.model is not None and not has_model(known, self.settings.model):
            raise self._nobody([probe])
        if probe.error is None:
            pull = "an Ollama answers but has no model: pull one (ollama pull llama3.2) for better answers"
            self.report(BackendNotice("ollama", pull, "warning"))
            reason = f"{Row.NOTHING_NAMED.value}; the Ollama at {node.shown} has no model: the embedded model"
        else:
            reason = f"{Row.NOTHING_NAMED.value} and no Ollama answers at {node.shown}: the embedded model"
        return await self._routed(backend, reason, None, self.settings.embedded_parallel)

    async def named_node(self, row: Row) -> Routed:
        """Use the first node of the settings, else the local one; no other is contacted."""
        probe = await self._probe(self._nodes()[0])
        if probe.serves(self.settings.model):
            return await self._node(probe, row.value)
        raise probe.error or self._nobody([probe])

    async def nodes(self, row: Row) -> Routed:
        """Use the pool of the nodes, if one of them can serve the model."""
        pool, refusals = await self._pool()
        if refusals:
            raise self._no_node(pool, refusals)
        return await self._pooled(pool, row.value)

    async def nodes_or_coordinator(self, row: Row) -> Routed:
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

    async def coordinator(self, row: Row) -> Routed:
        """Use the coordinator that the settings name, else one that was started before, else our own.

        No node is contacted.
        """
        url = self.settings.coordinator_url
        if url is not None and (adopted := await self._adopted(url)) is not None:
            return await self._routed(adopted, f"{row.value}; a server answers at {url}", url, None)
        from synaptic.backends.distributed import record_of  # noqa: PLC0415  (not needed by every row)

        record = record_of(self.settings.model)
        if record is not None:
            from synaptic.backends.distributed import AdoptedBackend  # noqa: PLC0415  (the same)

            service = AdoptedBackend(record)
            self.opened.append(service)
            return await self._routed(service, f"{row.value}; a service has it loaded", None, self._slots())
        return await self._own_coordinator(row)

    async def _own_coordinator(self, row: Row) -> Routed:
        """Use a coordinator of our own; it is started by the first call."""
        from synaptic.backends.distributed import chosen_files  # noqa: PLC0415  (not needed by every row)

        await asyncio.to_thread(chosen_files)
        workers = len(self.settings.rpc_backends)
        where = f"{workers} RPC worker{'s' if workers > 1 else ''}" if workers else "workers of this machine"
        return await self._routed(self._create("distributed"), row.value, where, self._slots())

    async def _adopted(self, url: str) -> Backend | None:
        """Return the server at an address if it answers; it is somebody else's, and never ended by us."""
        backend = self._create("llama-server", url)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await backend.models()
        except (BackendError, TimeoutError) as exc:
            reason = exc.message if isinstance(exc, BackendError) else f"nothing came within {PROBE_SECONDS:g} s"
            own = "a coordinator of our own is used"
            self.report(BackendNotice("distributed", f"no server answers at coordinator_url ({reason}): {own}"))
            return None
        return backend

    def _slots(self) -> int:
        from synaptic.backends.distributed import slot_count  # noqa: PLC0415  (not needed by every row)

        return slot_count(self.settings)

    async def _pool(self) -> tuple[PoolBackend, list[str]]:
        """Return the pool, and for each node why it cannot serve the model; none if one can."""
        from synaptic.backends.pool import PoolBackend  # noqa: PLC0415  (not needed by every row)
        from synaptic.settings import NodeSettings  # noqa: PLC0415  (the same)

        nodes = self.settings.nodes or [NodeSettings(url=self._local_node().url)]
        pool = PoolBackend(self.settings, nodes, report=self.report, environ=self.environ)
        self.opened.append(pool)
        await pool.start()
        return pool, pool.refusals(self.settings.model)

    async def _pooled(self, pool: PoolBackend, reason: str) -> Routed:
        names = [member.state.name for member in pool.members.values()]
        where = names[0] if len(names) == 1 else f"{len(names)} nodes"
        return await self._routed(pool, reason, where, None)

    def _no_node(self, pool: PoolBackend, refusals: Sequence[str]) -> BackendError:
        model = self.settings.model
        reasons = "; ".join(refusals)
        if pool.answers:
            pull = f"ollama pull {model or 'llama3.2'}"
            return ModelNotFound(
                f"no node can serve {model or 'a model'} ({reasons})", hint=f"run on one of them: {pull}"
            )
        return BackendUnavailable(
            f"nothing can serve {model or 'the call'} ({reasons})",
            hint="start Ollama there (ollama serve), or look at them with: synaptic nodes check",
        )

    async def _probe(self, node: _Node) -> _Probe:
        backend = self._client(node)
        self.opened.append(backend)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return _Probe(node, backend, await backend.models(), None)
        except BackendError as exc:
            return _Probe(node, backend, (), exc)
        except TimeoutError:
            error = BackendUnavailable(f"{node.shown} accepts connections but did not answer in {PROBE_SECONDS:g} s")
            return _Probe(node, backend, (), error)

    def _client(self, node: _Node) -> OllamaBackend:
        if node.settings is not None:
            from synaptic.backends.pool import open_client  # noqa: PLC0415  (not needed by every row)

            return open_client(self.settings, node.settings, self.environ)
        from synaptic.backends.ollama import OllamaBackend  # noqa: PLC0415  (the same)

        return OllamaBackend.from_settings(self.settings, node.url)

    async def _node(self, probe: _Probe, reason: str) -> Routed:
        return await self._routed(probe.backend, reason, probe.node.shown, probe.node.parallel)

    async def _routed(self, backend: Backend, reason: str, node: str | None, capacity: int | None) -> Routed:
        model = self.settings.model or await self._default_model(backend)
        return Routed(backend, Route(backend.name, node, model, reason), capacity)

    async def _default_model(self, backend: Backend) -> str | None:
        if isinstance(backend, ChoosesModel):
            return await backend.default_model()
        models = await backend.models()
        return models[0].name if models else None

    def _nodes(self) -> list[_Node]:
        return [_Node(node.url, node.parallel, node) for node in self.settings.nodes] or [self._local_node()]

    def _local_node(self) -> _Node:
        from synaptic.backends.ollama import default_url  # noqa: PLC0415  (not needed by every row)

        return _Node(default_url(self.environ))

    def _nobody(self, probes: Sequence[_Probe]) -> BackendError:
        model = self.settings.model
        reasons = "; ".join(probe.why_not(model) for probe in probes)
        if any(probe.error is None for probe in probes):
            pull = f"ollama pull {model or 'llama3.2'}"
            return ModelNotFound(f"no node can serve {model or 'a model'} ({reasons})", hint=f"run: {pull}")
        hint = (
            "start Ollama (ollama serve), name a node in the settings, or leave the model out to use the embedded one"
        )
        return BackendUnavailable(f"nothing can serve {model or 'the call'} ({reasons})", hint=hint)

    def _create(self, name: str, url: str | None = None) -> Backend:
        backend = create_backend(name, BackendContext(self.settings, url, self.report))
        self.opened.append(backend)
        return backend
