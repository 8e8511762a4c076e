"""What the tests of HTTP look at inside a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def connections_in_use(client: httpx.AsyncClient) -> int:
    """Return how many connections of a client are out of its pool, be it ours or one of httpx."""
    if not hasattr(client, "reply"):
        pool = client._transport._pool  # type: ignore[attr-defined]
        return sum(not connection.is_idle() for connection in pool.connections)
    connector = client._to_node._connector  # type: ignore[attr-defined]
    return 0 if connector is None else len(connector._acquired)


def idle_connections(client: httpx.AsyncClient) -> int:
    """Return how many connections a client keeps for its next call."""
    if not hasattr(client, "reply"):
        pool = client._transport._pool  # type: ignore[attr-defined]
        return sum(connection.is_idle() for connection in pool.connections)
    connector = client._to_node._connector  # type: ignore[attr-defined]
    return 0 if connector is None else sum(len(kept) for kept in connector._conns.values())
