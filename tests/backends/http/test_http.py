"""HTTP: every way in which a server can fail becomes one typed error, and nothing stays open."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import socket
import ssl
import subprocess
import sys
from contextlib import aclosing
from itertools import repeat
from typing import Any

import httpx
import pytest
from fault_server import (
    Ending,
    FaultServer,
    before_headers,
    broken_chunk,
    cut,
    finish,
    hang,
    html,
    json_reply,
    raw,
    reset,
    respond,
    sse_events,
    sse_reply,
    stream,
)

from synaptic.backends.http import client as http_module
from synaptic.backends.http.bounds import MAX_STREAM_BYTES, most_of_stream
from synaptic.backends.http.client import (
    get_json,
    ndjson,
    new_client,
    post_json,
    sse,
    stream_request,
)
from synaptic.backends.http.error_map import (
    MappedErrors,
    Origin,
    error_text,
    retry_after_seconds,
    server_text,
    without_password,
)
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendNotReady,
    BackendUnavailable,
    ContextOverflow,
    ModelNotFound,
    ProtocolError,
    ReplyTooLong,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
    Trouble,
)
from synaptic.text import encode_json

WHERE = {"origin": Origin("test", "http://node:1")}


async def read_ndjson(url: str, client: httpx.AsyncClient | None = None) -> list[dict[str, Any]]:
    own = client or new_client(url)
    try:
        async with (
            stream_request(own, "POST", "/x", json={"a": 1}, origin=Origin("test", url)) as reply,
            aclosing(ndjson(reply, origin=Origin("test", url))) as lines,
        ):
            return [line async for line in lines]
    finally:
        if client is None:
            await own.aclose()


async def read_sse(url: str) -> list[dict[str, Any]]:
    async with (
        new_client(url) as client,
        stream_request(client, "POST", "/x", json={}, origin=Origin("test", url)) as reply,
        aclosing(sse(reply, origin=Origin("test", url))) as events,
    ):
        return [event async for event in events]


async def get(url: str, *, within: float | None = None) -> dict[str, Any]:
    async with new_client(url) as client:
        return await get_json(client, "/x", origin=Origin("test", url), within=within)


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lines(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() + b"\n" for value in values]


# What comes back when all is well.


async def test_json_is_sent_and_received() -> None:
    async with FaultServer(json_reply({"ok": True})) as server, new_client(server.url) as client:
        assert await post_json(client, "/x", {"q": "ä"}, origin=Origin("test", server.url)) == {"ok": True}
    assert server.requests[0].json == {"q": "ä"}
    assert server.requests[0].headers["content-type"] == "application/json"


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_port()}")
    async with FaultServer(json_reply({"ok": True})) as server:
        assert await get(server.url) == {"ok": True}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_packets_may_split_lines_and_characters_anywhere(size: int) -> None:
    whole = "".join(json.dumps({"t": text}, ensure_ascii=False) + "\r\n" for text in ("añ€😀", "", "x\ny")).encode()
    pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
    async with FaultServer(stream(pieces)) as server:
        assert [line["t"] for line in await read_ndjson(server.url)] == ["añ€😀", "", "x\ny"]


async def test_the_last_line_needs_no_end_and_blank_lines_do_not_count() -> None:
    async with FaultServer(stream([b'{"a":1}\n\n \n{"a":2}'])) as server:
        assert await read_ndjson(server.url) == [{"a": 1}, {"a": 2}]


async def test_lines_may_be_framed_as_events() -> None:
    """A proxy sends comments while a model loads, and may make an event of each line."""
    body = b': ping\n\n{"a":1}\nevent: x\nid: 3\nretry: 5\ndata: {"a":2}\r\n\n:\ndata:\ndata: {"a":3}\n\ndata: [DONE]\n'
    async with FaultServer(stream([body[:3], body[3:]])) as server:
        assert await read_ndjson(server.url) == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize(
    "body",
    [
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b'[{"a":1},{"done":true}]',
        b"\x1f\x8b\x08\x00",
        b"no such bucket",
        b'"text"',
    ],
)
async def test_a_body_that_does_not_begin_as_json_objects_do_was_not_cut(body: bytes) -> None:
    async with FaultServer([respond(200, body, "text/plain"), stream([b"data: " + body])]) as server:
        with pytest.raises(ProtocolError, match="something else instead of a JSON object") as caught:
            await read_ndjson(server.url)
        assert caught.value.trouble is Trouble.NO_API
        with pytest.raises(ProtocolError, match="something else instead of a JSON object"):
            await read_sse(server.url)


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_that_is_compressed_unasked_is_not_quoted(status: int) -> None:
    headers = {"content-encoding": "GZIP"}
    async with FaultServer(respond(status, gzip.compress(b'{"a":1}'), headers=headers)) as server:
        with pytest.raises(BackendError) as caught:
            await read_ndjson(server.url)
    assert caught.value.message.isascii()
    if status == 200:
        assert "sent its reply compressed (gzip)" in caught.value.message


async def test_a_connection_is_used_again_after_a_complete_stream() -> None:
    async with FaultServer(stream(lines({"a": 1}))) as server, new_client(server.url) as client:
        await read_ndjson(server.url, client)
        await read_ndjson(server.url, client)
        assert (len(server.requests), server.connections) == (2, 1)


async def test_a_connection_is_used_again_after_done() -> None:
    async with FaultServer(sse_reply([{"a": 1}])) as server, new_client(server.url) as client:
        for _ in range(2):
            async with stream_request(client, "POST", "/x", origin=Origin("test", server.url)) as reply:
                assert [event async for event in sse(reply, origin=Origin("test", server.url))] == [{"a": 1}]
        assert server.connections == 1


async def test_server_sent_events_in_all_their_forms() -> None:
    """Comments, other fields, CRLF, several data lines in one event or empty ones, no blank after the colon."""
    body = b': ping\r\nevent: x\r\nid: 7\r\ndata: {"a":1}\r\n\r\n\ndata:{"b":\ndata: 2}\n\ndata: \n\ndata: [DONE]\n\n'
    async with FaultServer(stream([body[:20], body[20:41], body[41:]])) as server:
        assert await read_sse(server.url) == [{"a": 1}, {"b": 2}]


async def test_events_end_at_done_even_if_the_server_never_ends() -> None:
    async with FaultServer(sse_reply([{"a": 1}], then=hang)) as server:
        async with asyncio.timeout(20):
            assert await read_sse(server.url) == [{"a": 1}]
        await server.wait_until_idle()


async def test_half_characters_of_small_models_can_be_sent_and_received() -> None:
    assert json.loads(encode_json({"t": "a\ud83d"})) == {"t": "a\ufffd"}
    assert json.loads(encode_json({"t": "\ud83d\ude00"})) == {"t": "😀"}
    async with FaultServer(stream([b'{"t":"a\\ud83d","u":"\\ud83d\\ude00"}\n'])) as server:
        assert await read_ndjson(server.url) == [{"t": "a\ufffd", "u": "😀"}]


# Nothing is there.


async def test_a_refused_connection() -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    with pytest.raises(BackendUnavailable, match=r"nothing answers at http://127.0.0.1:\d+ \(.*refused") as caught:
        await get(url)
    assert (caught.value.backend, caught.value.node) == ("test", url)
    assert caught.value.retryable
    assert caught.value.hint is not None
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


async def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(BackendUnavailable, match=r"the name 'no-such-host\.invalid' does not resolve"):
        await get("http://no-such-host.invalid:11434")


async def test_an_address_that_swallows_connections() -> None:
    """A full backlog neither accepts nor refuses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        url = f"http://127.0.0.1:{port}"
        try:
            async with new_client(url, connect_timeout=0.2) as client:
                with pytest.raises(BackendUnavailable, match="nothing answers at"):
                    await get_json(client, "/x", within=5, origin=Origin("test", url))
        finally:
            for filler in fillers:
                filler.close()


