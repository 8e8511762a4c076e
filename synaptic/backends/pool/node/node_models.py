"""The models of one node of a pool, to be changed; the pool knows of a change once it is done."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from synaptic.backends.pool.node.node import PoolNode


@dataclass(frozen=True, slots=True)
class NodeModels:
    """One node as a server whose models can be changed.

    Attributes:
        member: The node.
        changed: Asks it what it has then, so that calls for a new model find it.
    """

    member: PoolNode
    changed: Callable[[PoolNode], Awaitable[None]]

    @property
    def shown(self) -> str:
        """What people call it."""
        return self.member.state.name

    @property
    def node(self) -> str:
        """Its address."""
        return self.member.url

    async def change(self, method: str, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Have the node change its models, and yield what it tells meanwhile.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        async with aclosing(self.member.client.change(method, path, body)) as lines:
            async for line in lines:
                yield line
        await self.changed(self.member)

    async def has_blob(self, digest: str) -> bool:
        """Return whether the node has a file; raises a ``synaptic.errors.BackendError``."""
        return await self.member.client.has_blob(digest)

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes]) -> bool:
        """Give the node a file, and return whether it lacked it; raises a ``synaptic.errors.BackendError``."""
        return await self.member.client.put_blob(digest, pieces)
