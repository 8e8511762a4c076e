"""The transport under our HTTP clients: many calls at once, connections that died while idle, event loops, bodies."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from fault_server import FaultServer, Request, cut, hang, json_reply, ollama_reply, raw, reset, stream
from http_support import connections_in_use, idle_connections

from synaptic.backends.http.client import get_json, ndjson, new_client, post_json, stream_request
from synaptic.backends.http.origin import Origin
from synaptic.backends.http.transport import translated
from synaptic.errors import BackendError, BackendUnavailable, ProtocolError, RequestRejected, StreamTruncated

if TYPE_CHECKING:
    from collections.abc import Callable


async def ask(client: httpx.AsyncClient, body: dict[str, Any] | None = None) -> dict[str, Any]:
    return await post_json(client, "/x", body or {}, origin=Origin("test", str(client.base_url).rstrip("/")))


async def read_all(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    async with (
        stream_request(client, "POST", "/x", json={}, origin=Origin("test", "http://node")) as reply,
        aclosing(ndjson(reply, origin=Origin("test", "http://node"))) as values,
    ):
        return [value async for value in values]


def descriptors() -> int:
    return psutil.Process().num_fds()


async def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


# Connections.


async def test_connections_are_not_capped_and_are_used_again() -> None:
    arrived = 0
    all_here = asyncio.Event()

    async def together(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Request) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 150:
            all_here.set()
        await all_here.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async with FaultServer(together) as server, new_client(server.url) as client:
        for _ in range(2):
            async with asyncio.timeout(60):
                assert await asyncio.gather(*(ask(client) for _ in range(150))) == [{}] * 150
        assert server.connections == 150
        assert (connections_in_use(client), idle_connections(client)) == (0, 150)
    await server.wait_until_idle()


async def test_a_connection_that_was_closed_while_idle_is_not_used() -> None:
    """Its end has arrived, but the event loop has not looked yet."""
    async with FaultServer(json_reply({"ok": True})) as server, new_client(server.url) as client:
        for calls in range(1, 4):
            assert await ask(client) == {"ok": True}
            (connection,) = server._live
            with socket.socket(fileno=os.dup(connection.transport.get_extra_info("socket").fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
            assert len(server.requests) == calls


async def test_what_comes_on_an_idle_connection_is_no_answer_to_the_next_request() -> None:
    async with FaultServer(json_reply({"right": True})) as server, new_client(server.url) as client:
        await ask(client)
        (connection,) = server._live
        connection.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{'right':false}")
        await asyncio.sleep(0.05)
        assert await ask(client) == {"right": True}
        assert server.connections == 2


async def test_a_server_that_closes_although_it_announces_otherwise() -> None:
    """As llama-server does: with ``connection: close``, a connection carries one call, whatever the reply says."""
    behaviour = json_reply({"ok": True}, headers={"connection": "keep-alive", "keep-alive": "timeout=5"})
    async with FaultServer(behaviour) as server, new_client(server.url, headers={"Connection": "close"}) as client:
        for _ in range(3):
            assert await ask(client) == {"ok": True}
        await server.wait_until_idle()
        assert server.connections == 3
        assert server.requests[0].headers["connection"] == "close"


@pytest.mark.parametrize("ending", [cut, reset])
async def test_a_request_is_sent_once(ending: Any) -> None:
    """A POST whose connection breaks is for the policies to repeat, who count it."""

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Request) -> None:
        await ending(reader, writer)

    async with FaultServer([json_reply({}), broken]) as server, new_client(server.url) as client:
        await ask(client)
        with pytest.raises(BackendUnavailable, match="closed the connection without an answer"):
            await ask(client)
        assert len(server.requests) == 2


# What is given up leaves nothing.


async def test_a_server_that_never_reads_holds_no_connection() -> None:
    """A long prompt that does not fit the socket's buffers would keep an orderly close waiting for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        client = new_client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        before = descriptors()
        calls = [asyncio.ensure_future(ask(client, {"p": "x" * 20_000_000})) for _ in range(4)]
        await wait_until(lambda: stuck(client) == 4)
        for call in calls[:3]:
            call.cancel()
        await asyncio.wait(calls[:3])
        assert descriptors() == before + 1
        async with asyncio.timeout(20):
            await client.aclose()
            with pytest.raises(BackendError):
                await calls[3]
        await wait_until(lambda: descriptors() == before)


def stuck(client: httpx.AsyncClient) -> int:
    """Return how many requests wait for the server to read."""
    open_ones = [reply.connection for reply in client._to_node.replies if reply.connection]  # type: ignore[attr-defined]
    return sum(connection.get_write_buffer_size() > 0 for connection in open_ones)


