"""What every policy around a backend shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from synaptic.backends import capabilities_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk, ModelInfo


def as_generator(stream: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk]:
    """Return the stream as the async generator that :class:`~synaptic.backends.base.Backend` promises."""
    return cast("AsyncGenerator[Chunk]", stream)


class BackendWrapper:
    """A backend that hands everything to another one, and has its capabilities. Policies override ``stream``."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = inner.name
        self.capabilities = capabilities_of(inner)

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield what the inner backend yields."""
        return self.inner.stream(request)

    async def models(self) -> list[ModelInfo]:
        """Return the inner backend's models."""
        return await self.inner.models()

    async def aclose(self) -> None:
        """Close the inner backend."""
        await self.inner.aclose()
