"""Links between programs on this machine, each a process of its own, and what they are really like."""

from __future__ import annotations

import functools
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Generator

PROXY = Path(__file__).with_name("link_proxy.py")
PING = b"." * 64
PINGS = 100
BULK_SECONDS = 0.3
"""How long the bytes are under way, nominally, by which a link's rate is measured."""
LARGEST_BULK = 128 * 1024 * 1024
CHUNK = 1024 * 1024
OWN_TRIES = 3
LARGEST_OWN_MS = 0.2
"""More than that is no property of the proxy but of a machine that has other work."""


class Link:
    """A link to ``host:port``. Use it as a context.

    Args:
        mbit: Its rate in Mbit/s, as on the box of a switch; 0 for no bound.
        rtt_ms: The round trip in milliseconds.
        port: Where it listens on loopback; 0 for a free port.

    Attributes:
        port: Where it listens.

    """

    def __init__(self, host: str, port: int, *, mbit: float = 0, rtt_ms: float = 0, listen: int = 0) -> None:
        own = own_round_trip_ms() if rtt_ms else 0.0
        config = {"to": [host, port], "mbit": mbit, "rtt_ms": rtt_ms, "port": listen, "own_ms": own}
        self.mbit, self.rtt_ms = mbit, rtt_ms
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-P", str(PROXY), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port = int(self._answer()["port"])

    @property
    def endpoint(self) -> str:
        """``host:port`` of its near end."""
        return f"127.0.0.1:{self.port}"

    def ask(self, **change: Any) -> dict[str, Any]:
        """Change the link if something is given, and return its counts.

        Args:
            **change: ``mbit`` and ``rtt_ms`` together; ``held=True`` to let nothing pass, ``held=False`` to let it go
                on; ``cut=True`` to reset what is connected.

        Returns:
            ``up`` and ``down``, bytes let out towards the far end and back; ``connections`` at present, ``accepted``
            ever, ``cpu_seconds`` of its process.

        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(change) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it; what is connected is closed."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the link ended with status {self._process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@functools.cache
def own_round_trip_ms() -> float:
    """Return what a round trip costs more through a link without any delay than without the link, in milliseconds.

    The least of a few measurements: what else the machine does is not the link's.
    """
    found = []
    for _ in range(OWN_TRIES):
        with _far_end(0) as port, Link("127.0.0.1", port) as link:
            through = _round_trip(link.port)
        with _far_end(0) as port:
            found.append(through - _round_trip(port))
    return min(max(0.0, min(found)) * 1e3, LARGEST_OWN_MS)


def measure(mbit: float, rtt_ms: float) -> dict[str, float]:
    """Return what a link of this kind is really like, the nominal figures beside it.

    Returns:
        Medians of the round trip of 64 bytes in milliseconds, and Mbit/s of payload each way, of many bytes at once.

    """
    bulk = int(min(LARGEST_BULK, mbit * 1e6 / 8 * BULK_SECONDS)) or LARGEST_BULK
    with _far_end(bulk) as port, Link("127.0.0.1", port, mbit=mbit, rtt_ms=rtt_ms) as link:
        with socket.create_connection(("127.0.0.1", link.port)) as near:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            round_trip = _median_of_pings(near)
            up = _timed(near, b"u" * bulk, len(PING)) - round_trip
            down = _timed(near, b"d" * len(PING), bulk) - round_trip
        busy = link.ask()["cpu_seconds"]
    return {
        "nominal_mbit": mbit,
        "nominal_rtt_ms": rtt_ms,
        "rtt_ms": round(round_trip * 1e3, 3),
        "up_mbit": round(bulk * 8e-6 / up, 1),
        "down_mbit": round(bulk * 8e-6 / down, 1),
        "cpu_seconds": busy,
    }


def _round_trip(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as near:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _median_of_pings(near)


def _median_of_pings(near: socket.socket) -> float:
    """Return the median round trip in seconds, the first few pings apart: a connection begins with a handshake."""
    trips = [_timed(near, PING, len(PING)) for _ in range(PINGS)]
    return statistics.median(trips[PINGS // 10 :])


def _timed(near: socket.socket, message: bytes, expected: int) -> float:
    begin = time.perf_counter()
    near.sendall(message)
    while expected:
        expected -= len(near.recv(min(expected, CHUNK)))
    return time.perf_counter() - begin


@contextmanager
def _far_end(bulk: int) -> Generator[int]:
    """Run a peer that echoes a ping, answers many ``u`` with a ping, and a ping of ``d`` with many bytes."""
    server = socket.create_server(("127.0.0.1", 0))
    many = b"d" * bulk

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while first := connection.recv(CHUNK):
                kind = first[:1]
                missing = (bulk if kind == b"u" else len(PING)) - len(first)
                while missing > 0:
                    missing -= len(connection.recv(CHUNK))
                connection.sendall(many if kind == b"d" else PING)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        thread.join(5)
        server.close()
