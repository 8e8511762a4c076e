"""Anthropic's dialect over HTTP: routes, events, and the form of its errors."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from synaptic.messages import Delta
from synaptic.server.anthropic_api.anthropic_bodies import CountBody, MessagesBody
from synaptic.server.anthropic_api.anthropic_reading import counted_request, messages_request
from synaptic.server.anthropic_api.anthropic_replies import BlockStream, whole_message
from synaptic.server.gateway import (
    BAD_REQUEST,
    BUSY,
    EVENTS,
    FORBIDDEN,
    NOT_FOUND,
    SERVER_ERROR,
    UNAUTHORISED,
    UNAVAILABLE,
    HttpFailure,
    event,
    http_failure,
    json_response,
    live,
    reader_of,
    send_stream,
)
from synaptic.server.limits import read_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import web

    from synaptic.errors import SynapticError
    from synaptic.messages import ChatRequest
    from synaptic.server.anthropic_api.anthropic_replies import Json
    from synaptic.server.gateway import ModelFront

OVERLOADED: Final = 529
"""The status that Anthropic gives to a service that cannot answer now."""

_KINDS: Final = {
    BAD_REQUEST: "invalid_request_error",
    UNAUTHORISED: "authentication_error",
    FORBIDDEN: "permission_error",
    NOT_FOUND: "not_found_error",
    413: "request_too_large",
    BUSY: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}

_read_messages = reader_of(MessagesBody)
_read_count = reader_of(CountBody)


class AnthropicRoutes:
    """The handlers.

    Args:
        front: Has the models.
    """

    def __init__(self, front: ModelFront) -> None:
        self._front = front

    def add(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/count_tokens", self._count)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await read_request(request, _read_messages)
        asked = messages_request(body)
        if body.stream:
            return await send_stream(request, EVENTS, self._events(asked, BlockStream(body.model)), _error_event)
        reply = await self._front.whole(asked)
        return json_response(whole_message(reply.model, reply))

    async def _count(self, request: web.Request) -> web.Response:
        body = await read_request(request, _read_count)
        return json_response({"input_tokens": await self._front.count_prompt(counted_request(body))})

    async def _events(self, asked: ChatRequest, blocks: BlockStream) -> AsyncGenerator[bytes, None]:
        begun = False
        answer = await self._front.stream(asked)
        async with aclosing(live(answer)) as chunks:
            async for chunk in chunks:
                if not begun:  # only now: a call that fails at once has its status
                    begun, blocks.model = True, answer.model
                    for piece in blocks.begin():
                        yield piece
                for piece in blocks.take(chunk) if isinstance(chunk, Delta) else blocks.end(chunk):
                    yield piece


def anthropic_error(error: SynapticError) -> web.Response:
    """Return an error in Anthropic's form."""
    failure = http_failure(error)
    return json_response(_told(failure), _status(failure), failure.headers)


def _error_event(failure: HttpFailure) -> bytes:
    return event(_told(failure), "error")


def _status(failure: HttpFailure) -> int:
    return OVERLOADED if failure.status == UNAVAILABLE else failure.status


def _told(failure: HttpFailure) -> Json:
    status = _status(failure)
    kind = _KINDS.get(status) or ("api_error" if status >= SERVER_ERROR else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": failure.message}}