async def test_https_to_a_server_that_speaks_http() -> None:
    async with FaultServer(json_reply({})) as server:
        with pytest.raises(BackendUnavailable, match="secure connection"):
            await get(server.url.replace("http:", "https:"))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "127.0.0.1:1", "http://[::1", "http://host:99999"])
async def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BackendUnavailable, match="no address of a server"):
        await get(url)


async def test_a_closed_client() -> None:
    client = new_client("http://127.0.0.1:1")
    await client.aclose()
    with pytest.raises(BackendUnavailable, match="closed by this program"):
        await get_json(client, "/x", **WHERE)


@pytest.mark.parametrize("ending", [cut, reset])
async def test_a_connection_that_ends_before_the_headers(ending: Ending) -> None:
    async with FaultServer(before_headers(ending)) as server:
        with pytest.raises(BackendUnavailable, match="without an answer") as caught:
            await get(server.url)
    assert caught.value.retryable


@pytest.mark.parametrize("behaviour", [before_headers(hang), stream([], then=hang), stream([b'{"a"'], then=hang)])
async def test_a_server_that_hangs_is_left_in_time(behaviour: Any) -> None:
    async with FaultServer(behaviour) as server:
        with pytest.raises(BackendUnavailable, match=r"did not answer within 0\.05 s"):
            await get(server.url, within=0.05)
        await server.wait_until_idle()


