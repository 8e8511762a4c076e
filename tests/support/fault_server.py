"""A raw socket server that misbehaves on demand, for the tests of everything that speaks HTTP.

A behaviour is an async callable ``(reader, writer, request)`` that writes whatever it likes; the functions below make
the usual ones. The server speaks just enough HTTP/1.1 to read a request, and keeps a connection for the next one unless
the behaviour closed it. It notices at once when a client leaves, so that tests can wait for it.

    async with FaultServer(ollama_reply(["Hel", "lo"], then=hang)) as server:
        ... server.url, server.requests, await server.wait_until_idle()
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Request], Awaitable[None]]
Ending: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Script: TypeAlias = Behaviour | Sequence[Behaviour]


class FaultServer:
    """Serve ``script`` on a free port of 127.0.0.1.

    Attributes:
        requests: Every request, in the order of arrival.
        open_connections: How many clients are connected now.
        connections: How many there were in all.

    """

    def __init__(self, script: Script | Mapping[str, Script]) -> None:
        """Take one behaviour for all, a list (one a request, the last repeats), or either of them by path."""
        self._scripts = script if isinstance(script, Mapping) else {"*": script}
        self._served: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._live: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._live)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        bugs = [result for result in results if isinstance(result, Exception)]
        if bugs:
            raise ExceptionGroup("behaviours of the fault server failed", bugs)

    async def stop(self) -> None:
        """Stop listening and cut every connection; the port refuses from now on."""
        assert self._server is not None
        self._server.close()
        for connection in tuple(self._live):
            connection.transport.abort()
        await self.wait_until_idle()

    async def wait_until_idle(self, seconds: float = 60.0) -> None:
        """Return once no client is connected; fail after ``seconds``."""
        await self.wait_for(lambda: not self._live, seconds)

    async def wait_for(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Return once ``condition`` holds; it is asked whenever a client comes, asks or leaves."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def behaviour(self, path: str) -> Behaviour:
        """Return what answers the next request for ``path``."""
        key = path if path in self._scripts else "*"
        script = self._scripts.get(key, respond(404, b"404 page not found", "text/plain"))
        if callable(script):
            return script
        turn = self._served.get(key, 0)
        self._served[key] = turn + 1
        return script[min(turn, len(script) - 1)]

    def forget(self) -> None:
        """Drop what was asked so far, where a test counts memory."""
        self.requests.clear()
        self._tasks = {task for task in self._tasks if not task.done()}

    def opened(self, connection: _Connection) -> None:
        self._live.add(connection)
        self.connections += 1
        self._changed.set()

    def asked(self, request: Request) -> None:
        self.requests.append(request)
        self._changed.set()

    def closed(self, connection: _Connection) -> None:
        self._live.discard(connection)
        self._changed.set()

    def start(self, connection: _Connection) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(connection.serve())
        self._tasks.add(task)
        return task


class _Connection(asyncio.StreamReaderProtocol):
    """One client. A client that closes its side is gone: half-closed connections are not kept."""

    transport: asyncio.Transport

    def __init__(self, server: FaultServer) -> None:
        self._faults = server
        self._incoming = asyncio.StreamReader(limit=2**26)
        super().__init__(self._incoming, self._connected)

    def _connected(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._outgoing = writer
        self.transport = writer.transport  # type: ignore[assignment]
        self._faults.opened(self)
        self._serving = self._faults.start(self)

    def eof_received(self) -> bool:
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._serving.cancel()
        self._faults.closed(self)

    async def serve(self) -> None:
        try:
            while not self._outgoing.is_closing():
                first = await self._incoming.readexactly(1)
                if first == b"\x16":  # the greeting of TLS, which this server does not speak
                    self._outgoing.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                request = await read_request(self._incoming, first)
                self._faults.asked(request)
                await self._faults.behaviour(request.path)(self._incoming, self._outgoing, request)
                await self._outgoing.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._outgoing.close()


async def read_request(reader: asyncio.StreamReader, first: bytes = b"") -> Request:
    """Read one request with its body; ``first`` is what has been read of it already."""
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.rstrip().split("\r\n")
    method, path, _ = line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


async def finish(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End a chunked body as it should be."""
    writer.write(b"0\r\n\r\n")


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Send nothing more until the client leaves."""
    await reader.read()


async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection in the orderly way of TCP (FIN)."""
    writer.close()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection the hard way (RST), after what was written has gone out."""
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def broken_chunk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what is no chunk of a chunked body."""
    writer.write(b"this is no chunk size\r\n\r\n")
    writer.close()


def before_headers(ending: Ending) -> Behaviour:
    """Answer nothing and then hang, cut or reset."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Request) -> None:
        await ending(reader, writer)

    return behave


def raw(data: bytes) -> Behaviour:
    """Send exactly ``data`` and close."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Request) -> None:
        writer.write(data)
        writer.close()

    return behave


def respond(
    status: int,
    body: bytes = b"",
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Behaviour:
    """Answer properly with ``status`` and ``body``."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: Request) -> None:
        fields = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
        writer.write(_head(status, fields) + body)

    return behave


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer properly with a JSON value."""
    return respond(status, json.dumps(value).encode(), headers=headers)


def html(status: int = 200) -> Behaviour:
    """Answer with a web page, as a router or a proxy does."""
    return respond(status, b"<!DOCTYPE html>\n<html><body><h1>It works!</h1></body></html>", "text/html; charset=utf-8")


def stream(
    pieces: Iterable[bytes],
    *,
    then: Ending = finish,
    delay: float = 0.0,
    content_type: str = "application/x-ndjson",
    status: int = 200,
) -> Behaviour:
    """Send each piece as a chunk (and a packet) of its own, ``delay`` seconds apart, then end as told."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Request) -> None:
        writer.write(_head(status, {"content-type": content_type, "transfer-encoding": "chunked"}))
        for piece in pieces:
            await asyncio.sleep(delay)
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        await then(reader, writer)

    return behave


def ollama_lines(tokens: Iterable[str], *, done: bool = True, **final: Any) -> list[bytes]:
    """Return the lines of a reply of Ollama's ``/api/chat``; ``final`` adds to the last object or changes it."""
    objects: list[dict[str, Any]] = [
        {"model": "tiny:latest", "message": {"role": "assistant", "content": token}, "done": False} for token in tokens
    ]
    if done:
        last = {
            "model": "tiny:latest",
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "total_duration": 5_000_000_000,
            "load_duration": 1_500_000_000,
            "prompt_eval_count": 11,
            "prompt_eval_duration": 250_000_000,
            "eval_count": 7,
            "eval_duration": 2_000_000_000,
        }
        objects.append({**last, **final})
    return [json.dumps(value).encode() + b"\n" for value in objects]


def ollama_reply(
    tokens: Iterable[str], *, done: bool = True, then: Ending = finish, delay: float = 0.0, **final: Any
) -> Behaviour:
    """Answer as Ollama's ``/api/chat`` does, up to ``then``."""
    return stream(ollama_lines(tokens, done=done, **final), then=then, delay=delay)


def sse_events(values: Iterable[object], *, done: bool = True) -> list[bytes]:
    """Return server-sent events, ``[DONE]`` last."""
    events = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in values]
    return [*events, b"data: [DONE]\n\n"] if done else events


def sse_reply(values: Iterable[object], *, done: bool = True, then: Ending = finish, delay: float = 0.0) -> Behaviour:
    """Answer as OpenAI-compatible servers stream, up to ``then``."""
    return stream(sse_events(values, done=done), then=then, delay=delay, content_type="text/event-stream")


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
