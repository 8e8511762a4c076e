"""Clients that mean no good, against a real server: slow ones that never finish, and requests that are none."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import random
import select
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HEAD = b"POST /api/show HTTP/1.1\r\nhost: 127.0.0.1\r\n"
SLOW: dict[str, bytes] = {
    "nothing": b"",
    "half headers": HEAD + b"x-a: b\r\n",
    "half body": HEAD + b"content-length: 100\r\n\r\n{",
    "half chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
    "idle": b"GET /api/version HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    "drip of headers": HEAD + b"x-a: ",
    "drip of a body": HEAD + b"content-length: 100000\r\n\r\n",
}
"""What each kind sends at once; those that drip send a byte each second after it."""


@dataclass(slots=True)
class SlowClients:
    """Many slow connections. ``ages`` are the seconds after which the server closed each; ``open`` are still there."""

    ages: list[float] = field(default_factory=list)
    open: int = 0

    async def attack(self, address: str, count: int, within: float, *, sources: int = 1) -> None:
        """Open ``count`` connections of all kinds, from so many addresses, and watch them for ``within`` seconds."""
        kinds = list(SLOW.items())
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                kind, first = kinds[number % len(kinds)]
                source = f"127.0.0.{2 + number % sources}" if sources > 1 else "127.0.0.1"
                group.create_task(self._one(address, first, drips="drip" in kind, source=source, until=began + within))

    async def _one(self, address: str, first: bytes, *, drips: bool, source: str, until: float) -> None:
        self.open += 1
        try:
            reader, writer = await asyncio.open_connection(*host_and_port(address), local_addr=(source, 0))
        except OSError:
            self.open -= 1
            self.ages.append(0.0)
            return
        began = time.monotonic()
        try:
            writer.write(first)
            closed = asyncio.create_task(self._until_closed(reader))
            while not closed.done() and time.monotonic() < until:
                await asyncio.wait([closed], timeout=min(1.0, max(until - time.monotonic(), 0.01)))
                if drips and not closed.done():
                    writer.write(b"a")
            if closed.done():
                self.open -= 1
                self.ages.append(time.monotonic() - began)
            else:
                closed.cancel()
        finally:
            writer.close()

    @staticmethod
    async def _until_closed(reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(65536):
                pass


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of ``http://127.0.0.1:1234``."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def exchange(address: str, sent: bytes, *, ends_after: float = 30.0) -> int | None:
    """Send bytes on a connection of their own and return the status of the answer; None where it is closed without.

    After ``ends_after`` seconds without an answer, the client closes its side: it will send no more.
    """
    reader, writer = await asyncio.open_connection(*host_and_port(address))
    try:
        with suppress(OSError):
            writer.write(sent)
            await writer.drain()
            answer = asyncio.create_task(reader.readline())
            if not (await asyncio.wait([answer], timeout=ends_after))[0]:
                writer.write_eof()
            line = await answer
            return int(line.split(b" ")[1]) if line.startswith(b"HTTP/1.") else None
        return None
    finally:
        writer.close()


async def statuses(address: str, requests: Iterable[bytes], *, at_once: int = 16) -> Counter[int | None]:
    """Send many requests, each on a connection of its own, and count the statuses of the answers."""
    found: Counter[int | None] = Counter()
    left = iter(requests)

    async def send() -> None:
        for sent in left:
            found[await exchange(address, sent, ends_after=0.2)] += 1

    await asyncio.gather(*(send() for _ in range(at_once)))
    return found


class OtherClient:
    """Somebody who asks on a new connection every so often, in a process of its own: the attack must not slow it down.

    ``took`` are the seconds of each answer; infinity where none came.
    """

    def __init__(self, address: str, path: str, every: float) -> None:
        """Begin with ``async with``."""
        self.took: list[float] = []
        self._command = [sys.executable, __file__, *map(str, host_and_port(address)), path, str(every)]

    async def __aenter__(self) -> Self:
        """Begin to ask; the first answer is there when this returns."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self.took.append(float(await self._process.stdout.readline()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask no more."""
        written, _ = await self._process.communicate(b"")
        self.took += map(float, written.split())


def ask(host: str, port: int, path: str, every: float) -> None:
    """Ask until standard input ends, and write how long each answer took."""
    while not select.select([sys.stdin], [], [], every)[0]:
        began = time.monotonic()
        connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            connection.request("GET", path, headers={"connection": "close"})
            answered = connection.getresponse().status == HTTPStatus.OK
        except OSError:
            answered = False
        finally:
            connection.close()
        sys.stdout.write(f"{time.monotonic() - began if answered else float('inf')}\n")
        sys.stdout.flush()


