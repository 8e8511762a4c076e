"""The messages of a token between llama-server and a worker, as programs of their own: ``token_trip.py serve``.

``serve`` prints its port and answers; ``ask PORT COUNT BYTES`` prints the microseconds of the tenth of the trips that
were fastest. What goes there are seven commands, each in three writes; what comes back are eight bytes and BYTES.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from typing import Final

COMMANDS: Final = ((6, 2609), (6, 309), (6, 313), (6, 313), (6, 817), (16, 4), (8, 312))
"""Number and bytes, as a worker in the middle of SmolLM2-135M gets them for a token."""
MIDDLE: Final = 2304
"""Bytes of what the next layer gets."""
LAST: Final = 4 * 49_152
"""Bytes of what comes back of the last layer: a number for each word that the model knows."""
_THERE: Final = sum(9 + size for _, size in COMMANDS)
REST: Final = 0.002


def serve() -> None:
    """Answer who connects; the first message says in eight bytes how long each answer is to be."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not (size := _take(connection, 8)):
        return
    back = bytes(int.from_bytes(size, "little"))
    while _take(connection, _THERE):
        connection.sendall(bytes(8))
        connection.sendall(back)


def ask(port: int, count: int, size: int) -> None:
    """Make the trips one after another, with a rest between them as a worker that computes makes one."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(size.to_bytes(8, "little"))
    trips = []
    for _ in range(count):
        began = time.perf_counter()
        for number, length in COMMANDS:
            connection.sendall(bytes((number,)))
            connection.sendall(length.to_bytes(8, "little"))
            connection.sendall(bytes(length))
        _take(connection, 8 + size)
        trips.append(time.perf_counter() - began)
        time.sleep(REST)
    print(round(1e6 * sorted(trips)[count // 10]))


def _take(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes, or none at the end."""
    taken = bytearray()
    while len(taken) < size:
        more = connection.recv(size - len(taken))
        if not more:
            return b""
        taken += more
    return bytes(taken)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else ask(*map(int, sys.argv[2:]))