# Something is there, but it says no.


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "bad request"}, RequestRejected),
        (400, {"error": {"type": "exceed_context_size_error", "message": "too long"}}, ContextOverflow),
        (401, {"error": {"message": "Invalid API Key"}}, RequestRejected),
        (404, {"error": "model 'x' not found"}, ModelNotFound),
        (404, {"error": "no such route"}, RequestRejected),
        (422, {"error": "bad"}, RequestRejected),
        (429, {"error": "slow down"}, BackendBusy),
        (500, {"error": "boom"}, ServerError),
        (502, {"error": "boom"}, BackendNotReady),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, BackendNotReady),
        (503, {"error": "no time"}, BackendBusy),
    ],
)
async def test_statuses(status: int, body: dict[str, Any], kind: type[BackendError]) -> None:
    async with FaultServer(json_reply(body, status)) as server:
        with pytest.raises(kind) as caught:
            await read_ndjson(server.url)
    assert type(caught.value) is kind
    assert (caught.value.backend, caught.value.node) == ("test", server.url)
    said = body["error"] if isinstance(body["error"], str) else body["error"]["message"]
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((200, ProtocolError), (302, ProtocolError), (404, RequestRejected)),
        *((500, ServerError), (502, BackendNotReady), (503, BackendNotReady)),
    ],
)
async def test_a_web_page_instead_of_json(status: int, kind: type[BackendError]) -> None:
    async with FaultServer(html(status)) as server:
        with pytest.raises(kind) as caught:
            await read_ndjson(server.url)
        assert type(caught.value) is kind
        assert "It works!" in caught.value.message
        with pytest.raises(kind):
            await get(server.url)


async def test_a_redirect_is_not_followed() -> None:
    async with FaultServer(respond(307, headers={"location": "http://127.0.0.1:1/"})) as server:
        with pytest.raises(ProtocolError, match="307"):
            await get(server.url)


async def test_how_long_a_busy_server_asks_to_wait() -> None:
    async with FaultServer(json_reply({"error": "busy"}, 503, {"retry-after": "7"})) as server:
        with pytest.raises(BackendBusy) as caught:
            await get(server.url)
    assert caught.value.retry_after == 7.0


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_seconds(None) is None
    assert retry_after_seconds(" 12 ") == 12.0
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0
    later = retry_after_seconds("Wed, 21 Oct 2150 07:28:00 GMT")
    assert later is not None
    assert later > 1e9
    date = "Wed, 21 Oct 2015 07:27:00 GMT"  # of a server whose clock is not ours
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT", date) == 60.0
    assert retry_after_seconds("12", date) == 12.0