def malformed(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield requests each of which has something wrong with it: line, headers, chunks, JSON, encoding, or bytes."""
    dice = random.Random(seed)
    makers: list[Callable[[random.Random], bytes]] = [_lines, _headers, _chunks, _json, _encodings, _flipped]
    for number in range(count):
        yield makers[number % len(makers)](dice)


def _lines(dice: random.Random) -> bytes:
    return dice.choice(
        [
            b"\r\n\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1 x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(200),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /" + b"a" * dice.randrange(20000) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET http://[::1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
            b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
            b"G\x00T / HTTP/1.1\r\n\r\n",
            dice.randbytes(dice.randrange(1, 500)) + b"\r\n\r\n",
        ]
    )


def _headers(dice: random.Random) -> bytes:
    extra = dice.choice(
        [
            b"no colon",
            b": no name",
            b"x\x00y: z",
            b"a: " + b"b" * dice.randrange(20000),
            b"\r\n".join(b"a%d: b" % number for number in range(dice.randrange(200))),
            b"content-length: -1",
            b"content-length: 1e3",
            b"content-length: 5\r\ncontent-length: 6",
            b"content-length: 5\r\ntransfer-encoding: chunked",
            b"content-length: 99999999999999999999",
            b"transfer-encoding: gzip",
            b"expect: 200-ok",
            b"upgrade: websocket\r\nconnection: upgrade",
            b"connection: upgrade, keep-alive\r\nupgrade: h2c",
            b"cookie: " + dice.randbytes(50).replace(b"\n", b""),
            b" folded: x",
        ]
    )
    return HEAD + extra + b"\r\n\r\n{}"


def _chunks(dice: random.Random) -> bytes:
    body = dice.choice(
        [
            b"zz\r\n{}\r\n0\r\n\r\n",
            b"-1\r\n{}\r\n0\r\n\r\n",
            b"ffffffffffffffffff\r\n{}",
            b"2\r\n{}}}}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n",
            b"2;" + b"x" * dice.randrange(20000) + b"\r\n{}\r\n0\r\n\r\n",
            b"2\n{}\n0\n\n",
            b"2\r\n{}\r\n0\r\nx: y\r\nbad trailer\r\n\r\n",
        ]
    )
    return HEAD + b"transfer-encoding: chunked\r\n\r\n" + body


def _json(dice: random.Random) -> bytes:
    whole = json.dumps({"model": "x", "messages": [{"role": "user", "content": "é" * 50}], "options": {"seed": 1}})
    raw = dice.choice(
        [
            whole[: dice.randrange(len(whole))].encode(),
            whole.encode("utf-16"),
            whole.encode()[:40] + b"\xff\xfe",
            b"[" * dice.randrange(1, 5000),
            b'{"a":' * dice.randrange(1, 3000),
            b"[" + b"[]," * dice.randrange(20000) + b"1]",
            b'{"model": ' + b"9" * dice.randrange(1, 6000) + b"}",
            b'{"model": NaN}',
            b'{"model": "\\ud800"}',
            b'{"model": {}, "model": []}',
            b"null",
            b"\xef\xbb\xbf{}",
            b"",
        ]
    )
    path = dice.choice([b"show", b"chat", b"generate", b"embed", b"embeddings", b"pull"])
    return _with_body(HEAD.replace(b"show", path), raw)


def _encodings(dice: random.Random) -> bytes:
    packed = gzip.compress(b'{"model": "x"}' + b" " * dice.randrange(100_000))
    name, raw = dice.choice(
        [
            (b"gzip", b"{}"),
            (b"gzip", packed[: dice.randrange(len(packed))]),
            (b"gzip", packed + packed),
            (b"deflate", packed),
            (b"br", packed),
            (b"zstd", packed),
            (b"gzip, gzip", gzip.compress(packed)),
            (b"\xff", packed),
            (b"x" * 1000, packed),
            (b"gzip", dice.randbytes(500)),
        ]
    )
    return _with_body(HEAD + b"content-encoding: " + name + b"\r\n", raw)


def _flipped(dice: random.Random) -> bytes:
    raw = bytearray(_with_body(HEAD + b"content-type: application/json\r\n", b'{"model": "nothing"}'))
    for _ in range(dice.randrange(1, 8)):
        raw[dice.randrange(len(raw))] = dice.randrange(256)
    return bytes(raw)


def _with_body(head: bytes, raw: bytes) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(raw) + raw


if __name__ == "__main__":
    ask(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
