"""HTTP: whatever happens to a call, and whenever, no connection, task or request is left behind.

Each behaviour is that of our own client and of a plain one of httpx, which people may hand in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fault_server import FaultServer, broken_chunk, cut, finish, hang, reset, stream
from http_support import connections_in_use, idle_connections

from synaptic.backends.http.client import drain, ndjson, new_client, stream_request
from synaptic.backends.http.origin import Origin
from synaptic.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_server import Ending


def plain_client(url: str) -> httpx.AsyncClient:
    """One of httpx's own; there is no TLS here, for which each would read the authorities of the machine (20 ms)."""
    return httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(None, connect=5), trust_env=False, verify=False)


clients = pytest.mark.parametrize("make", [new_client, plain_client])


async def read_ndjson(url: str, client: httpx.AsyncClient, prompt: str = "") -> list[dict[str, Any]]:
    async with (
        stream_request(client, "POST", "/x", json={"prompt": prompt}, origin=Origin("test", url)) as reply,
        aclosing(ndjson(reply, origin=Origin("test", url))) as values,
    ):
        return [value async for value in values]


def lines(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() + b"\n" for value in values]


async def leave_early(url: str, client: httpx.AsyncClient) -> None:
    async with (
        stream_request(client, "POST", "/x", json={}, origin=Origin("test", url)) as reply,
        aclosing(ndjson(reply, origin=Origin("test", url))) as values,
    ):
        async for _ in values:
            return


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def other_tasks(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return the tasks that are neither this one, nor the server's, nor were there before."""
    ours = {asyncio.current_task(), *before}
    known = ("_Connection.serve", "_accept_connection2")
    return {task for task in asyncio.all_tasks() - ours if not any(name in repr(task) for name in known)}


@clients
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_cancellation_at_any_step_closes_the_connection(
    make: Callable[[str], httpx.AsyncClient], times: int, host: str
) -> None:
    """Cancelled after each number of steps of the event loop, once and several times in a row."""
    before = asyncio.all_tasks()
    for count in range(45):
        async with FaultServer(stream(lines({"a": 1}, {"a": 2}), then=hang)) as server:
            url = server.url.replace("127.0.0.1", host)
            async with make(url) as client:
                task = asyncio.ensure_future(read_ndjson(url, client))
                await steps(count)
                for _ in range(times):
                    task.cancel()
                    await asyncio.sleep(0)
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not other_tasks(before), f"tasks are left after {count} steps"
                await server.wait_until_idle()


@clients
async def test_cancellation_of_a_finished_stream_leaves_no_connection_in_use(
    make: Callable[[str], httpx.AsyncClient],
) -> None:
    """Also at the steps in which the connection goes back to the pool."""
    for count in range(45):
        async with FaultServer(stream(lines({"a": 1}))) as server, make(server.url) as client:
            task = asyncio.ensure_future(read_ndjson(server.url, client))
            await steps(count)
            task.cancel()
            await asyncio.wait({task})
            await read_ndjson(server.url, client)
            assert await asyncio.wait_for(read_ndjson(server.url, client), 20) == [{"a": 1}]
            assert (connections_in_use(client), idle_connections(client)) == (0, 1), f"after {count} steps"


@clients
async def test_leaving_early_closes_the_connection_before_the_call_returns(
    make: Callable[[str], httpx.AsyncClient],
) -> None:
    before = asyncio.all_tasks()
    async with FaultServer(stream(lines({"a": 1}, {"a": 2}), then=hang)) as server, make(server.url) as client:
        await leave_early(server.url, client)
        assert not other_tasks(before)
        await server.wait_until_idle()


@clients
async def test_a_server_that_floods_is_read_no_faster_than_its_reader(make: Callable[[str], httpx.AsyncClient]) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        line = b'{"a":"' + b"x" * 65_000 + b'"}\n'
        while True:
            writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            await writer.drain()
            sent += len(line)

    async with (
        FaultServer(stream(lines({"a": 1}), then=flood)) as server,
        make(server.url) as client,
        stream_request(client, "POST", "/x", json={}, origin=Origin("test", server.url)) as reply,
    ):
        values = ndjson(reply, origin=Origin("test", server.url), most=2**26)
        await anext(values)
        before = -1
        async with asyncio.timeout(60):
            while sent > before:
                before = sent
                await steps(300)
        assert sent < 64 * 2**20
        for _ in range(600):
            assert await anext(values)
        await values.aclose()


@clients
@pytest.mark.parametrize("ending", [finish, hang, cut])
async def test_draining_gives_up_and_forgives(make: Callable[[str], httpx.AsyncClient], ending: Ending) -> None:
    async with (
        FaultServer(stream(lines({"a": 1}), then=ending)) as server,
        make(server.url) as client,
        stream_request(client, "POST", "/x", json={}, origin=Origin("test", server.url)) as reply,
    ):
        await drain(reply, 0.05)
        assert reply.has_ended or ending is not finish
        assert not reply.has_ended or ending is not hang
        await drain(reply, 0.05)


@clients
async def test_closing_the_client_ends_its_streams(make: Callable[[str], httpx.AsyncClient]) -> None:
    async with FaultServer(stream(lines({"a": 1}), then=hang)) as server:
        client = make(server.url)
        reading = asyncio.ensure_future(read_ndjson(server.url, client))
        await server.wait_for(lambda: len(server.requests) == 1)
        await client.aclose()
        with pytest.raises(BackendError):
            await asyncio.wait_for(reading, 20)
        await server.wait_until_idle()


@pytest.mark.parametrize("ending", [cut, reset, broken_chunk])
async def test_a_broken_connection_keeps_nothing_of_its_request(ending: Callable[..., Any]) -> None:
    """Once a call with a prompt of 195 kB kept 406 kB for ever, its Authorization header with it."""
    prompt = "x" * 195_000

    async def break_off(times: int) -> None:
        for _ in range(times):
            with pytest.raises(BackendError):
                await read_ndjson(server.url, client, prompt)
            server.forget()
        await server.wait_until_idle()
        gc.collect()

    async with FaultServer(stream(lines({"a": 1}), then=ending)) as server, new_client(server.url) as client:
        await break_off(20)  # what is made once
        tracemalloc.start()
        try:
            await break_off(20)
            before, _ = tracemalloc.get_traced_memory()
            await break_off(300)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (after - before) / 300 < 100, "bytes kept by a broken call"
