"""Ollama's dialect over HTTP: routes, statuses, streams. Every refusal becomes ``{"error": ...}`` here."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from synaptic.server.gateway import (
    NDJSON,
    HttpFailure,
    check_managed,
    check_model,
    check_owner,
    json_response,
    may_see,
    send_stream,
)
from synaptic.server.limits import BodyRefused, body_pieces, read_request
from synaptic.server.ollama_api import refusals as errors
from synaptic.server.ollama_api import replies
from synaptic.server.ollama_api.model_changes import ACTIONS, NODE_HEADER, read_blob, read_change
from synaptic.server.ollama_api.requests import Body, read_body
from synaptic.server.page import page_response, wants_page

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.errors import SynapticError
    from synaptic.server.ollama_api.model_changes import Action
    from synaptic.server.ollama_api.ollama_host import OllamaHost
    from synaptic.server.ollama_api.replies import Json

API_VERSION = "0.12.6"
"""What ``/api/version`` says: the Ollama whose API this is at least. Clients decide by it what they may send."""


class OllamaRoutes:
    """The handlers.

    Args:
        host: Has the models.
        keys: Whether clients must bring keys.
    """

    def __init__(self, host: OllamaHost, *, keys: bool = False) -> None:
        self._host = host
        self._keys = keys

    def add(self, app: web.Application) -> None:
        """Add the routes; the host is started and closed with the application."""
        for path, handler in (("/", self._root), ("/api/version", self._version), ("/api/tags", self._tags)):
            app.router.add_get(path, handler)  # HEAD as well
        app.router.add_get("/api/ps", self._ps, allow_head=False)
        for name in ("show", "chat", "generate", "embed", "embeddings"):
            app.router.add_post(f"/api/{name}", getattr(self, f"_{name}"))
        for action in ACTIONS:
            app.router.add_route("DELETE" if action == "delete" else "POST", f"/api/{action}", self._change)
        app.router.add_route("HEAD", "/api/blobs/{digest}", self._has_blob)
        app.router.add_post("/api/blobs/{digest}", self._put_blob)
        app.on_startup.append(lambda _: self._host.start())
        app.on_cleanup.append(lambda _: self._host.aclose())

    async def _root(self, request: web.Request) -> web.Response:
        if wants_page(request):
            return page_response(request)
        return web.Response(text="Ollama is running", headers={"vary": "accept"})

    async def _version(self, _: web.Request) -> web.Response:
        return json_response({"version": API_VERSION})

    async def _tags(self, _: web.Request) -> web.Response:
        return json_response({"models": _seen(await self._host.tags())})

    async def _ps(self, _: web.Request) -> web.Response:
        return json_response({"models": _seen(await self._host.running())})

    async def _show(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name = body.text("model") or body.text("name")
        if not name:
            raise errors.model_required()
        check_model(name)
        return json_response(await self._host.show(name, verbose=body.switch("verbose", default=False)))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if not body.text("model"):
            raise errors.model_required()
        return await self._talk(request, body, chat=True)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if not body.text("model"):
            raise errors.model_not_found("")
        return await self._talk(request, body, chat=False)

    async def _talk(self, request: web.Request, body: Body, *, chat: bool) -> web.StreamResponse:
        check_model(body.text("model"))
        answer = await self._host.talk(body, chat=chat)
        if isinstance(answer, dict):
            return json_response(answer)
        if body.switch("stream", default=True):
            return await _stream(request, answer)
        async with aclosing(answer):
            return json_response(replies.whole([line async for line in answer], chat=chat))

    async def _embed(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if not body.text("model"):
            raise errors.model_not_found("")
        check_model(body.text("model"))
        return json_response(await self._host.embed(body))

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if not body.text("model"):
            raise errors.model_required()
        check_model(body.text("model"))
        return json_response(await self._host.embed_one(body))

    async def _change(self, request: web.Request) -> web.StreamResponse:
        check_owner(request, keys=self._keys)
        body = await _body(request)
        wanted = read_change(_action(request), body, _node(request))
        check_managed(*wanted.models)
        lines = self._host.change(wanted)
        if wanted.tells and body.switch("stream", default=True):
            return await _stream(request, lines)
        told = None
        async with aclosing(lines):
            async for line in lines:
                told = line
        return web.Response() if told is None else json_response(told)

    async def _has_blob(self, request: web.Request) -> web.Response:
        check_owner(request, keys=self._keys)
        blob = read_blob(request.match_info["digest"], _node(request))
        return web.Response(status=200 if await self._host.has_blob(blob) else errors.NOT_FOUND)

    async def _put_blob(self, request: web.Request) -> web.Response:
        check_owner(request, keys=self._keys)
        blob = read_blob(request.match_info["digest"], _node(request))
        async with aclosing(body_pieces(request)) as pieces:
            return web.Response(status=201 if await self._host.put_blob(blob, pieces) else 200)


def _action(request: web.Request) -> Action:
    return next(action for action in ACTIONS if request.path.endswith(f"/{action}"))


def _node(request: web.Request) -> str | None:
    """Return the node that a request names; ``None`` where it names none."""
    names = request.headers.getall(NODE_HEADER, [])
    if len(names) > 1:
        raise errors.Refusal(errors.BAD_REQUEST, f"a request names one node in {NODE_HEADER}, and this {len(names)}")
    return names[0] if names else None


def _seen(entries: list[Json]) -> list[Json]:
    return [entry for entry in entries if may_see(entry["name"])]


def ollama_error(error: SynapticError) -> web.Response:
    """Return an error as Ollama tells it: what it gives no status of its own is the server's failure."""
    status = error.status if isinstance(error, (errors.Refusal, BodyRefused)) else errors.SERVER_ERROR
    wait = error.retry_after if isinstance(error, errors.Refusal) else None
    return json_response({"error": error.message}, status, {} if wait is None else {"retry-after": str(wait)})


async def _body(request: web.Request) -> Body:
    return await read_request(request, read_body)


async def _stream(request: web.Request, lines: AsyncGenerator[Json, None]) -> web.StreamResponse:
    return await send_stream(request, NDJSON, lines, _error_line, replies.line)


def _error_line(failure: HttpFailure) -> bytes:
    return replies.line({"error": failure.message})
