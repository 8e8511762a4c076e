"""OpenAI's dialect over HTTP: routes, events, and the form of its errors."""

from __future__ import annotations

import base64
import struct
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends import CallsSoFar
from synaptic.errors import ModelNotFound
from synaptic.messages import Delta, Usage
from synaptic.server.anthropic_api import anthropic_models
from synaptic.server.gateway import (
    BUSY,
    EVENTS,
    FORBIDDEN,
    SERVER_ERROR,
    UNAUTHORISED,
    HttpFailure,
    event,
    http_failure,
    json_response,
    live,
    merged,
    reader_of,
    send_stream,
)
from synaptic.server.limits import read_request
from synaptic.server.openai_api.openai_bodies import ChatBody, CompletionBody, EmbeddingBody
from synaptic.server.openai_api.openai_reading import chat_request, completion_request
from synaptic.server.openai_api.openai_replies import ChatForm, CompletionForm, call_json
from synaptic.waiting import all_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import web

    from synaptic.backends import WholeReply
    from synaptic.errors import SynapticError
    from synaptic.messages import ChatRequest, ModelInfo
    from synaptic.server.gateway import ModelFront
    from synaptic.server.openai_api.openai_bodies import Sampled
    from synaptic.server.openai_api.openai_replies import Json

    Form = ChatForm | CompletionForm

DONE: Final = b"data: [DONE]\n\n"
_KINDS: Final = {UNAUTHORISED: "authentication_error", FORBIDDEN: "permission_error", BUSY: "rate_limit_error"}

_read_chat = reader_of(ChatBody)
_read_completion = reader_of(CompletionBody)
_read_embedding = reader_of(EmbeddingBody)


class OpenAiRoutes:
    """The handlers.

    Args:
        front: Has the models.
    """

    def __init__(self, front: ModelFront) -> None:
        self._front = front
        self._since = int(time.time())

    def add(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/embeddings", self._embeddings)

    async def _models(self, request: web.Request) -> web.Response:
        models = await self._front.models()
        if "anthropic-version" in request.headers:  # one path, and two clients that list models at it
            return json_response(anthropic_models(models, self._since))
        return json_response({"object": "list", "data": [self._entry(model) for model in models]})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        found = await self._front.find(name)
        if found is None:
            raise ModelNotFound(f"The model {name!r} does not exist")
        return json_response(self._entry(found))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_request(request, _read_chat)
        return await self._answered(request, body, [chat_request(body)], ChatForm(body.model))

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await read_request(request, _read_completion)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        asked = [completion_request(body, prompt) for prompt in prompts]
        return await self._answered(request, body, asked, CompletionForm(body.model))

    async def _answered(
        self, request: web.Request, body: Sampled, asked: list[ChatRequest], form: Form
    ) -> web.StreamResponse:
        """Answer what is asked, as often as choices are wanted, whole or in chunks."""
        calls = [call for one in asked for call in several(one, body.n or 1)]
        if body.stream:
            return await send_stream(request, EVENTS, self._events(calls, form, counts=body.counts), _error_event)
        replies = await self._all(calls)
        return json_response(form.whole(replies, usage_of(replies)))

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_request(request, _read_embedding)
        texts = [body.input] if isinstance(body.input, str) else body.input
        found = await self._front.embed(texts, body.model)
        packed = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": packed_vector(vector) if packed else list(vector)}
            for index, vector in enumerate(found.vectors)
        ]
        usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
        return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})

    async def _all(self, calls: list[ChatRequest]) -> list[WholeReply]:
        """Return the replies to several calls, which are made at once."""
        if len(calls) == 1:
            return [await self._front.whole(calls[0])]
        return await all_of(self._front.whole(call) for call in calls)

    async def _events(self, calls: list[ChatRequest], form: Form, *, counts: bool) -> AsyncGenerator[bytes, None]:
        usage, begun = Usage(), [CallsSoFar() for _ in calls]
        started: set[int] = set()
        answers = [await self._front.stream(call) for call in calls]
        async with aclosing(merged([live(answer) for answer in answers])) as chunks:
            async for index, chunk in chunks:
                if index not in started:
                    started.add(index)
                    form.model = answers[index].model
                    for piece in form.first(index):
                        yield event(piece)
                if isinstance(chunk, Delta):
                    called = []
                    for delta in chunk.tool_calls:
                        begins = begun[index].add(delta)
                        identity = delta.id or f"call_{form.identity[-8:]}_{index}_{delta.index}"
                        called.append(call_json(delta, identity, begins=begins))
                    yield event(form.delta(index, chunk, called))
                else:
                    usage += chunk.usage or Usage()
                    yield event(form.last(index, chunk.finish_reason))
        if counts:
            yield event(form.counted(usage))
        yield DONE

    def _entry(self, model: ModelInfo) -> Json:
        return {"id": model.name, "object": "model", "created": self._since, "owned_by": "synaptic"}


def several(call: ChatRequest, count: int) -> list[ChatRequest]:
    """Return a call as often as choices are wanted; with a seed, each gets one of its own."""
    if count == 1 or call.seed is None:
        return [call] * count
    return [replace(call, seed=call.seed + index) for index in range(count)]


def usage_of(replies: list[WholeReply]) -> Usage:
    """Return the counts of several replies, added up."""
    return sum((reply.end.usage or Usage() for reply in replies), Usage())


def packed_vector(vector: tuple[float, ...]) -> str:
    """Return a vector as 32-bit numbers in base64, as the official client asks for it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def openai_error(error: SynapticError) -> web.Response:
    """Return an error in OpenAI's form."""
    failure = http_failure(error)
    code = "model_not_found" if isinstance(error, ModelNotFound) else None
    return json_response(_told(failure, code), failure.status, failure.headers)


def _error_event(failure: HttpFailure) -> bytes:
    return event(_told(failure))


def _told(failure: HttpFailure, code: str | None = None) -> Json:
    kind = _KINDS.get(failure.status) or ("server_error" if failure.status >= SERVER_ERROR else "invalid_request_error")
    return {"error": {"message": failure.message, "type": kind, "param": failure.field, "code": code}}
