"""A client that leaves in mid-stream is no error of the gateway: its log says nothing of that."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from synaptic.server.gateway import EVENTS, send_stream
from synaptic.server.limits import ServerLimits, limited, listening

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest


async def test_what_is_written_to_a_client_that_has_just_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                yield b"one"
                assert request.transport is not None
                request.transport.abort()  # as it is for a moment when the other end has reset it
                yield b"two"
            finally:
                closed.append("pieces")

        return await send_stream(request, EVENTS, pieces(), lambda failure: failure.message.encode())

    app = web.Application()
    app.router.add_get("/", answer)
    limited(app, ServerLimits())
    with caplog.at_level(logging.DEBUG):
        async with listening(app, "127.0.0.1", 0, drain=0.1) as addresses, aiohttp.ClientSession() as client:
            with suppress(aiohttp.ClientError):
                async with client.get(addresses[0]) as reply:
                    await reply.read()
    assert closed == ["pieces"]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
