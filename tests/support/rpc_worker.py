"""A stand-in for llama.cpp's RPC server that speaks every major version of its protocol, and misbehaves on demand.

It is as strict as the real one: a payload of a wrong length, a command that its version does not know or a pointer
that it never gave away ends the connection. It serves one client at a time, and the next one waits in the queue. It
imports nothing of the package, so that a mistake in the layouts there is no mistake here.

    with RpcWorker(version=(6, 0, 0)) as worker:
        ... worker.port, worker.commands, worker.buffers

As a program (``python rpc_worker.py --version 7.0.0``) it prints its port, and what the real one prints; it leaves
SIGPIPE as the system has it, so it dies when it answers a client that has gone.
"""

from __future__ import annotations

import argparse
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOC, ALIGNMENT, MAX_SIZE, BASE, FREE, CLEAR, SET, GET = 0, 1, 2, 3, 4, 5, 6, 8
COMPUTE, MEMORY, HELLO, COUNT, RECOMPUTE = 10, 11, 14, 15, 16
NAMES = {
    ALLOC: "ALLOC_BUFFER",
    ALIGNMENT: "GET_ALIGNMENT",
    MAX_SIZE: "GET_MAX_SIZE",
    BASE: "BUFFER_GET_BASE",
    FREE: "FREE_BUFFER",
    CLEAR: "BUFFER_CLEAR",
    SET: "SET_TENSOR",
    GET: "GET_TENSOR",
    COMPUTE: "GRAPH_COMPUTE",
    MEMORY: "GET_DEVICE_MEMORY",
    HELLO: "HELLO",
    COUNT: "DEVICE_COUNT",
    RECOMPUTE: "GRAPH_RECOMPUTE",
}
TENSOR_BYTES = 296
SOURCES_AT, DATA_AT = 124, 220  # in rpc_tensor
GIB = 1024**3
BASE_ADDRESS = 0x7F0000000000
DEVICES = ((24 * GIB, 24 * GIB),)

Faults = dict[str, str]


class _Closed(Exception):
    """The client has gone, or what it sent is wrong."""


