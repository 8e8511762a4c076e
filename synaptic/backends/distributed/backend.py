"""Distributed inference: models whose layers are spread over workers, each behind a coordinator that is kept alive."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from synaptic.backends.base import EVERY_FEATURE, Capabilities
from synaptic.backends.distributed.blockers import unblocked
from synaptic.backends.distributed.coordinator import Coordinators, DistributedCall, Replicas
from synaptic.backends.distributed.placement import slot_count
from synaptic.errors import BackendUnavailable, ModelNotFound
from synaptic.messages import ModelInfo, Reporter, ignore_report
from synaptic.models import list_models, open_model
from synaptic.text import plural

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from synaptic.backends.distributed.coordinator import CoordinatorStatus, Transition
    from synaptic.messages import ChatRequest, Chunk
    from synaptic.models import ModelShape
    from synaptic.settings import Settings

NAME: Final = "distributed"
KEPT_TRANSITIONS: Final = 200


class DistributedBackend:
    """Serves models over RPC workers; nothing is started before it is needed.

    Args:
        settings: What the README's section on distributed inference names.
        report: Hears of loads, losses and restarts.
        environ: Where Ollama's models are; the process's own environment unless given.
    """

    name = NAME

    def __init__(
        self, settings: Settings, report: Reporter = ignore_report, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._shapes: dict[str, ModelShape] = {}
        self.transitions: list[Transition] = []
        self._shared = Coordinators(settings, report, self._moved)
        self._replicas: dict[str, Replicas] = {}
        self._opening = asyncio.Lock()
        self._closed = False
        self.capabilities = Capabilities(
            capacity=slot_count(settings) * settings.model_replicas,
            place=_place(settings),
            longer_context="raise distributed_context",
            keeps_deadlines=True,
            check=self.check,
            start=self.start,
            resize=self.resize,
            default_model=self.default_model,
            context_length=self.context_length,
            coordinators=self,
            features=EVERY_FEATURE - {"images", "options"},
        )

    async def check(self, model: str | None) -> None:
        """Check that there are an engine, the model and a worker.

        Raises:
            BackendError: With all that is missing.
        """
        await unblocked(self._settings, self._named(model))

    async def start(self) -> None:
        """Load the models that the settings name, ``prewarm`` first, then ``model``; replicas follow on their own.

        Raises:
            SynapticError: Why one of them cannot be served.
        """
        wanted = [*self._settings.prewarm, *([self._settings.model] if self._settings.model else [])]
        loaded = []
        for model in dict.fromkeys(wanted):
            loaded.append(await self._replicas_of(model))
            await loaded[-1].load()
        for replicas in loaded:
            replicas.begin_others()

    def resize(self, calls: int) -> int:
        """Size coordinators that are loaded from now on for so many calls at once.

        Return how many those of one model will take. A model that is loaded already keeps the slots that it has.
        """
        self._shared.width = max(self._shared.width, calls)
        return slot_count(self._settings, self._shared.width) * self._settings.model_replicas

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the reply as it is generated; a break in between is continued (see :mod:`.distributed_call`).

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        with (await self._replicas_of(request.model)).call() as serves:
            async with aclosing(DistributedCall(serves, request).stream()) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def models(self) -> list[ModelInfo]:
        """Return the models that are on this machine and could be loaded, those of the settings first."""
        found = {info.name: info for info in await list_models(self._environ)}
        named = [name for name in (self._settings.model, *self._settings.prewarm) if name]
        infos = [await self._info(name) for name in dict.fromkeys(named)]
        return [*infos, *(info for name, info in found.items() if name not in named)]

    async def default_model(self) -> str:
        """Return the model that serves where none is named.

        Raises:
            ModelNotFound: If the settings name none and none is on this machine.
        """
        for name in (self._settings.model, *self._settings.prewarm):
            if name:
                return name
        found = await list_models(self._environ)
        if not found:
            raise ModelNotFound(
                "no model is named, and none was found on this machine",
                hint="name one: the path of a GGUF file, or what Ollama calls it (synaptic config set model NAME)",
                backend=NAME,
            )
        return found[0].name

    async def context_length(self, request: ChatRequest) -> int | None:
        """Return the tokens of one call's context."""
        shape = await self._shape(request.model)
        context = self._settings.distributed_context
        return min(context, shape.trained_context) if shape.trained_context else context

    async def load(self, model: str) -> CoordinatorStatus:
        """Load a model, and return how it stands once it serves; its replicas follow on their own.

        Raises:
            SynapticError: Why it cannot be served.
        """
        replicas = await self._replicas_of(model)
        serving = await replicas.load()
        replicas.begin_others()
        return serving.status()

    async def unload(self, model: str) -> None:
        """End the coordinators of a model, if it has any; its calls fail.

        Raises:
            BackendError: If there is no such model.
        """
        shape = await self._shape(model)
        if shape.name in self._replicas:
            await self._replicas[shape.name].stop()

    def coordinators(self) -> list[CoordinatorStatus]:
        """Return how each coordinator stands."""
        return [one.status() for replicas in self._replicas.values() for one in replicas.all]

    def credentials(self, model: str) -> tuple[str, str] | None:
        """Return the address and the key of a ``llama-server`` of a model, while one serves."""
        shape = self._shapes.get(model)
        replicas = None if shape is None else self._replicas.get(shape.name)
        found = () if replicas is None else (one.credentials() for one in replicas.all)
        return next((one for one in found if one is not None), None)

    async def aclose(self) -> None:
        """End every process that was started here."""
        self._closed = True
        try:
            await asyncio.gather(*(replicas.stop() for replicas in self._replicas.values()))
        finally:
            await self._shared.fleet.aclose()

    async def _replicas_of(self, model: str | None) -> Replicas:
        if self._closed:
            raise BackendUnavailable("the distributed backend has been closed", backend=NAME)
        shape = await self._shape(model)
        if shape.name not in self._replicas:
            self._replicas[shape.name] = Replicas(shape, self._shared)
        return self._replicas[shape.name]

    async def _shape(self, model: str | None) -> ModelShape:
        """Return a model's shape; its file is read once. Two names of one file are one model."""
        name = model or await self.default_model()
        async with self._opening:
            if name not in self._shapes:
                shape = await open_model(name, environ=self._environ)
                twin = next((known for known in self._shapes.values() if known.files == shape.files), shape)
                self._shapes[name] = twin
            return self._shapes[name]

    async def _named(self, model: str | None) -> ModelShape | None:
        return None if model is None else await self._shape(model)

    async def _info(self, name: str) -> ModelInfo:
        shape = await self._shape(name)
        return ModelInfo(
            name=name,
            size_bytes=shape.weight_bytes,
            context_length=shape.trained_context or None,
            quantization=shape.quantization,
            loaded=shape.name in self._replicas and any(one.serves for one in self._replicas[shape.name].all),
        )

    def _moved(self, transition: Transition) -> None:
        self.transitions.append(transition)
        del self.transitions[:-KEPT_TRANSITIONS]


def _place(settings: Settings) -> str:
    workers = len(settings.rpc_backends)
    where = plural(workers, "RPC worker") if workers else "workers of this machine"
    return where if settings.model_replicas == 1 else f"{where}, up to {settings.model_replicas} replicas"