async def test_cancelling_many_calls_under_load_leaves_nothing() -> None:
    chance = random.Random(7)
    async with FaultServer(ollama_reply(["a", "b", "c"], delay=0.002)) as server, new_client(server.url) as client:
        await read_all(client)
        tasks_before = len(asyncio.all_tasks())
        for _ in range(5):
            calls = [asyncio.ensure_future(read_all(client)) for _ in range(100)]
            loop = asyncio.get_running_loop()
            for call in calls:
                loop.call_later(chance.uniform(0, 0.1), call.cancel)
            await asyncio.wait(calls)
            assert all(call.cancelled() or len(call.result()) == 4 for call in calls)
            assert connections_in_use(client) == 0
        await wait_until(lambda: server.open_connections == idle_connections(client))
        await wait_until(lambda: len(asyncio.all_tasks()) <= tasks_before + server.open_connections)
        assert len(await read_all(client)) == 4


async def test_descriptors_are_back_after_every_kind_of_end() -> None:
    gc.collect()
    before = descriptors()
    for behaviour in (json_reply({}), stream([b"{}\n"], then=cut), stream([b"{}\n"], then=reset), ollama_reply(["a"])):
        async with FaultServer(behaviour) as server, new_client(server.url) as client:
            await asyncio.gather(*(read_all(client) for _ in range(20)), return_exceptions=True)
    await wait_until(lambda: descriptors() <= before)


async def test_closing_the_client_ends_what_waits_for_headers() -> None:
    async with FaultServer(stream([], then=hang)) as server:
        client = new_client(server.url)
        behaviours = [asyncio.ensure_future(ask(client)) for _ in range(3)]
        await server.wait_for(lambda: len(server.requests) == 3)
        await client.aclose()
        done, _ = await asyncio.wait(behaviours, timeout=60)
        assert [type(call.exception()) for call in done] == [BackendUnavailable] * 3
        assert "closed by this program" in str(done.pop().exception())


# Bodies.


async def test_what_came_before_the_cut_is_given_even_to_a_slow_reader() -> None:
    async with FaultServer(stream([b'{"a":1}\n', b'{"a":2}\n'], then=cut)) as server, new_client(server.url) as client:
        got = []
        with pytest.raises(StreamTruncated):
            async with stream_request(client, "POST", "/x", origin=Origin("test", server.url)) as reply:
                await server.wait_until_idle()
                await asyncio.sleep(0.05)
                async for value in ndjson(reply, origin=Origin("test", server.url)):
                    got.append(value)  # noqa: PERF401 - kept although the loop fails
    assert got == [{"a": 1}, {"a": 2}]


async def test_a_long_body_arrives_whole() -> None:
    async with FaultServer(json_reply({"ok": True})) as server, new_client(server.url) as client:
        assert await ask(client, {"p": "ä" * 3_000_000}) == {"ok": True}
        assert server.requests[0].json == {"p": "ä" * 3_000_000}


async def test_an_answer_before_the_request_was_read() -> None:
    """Half a request is on the connection: it is of no use to the next one."""

    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: 2\r\n" not in head.lower():
            writer.write(b'HTTP/1.1 413 Too Large\r\ncontent-length: 16\r\n\r\n{"error":"long"}')
            await done.wait()
        else:
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    before = descriptors()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(60), new_client(url) as client:
        with pytest.raises(RequestRejected, match=r"413: the request is larger than it takes \(long\)"):
            await ask(client, {"p": "x" * 20_000_000})
        assert connections_in_use(client) == 0
        assert descriptors() == before + 2  # the listener, and the server's side of the connection
        assert await ask(client) == {}
        done.set()
    server.close()
    await wait_until(lambda: descriptors() == before)


async def test_a_body_that_ends_with_its_connection() -> None:
    async def until_the_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Request) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"a":1}\n')
        await writer.drain()
        writer.write(b'{"a":2}\n')
        writer.close()

    async with FaultServer(until_the_end) as server, new_client(server.url) as client:
        assert await read_all(client) == [{"a": 1}, {"a": 2}]


async def test_headers_without_end_are_refused() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Request) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000)
        await asyncio.sleep(30)

    async with FaultServer(endless) as server, new_client(server.url) as client:
        with pytest.raises(ProtocolError, match="does not speak proper HTTP"):
            await asyncio.wait_for(ask(client), 60)
        await server.stop()


# Names, addresses, event loops.


