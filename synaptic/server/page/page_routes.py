"""The page over HTTP: itself, the data behind it, what changes as it changes, and the few things it starts.

What it reads and starts is for its own pages alone: a request of another origin is refused even where that may use the
models, and what starts something is JSON, which no form of another site can send.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from synaptic.errors import JournalError
from synaptic.server.gateway import (
    BAD_REQUEST,
    EVENTS,
    NOT_FOUND,
    UNAVAILABLE,
    PipelineModels,
    Refusal,
    WireBody,
    check_model,
    check_owner,
    check_scope,
    http_failure,
    json_response,
    reader_of,
    still_let_in,
)
from synaptic.server.limits import read_request
from synaptic.server.page.kept_runs import MOST_RUNS, STATUSES, compared_runs, list_runs, search_runs, whole_run
from synaptic.server.page.live_runs import LiveRuns
from synaptic.server.page.now_keeper import EVERY, NowKeeper
from synaptic.server.page.other_runs import OtherRuns
from synaptic.server.page.page_bodies import AnswerBody, AskBody, NoBody, RerunBody
from synaptic.server.page.page_file import page_file
from synaptic.server.page.started_runs import StartedRuns
from synaptic.text import encode_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Handler

    from synaptic.errors import SynapticError
    from synaptic.server.gateway import ModelFront

Body = TypeVar("Body", bound=WireBody)
QUIET: Final = 15.0
"""Seconds after which a stream on which nothing happens says that it is alive."""

LOOKED: Final = 0.25
"""Seconds for which the runs wait for news of the nodes."""

_UNSUPPORTED: Final = 415
_ACCEPTED: Final = 202


class PageRoutes:
    """The handlers.

    Args:
        front: Has the models, and the session that runs pipelines.
        keys: Whether clients must bring keys; else it is for the user of this process alone, as the record of runs is.
    """

    def __init__(self, front: ModelFront, *, keys: bool = False) -> None:
        self._front = front
        self._keys = keys
        self._live = LiveRuns()
        front.watch(self._live.begin)
        self._keeper = NowKeeper(front, self._live)
        self._others = OtherRuns(self._live)
        self._started = StartedRuns(front)

    def add(self, app: web.Application) -> None:
        """Add the routes under ``/ui``; streams end when the application is told to."""
        for path, handler in (
            ("/ui/now", self._now),
            ("/ui/events", self._events),
            ("/ui/runs", self._runs),
            ("/ui/runs/{id}", self._run),
            ("/ui/diff", self._diff),
        ):
            app.router.add_get(path, self._own(handler), allow_head=False)
        for path, handler in (
            ("/ui/ask", self._ask),
            ("/ui/runs/{id}/rerun", self._rerun),
            ("/ui/runs/{id}/resume", self._resume),
            ("/ui/runs/{id}/answer", self._answer),
            ("/ui/runs/{id}/cancel", self._cancel),
        ):
            app.router.add_post(path, self._own(handler))

        async def end(_: web.Application) -> None:
            self._live.feed.close()
            await self._others.aclose()
            await self._started.aclose()
            await self._keeper.aclose()

        app.on_shutdown.append(end)

    def _own(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Handler:
        """Answer the gateway's own page, and programs of those who may see all."""

        async def answered(request: web.Request) -> web.StreamResponse:
            check_owner(request, keys=self._keys)
            return await handler(request)

        return answered

    async def _now(self, _: web.Request) -> web.Response:
        return json_response(await asyncio.shield(self._keeper.look()))

    async def _runs(self, request: web.Request) -> web.Response:
        asked = request.query
        limit, below = _number(request, "limit", 50), _number(request, "below", None)
        text = asked.get("q", "").strip()
        limit = max(1, min(limit or 1, MOST_RUNS))
        await self._recorded()
        status, pipeline = asked.get("status") or None, asked.get("pipeline") or None
        if status is not None and status not in STATUSES:
            raise Refusal(BAD_REQUEST, f"status must be one of {', '.join(STATUSES)}", field="status")
        find = partial(list_runs, status=status, pipeline=pipeline)
        if text:
            find = partial(search_runs, text)
        try:
            return json_response(await asyncio.to_thread(find, limit=limit, below=below))
        except JournalError as error:  # no fault of who asks
            raise Refusal(UNAVAILABLE, error.message, retry_after=5) from error

    async def _run(self, request: web.Request) -> web.Response:
        run_id = request.match_info["id"]
        live = self._live.find(run_id)
        if live is not None and live["ended"] is None and not live.get("can_go_on"):
            return json_response(live)
        await self._recorded()
        try:
            return json_response(await asyncio.to_thread(whole_run, run_id))
        except JournalError as error:
            if live is not None:
                return json_response(live)
            raise Refusal(NOT_FOUND, error.message) from error

    async def _diff(self, request: web.Request) -> web.Response:
        first, second = request.query.get("a", ""), request.query.get("b", "")
        await self._recorded()
        try:
            steps = await asyncio.to_thread(compared_runs, first, second)
        except JournalError as error:
            raise Refusal(NOT_FOUND, error.message) from error
        return json_response({"steps": steps})

    async def _recorded(self) -> None:
        """Wait until the record has what was said so far."""
        await self._front.act(lambda session: session.recorded())

    async def _ask(self, request: web.Request) -> web.Response:
        body = await _posted(request, AskBody)
        check_model(PipelineModels.named(body.pipeline))
        _check_other(body.model)
        return _begun(await self._started.ask(body))

    async def _rerun(self, request: web.Request) -> web.Response:
        body = await _posted(request, RerunBody)
        check_scope("pipelines")
        _check_other(body.model)
        return _begun(await self._started.rerun(request.match_info["id"], body))

    async def _resume(self, request: web.Request) -> web.Response:
        await _posted(request, NoBody)
        check_scope("pipelines")
        return _begun(await self._started.resume(request.match_info["id"]))

    async def _answer(self, request: web.Request) -> web.Response:
        body = await _posted(request, AnswerBody)
        check_scope("pipelines")
        return _begun(await self._started.answer(request.match_info["id"], body))

    async def _cancel(self, request: web.Request) -> web.Response:
        await _posted(request, NoBody)
        self._started.cancel(request.match_info["id"])
        return json_response({"run_id": request.match_info["id"]}, _ACCEPTED)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send what changes. With ``Last-Event-ID`` it goes on behind that, where that is still known.

        Else, and where a reader was too slow, it begins with all live runs (``snapshot``). How everything stands
        (``now``) comes each second in which something of it is other.
        """
        response = web.StreamResponse(headers={"content-type": EVENTS, "cache-control": "no-cache"})
        with suppress(ConnectionResetError):  # the reader has left
            await response.prepare(request)
            with self._others.watched():
                await self._follow(request, response)
            await response.write_eof()
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse) -> None:
        feed = self._live.feed
        place = feed.read_name(request.headers.get("last-event-id", ""))
        known, said_at = b"", 0.0
        clock = asyncio.get_running_loop().time
        while not feed.closed and still_let_in():
            news = feed.news
            messages = None if place is None else feed.since(place)
            if messages is None:
                runs = self._live.all()
                messages, news = [(feed.place, encode_json({"type": "snapshot", "runs": runs}))], feed.news
            told = [b"id: %s\ndata: %s\n\n" % (feed.name(number).encode(), data) for number, data in messages]
            place = messages[-1][0] if messages else place
            looking = self._keeper.look()
            await asyncio.wait({looking}, timeout=LOOKED)
            if looking.done() and (kept := _without_clocks(looking.result())) != known:
                known = kept
                told.append(b"data: %s\n\n" % encode_json({"type": "now", "now": looking.result()}))
            if not told and clock() - said_at >= QUIET:
                told.append(b": here\n\n")
            if told:
                said_at = clock()
                await response.write(b"".join(told))
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), EVERY)


def _without_clocks(now: dict[str, Any]) -> bytes:
    """Return what is compared with the look before: not the times that run on while nothing happens."""
    return encode_json({**now, "at": 0, "nodes": [{**node, "probe_in": None} for node in now["nodes"]]})


async def _posted(request: web.Request, shape: type[Body]) -> Body:
    """Return the body of a request that starts something."""
    if request.content_type != "application/json":
        raise Refusal(_UNSUPPORTED, "send JSON, as content-type: application/json")
    return await read_request(request, reader_of(shape))


def _check_other(model: str | None) -> None:
    """Refuse a model that is to be asked in the place of a pipeline's own, if the client's key may not ask it."""
    if model is not None:
        check_model(model)


def _begun(run_id: str) -> web.Response:
    return json_response({"run_id": run_id}, _ACCEPTED)


def _number(request: web.Request, name: str, default: int | None) -> int | None:
    text = request.query.get(name)
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) >= len(str(2**62)):
        raise Refusal(BAD_REQUEST, f"{name} must be a whole number", field=name)
    return int(text)


def page_error(error: SynapticError) -> web.Response:
    """Return an error as the page reads it."""
    failure = http_failure(error)
    return json_response({"error": failure.message}, failure.status, failure.headers)


def wants_page(request: web.Request) -> bool:
    """Return whether a browser asks, which is shown the page; programs get what Ollama says."""
    return "text/html" in request.headers.get("accept", "")


def page_response(request: web.Request) -> web.Response:
    """Return the page, or that it has not changed."""
    page: Any = page_file()
    if request.headers.get("if-none-match") == page.headers["etag"]:
        return web.Response(status=304, headers={"etag": page.headers["etag"], "vary": "accept"})
    return web.Response(body=page.body, headers=page.headers)
