"""HTTP: who leaves a stream and counts what was generated gets all that the server had sent, and does not wait long."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from certificates import needs_openssl, self_signed
from fault_server import FaultServer, hang, ollama_lines, read_request, sse_events, stream
from http_support import connections_in_use, idle_connections

from synaptic.backends.http import transport
from synaptic.backends.http.client import ndjson, new_client, sse, stream_request
from synaptic.backends.http.origin import Origin
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.ollama import OllamaBackend
from synaptic.messages import ChatRequest, Delta, Finished, Message, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from synaptic.backends import Backend

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
NDJSON, EVENTS = b"application/x-ndjson", b"text/event-stream"


@asynccontextmanager
async def late_server(
    first: Sequence[bytes], late: Sequence[bytes], kind: bytes = NDJSON, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve a stream: ``first`` in one packet, and ``late`` only once the client has closed its half."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await read_request(reader)
                if request.path.endswith("/props"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    continue
                writer.write(HEAD % kind + _chunk(b"".join(first)))
                await reader.read()
                writer.write(b"".join(_chunk(line) for line in late))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def lines(*numbers: int) -> list[bytes]:
    return [json.dumps({"a": number}).encode() + b"\n" for number in numbers]


async def reading(
    client: httpx.AsyncClient, read: Callable[..., Any], unread: Callable[[Any], None], begun: asyncio.Event, most: int
) -> None:
    """Read so many values of a stream, then leave it."""
    async with (
        stream_request(client, "POST", "/x", json={}, origin=Origin("test", "node")) as reply,
        aclosing(read(reply, origin=Origin("test", "node"), unread=unread)) as values,
    ):
        async for _ in values:
            begun.set()
            most -= 1
            if not most:
                return


@pytest.mark.parametrize("cancellations", [0, 1, 3])
async def test_what_was_sent_until_the_server_noticed_is_told(cancellations: int) -> None:
    """Whoever closes the stream, or is cancelled while waiting, once or several times in a row."""
    cases = [
        (ndjson, lines(1, 2, 3), [*lines(4), b"\n", b'{"a":', *lines(9)], NDJSON),
        (sse, sse_events([{"a": 1}, {"a": 2}, {"a": 3}], done=False), sse_events([{"a": 4}]), EVENTS),
    ]
    for read, first, late, kind in cases:
        left: list[Any] = []
        begun = asyncio.Event()
        async with late_server(first, late, kind) as url, new_client(url) as client:
            task = asyncio.ensure_future(reading(client, read, left.append, begun, most=99 if cancellations else 1))
            await begun.wait()
            for _ in range(cancellations):
                task.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError) == bool(cancellations)
            assert left == [{"a": number} for number in ((4,) if cancellations else (2, 3, 4))]
            assert (connections_in_use(client), idle_connections(client)) == (0, 0)


async def test_a_server_that_goes_on_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LEAVE_SECONDS", 0.05)
    monkeypatch.setattr(transport, "MOST_UNREAD", 50_000)
    sent = 0

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(HEAD % NDJSON + _chunk(lines(1)[0]))
        try:
            while True:
                await writer.drain()
                if flooding:
                    writer.write(_chunk(lines(*range(1000))[0] * 100))
                await asyncio.sleep(0)
        except OSError:
            ended.set()
        finally:
            writer.close()

    for flooding in (False, True):
        ended = asyncio.Event()
        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        left: list[Any] = []
        async with new_client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            await reading(client, ndjson, left.append, asyncio.Event(), most=1)
            assert connections_in_use(client) == 0
        assert bool(left) == flooding
        assert len(left) < 50_000
        server.close()


async def test_of_a_client_of_httpx_what_has_come_is_told() -> None:
    left: list[Any] = []
    url_of = late_server(lines(1, 2, 3), lines(4))
    async with url_of as url, httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
        await reading(client, ndjson, left.append, asyncio.Event(), most=1)
    assert left == [{"a": 2}, {"a": 3}]


async def test_a_whole_reply_that_was_left_unread_costs_no_connection() -> None:
    left: list[Any] = []
    async with FaultServer(stream([b"".join(lines(1, 2, 3))])) as server, new_client(server.url) as client:
        async with stream_request(client, "POST", "/x", json={}, origin=Origin("test", "node")) as reply:
            values = ndjson(reply, origin=Origin("test", "node"), unread=left.append)
            assert await anext(values) == {"a": 1}
            async with asyncio.timeout(60):
                while not reply.has_ended:
                    await asyncio.sleep(0.001)
            await values.aclose()
        assert (connections_in_use(client), idle_connections(client)) == (0, 1)
    assert left == [{"a": 2}, {"a": 3}]


@needs_openssl
async def test_over_tls_what_has_come_is_told(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    left: list[Any] = []
    async with late_server(lines(1, 2, 3), lines(4), tls=context) as url, new_client(url, verify=False) as client:
        await reading(client, ndjson, left.append, asyncio.Event(), most=1)
        assert connections_in_use(client) == 0
    assert left == [{"a": 2}, {"a": 3}]


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


END = {
    "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3},
}


@pytest.mark.parametrize("backend", [OllamaBackend, LlamaServerBackend])
async def test_the_backends_tell_chunks(backend: Callable[[str], Backend]) -> None:
    if backend is OllamaBackend:
        first, late, kind = ollama_lines(["a", "b"], done=False), ollama_lines(["c"]), NDJSON
    else:
        first, kind = sse_events([delta("a"), delta("b")], done=False), EVENTS
        late = sse_events([delta("c"), END])
    left: list[Delta | Finished] = []
    request = ChatRequest(messages=(Message("user", "x"),), model="tiny", verbatim=True, unread=left.append)
    async with late_server(first, late, kind) as url, aclosing(backend(url)) as opened:
        chunks: Any = opened.stream(request)
        assert (await anext(chunks)).text == "a"
        await chunks.aclose()
    *deltas, last = left
    assert deltas == [Delta("b"), Delta("c")]
    assert isinstance(last, Finished)
    assert last.usage == (Usage(11, 7) if backend is OllamaBackend else Usage(5, 3))


async def test_an_end_that_was_read_and_not_given_on_is_told() -> None:
    """The call is cancelled while what follows the last line is waited for."""
    left: list[Delta | Finished] = []
    request = ChatRequest(messages=(Message("user", "x"),), model="tiny", verbatim=True, unread=left.append)
    asked = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await hang(reader, writer)

    script = stream(ollama_lines(["a"]), then=waits)
    async with FaultServer(script) as server, aclosing(OllamaBackend(server.url, shown="desk")) as backend:
        chunks: Any = backend.stream(request)
        assert (await anext(chunks)).text == "a"
        await asked.wait()
        task = asyncio.ensure_future(anext(chunks))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    last = left[-1]
    assert isinstance(last, Finished)
    assert (last.usage, last.node) == (Usage(11, 7), "desk")
