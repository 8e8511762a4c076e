"""Whether the program lives (``/healthz``), and whether a call would be served now (``/readyz``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.errors import SynapticError
from synaptic.server.gateway.http_failures import http_failure
from synaptic.server.gateway.refusal import UNAVAILABLE
from synaptic.server.gateway.streaming import json_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web


def add_health(app: web.Application, ready: Callable[[], Awaitable[object]]) -> None:
    """Add both routes.

    Args:
        app: Where to.
        ready: Raises a ``SynapticError`` while no call would be served.
    """

    async def healthz(_: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        try:
            await ready()
        except SynapticError as error:
            failure = http_failure(error)
            return json_response({"status": "unavailable", "error": failure.message}, UNAVAILABLE, failure.headers)
        return json_response({"status": "ok"})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
