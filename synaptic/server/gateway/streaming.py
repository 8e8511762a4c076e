"""A response that is sent piece by piece, and cancelled with the client."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from synaptic.errors import SynapticError
from synaptic.server.gateway.http_failures import HttpFailure, http_failure
from synaptic.text import encode_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

NDJSON: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"
JSON: Final = "application/json; charset=utf-8"


def json_response(
    value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=encode_json(value), status=status, headers={"content-type": JSON, **(headers or {})})


def event(value: Mapping[str, Any], name: str = "") -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return head.encode() + b"data: " + encode_json(value) + b"\n\n"


async def send_stream(
    request: web.Request,
    kind: str,
    pieces: AsyncGenerator[Any, None],
    said: Callable[[HttpFailure], bytes],
    written: Callable[[Any], bytes] = bytes,
) -> web.StreamResponse:
    """Send pieces as they come. Until the first is there, an error has its status; later it is a piece itself.

    Args:
        request: What is answered; its handler is cancelled when the client leaves, and with it ``pieces``.
        kind: The content type.
        pieces: What to send; at least one.
        said: How an error is told in mid-stream.
        written: How a piece is written that is not yet bytes.
    """
    response: web.StreamResponse | None = None
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if response is None:
                    response = web.StreamResponse(headers={"content-type": kind, "cache-control": "no-cache"})
                    await response.prepare(request)
                await response.write(written(piece))
    except SynapticError as error:
        if response is None:
            raise
        with suppress(ConnectionResetError):
            await response.write(said(http_failure(error)))
    except ConnectionResetError:
        if response is None:
            raise
    assert response is not None  # every stream of ours has a last piece
    with suppress(ConnectionResetError):  # the client has left, and the handler is about to be cancelled
        await response.write_eof()
    return response
