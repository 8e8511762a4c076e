"""``/v1/responses`` over HTTP: answers that are kept, and gone on from."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from synaptic.errors import JournalError
from synaptic.messages import Delta, ToolCallDelta
from synaptic.runtime import KeptResponse
from synaptic.server.gateway import (
    BAD_REQUEST,
    EVENTS,
    NOT_FOUND,
    UNAVAILABLE,
    Refusal,
    asking_id,
    json_response,
    live,
    reader_of,
    send_stream,
)
from synaptic.server.limits import LogRate, hold, read_request
from synaptic.server.openai_api.responses_bodies import CountedInput, ResponsesBody
from synaptic.server.openai_api.responses_form import ResponseForm
from synaptic.server.openai_api.responses_reading import (
    conversation_of,
    counted_request,
    given_items,
    response_request,
)
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from aiohttp import web

    from synaptic.backends import WholeReply
    from synaptic.messages import ChatRequest
    from synaptic.runtime import KeptResponses
    from synaptic.server.gateway import ModelFront

DEFAULT_PAGE: Final = 20
LARGEST_PAGE: Final = 100
Made = TypeVar("Made")

log = logging.getLogger(__name__)
log.addFilter(LogRate())  # as many lines as clients ask for otherwise

_read_response = reader_of(ResponsesBody)
_read_counted = reader_of(CountedInput)


class ResponsesRoutes:
    """The handlers.

    Args:
        front: Has the models, and says where responses are kept.
    """

    def __init__(self, front: ModelFront) -> None:
        self._front = front
        self._writing = asyncio.Lock()
        self._refused = -math.inf  # when the file was last found not to be written to

    def add(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/v1/responses", self._create)
        app.router.add_post("/v1/responses/input_tokens", self._count)
        app.router.add_get("/v1/responses/{response}", self._show)
        app.router.add_delete("/v1/responses/{response}", self._forget)
        app.router.add_get("/v1/responses/{response}/input_items", self._items)
        app.router.add_post("/v1/responses/{response}/cancel", self._cancel)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await read_request(request, _read_response)
        kept = self._front.responses
        if body.store and kept is None:
            said = "store: nothing is kept here, since the setting journal is off; send store: false"
            raise Refusal(BAD_REQUEST, said, field="store")
        stores = None if body.store is False else kept
        asked = response_request(body, conversation_of(body, await self._chain(request, body)))
        form = ResponseForm.of(body, stored=stores is not None)
        if body.stream:
            return await send_stream(request, EVENTS, self._events(body, asked, form, stores), form.failed)
        reply = await self._front.whole(asked)
        told = form.whole(reply, _deltas(reply))
        await self._keep(body, form, stores)
        return json_response(told)

    async def _events(
        self, body: ResponsesBody, asked: ChatRequest, form: ResponseForm, stores: KeptResponses | None
    ) -> AsyncGenerator[bytes, None]:
        begun = False
        answer = await self._front.stream(asked)
        async with aclosing(live(answer)) as chunks:
            async for chunk in chunks:
                if not begun:  # only now: a call that fails at once has its status
                    begun = True
                    for piece in form.begin(answer.model):
                        yield piece
                for piece in form.take(chunk) if isinstance(chunk, Delta) else form.end(chunk):
                    yield piece
        await self._keep(body, form, stores)
        yield form.last()

    async def _count(self, request: web.Request) -> web.Response:
        body = await read_request(request, _read_counted)
        asked = counted_request(body, conversation_of(body, await self._chain(request, body)))
        tokens = await self._front.count_prompt(asked)
        return json_response({"object": "response.input_tokens", "input_tokens": tokens})

    async def _show(self, request: web.Request) -> web.Response:
        if request.query.get("stream", "").lower() == "true":
            raise Refusal(BAD_REQUEST, "stream: a response that is over is not streamed again", field="stream")
        return json_response((await self._found(request)).told)

    async def _forget(self, request: web.Request) -> web.Response:
        response_id = (await self._found(request)).id
        kept = self._front.responses
        assert kept is not None, "it was found there"
        if not await self._written(kept.forget, response_id, asking_id()):  # another request has, meanwhile
            raise Refusal(NOT_FOUND, f"response {excerpt(response_id)!r} not found")
        return json_response({"id": response_id, "object": "response", "deleted": True})

    async def _items(self, request: web.Request) -> web.Response:
        items = (await self._found(request)).given
        limit = request.query.get("limit", str(DEFAULT_PAGE))
        if not limit.isascii() or not limit.isdecimal() or len(limit) > 4 or not 1 <= int(limit) <= LARGEST_PAGE:
            raise Refusal(BAD_REQUEST, f"limit: it must be from 1 to {LARGEST_PAGE}", field="limit")
        if request.query.get("order", "desc") == "desc":
            items = items[::-1]
        after = request.query.get("after")
        places = [index for index, item in enumerate(items) if item["id"] == after]
        if after is not None and not places:
            raise Refusal(BAD_REQUEST, f"after: there is no item {excerpt(after)!r}", field="after")
        rest = items[places[0] + 1 :] if places else items
        page = rest[: int(limit)]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return json_response({"object": "list", "data": page, **ends, "has_more": len(rest) > len(page)})

    async def _cancel(self, request: web.Request) -> web.Response:
        await self._found(request)
        raise Refusal(BAD_REQUEST, "only a response in the background is cancelled so; close the connection instead")

    async def _chain(self, request: web.Request, body: CountedInput) -> Sequence[KeptResponse]:
        if body.previous_response_id is None:
            return []
        kept = self._front.responses
        wanted = (body.previous_response_id, asking_id(), partial(hold, request))
        chain = None if kept is None else await _from_file(kept.chain, *wanted)
        if chain is None:
            said = f"previous response {excerpt(body.previous_response_id)!r} not found, or one before it"
            raise Refusal(BAD_REQUEST, said, field="previous_response_id")
        return chain

    async def _found(self, request: web.Request) -> KeptResponse:
        wanted, kept = request.match_info["response"], self._front.responses
        asked = (wanted, asking_id(), partial(hold, request))
        found = None if kept is None else await _from_file(kept.find, *asked)
        if found is None:
            raise Refusal(NOT_FOUND, f"response {excerpt(wanted)!r} not found")
        return found

    async def _keep(self, body: ResponsesBody, form: ResponseForm, stores: KeptResponses | None) -> None:
        if stores is None:
            return
        told = form.told
        response = KeptResponse(id=told["id"], previous=body.previous_response_id, given=given_items(body), told=told)
        await self._written(stores.keep, response, asking_id())

    async def _written(self, do: Callable[..., Made], *arguments: object) -> Made:
        """Do as :func:`_from_file` does with what writes: one request waits for a locked file, not each in its turn."""
        asked = time.monotonic()
        async with self._writing:
            if self._refused > asked:
                raise _not_now()
            try:
                return await _from_file(do, *arguments)
            except Refusal:
                self._refused = time.monotonic()
                raise


async def _from_file(do: Callable[..., Made], *arguments: object) -> Made:
    """Return what is done with the file; what is wrong with that is no fault of the client.

    Raises:
        Refusal: If it cannot be done.
    """
    try:
        return await asyncio.to_thread(do, *arguments)
    except JournalError as error:
        log.warning("%s", error.message)  # where it lies is not for clients
        raise _not_now() from error


def _not_now() -> Refusal:
    said = "responses cannot be kept or read here now; send store: false, or come again"
    return Refusal(UNAVAILABLE, said, retry_after=5)


def _deltas(reply: WholeReply) -> Iterator[Delta]:
    """Yield a whole reply as a stream would have it."""
    yield Delta(thinking=reply.thinking)
    yield Delta(reply.text, logprobs=reply.logprobs)
    for index, call in enumerate(reply.tool_calls):
        yield Delta(tool_calls=(ToolCallDelta(index, call.id, call.name, call.arguments),))