async def test_a_backend_may_read_errors_in_its_own_way() -> None:
    def read(status: int, body: bytes) -> BackendError | None:
        return BackendBusy("own") if status == 418 and body == b"tea" else None

    async with (
        FaultServer([respond(418, b"tea", headers={"retry-after": "3"}), respond(418, b"mud")]) as server,
        new_client(server.url) as client,
    ):
        with pytest.raises(BackendBusy, match="own") as caught:
            await get_json(client, "/x", origin=Origin("test", server.url), read_error=read)
        assert (caught.value.retry_after, caught.value.node) == (3.0, server.url)
        with pytest.raises(RequestRejected, match="mud"):
            await get_json(client, "/x", origin=Origin("test", server.url), read_error=read)


@pytest.mark.parametrize("body", [b"x" * 70_000, b'{"error":"boom"}'], ids=["long", "short"])
async def test_an_error_whose_body_never_ends_is_still_that_error(body: bytes) -> None:
    async with FaultServer(stream([body], then=hang, status=500)) as server:
        with pytest.raises(ServerError, match=r"answered 500: (xxx|boom)"):
            await read_ndjson(server.url)
        await server.wait_until_idle()


def test_what_a_server_says_is_cut_and_cleaned() -> None:
    assert server_text("a\x1b[31m\x00b\n\n c" + "d" * 400) == ("a[31mb c" + "d" * 291 + "…")
    assert server_text(b"\xff\xfeok") == "��ok"
    assert error_text(b'{"error":{"message":7}}') == '{"error":{"message":7}}'
    assert error_text(b"[1]") == "[1]"


TOO_LONG = "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it"
ENGINE = {"error": {"code": 400, "message": TOO_LONG, "type": "exceed_context_size_error", "n_ctx": 4096}}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (ENGINE, TOO_LONG),
        ({"error": json.dumps(ENGINE)}, TOO_LONG),
        ({"error": json.dumps({"error": json.dumps(ENGINE)})}, TOO_LONG),
        ({"error": {"error": json.dumps(ENGINE["error"])}}, TOO_LONG),
        ({"error": "400 Bad Request: " + json.dumps(ENGINE)}, f"400 Bad Request: {TOO_LONG}"),
        ({"detail": {"error": {"message": "no"}}}, "no"),
        ({"error": "unexpected {token} in {"}, "unexpected {token} in {"),
        ({"error": 'expected {"a": 1}'}, 'expected {"a": 1}'),
        ({"error": ""}, '{"error": ""}'),
    ],
)
def test_an_error_inside_an_error_is_said_in_its_own_words(said, text):
    assert error_text(json.dumps(said).encode()) == text


def test_errors_without_end_are_left_as_they_are():
    deep = "no"
    for _ in range(12):
        deep = json.dumps({"error": deep})
    assert error_text(deep.encode()).startswith("{")


def test_passwords_in_addresses_are_not_shown() -> None:
    assert without_password("http://me:secret@host:1/p") == "http://host:1/p"
    assert without_password("http://me:secret@[bad") == "[bad"
    assert Origin("test", "http://me:secret@host:1").node == "http://host:1"


# Something is there, and says nonsense or breaks off.


@pytest.mark.parametrize("body", [b"hello", b"[1]", b'"x"', b"\xff\xfe\x00", b"", b"[" * 100_000, b'{"a":'])
async def test_a_body_that_is_no_json_object(body: bytes) -> None:
    async with FaultServer(respond(200, body)) as server:
        with pytest.raises(ProtocolError, match="instead of a JSON object") as caught:
            await get(server.url)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("line", [b"garbage\n", b'{"a":\n', b'["a"]\n', b'{"t":"\xc3"}\n', b"<html>\n"])
async def test_a_line_that_is_no_json_object(line: bytes) -> None:
    async with FaultServer(stream([*lines({"a": 1}), line])) as server:
        with pytest.raises(ProtocolError, match="instead of a JSON object"):
            await read_ndjson(server.url)


async def test_what_is_quoted_of_nonsense_is_at_most_80_characters() -> None:
    async with FaultServer(stream([b"z" * 500 + b"\n"])) as server:
        with pytest.raises(ProtocolError) as caught:
            await read_ndjson(server.url)
    assert caught.value.message.count("z") == 79