async def test_a_lookup_that_hangs_is_bounded() -> None:
    """Every thread that could look a name up is busy."""
    release = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(release.wait)
        try:
            async with new_client("http://localhost:9", connect_timeout=0.1) as client:
                with pytest.raises(BackendUnavailable, match=r"nothing answers at .* \(no connection in time\)"):
                    await asyncio.wait_for(ask(client), 60)
        finally:
            release.set()


@pytest.mark.parametrize("base", ["{url}/api", "{url}/api/"])
async def test_paths_lie_below_the_address(base: str) -> None:
    async with FaultServer(json_reply({})) as server, new_client(base.format(url=server.url)) as client:
        await ask(client)
        await get_json(client, "/tags?x=1", origin=Origin("test", server.url))
        assert [request.path for request in server.requests] == ["/api/x", "/api/tags?x=1"]


async def test_a_client_belongs_to_one_event_loop_at_a_time() -> None:
    async with FaultServer(json_reply({"ok": True})) as server, new_client(server.url) as client:
        await ask(client)

        def elsewhere() -> None:
            asyncio.run(ask(client))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)
        assert await ask(client) == {"ok": True}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the connections that the first event loop left open
def test_a_client_outlives_its_event_loop() -> None:
    with ThreadPoolExecutor(1) as thread, socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    time.sleep(0.05)

        thread.submit(serve)
        client = new_client(f"http://127.0.0.1:{listener.getsockname()[1]}")

        async def last() -> dict[str, Any]:
            answer = await ask(client)
            await client.aclose()
            return answer

        assert asyncio.run(ask(client)) == {}
        assert asyncio.run(last()) == {}
        gc.collect()


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
def test_everything_works_with_uvloop() -> None:
    import uvloop

    async def cancelled_anywhere() -> None:
        for count in range(30):
            async with FaultServer(stream([b'{"a":1}\n'], then=hang)) as server, new_client(server.url) as client:
                call = asyncio.ensure_future(read_all(client))
                for _ in range(count):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait({call})
                assert connections_in_use(client) == 0
                await server.wait_until_idle()

    async def main() -> None:
        await cancelled_anywhere()
        await test_a_connection_that_was_closed_while_idle_is_not_used()
        await test_what_comes_on_an_idle_connection_is_no_answer_to_the_next_request()
        await test_a_server_that_never_reads_holds_no_connection()
        await test_connections_are_not_capped_and_are_used_again()
        for ending in (cut, reset):
            await test_a_request_is_sent_once(ending)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with new_client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(BackendUnavailable, match="refused"):
                await ask(client)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


# The interface of httpx.


async def test_our_client_is_one_of_httpx() -> None:
    async with FaultServer(ollama_reply(["a", "b"])) as server, new_client(server.url, headers={"x-y": "z"}) as client:
        answer = await client.post("/api/chat", json={"a": 1}, headers={"x-own": "1"})
        assert [json.loads(line)["done"] for line in answer.text.splitlines()] == [False, False, True]
        assert server.requests[0].json == {"a": 1}
        assert (server.requests[0].headers["x-y"], server.requests[0].headers["x-own"]) == ("z", "1")
        async with client.stream("GET", "/api/chat") as streamed:
            async for _ in streamed.aiter_lines():
                break
        assert connections_in_use(client) == 0
        with pytest.raises(httpx.ReadTimeout):
            async with FaultServer(stream([], then=hang)) as slow:
                await client.get(f"{slow.url}/x", timeout=0.05)
    with pytest.raises(httpx.ConnectError):
        async with new_client("http://127.0.0.1:9") as client:
            await client.get("/")


async def test_other_clients_of_httpx_can_be_handed_in() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/json"
        return httpx.Response(200, json={"got": json.loads(request.content)})

    async with httpx.AsyncClient(base_url="http://node", transport=httpx.MockTransport(answer)) as client:
        assert await ask(client, {"a": 1}) == {"got": {"a": 1}}


async def test_no_cause_of_an_error_carries_the_request_headers() -> None:
    async with (
        FaultServer(raw(b"SSH-2.0-OpenSSH\r\n\r\n")) as server,
        new_client(server.url, headers={"authorization": "Bearer geheim"}) as client,
    ):
        with pytest.raises(ProtocolError) as caught:
            await ask(client)
    error: BaseException | None = caught.value
    while error is not None:
        assert "geheim" not in repr(error)
        error = error.__cause__


def test_headers_that_cannot_be_sent_are_our_own_mistake() -> None:
    found, _ = translated(ValueError("Newline detected in header: secret"))
    assert isinstance(found, httpx.LocalProtocolError)
    assert "secret" not in str(found)
