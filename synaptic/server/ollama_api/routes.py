"""The HTTP side: routes, statuses, streams. Every refusal becomes ``{"error": ...}`` here."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiohttp import web

from synaptic.errors import SynapticError
from synaptic.server.ollama_api import refusals as errors
from synaptic.server.ollama_api import replies
from synaptic.server.ollama_api.generation_options import load_options
from synaptic.server.ollama_api.guard import is_allowed
from synaptic.server.ollama_api.loading import expiry
from synaptic.server.ollama_api.pull_progress import pull_lines
from synaptic.server.ollama_api.replies import Json, ReplyForm
from synaptic.server.ollama_api.requests import Body, read_body
from synaptic.server.ollama_api.talk import Talk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from synaptic.server.ollama_api.catalogue import Catalogue
    from synaptic.server.ollama_api.loading import Runner, Scheduler

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

API_VERSION = "0.12.6"
"""What ``/api/version`` says: the Ollama whose API this is at least. Clients decide by it what they may send."""

MAX_BODY = 256 * 1024 * 1024  # bytes
NDJSON = "application/x-ndjson"
JSON = "application/json; charset=utf-8"


class OllamaApi:
    """The handlers.

    Args:
        catalogue: Which models there are.
        scheduler: Which are in memory.
        parallel: Calls at once for each model.
        context: Tokens of context, where a request does not say.

    """

    def __init__(self, catalogue: Catalogue, scheduler: Scheduler, *, parallel: int, context: int) -> None:
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._parallel = parallel
        self._context = context

    def application(self) -> web.Application:
        """Return the application; it unloads all models when it is cleaned up."""
        app = web.Application(middlewares=[_plain_errors, _refusals], client_max_size=MAX_BODY)
        for path, handler in (("/", self._root), ("/api/version", self._version), ("/api/tags", self._tags)):
            app.router.add_get(path, handler)  # HEAD as well
        app.router.add_get("/api/ps", self._ps, allow_head=False)
        for name in ("show", "chat", "generate", "embed", "embeddings", "pull"):
            app.router.add_post(f"/api/{name}", getattr(self, f"_{name}"))
        app.on_startup.append(self._read_file)
        app.on_cleanup.append(lambda _: self._scheduler.aclose())
        return app

    async def _read_file(self, app: web.Application) -> None:  # noqa: ARG002 - aiohttp's signature
        """Read the model's file now, if it is here: the first call should not pay for that."""
        if self._catalogue.names:
            self._catalogue.facts()

    async def _root(self, request: web.Request) -> web.Response:  # noqa: ARG002 - a handler's signature
        return web.Response(text="Ollama is running")

    async def _version(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _json({"version": API_VERSION})

    async def _tags(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return _json(self._catalogue.tags())

    async def _ps(self, request: web.Request) -> web.Response:  # noqa: ARG002
        running = [
            self._catalogue.running(runner, parallel=self._parallel, expires_at=expiry(runner))
            for runner in self._scheduler.loaded
        ]
        return _json({"models": running})

    async def _show(self, request: web.Request) -> web.Response:
        body = await _body(request)
        name = body.text("model") or body.text("name")
        if not name:
            raise errors.model_required()
        return _json(self._catalogue.show(self._known(name), verbose=body.switch("verbose", default=False)))

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
        started = time.perf_counter_ns()
        name = self._known(body.text("model"))
        talk = Talk.of(body, chat=chat)
        voice = ReplyForm(body.text("model"), chat)
        if talk.is_empty and talk.keep_alive == 0:
            self._scheduler.expire(name)
            return _json(voice.ended("", "unload"))
        talk.check_capabilities(name)
        async with self._claim(name, body) as runner:
            loaded = time.perf_counter_ns()
            if talk.is_empty:
                return _json(voice.ended("", "load"))
            if talk.renders_only:
                return _json(await talk.rendered(runner, voice))
            lines = talk.lines(runner, voice, started=started, loaded=loaded)
            if body.switch("stream", default=True):
                return await _stream(request, lines)
            return _json(voice_whole(voice, [line async for line in lines]))

    async def _embed(self, request: web.Request) -> web.Response:
        started = time.perf_counter_ns()
        body = await _body(request)
        if not body.text("model"):
            raise errors.model_not_found("")
        texts = _texts(body)
        async with self._claim(self._pulled(body.text("model")), body) as runner:
            load = time.perf_counter_ns() - started
            if not texts:
                return _json({"model": body.text("model"), "embeddings": []})
            found = await embed_all(runner, texts, truncate=body.switch("truncate", default=True))
            answer: Json = {
                "model": body.text("model"),
                "embeddings": [vector for vector, _ in found],
                "total_duration": time.perf_counter_ns() - started,
                "load_duration": load,
                "prompt_eval_count": sum(count for _, count in found),
            }
            return _json(answer)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await _body(request)
        if not body.text("model"):
            raise errors.model_required()
        async with self._claim(self._pulled(body.text("model")), body) as runner:
            if not body.text("prompt"):
                return _json({"embedding": []})
            async with runner.slots:
                vector, _ = await runner.engine.embed(body.text("prompt"))
            return _json({"embedding": vector})

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        known = self._catalogue.find_in_library(body.text("model") or body.text("name"))
        lines = pull_lines(self._catalogue.store, known)
        if body.switch("stream", default=True):
            return await _stream(request, lines)
        return _json([line async for line in lines][-1])

    def _claim(self, name: str, body: Body) -> AbstractAsyncContextManager[Runner]:
        options = load_options(
            body.options(),
            default_context=self._context,
            trained_context=self._catalogue.trained_context,
            shift=body.switch("shift", default=True),
        )
        return self._scheduler.claim(name, options, body.keep_alive())

    def _known(self, name: str) -> str:
        found = self._catalogue.find(name)
        if found is None:
            raise errors.model_not_found(name)
        return found

    def _pulled(self, name: str) -> str:
        found = self._catalogue.find(name)
        if found is None:
            raise errors.model_not_pulled(name)
        return found


def voice_whole(voice: ReplyForm, lines: list[Json]) -> Json:
    """Return the lines of a stream as the one object that is sent without streaming: the last, with all the text."""
    text = "".join(line["message"]["content"] if voice.chat else line["response"] for line in lines)
    whole = dict(lines[-1])
    if voice.chat:
        whole["message"] = {**whole["message"], "content": text}
    else:
        whole["response"] = text
    return whole


async def embed_all(runner: Runner, texts: list[str], *, truncate: bool) -> list[tuple[list[float], int]]:
    """Return the embedding of each text with its number of tokens; one that is too long is cut where it may be.

    Raises:
        Refusal: If one is too long, or the engine fails.

    """
    found = []
    for text in texts:
        async with runner.slots:
            try:
                found.append(await runner.engine.embed(text))
            except errors.Refusal as refusal:
                if refusal.status != errors.BAD_REQUEST or not truncate:
                    raise
                tokens = await runner.engine.tokens(text)
                shorter = await runner.engine.text(tokens[: runner.options.context - 2])  # as if it added BOS and EOS
                found.append(await runner.engine.embed(shorter))
    return found


def _texts(body: Body) -> list[str]:
    given = body.fields.get("input")
    texts = [given] if isinstance(given, str) and given else given or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise errors.Refusal(errors.BAD_REQUEST, "invalid input type")
    return texts


async def _body(request: web.Request) -> Body:
    return read_body(await request.read())


def _json(value: Json, status: int = 200) -> web.Response:
    return web.Response(body=replies.encode(value), status=status, headers={"content-type": JSON})


async def _stream(request: web.Request, lines: AsyncGenerator[Json, None]) -> web.StreamResponse:
    """Send the lines as they come. Until the first is there, a refusal has its status; then it is a line itself."""
    response: web.StreamResponse | None = None
    try:
        async with aclosing(lines):
            async for value in lines:
                if response is None:
                    response = web.StreamResponse(headers={"content-type": NDJSON})
                    await response.prepare(request)
                await response.write(replies.line(value))
    except SynapticError as error:
        if response is None:
            raise
        await response.write(replies.line({"error": error.message}))
    assert response is not None  # every stream of ours has a last line
    await response.write_eof()
    return response


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.Refusal as refusal:
        return _json({"error": refusal.message}, refusal.status)
    except SynapticError as error:
        return _json({"error": error.message}, errors.SERVER_ERROR)


@web.middleware
async def _plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say no as Gin, the router of Ollama, says it; and only answer programs of this machine."""
    if not is_allowed(request.headers.get("host", ""), request.headers.get("origin")):
        return web.Response(status=errors.FORBIDDEN)
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(text="404 page not found", status=404)
    except web.HTTPMethodNotAllowed as refused:
        return web.Response(text="405 method not allowed", status=405, headers={"allow": refused.headers["Allow"]})
