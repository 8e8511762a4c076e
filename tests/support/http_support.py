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
    session = client._to_node._session  # type: ignore[attr-defined]
    return 0 if session is None else len(session.connector._acquired)


def idle_connections(client: httpx.AsyncClient) -> int:
    """Return how many connections a client keeps for its next call."""
    if not hasattr(client, "reply"):
        pool = client._transport._pool  # type: ignore[attr-defined]
        return sum(connection.is_idle() for connection in pool.connections)
    session = client._to_node._session  # type: ignore[attr-defined]
    return 0 if session is None else sum(len(kept) for kept in session.connector._conns.values())
