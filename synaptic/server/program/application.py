"""All dialects in one application: who may ask, and the form of an error by the path that was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from synaptic.errors import SynapticError
from synaptic.server.anthropic_api import AnthropicRoutes, anthropic_error
from synaptic.server.gateway import (
    NOT_ALLOWED,
    NOT_FOUND,
    GatewayMetrics,
    Guard,
    KeyRing,
    Refusal,
    add_health,
    check_scope,
    is_loopback,
    key_in,
    speaks,
)
from synaptic.server.limits import ServerLimits, limited
from synaptic.server.ollama_api import BackendHost, OllamaRoutes, SplitHost, ollama_error
from synaptic.server.openai_api import OpenAiRoutes, ResponsesRoutes, openai_error
from synaptic.server.page import PageRoutes, page_error, wants_page
from synaptic.server.program.openapi import add_description
from synaptic.trace_context import HEADER

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from synaptic.server.gateway import ModelFront
    from synaptic.server.ollama_api import OllamaHost, ServeSettings

OPEN = {"/healthz", "/readyz"}
METRICS = "/metrics"
OTHER_METHOD = "other"
_METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
_FORWARDED = {"forwarded", "x-forwarded-for", "x-forwarded-host"}
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "content-type, authorization",
}


def gateway_application(settings: ServeSettings, front: ModelFront, host: OllamaHost | None = None) -> web.Application:
    """Return the application.

    Args:
        settings: Who may ask.
        front: Has the models.
        host: Has them for Ollama's dialect, where that is another one: the embedded engine.
    """
    guard = Guard(settings.hosts, settings.origins, any_host=settings.keys is not None)

    async def show_to_origin(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get("origin")
        if origin is not None and guard.may_read(origin):
            response.headers.update({"access-control-allow-origin": origin, "vary": "origin"})

    doors = [_guarded_by(guard), *([] if settings.keys is None else [_keyed_by(KeyRing(settings.keys))])]
    app = web.Application(middlewares=[_plain_errors, _told, *doors, _spoken_by(front)])
    app.on_response_prepare.append(show_to_origin)
    general = BackendHost(front)
    keys = settings.keys is not None
    OllamaRoutes(SplitHost(host, general) if host is not None else general, keys=keys).add(app)
    OpenAiRoutes(front).add(app)
    ResponsesRoutes(front).add(app)
    AnthropicRoutes(front).add(app)
    PageRoutes(front, keys=keys).add(app)
    add_health(app, front.models)
    _add_metrics(app, front)
    add_description(app)
    return limited(app, ServerLimits.of_this_process())


def _guarded_by(guard: Guard) -> Middleware:
    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer only those who may ask, and browsers that ask whether a page may (a preflight request)."""
        guard.check(request.version, request.raw_path, request.headers)
        if request.method == "OPTIONS" and guard.may_read(request.headers.get("origin")):
            return web.Response(status=204, headers=PREFLIGHT)
        return await handler(request)

    return guarded


def _keyed_by(ring: KeyRing) -> Middleware:
    @web.middleware
    async def keyed(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer only those who bring a key; whether it lives, it tells everybody."""
        page = request.path == "/" and wants_page(request)  # without data: it asks for a key itself
        if request.path in OPEN or page or (request.path == METRICS and _is_of_this_machine(request)):
            return await handler(request)
        with ring.let_in(request.headers):
            return await handler(request)

    return keyed


def _is_of_this_machine(request: web.Request) -> bool:
    """Return whether a request without a key came from this machine itself: no proxy here hands it on for another."""
    if key_in(request.headers) or not _FORWARDED.isdisjoint(name.lower() for name in request.headers):
        return False
    return is_loopback(request.remote or "") and is_loopback(request.url.host or "")


def _add_metrics(app: web.Application, front: ModelFront) -> None:
    """Add ``/metrics``, and count calls and answers for it."""
    metrics = front.meter.metrics = GatewayMetrics(front.all_models)
    metrics.nodes.nodes = lambda: front.nodes

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = 0  # of one that has none: its client has left
        try:
            answer = await handler(request)
            status = answer.status
        except web.HTTPException as refused:
            status = refused.status
            raise
        finally:
            resource = request.match_info.route.resource
            route = OTHER_METHOD if resource is None else resource.canonical
            metrics.answered(request.method if request.method in _METHODS else OTHER_METHOD, route, status)
        return answer

    async def served(request: web.Request) -> web.Response:
        check_scope("metrics")
        body, kind = metrics.rendered(request.headers.get("accept", ""))
        return web.Response(body=body, headers={"content-type": kind})

    app.middlewares.insert(0, counted)
    app.router.add_get(METRICS, served)
    app.on_cleanup.append(lambda _: metrics.models.aclose())


def _spoken_by(front: ModelFront) -> Middleware:
    @web.middleware
    async def spoken(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note which API is spoken; and in which trace of the client's, if that will be told."""
        tells = front.meter.telemetry is not None
        speaks(request.path, request.headers.get(HEADER, "") if tells else "")
        return await handler(request)

    return spoken


def _error_of(request: web.Request, error: SynapticError) -> web.Response:
    """Return an error in the form of the dialect that was spoken."""
    if request.path.startswith("/ui/"):
        return page_error(error)
    if request.path.startswith("/v1/messages"):
        return anthropic_error(error)
    return openai_error(error) if request.path.startswith("/v1/") else ollama_error(error)


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except SynapticError as error:
        return _error_of(request, error)


@web.middleware
async def _plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say no as the dialect says it; Ollama's is that of Gin, its router."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        if request.path.startswith("/v1/"):
            return _error_of(request, Refusal(NOT_FOUND, f"there is no {request.method} {request.path} here"))
        return web.Response(text="404 page not found", status=404)
    except web.HTTPMethodNotAllowed as refused:
        allowed = {"allow": refused.headers["Allow"]}
        if request.path.startswith("/v1/"):
            answer = _error_of(request, Refusal(NOT_ALLOWED, f"{request.path} takes {refused.headers['Allow']}"))
            answer.headers.update(allowed)
            return answer
        return web.Response(text="405 method not allowed", status=405, headers=allowed)