@pytest.mark.parametrize(
    ("ending", "kind"), [(cut, StreamTruncated), (reset, StreamTruncated), (broken_chunk, ProtocolError)]
)
async def test_a_stream_that_is_cut_between_lines(ending: Ending, kind: type[BackendError]) -> None:
    """What came before the cut is given; then comes the error."""
    got: list[Any] = []
    taken = asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken.wait()
        await ending(reader, writer)

    async def read(url: str) -> None:
        async with (
            new_client(url) as client,
            stream_request(client, "POST", "/x", origin=Origin("test", url)) as reply,
        ):
            async for line in ndjson(reply, origin=Origin("test", url)):
                got.append(line)
                taken.set()

    async with FaultServer(stream(lines({"a": 1}), then=end)) as server:
        with pytest.raises(kind):
            await asyncio.wait_for(read(server.url), 60)
    assert got == [{"a": 1}]


@pytest.mark.parametrize("tail", [b'{"a":', b'{"t":"\xc3'])
@pytest.mark.parametrize("ending", [cut, finish])
async def test_a_stream_that_ends_within_a_line(tail: bytes, ending: Ending) -> None:
    async with FaultServer(stream([tail], then=ending)) as server:
        with pytest.raises(StreamTruncated):
            await read_ndjson(server.url)


@pytest.mark.parametrize("pieces", [[], sse_events([{"a": 1}], done=False), [b"data: [DON"]])
async def test_events_that_end_without_done_are_truncated(pieces: list[bytes]) -> None:
    async with FaultServer(stream(pieces)) as server:
        with pytest.raises(StreamTruncated, match="ended the stream"):
            await read_sse(server.url)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b'data: {"error":{"message":"boom"}}\n\n', StreamFailed),
        (b'error: {"code":500,"message":"boom"}\n\n', StreamFailed),
        (b'data: {"error":{"message":"boom","type":"exceed_context_size_error"}}\n\n', ContextOverflow),
        (b"data: boom\n\n", ProtocolError),
    ],
)
async def test_errors_in_the_middle_of_events(event: bytes, kind: type[BackendError]) -> None:
    async with FaultServer(stream([*sse_events([{"a": 1}], done=False), event], then=hang)) as server:
        with pytest.raises(kind, match="boom"):
            await read_sse(server.url)
        await server.wait_until_idle()


async def test_an_error_without_a_reason() -> None:
    async with FaultServer(sse_reply([{"error": 500}])) as server:
        with pytest.raises(StreamFailed, match="no reason given"):
            await read_sse(server.url)


async def test_a_line_without_end_is_bounded() -> None:
    piece = b"x" * (1 << 20)
    async with FaultServer(stream([piece] * 18, then=hang)) as server:
        with pytest.raises(ProtocolError, match="a line of more than 16777216 bytes"):
            await read_ndjson(server.url)
        await server.wait_until_idle()


async def test_a_reply_without_end_is_bounded() -> None:
    piece = b"x" * (1 << 20)
    async with FaultServer(stream([piece] * 66, then=hang)) as server:
        with pytest.raises(ProtocolError, match="a reply of more than"):
            await get(server.url)


@pytest.mark.parametrize(
    ("read", "piece", "what"),
    [
        pytest.param("ndjson", b'{"a": "%s"}\n', "a stream of more than 33554432 bytes and did not end it", id="lines"),
        pytest.param("sse", b": %s\n\n", "a stream of more than", id="comments"),
        pytest.param("sse", b"data: %s\n", "an event of more than 16777216", id="one event"),
    ],
)
async def test_a_stream_without_end_is_bounded(read: str, piece: bytes, what: str) -> None:
    async with FaultServer(stream(repeat(piece % (b"x" * 2**18)), then=hang)) as server:
        async with new_client(server.url) as client:
            request = stream_request(client, "POST", "/x", json={}, origin=Origin("test", server.url))
            with pytest.raises(ReplyTooLong, match=what) as caught:
                async with request as reply:
                    items = ndjson if read == "ndjson" else sse
                    async for _ in items(reply, origin=Origin("test", server.url)):
                        pass
        assert caught.value.hint
        await server.wait_until_idle()


