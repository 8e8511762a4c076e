"""What every policy around a backend shares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never, cast

from synaptic.backends import capabilities_of
from synaptic.messages import Continued, Delta, Finished, Restarted, Shortened, ThoughtSoFar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk, ModelInfo


def as_generator(stream: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk]:
    """Return the stream as the async generator that :class:`~synaptic.backends.base.Backend` promises."""
    return cast("AsyncGenerator[Chunk]", stream)


class Attempts:
    """The attempts of one call: those of a policy, and those further in."""

    def __init__(self) -> None:
        self._number = 1

    def another(self) -> int:
        """Return the number of a further attempt."""
        self._number += 1
        return self._number

    def counted(self, chunk: Chunk) -> Chunk:
        """Return a chunk from further in, with the number of the attempt where it begins one."""
        match chunk:
            case Delta() | ThoughtSoFar() | Shortened() | Finished():
                return chunk
            case Continued():
                self.another()
                return chunk
            case Restarted():
                return replace(chunk, attempt=self.another())
            case _:
                assert_never(chunk)


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