class RpcWorker:
    """Serve on a free port of 127.0.0.1, in a thread.

    Args:
        version: What it speaks; (0, 0, 0) is a worker from before there was a HELLO.
        devices: Free and total memory of each, in bytes.
        faults: RpcCommand name -> what happens instead of a right answer: ``silent``, ``close``, ``garbage``, ``short``
            (part of the payload, then the end), ``header`` (part of the length), ``length`` (a wrong one), ``slow`` (a
            byte now and then).
            ``ACCEPT`` is for every client before it says anything, and takes ``silent``, ``close``, ``http``, ``ssh``.
        says: RpcCommand name -> payload to answer instead.
        room: Bytes that buffers may take together.
        port: Where to listen, instead of on a free one.

    """

    def __init__(
        self,
        version: tuple[int, int, int] = (7, 0, 0),
        *,
        devices: tuple[tuple[int, int], ...] = DEVICES,
        faults: Faults | None = None,
        says: dict[str, bytes] | None = None,
        room: int = GIB,
        port: int = 0,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.version = version
        self.devices = devices
        self.faults = faults or {}
        self.says = says or {}
        self.room = room
        self.commands: list[tuple[str, int]] = []
        self.buffers: dict[int, int] = {}
        self.largest = 0
        self.connections = 0
        self._log = log
        self._stopped = threading.Event()
        self._client: socket.socket | None = None
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(1)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self.serve, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.commands]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        client = self._client
        if client is not None:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._listener.close()

    def serve(self) -> None:
        self._listener.settimeout(0.05)
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._log("Accepted client connection")
            self._client = client
            try:
                self._serve_client(client)
            except (_Closed, OSError):
                pass
            finally:
                self._client = None
                client.close()
                self.buffers.clear()
            self._log("Client connection closed")

    def _serve_client(self, client: socket.socket) -> None:
        self._accept(client)
        greeted = self.version[0] == 0
        while True:
            command = self._receive(client, 1)[0]
            if not greeted and command != HELLO:
                return
            (length,) = struct.unpack("<Q", self._receive(client, 8))
            name = NAMES.get(command, str(command))
            if command not in self._known() or (self._lengths(command) not in {None, length}) or length > GIB:
                self.commands.append((f"refused {name}", length))
                return  # what was not read makes this a reset, as with the real one
            payload = self._receive(client, length)
            self.commands.append((name, length))
            greeted = True
            self._answer(client, command, payload)

    def _accept(self, client: socket.socket) -> None:
        fault = self.faults.get("ACCEPT")
        if fault == "silent":
            while client.recv(65536):
                pass
        elif fault == "http":
            client.recv(1)
            client.sendall(b"HTTP/1.1 400 Bad RpcRequest\r\nConnection: close\r\n\r\n")
        elif fault == "ssh":
            client.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            client.recv(65536)
        if fault:
            raise _Closed

    def _known(self) -> set[int]:
        known = {ALLOC, ALIGNMENT, MAX_SIZE, BASE, FREE, CLEAR, SET, GET, COMPUTE, MEMORY}
        major = self.version[0]
        return known | ({HELLO} if major >= 1 else set()) | ({COUNT} if major >= 3 else set()) | {RECOMPUTE}

    def _lengths(self, command: int) -> int | None:
        major = self.version[0]
        device = 4 if major >= 3 else 0
        lengths = {
            HELLO: 24 if major >= 4 else 0,
            COUNT: 0,
            MEMORY: device,
            ALIGNMENT: device,
            MAX_SIZE: device,
            ALLOC: device + 8,
            BASE: 8,
            FREE: 8,
            CLEAR: 9,
            GET: TENSOR_BYTES + 16,
            RECOMPUTE: 4,
        }
        return lengths.get(command)

    def _answer(self, client: socket.socket, command: int, payload: bytes) -> None:
        reply = self._reply(command, payload)
        name = NAMES[command]
        reply = self.says.get(name, reply)
        fault = self.faults.get(name)
        if fault is None:
            if reply is not None:
                client.sendall(struct.pack("<Q", len(reply)))  # twice, as the real one does
                if reply:
                    client.sendall(reply)
            return
        assert reply is not None
        self._misbehave(client, fault, reply)
        raise _Closed

    def _misbehave(self, client: socket.socket, fault: str, reply: bytes) -> None:
        head = struct.pack("<Q", len(reply))
        sends = {
            "garbage": bytes(range(200, 256)),
            "short": head + reply[: len(reply) // 2],
            "header": head[:2],
            "length": struct.pack("<Q", 2**40) + reply,
        }
        assert fault in {*sends, "silent", "close", "slow"}
        client.sendall(sends.get(fault, b""))
        while fault in {"silent", "length"} and client.recv(65536):
            pass
        for byte in head + reply if fault == "slow" else b"":
            client.sendall(bytes([byte]))
            if self._stopped.wait(0.2):
                break

    def _reply(self, command: int, payload: bytes) -> bytes | None:
        major = self.version[0]
        empty = None if major >= 6 else b""
        if command == HELLO:
            return bytes(self.version) + (bytes(25) if major >= 4 else b"")
        if command == COUNT:
            return struct.pack("<I", len(self.devices))
        if command in {MEMORY, ALIGNMENT, MAX_SIZE}:
            memory = self._device(payload)
            return {
                MEMORY: struct.pack("<QQ", *memory),
                ALIGNMENT: struct.pack("<Q", 64),
                MAX_SIZE: struct.pack("<Q", 2**64 - 1),
            }[command]
        if command == ALLOC:
            self._device(payload[:-8])
            (size,) = struct.unpack("<Q", payload[-8:])
            if sum(self.buffers.values()) + size > self.room:
                return struct.pack("<QQ", 0, 0)
            buffer = 0x1000 + 0x100 * len(self.buffers)
            self.buffers[buffer] = size
            self.largest = max(self.largest, size)
            return struct.pack("<QQ", buffer, size)
        if command in {BASE, FREE, CLEAR}:
            (buffer,) = struct.unpack_from("<Q", payload)
            self._need(buffer in self.buffers)
            if command == FREE:
                del self.buffers[buffer]
            return struct.pack("<Q", BASE_ADDRESS) if command == BASE else empty
        return self._tensor_reply(command, payload)

    def _tensor_reply(self, command: int, payload: bytes) -> bytes | None:
        major = self.version[0]
        if command == SET:
            header = TENSOR_BYTES + 8 + (major >= 7)
            (offset,) = struct.unpack_from("<Q", payload, header - 8)
            self._within(payload, offset, len(payload) - header)
            self._need(major < 7 or payload[TENSOR_BYTES] == 0)  # not into the cache
            return b"" if major < 2 else None
        if command == GET:
            offset, size = struct.unpack_from("<QQ", payload, TENSOR_BYTES)
            self._within(payload, offset, size)
            return bytes(size)
        if command == COMPUTE:
            device, count = struct.unpack_from("<II", payload)
            nodes = struct.unpack_from(f"<{count}Q", payload, 8)
            (tensors,) = struct.unpack_from("<I", payload, 8 + 8 * count)
            start = 12 + 8 * count
            self._need(len(payload) == start + tensors * TENSOR_BYTES and device < len(self.devices))
            listed = [payload[start + index * TENSOR_BYTES :][:TENSOR_BYTES] for index in range(tensors)]
            names = {struct.unpack_from("<Q", tensor)[0]: tensor for tensor in listed}
            for tensor in listed:
                self._within(tensor, 0, tensor_bytes(tensor))
            sources = {
                source for node in nodes for source in struct.unpack_from("<10Q", names[node], SOURCES_AT) if source
            }
            self._need(set(nodes) <= set(names) and sources <= set(names) and sources)
        return None

    def _device(self, payload: bytes) -> tuple[int, int]:
        index = struct.unpack("<I", payload)[0] if payload else 0
        self._need(index < len(self.devices))
        return self.devices[index]

    def _within(self, tensor: bytes, offset: int, size: int) -> None:
        _, _, buffer = struct.unpack_from("<QIQ", tensor)
        (data,) = struct.unpack_from("<Q", tensor, DATA_AT)
        self._need(buffer in self.buffers)
        self._need(data >= BASE_ADDRESS and data + offset + size <= BASE_ADDRESS + self.buffers[buffer])
        self._need(size <= tensor_bytes(tensor))

    def _need(self, condition: object) -> None:
        if not condition:
            self.commands.append(("refused", 0))
            raise _Closed

    @staticmethod
    def _receive(client: socket.socket, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = client.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise _Closed
            parts += part
        return bytes(parts)


def tensor_bytes(tensor: bytes) -> int:
    """Return how many bytes a packed tensor has, as ``ggml_nbytes`` counts them."""
    kind = struct.unpack_from("<I", tensor, 8)[0]
    shape = struct.unpack_from("<4I", tensor, 20)
    strides = struct.unpack_from("<4I", tensor, 36)
    block, size = {0: (1, 4), 2: (32, 18)}[kind]
    return shape[0] // block * size + sum((n - 1) * stride for n, stride in zip(shape[1:], strides[1:], strict=True))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="7.0.0")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="COMMAND=WHAT")
    chosen = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    version = tuple(int(part) for part in chosen.version.split("."))
    assert len(version) == 3
    faults = dict(fault.split("=") for fault in chosen.fault)
    worker = RpcWorker(version, faults=faults, port=chosen.port, log=say)
    say(str(worker.port))
    worker.serve()


if __name__ == "__main__":
    sys.exit(main())