def test_a_stream_may_be_as_long_as_was_asked_for() -> None:
    assert most_of_stream(None) == most_of_stream(1024) == MAX_STREAM_BYTES
    assert most_of_stream(1_000_000) == 1_024_000_000


async def test_a_server_that_does_not_speak_http() -> None:
    async with FaultServer(raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")) as server:
        with pytest.raises(ProtocolError, match="does not speak proper HTTP"):
            await get(server.url)


async def test_a_body_that_is_not_compressed_as_it_claims() -> None:
    async with FaultServer(respond(200, b"no gzip", headers={"content-encoding": "gzip"})) as server:
        with pytest.raises(ProtocolError):
            await get(server.url)


# The mapping is complete.


def all_httpx_errors() -> list[type[Exception]]:
    members = [member for _, member in inspect.getmembers(httpx, inspect.isclass)]
    return [member for member in members if issubclass(member, Exception)]


def instance(kind: type[Exception]) -> Exception:
    request = httpx.Request("GET", "http://x")
    if kind is httpx.HTTPStatusError:
        return httpx.HTTPStatusError("m", request=request, response=httpx.Response(503, headers={"retry-after": "2"}))
    return kind() if not inspect.signature(kind).parameters else kind("m")


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("kind", all_httpx_errors(), ids=lambda kind: kind.__name__)
def test_every_exception_of_httpx_becomes_one_of_ours(kind: type[Exception], *, answered: bool) -> None:
    with pytest.raises(BackendError) as caught, MappedErrors(Origin("test", "http://x"), answered=answered):
        raise instance(kind)
    assert isinstance(caught.value.__cause__, kind)
    assert caught.value.node == "http://x"


@pytest.mark.parametrize(
    ("error", "answered", "kind"),
    [
        (httpx.ConnectError("m"), False, BackendUnavailable),
        (httpx.ConnectTimeout("m"), False, BackendUnavailable),
        (httpx.PoolTimeout("m"), False, BackendBusy),
        (httpx.ReadError("m"), False, BackendUnavailable),
        (httpx.ReadError("m"), True, StreamTruncated),
        (httpx.ReadTimeout("m"), True, StreamTruncated),
        (httpx.WriteError(""), True, StreamTruncated),
        (httpx.LocalProtocolError("m"), False, RequestRejected),
        (httpx.DecodingError("m"), True, ProtocolError),
        (httpx.ProxyError("m"), False, BackendUnavailable),
        (httpx.StreamClosed(), True, StreamTruncated),
    ],
)
def test_what_becomes_of_the_usual_ones(error: Exception, *, answered: bool, kind: type[BackendError]) -> None:
    with pytest.raises(BackendError) as caught, MappedErrors(Origin("test", "http://x"), answered=answered):
        raise error
    assert type(caught.value) is kind


def test_causes_may_form_a_ring() -> None:
    error = httpx.ConnectError("m")
    inner = ssl.SSLError("bad certificate")
    error.__cause__, inner.__context__ = inner, error
    with (
        pytest.raises(BackendUnavailable, match="no secure connection"),
        MappedErrors(Origin("test", "http://x"), answered=False),
    ):
        raise error


def test_foreign_exceptions_pass() -> None:
    with pytest.raises(KeyError), MappedErrors(Origin("test", "http://x"), answered=True):
        raise KeyError


def test_importing_the_module_does_not_import_httpx() -> None:
    code = f"import sys, {http_module.__name__}; sys.exit(bool({{'httpx', 'anyio', 'aiohttp'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_fault_server_reports_the_bugs_of_behaviours() -> None:
    """Else a test could pass because its server is broken."""

    async def wrong(*_: object) -> None:
        raise ZeroDivisionError

    async def call() -> None:
        async with FaultServer(wrong) as server:
            with pytest.raises(BackendUnavailable):
                await get(server.url)

    with pytest.raises(ExceptionGroup):
        asyncio.run(call())
