"""What Ollama's dialect speaks to: the embedded engine, driven as Ollama drives its own, or any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.server.ollama_api.model_changes import BlobRequest, ModelChange
    from synaptic.server.ollama_api.replies import Json
    from synaptic.server.ollama_api.requests import Body

Talked: TypeAlias = "Json | AsyncGenerator[Json, None]"
"""The only answer of a call, or the lines of its stream."""


class OllamaHost(Protocol):
    """Whoever has the models. Every method raises a ``synaptic.errors.SynapticError`` for what it cannot do."""

    async def tags(self) -> list[Json]:
        """Return the entries of ``/api/tags``."""
        ...

    async def running(self) -> list[Json]:
        """Return the entries of ``/api/ps``."""
        ...

    async def show(self, name: str, *, verbose: bool) -> Json:
        """Return the answer of ``/api/show``."""
        ...

    async def talk(self, body: Body, *, chat: bool) -> Talked:
        """Return the answer of ``/api/chat`` or ``/api/generate``; lines are closed by who reads them."""
        ...

    async def embed(self, body: Body) -> Json:
        """Return the answer of ``/api/embed``."""
        ...

    async def embed_one(self, body: Body) -> Json:
        """Return the answer of ``/api/embeddings``."""
        ...

    def change(self, wanted: ModelChange) -> AsyncGenerator[Json, None]:
        """Change models, and yield what is told meanwhile."""
        ...

    async def has_blob(self, blob: BlobRequest) -> bool:
        """Return whether a file is there of which a model can be made."""
        ...

    async def put_blob(self, blob: BlobRequest, pieces: AsyncIterator[bytes]) -> bool:
        """Take such a file, and return whether it was not there."""
        ...

    async def start(self) -> None:
        """Do what the first call should not wait for."""
        ...

    async def aclose(self) -> None:
        """Give everything back."""
        ...
