"""The embedded engine of this server as a backend, so that every other dialect and every pipeline uses the same one."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends import Capabilities
from synaptic.backends.embedded import processors
from synaptic.errors import BackendBusy, ModelNotFound, RequestRejected, ServerError
from synaptic.messages import Embeddings, ModelInfo
from synaptic.models import MODEL_NAME
from synaptic.server.gateway import SERVER_ERROR, UNAVAILABLE, Refusal
from synaptic.server.ollama_api import durations
from synaptic.server.ollama_api.embedded_host import embed_all
from synaptic.server.ollama_api.format_schema import check_schema, not_enforced
from synaptic.server.ollama_api.generation_options import GenerationOptions, load_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager

    from synaptic.backends import Feature
    from synaptic.errors import BackendError
    from synaptic.messages import ChatRequest, ReplyChunk
    from synaptic.server.ollama_api.catalogue import Catalogue
    from synaptic.server.ollama_api.loading import Runner, Scheduler

NAME: Final = "embedded"
FEATURES: Final[frozenset[Feature]] = frozenset(
    {"tools", "tool_choice", "parallel_tools", "logprobs", "stop", "sampling"}
)


class EngineBackend:
    """The models of a catalogue, loaded and shared by a scheduler.

    Args:
        catalogue: Which models there are.
        scheduler: Which are in memory.
        context: Tokens of context, where a request does not say.
    """

    name = NAME

    def __init__(self, catalogue: Catalogue, scheduler: Scheduler, *, context: int) -> None:
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._context = context
        self.capabilities = Capabilities(
            place=NAME,
            for_trying=True,
            default_model=self.default_model,
            context_length=self.context_length,
            count_tokens=self.count_tokens,
            count_prompt=self.count_prompt,
            features=FEATURES,
            embed=self.embed,
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply as it is generated.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        try:
            for schema in (request.schema, *(tool.parameters for tool in request.tools)):
                if schema is not None:
                    check_schema(dict(schema))
            async with self._claim(request) as runner, runner.slots:
                if request.schema is not None and not await runner.engine.enforces(request.schema):
                    raise not_enforced(dict(request.schema))
                chunks = runner.engine.chat.stream(replace(request, model=None, keep_alive=None, num_ctx=None))
                async with aclosing(chunks) as coming:
                    async for chunk in coming:
                        yield chunk
        except Refusal as refusal:
            raise _as_backend_error(refusal) from refusal

    async def models(self) -> list[ModelInfo]:
        """Return the model under each of its names; none before it was fetched."""
        loaded = {runner.name for runner in self._scheduler.loaded}
        return [
            ModelInfo(
                name=name,
                size_bytes=self._catalogue.facts().size,
                context_length=self._catalogue.trained_context,
                parameter_size=self._catalogue.details()["parameter_size"],
                quantization=self._catalogue.details()["quantization_level"],
                loaded=name in loaded,
            )
            for name in self._catalogue.names
        ]

    async def default_model(self) -> str:
        """Return the model of requests that name none.

        Raises:
            ModelNotFound: If it is not here yet.
        """
        return self._named(None)

    async def context_length(self, request: ChatRequest) -> int | None:
        """Return the tokens of context that a request is served with."""
        if not self._catalogue.names:
            return None
        return min(request.num_ctx or self._context, self._catalogue.trained_context)

    async def count_tokens(self, text: str) -> int:
        """Return how many tokens a text is.

        Raises:
            BackendError: If the model cannot be loaded.
        """
        try:
            async with self._claim(None) as runner:
                return len(await runner.engine.tokens(text, special=False))
        except Refusal as refusal:
            raise _as_backend_error(refusal) from refusal

    async def count_prompt(self, request: ChatRequest) -> int:
        """Return how many tokens the prompt of a request is, as its model's template writes it.

        Raises:
            BackendError: If the model cannot be loaded, or its template refuses such a chat.
        """
        try:
            async with self._claim(request) as runner:
                return await runner.engine.chat.count_prompt(replace(request, model=None))
        except Refusal as refusal:
            raise _as_backend_error(refusal) from refusal

    async def embed(self, texts: Sequence[str], model: str | None) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        name = self._named(model)
        try:
            async with self._claim(None, name) as runner:
                found = await embed_all(runner, list(texts), truncate=False)
        except Refusal as refusal:
            raise _as_backend_error(refusal) from refusal
        return Embeddings(tuple(tuple(vector) for vector, _ in found), sum(count for _, count in found), name)

    async def aclose(self) -> None:
        """Do nothing: the scheduler belongs to the server."""

    def _claim(self, request: ChatRequest | None, name: str | None = None) -> AbstractAsyncContextManager[Runner]:
        name = name or self._named(None if request is None else request.model)
        kept = None if request is None or request.keep_alive is None else durations.keep_alive(request.keep_alive)
        options = load_options(
            GenerationOptions(num_ctx=None if request is None else request.num_ctx),
            default_context=self._context,
            trained_context=self._catalogue.trained_context,
            processors=processors(),
            shift=True,
        )
        return self._scheduler.claim(name, options, kept)

    def _named(self, wanted: str | None) -> str:
        names = self._catalogue.names
        try:
            found = next(iter(names), None) if wanted is None else self._catalogue.find(wanted)
        except Refusal as refusal:
            raise RequestRejected(refusal.message, backend=NAME) from refusal
        if found is None:
            hint = f"it has {', '.join(names)}" if names else "synaptic models pull"
            raise ModelNotFound(f"model {wanted or MODEL_NAME!r} not found", hint=hint, backend=NAME, node=NAME)
        return found


def _as_backend_error(refusal: Refusal) -> BackendError:
    """Return what a refusal of the scheduler or the engine means to whoever calls a backend."""
    if refusal.status == UNAVAILABLE:
        return BackendBusy(refusal.message, backend=NAME, node=NAME)
    kind = ServerError if refusal.status >= SERVER_ERROR else RequestRejected
    return kind(refusal.message, backend=NAME, node=NAME)
