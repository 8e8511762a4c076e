"""Pipelines and aliases beside the embedded engine: each call goes to the host that has its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.server.ollama_api.backend_host import BackendHost
    from synaptic.server.ollama_api.model_changes import BlobRequest, ModelChange
    from synaptic.server.ollama_api.ollama_host import OllamaHost, Talked
    from synaptic.server.ollama_api.replies import Json
    from synaptic.server.ollama_api.requests import Body


class SplitHost:
    """Two hosts as one.

    Args:
        engine: Has the models.
        front: Has the pipelines and the aliases.
    """

    def __init__(self, engine: OllamaHost, front: BackendHost) -> None:
        self._engine = engine
        self._front = front

    async def start(self) -> None:
        """Start the engine's host."""
        await self._engine.start()

    async def aclose(self) -> None:
        """Close the engine's host."""
        await self._engine.aclose()

    async def tags(self) -> list[Json]:
        """Return the models, and behind them the aliases and the pipelines."""
        return [*await self._engine.tags(), *await self._front.own_tags()]

    async def running(self) -> list[Json]:
        """Return the models in memory: a pipeline is in none."""
        return await self._engine.running()

    async def show(self, name: str, *, verbose: bool) -> Json:
        """Return what is known of a model or a pipeline."""
        return await self._of(name).show(name, verbose=verbose)

    async def talk(self, body: Body, *, chat: bool) -> Talked:
        """Return the answer of ``/api/chat`` or ``/api/generate``."""
        return await self._of(body.text("model")).talk(body, chat=chat)

    async def embed(self, body: Body) -> Json:
        """Return the answer of ``/api/embed``."""
        return await self._of(body.text("model")).embed(body)

    async def embed_one(self, body: Body) -> Json:
        """Return the answer of ``/api/embeddings``."""
        return await self._of(body.text("model")).embed_one(body)

    def change(self, wanted: ModelChange) -> AsyncGenerator[Json, None]:
        """Change models of the engine; what the front has is refused there."""
        host = self._front if any(self._front.serves(name) for name in wanted.models) else self._engine
        return host.change(wanted)

    async def has_blob(self, blob: BlobRequest) -> bool:
        """Return what the engine says."""
        return await self._engine.has_blob(blob)

    async def put_blob(self, blob: BlobRequest, pieces: AsyncIterator[bytes]) -> bool:
        """Return what the engine says."""
        return await self._engine.put_blob(blob, pieces)

    def _of(self, model: str) -> OllamaHost:
        return self._front if self._front.serves(model) else self._engine
