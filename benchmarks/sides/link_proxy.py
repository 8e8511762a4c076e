"""A network link between two programs on one machine: a TCP proxy that delays bytes and bounds their rate.

``python link_proxy.py '{"to": ["127.0.0.1", 50052], "mbit": 1000, "rtt_ms": 1}'`` is a link of its own. It writes one
JSON line, ``{"port": N}``, and then answers one JSON line for each that it reads; it ends when its standard input does.
:class:`sides.links.Link` drives it. Standard library only, so that any interpreter runs it.

What is emulated: each direction has one queue, shared by all connections, that takes the bytes in at the link's rate
and lets them out half a round trip later; the rate is Ethernet's, of which 1448 bytes in 1538 are payload. A new
connection pays its handshake: a round trip before its first byte. The end of a stream, a half-closed one and a reset
travel like bytes, so that a program that was killed looks killed. What is not emulated: lost packets, slow start, and
the refusal of a connection, which is a reset one round trip after it was accepted.

How it is done: one thread and ``select``, whose timeout is in microseconds (that of ``poll`` is in milliseconds), and
timers of the kernel that are exact where it allows that. Bytes are read in large pieces and never looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

PIECE = 256 * 1024
"""Bytes read at once, at most. A piece leaves as a whole, once its last byte has been on the wire."""
PAYLOAD_SHARE = 1448 / 1538
"""Of a full Ethernet frame: 1500 bytes less IP, TCP and time stamps, in 1500 and framing, preamble and gap."""
SLACK_BYTES = 4 * 1024 * 1024
"""What a direction holds more than what is under way: the buffers of two machines."""
COPIED = 16 * 1024
"""Pieces up to this size are copied out of the buffer that they were read into; larger ones keep it until they left."""
AWAKE = 0.0001
"""Seconds before something is due from which on the processor is kept: a sleeping one may wake up later than that."""
PR_SET_TIMERSLACK = 29
RESET_LINGER = struct.pack("ii", 1, 0)
"""``SO_LINGER`` by which closing a socket is a reset."""
BUFFER = 4096


@dataclass
class Way:
    """One direction of the link.

    Attributes:
        free_at: When the bytes that were taken so far have left the sender, in seconds of the monotonic clock.
        count: Bytes that were let out.

    """

    free_at: float = 0.0
    count: int = 0


@dataclass
class Link:
    """What the link is like.

    Attributes:
        rate: Payload bytes a second; 0 for no bound.
        delay: Seconds from one end to the other.
        held: Whether nothing passes, as when a cable is out: both ends wait.
        own_ms: The round trip that this program costs by itself, in milliseconds; it is taken off the delay.

    """

    rate: float = 0.0
    delay: float = 0.0
    held: bool = False
    own_ms: float = 0.0
    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)

    def shape(self, mbit: float, rtt_ms: float) -> None:
        """Set the nominal rate in Mbit/s (0 for no bound) and the round trip in milliseconds."""
        self.rate = mbit * 1e6 / 8 * PAYLOAD_SHARE
        self.delay = max(0.0, rtt_ms - self.own_ms) / 2000

    @property
    def room(self) -> int:
        """How many bytes a connection may have under way in one direction."""
        return int(self.rate * self.delay) + SLACK_BYTES

    def due(self, way: Way, size: int, now: float, not_before: float) -> float:
        """Take ``size`` bytes in and return when they come out."""
        begin = max(now, not_before, way.free_at)
        way.free_at = begin + (size / self.rate if self.rate else 0.0)
        return way.free_at + self.delay


@dataclass(eq=False)
class Flow:
    """One direction of one connection: where bytes come from, where they go, and those that are under way.

    Attributes:
        queue: When something is due, and what: bytes, ``b""`` for the end of the stream, ``None`` for a reset.
        open: Whether more may come.

    """

    source: socket.socket
    target: socket.socket
    way: Way
    not_before: float
    queue: deque[tuple[float, memoryview | None]] = field(default_factory=deque)
    waiting: int = 0
    open: bool = True
    blocked: bool = False

    def put(self, due: float, piece: memoryview | None) -> None:
        """Queue a piece."""
        self.queue.append((due, piece))
        self.waiting += len(piece) if piece is not None else 0


@dataclass(eq=False)
class Connection:
    """A connection through the link: both of its sockets and both of its directions."""

    near: socket.socket
    far: socket.socket
    up: Flow
    down: Flow
    connecting: bool = True
    closed: bool = False


class Proxy:
    """The link at work.

    Args:
        address: Host and port that connections are passed on to.
        port: The port to listen at, on loopback; 0 for a free one.

    """

    def __init__(self, address: tuple[str, int], link: Link, port: int = 0) -> None:
        self.address = address
        self.link = link
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.listener.setblocking(False)
        self.connections: list[Connection] = []
        self.accepted = 0
        self.spare = [bytearray(PIECE)]
        self._commands = b""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.listener.getsockname()[1])

    def serve(self) -> None:
        """Pass bytes on until standard input ends."""
        while self.turn():
            pass
        for connection in list(self.connections):
            self.drop(connection)

    def turn(self) -> bool:
        """Wait for something to do and do it; return whether there is more to come."""
        readers: list[int | socket.socket] = [sys.stdin.fileno(), self.listener]
        writers: list[socket.socket] = []
        wake: float | None = None
        for connection in self.connections:
            if connection.connecting:
                writers.append(connection.far)
            for flow in (connection.up, connection.down):
                begun = not (connection.connecting and flow is connection.down)
                if flow.open and begun and flow.waiting < self.link.room:
                    readers.append(flow.source)
                if flow.queue and not connection.connecting and not self.link.held:
                    if flow.blocked:
                        writers.append(flow.target)
                    else:
                        wake = flow.queue[0][0] if wake is None else min(wake, flow.queue[0][0])
        timeout = None if wake is None else max(0.0, wake - time.monotonic() - AWAKE)
        readable, writable, _ = select.select(readers, writers, [], timeout)
        now = time.monotonic()
        ready = set(readable)
        able = set(writable)
        if sys.stdin.fileno() in ready and not self.obey():
            return False
        for connection in list(self.connections):
            self.advance(connection, ready, able, now)
        if self.listener in ready:
            self.accept(now)
        return True

    def advance(
        self, connection: Connection, ready: set[int | socket.socket], able: set[socket.socket], now: float
    ) -> None:
        """Take in and let out what is there for one connection."""
        if connection.connecting and connection.far in able:
            connection.connecting = False
            if connection.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                connection.up.open = connection.down.open = False
                connection.down.put(connection.up.not_before, None)
        for flow in (connection.up, connection.down):
            if flow.source in ready and flow.open and not connection.closed:
                self.take(flow, now)
        if connection.connecting or self.link.held:
            return
        for flow in (connection.up, connection.down):
            if flow.target in able:
                flow.blocked = False
            if not flow.blocked and not connection.closed:
                self.let_out(connection, flow)
        finished = not (connection.up.open or connection.down.open or connection.up.queue or connection.down.queue)
        if finished and not connection.closed:
            self.drop(connection)

    def take(self, flow: Flow, now: float) -> None:
        """Read what has come and queue it."""
        buffer = self.spare.pop() if self.spare else bytearray(PIECE)
        try:
            size = flow.source.recv_into(buffer)
        except BlockingIOError:
            self.spare.append(buffer)
            return
        except OSError:
            flow.open = False
            flow.put(max(now, flow.not_before, flow.way.free_at) + self.link.delay, None)
            return
        if not size:
            flow.open = False
        piece = memoryview(buffer)[:size]
        if size <= COPIED:
            piece = memoryview(bytes(piece))
            self.spare.append(buffer)
        flow.put(self.link.due(flow.way, size, now, flow.not_before), piece)

    def let_out(self, connection: Connection, flow: Flow) -> None:
        """Write what is due."""
        now = time.monotonic()
        while flow.queue and flow.queue[0][0] <= now:
            due, piece = flow.queue.popleft()
            if piece is None:
                self.drop(connection, reset=True)
                return
            try:
                if not len(piece):
                    flow.target.shutdown(socket.SHUT_WR)
                    continue
                sent = flow.target.send(piece)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.refused(connection, flow, now)
                return
            flow.waiting -= sent
            flow.way.count += sent
            if sent < len(piece):
                flow.queue.appendleft((due, piece[sent:]))
                flow.blocked = True
                return
            if isinstance(piece.obj, bytearray):
                self.spare.append(piece.obj)

    def refused(self, connection: Connection, flow: Flow, now: float) -> None:
        """The target is gone: its reset goes back to the source, after what the target had sent before."""
        flow.queue.clear()
        flow.waiting = 0
        flow.open = False
        back = connection.down if flow is connection.up else connection.up
        if back.open or back.queue:
            back.open = False
        last = back.queue[-1][0] if back.queue else 0.0
        back.put(max(last, now + self.link.delay), None)

    def accept(self, now: float) -> None:
        """Take a connection and begin the one behind it."""
        try:
            near, _ = self.listener.accept()
        except OSError:
            return
        far = socket.socket()
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = far.connect_ex(self.address)
        established = now + 2 * self.link.delay
        up = Flow(near, far, self.link.up, established)
        down = Flow(far, near, self.link.down, 0.0)
        self.accepted += 1
        self.connections.append(Connection(near, far, up, down, connecting=begun in (0, errno.EINPROGRESS)))
        if begun not in (0, errno.EINPROGRESS):
            up.open = down.open = False
            down.put(established, None)

    def drop(self, connection: Connection, *, reset: bool = False) -> None:
        """Close both ends, with a reset if it is one."""
        connection.closed = True
        for end in (connection.near, connection.far):
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_LINGER)
            end.close()
        self.connections.remove(connection)

    def obey(self) -> bool:
        """Do what standard input says, a JSON object a line; return whether it is still open."""
        came = os.read(sys.stdin.fileno(), BUFFER)
        *lines, self._commands = (self._commands + came).split(b"\n")
        for line in lines:
            self.command(**json.loads(line))
            usage = time.process_time()
            state = {"up": self.link.up.count, "down": self.link.down.count, "connections": len(self.connections)}
            answer({**state, "accepted": self.accepted, "cpu_seconds": round(usage, 6)})
        return bool(came)

    def command(
        self, *, mbit: float | None = None, rtt_ms: float | None = None, held: bool | None = None, cut: bool = False
    ) -> None:
        """Change the link: its rate and delay, whether nothing passes; ``cut`` resets what is connected."""
        if mbit is not None and rtt_ms is not None:
            self.link.shape(mbit, rtt_ms)
        if held is not None:
            self.link.held = held
        for connection in list(self.connections) if cut else ():
            self.drop(connection, reset=True)


def answer(value: dict[str, float]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def be_exact() -> None:
    """Have timers and wake-ups at once where the system allows it: a wire has no queue for a processor."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.nice(-15)


def main() -> None:
    """Be a link as the first argument says."""
    config = json.loads(sys.argv[1])
    link = Link(own_ms=config.get("own_ms", 0))
    link.shape(config.get("mbit", 0), config.get("rtt_ms", 0))
    proxy = Proxy(tuple(config["to"]), link, config.get("port", 0))
    be_exact()
    answer({"port": proxy.port})
    proxy.serve()


if __name__ == "__main__":
    main()
