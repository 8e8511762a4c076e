"""Bodies of requests: read at a pace, unpacked under a bound, checked and decoded where it holds nobody up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from synaptic.server.limits.admission import Phase, brought
from synaptic.server.limits.json_structure import ITEM, count_items
from synaptic.server.limits.server_room import ROOM, BodyRefused
from synaptic.server.limits.unpacking import PackedBody
from synaptic.text import size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from synaptic.server.limits.admission import Place
    from synaptic.server.limits.server_limits import ServerLimits
    from synaptic.server.limits.server_room import HeldBody, ServerRoom

Read = TypeVar("Read")

BAD_REQUEST = 400
TIMEOUT = 408
TOO_LARGE = 413
ON_LOOP = 16 * 1024  # bytes of JSON that are decoded at once; above this it takes longer than going to a thread


async def read_request(request: web.Request, read: Callable[[bytes], Read]) -> Read:
    """Return what ``read`` makes of a request's body, JSON in UTF-8.

    Long ones are read in a thread, one after another: decoding holds the interpreter, so two at once are no faster.

    Args:
        request: Of an application that :func:`limited` has prepared.
        read: Called with the whole body; in a thread if it is long.

    Raises:
        BodyRefused: If the body is broken, too long, too slow, too deep or too wide.
    """
    room = request.app[ROOM]
    held = room.held(request)
    if request.content.is_eof():  # all of it came with the headers, and its client owes us nothing
        raw = await _receive(request, None, room, held)
    else:
        with room.connections.phase(request.protocol, Phase.BODY, Phase.ANSWERING) as place:
            raw = await _receive(request, place, room, held)
    if len(raw) <= ON_LOOP:
        return _decode(raw, read, held)
    return await asyncio.get_running_loop().run_in_executor(room.decoder, _decode, raw, read, held)


def hold(request: web.Request, raw: bytes) -> None:
    """Count JSON in UTF-8 that is read for a request from elsewhere as if it had come with it; for any thread.

    Raises:
        BodyRefused: If it is too deep or too wide, or all requests together hold too much.
    """
    room = request.app[ROOM]
    room.held(request).take(len(raw))
    _weigh(raw, room.held(request))


async def body_pieces(request: web.Request) -> AsyncGenerator[bytes, None]:
    """Yield the body of a request as it comes. Nothing of it is kept, so it may have any length.

    Raises:
        BodyRefused: If it is broken, packed, or pauses for too long.
    """
    room = request.app[ROOM]
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BodyRefused(BAD_REQUEST, "send this body as it is, without a Content-Encoding")
    clock = asyncio.get_running_loop().time
    with room.connections.phase(request.protocol, Phase.BODY, Phase.ANSWERING) as place:
        try:
            while True:
                until = clock() + room.limits.body_time
                if place is not None:
                    place.until = until
                if not (data := await _more(request, until)):
                    return
                yield data
        except TimeoutError as error:
            said = f"nothing more of the body came within {room.limits.body_time:g} s"
            raise BodyRefused(TIMEOUT, said) from error
        except web.RequestPayloadError as error:
            raise BodyRefused(BAD_REQUEST, "the body is not what the headers of the request announce") from error


async def _receive(request: web.Request, place: Place | None, room: ServerRoom, held: HeldBody) -> bytes:
    """Return the whole body, unpacked."""
    limits, clock = room.limits, asyncio.get_running_loop().time
    began, received, body = clock(), 0, bytearray()
    until = began + limits.body_time
    if (request.content_length or 0) > limits.body_size:
        raise _too_large(limits)
    try:
        packed = PackedBody(request.headers.get("content-encoding", ""))
        while data := await _more(request, until):
            received += len(data)
            until = brought(until, len(data), limits, clock())
            if place is not None:
                place.until = until
            for piece in packed.pieces(data):
                body += piece
                if max(len(body), received) > limits.body_size:
                    raise _too_large(limits)
                held.take(len(piece))
                if packed.is_packed:
                    await asyncio.sleep(0)  # a few bytes can unpack to very many: let others have a turn
        if received:
            packed.end()
    except TimeoutError as error:
        said = f"the body came too slowly: {received} bytes in {clock() - began:.0f} s"
        raise BodyRefused(TIMEOUT, said) from error
    except web.RequestPayloadError as error:
        raise BodyRefused(BAD_REQUEST, "the body is not what the headers of the request announce") from error
    except ValueError as error:
        raise BodyRefused(BAD_REQUEST, str(error)) from error
    return bytes(body)


async def _more(request: web.Request, until: float) -> bytes:
    """Return what has come of the body; what came with the headers needs no bound on time."""
    if request.content.is_eof():
        return request.content.read_nowait()
    async with asyncio.timeout_at(until):
        return await request.content.readany()


def _too_large(limits: ServerLimits) -> BodyRefused:
    return BodyRefused(TOO_LARGE, f"the body is longer than {size(limits.body_size)}, unpacked")


def _decode(raw: bytes, read: Callable[[bytes], Read], held: HeldBody) -> Read:
    _weigh(raw, held)
    return read(raw)


def _weigh(raw: bytes, held: HeldBody) -> None:
    try:
        held.take(count_items(raw) * ITEM)
    except ValueError as error:
        raise BodyRefused(BAD_REQUEST, str(error)) from error
