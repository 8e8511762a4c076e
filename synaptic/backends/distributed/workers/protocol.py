"""llama.cpp's RPC protocol as far as a probe needs it: what is sent, what comes back. Pure functions over bytes.

A request is ``u8 command | u64 length | payload``, a reply ``u64 length | payload``, all little-endian and packed; not
every command is answered. There is no request id, no checksum and no error: a worker that dislikes something closes
the connection. Source: ``ggml/src/ggml-rpc/ggml-rpc.cpp`` of llama.cpp, from its first version to 7.0.0.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from synaptic.settings import WORKER_PORT, split_host_port

LENGTH: Final = struct.Struct("<Q")
"""What stands before every reply."""

HELLO_REPLY_BYTES: Final = 28
OLD_HELLO_REPLY_BYTES: Final = 3

_HEADER: Final = struct.Struct("<BQ")
_CAPABILITIES: Final = bytes(24)  # all zero: TCP and nothing else
_DEVICE: Final = struct.Struct("<I")
_ALLOCATION: Final = struct.Struct("<IQ")
_U64: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")
_CLEAR: Final = struct.Struct("<QB")
# What ends it was padding before version 5.1, and is the number of uses since then: 0 serves for both.
_TENSOR: Final = struct.Struct("<QIQ4I4II64si10QQQQ64si")
_VERSION: Final = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")


class RpcCommand(IntEnum):
    """The first byte of a request."""

    ALLOC_BUFFER = 0
    GET_ALIGNMENT = 1
    GET_MAX_SIZE = 2
    BUFFER_GET_BASE = 3
    FREE_BUFFER = 4
    BUFFER_CLEAR = 5
    SET_TENSOR = 6
    GET_TENSOR = 8
    GRAPH_COMPUTE = 10
    GET_DEVICE_MEMORY = 11
    HELLO = 14
    DEVICE_COUNT = 15
    GRAPH_RECOMPUTE = 16


class ProtocolVersion(NamedTuple):
    """A version of the protocol. Those before 1.0 had no number; they are 0.0.0 here."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return "before 1.0" if self == BEFORE_HELLO else f"{self.major}.{self.minor}.{self.patch}"

    @classmethod
    def parse(cls, text: str) -> ProtocolVersion | None:
        """Return the version that ``7.0.0`` or ``before 1.0`` stands for, ``None`` for any other text."""
        if text == str(BEFORE_HELLO):
            return BEFORE_HELLO
        match = _VERSION.fullmatch(text)
        return None if match is None else cls(*(int(part) for part in match.groups()))


BEFORE_HELLO: Final = ProtocolVersion(0, 0, 0)
NEWEST_MAJOR: Final = 7
"""The last major whose layouts are known here; of a newer one only the greeting is."""


class Endpoint(NamedTuple):
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return what ``host:port`` names, or ``host`` for the usual port.

        Raises:
            ConfigError: If it is neither; the message continues the address.
        """
        host, port = split_host_port(text)
        return cls(host, WORKER_PORT if port is None else port)


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """What is sent.

    Attributes:
        payload: What follows the header.
        reply_bytes: The one length that the reply's payload may have; ``None`` where none comes.
    """

    command: RpcCommand
    payload: bytes
    reply_bytes: int | None

    def frame(self) -> bytes:
        """Return the bytes to send."""
        return _HEADER.pack(self.command, len(self.payload)) + self.payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor in a worker's buffer, up to two dimensions.

    Attributes:
        identity: Any number but 0; names it inside a graph.
        kind: ``ggml_type``.
        shape: Numbers of elements, the contiguous dimension first.
        strides: Bytes from one element (block, for quantised types) to the next, and from one row to the next.
        buffer: What the worker called its buffer.
        address: Where its data begin, in the worker's memory.
        operation: ``ggml_op`` that computes it; 0 for data. The numbers differ between versions.
        flags: ``ggml_tensor_flag``.
        sources: Identities of what it is computed from.
    """

    identity: int
    kind: int
    shape: tuple[int, int]
    strides: tuple[int, int]
    buffer: int
    address: int
    operation: int = 0
    flags: int = 0
    sources: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """Return it as ``rpc_tensor``, 296 bytes."""
        columns, rows = self.shape
        step, row = self.strides
        sources = self.sources + (0,) * (10 - len(self.sources))
        return _TENSOR.pack(
            self.identity,
            self.kind,
            self.buffer,
            *(columns, rows, 1, 1),
            *(step, row, row * rows, row * rows),
            self.operation,
            bytes(64),
            self.flags,
            *sources,
            *(0, 0),
            self.address,
            b"",
            0,
        )


class Dialect:
    """How requests are written for a worker of one version."""

    def __init__(self, version: ProtocolVersion) -> None:
        self.version = version
        self._many_devices = version.major >= 3
        self._quiet = version.major >= 6

    @property
    def counts_devices(self) -> bool:
        """Whether a worker may have several devices; before version 3 each had one, and was not asked."""
        return self._many_devices

    def device_count(self) -> RpcRequest:
        """Ask for the number of devices (u32)."""
        return RpcRequest(RpcCommand.DEVICE_COUNT, b"", 4)

    def device_memory(self, device: int) -> RpcRequest:
        """Ask for a device's free and total memory (two u64, bytes)."""
        return RpcRequest(RpcCommand.GET_DEVICE_MEMORY, self._device(device), 16)

    def alignment(self, device: int) -> RpcRequest:
        """Ask for the alignment of a device's buffers (u64, bytes). It costs the worker next to nothing."""
        return RpcRequest(RpcCommand.GET_ALIGNMENT, self._device(device), 8)

    def max_size(self, device: int) -> RpcRequest:
        """Ask for the largest buffer of a device (u64, bytes)."""
        return RpcRequest(RpcCommand.GET_MAX_SIZE, self._device(device), 8)

    def alloc_buffer(self, device: int, size: int) -> RpcRequest:
        """Ask for a buffer: its name, 0 if there is no room, and its real size (two u64)."""
        payload = _ALLOCATION.pack(device, size) if self._many_devices else _U64.pack(size)
        return RpcRequest(RpcCommand.ALLOC_BUFFER, payload, 16)

    def buffer_base(self, buffer: int) -> RpcRequest:
        """Ask where a buffer begins (u64)."""
        return RpcRequest(RpcCommand.BUFFER_GET_BASE, _U64.pack(buffer), 8)

    def free_buffer(self, buffer: int) -> RpcRequest:
        """Give a buffer back; a worker also frees what a client left when it went."""
        return RpcRequest(RpcCommand.FREE_BUFFER, _U64.pack(buffer), None if self._quiet else 0)

    def clear_buffer(self, buffer: int) -> RpcRequest:
        """Fill a buffer with zeros."""
        return RpcRequest(RpcCommand.BUFFER_CLEAR, _CLEAR.pack(buffer, 0), None if self._quiet else 0)

    def set_tensor(self, tensor: Tensor, data: bytes) -> RpcRequest:
        """Write ``data`` into a tensor, from its beginning. The worker keeps no copy in its tensor cache."""
        # Before version 7 there was no flag for that; the cache then took what was larger than 10 MiB.
        flag = b"\0" if self.version.major >= 7 else b""
        answered = self.version.major < 2
        payload = b"".join((tensor.pack(), flag, _U64.pack(0), data))
        return RpcRequest(RpcCommand.SET_TENSOR, payload, 0 if answered else None)

    def get_tensor(self, tensor: Tensor, size: int) -> RpcRequest:
        """Ask for the first ``size`` bytes of a tensor."""
        return RpcRequest(RpcCommand.GET_TENSOR, tensor.pack() + _PAIR.pack(0, size), size)

    def graph_compute(self, device: int, nodes: tuple[int, ...], tensors: tuple[Tensor, ...]) -> RpcRequest:
        """Compute a graph; versions 7 only (its layout changed twice before)."""
        payload = b"".join(
            (
                struct.pack("<II", device, len(nodes)),
                struct.pack(f"<{len(nodes)}Q", *nodes),
                struct.pack("<I", len(tensors)),
                *(tensor.pack() for tensor in tensors),
            )
        )
        return RpcRequest(RpcCommand.GRAPH_COMPUTE, payload, None)

    def graph_recompute(self, device: int) -> RpcRequest:
        """Compute the same graph again; versions 7 only."""
        return RpcRequest(RpcCommand.GRAPH_RECOMPUTE, _DEVICE.pack(device), None)

    def _device(self, device: int) -> bytes:
        return _DEVICE.pack(device) if self._many_devices else b""


def greetings() -> tuple[RpcRequest, ...]:
    """Return the first requests to try, each on a connection of its own, the newest first.

    A worker closes the connection at a greeting that is not its own: that of versions 4 and later, that of 1 to 3,
    and, before there were greetings, any request at all.
    """
    return (
        RpcRequest(RpcCommand.HELLO, _CAPABILITIES, HELLO_REPLY_BYTES),
        RpcRequest(RpcCommand.HELLO, b"", OLD_HELLO_REPLY_BYTES),
        Dialect(BEFORE_HELLO).alignment(0),
    )


def greeted_version(greeting: RpcRequest, reply: bytes) -> ProtocolVersion | None:
    """Return the version in the reply to one of :func:`greetings`, ``None`` if no worker of that kind says that."""
    if greeting.command is not RpcCommand.HELLO:
        return BEFORE_HELLO
    version = ProtocolVersion(*reply[:3])
    newer = greeting.reply_bytes == HELLO_REPLY_BYTES
    plausible = version.major >= 4 if newer else 1 <= version.major <= 3
    return version if plausible else None


def decode_count(reply: bytes) -> int:
    """Return the u32 of a reply."""
    value: int = _DEVICE.unpack(reply)[0]
    return value


def decode_number(reply: bytes) -> int:
    """Return the u64 of a reply."""
    value: int = _U64.unpack(reply)[0]
    return value


def decode_pair(reply: bytes) -> tuple[int, int]:
    """Return the two u64 of a reply."""
    first, second = _PAIR.unpack(reply)
    return first, second


@dataclass(frozen=True, slots=True)
class Party:
    """A program that speaks the protocol: what messages call it, and its version."""

    name: str
    version: ProtocolVersion


@dataclass(frozen=True, slots=True)
class Compatibility:
    """Whether two parties may work together; true if they may.

    Attributes:
        hint: What to do about it, "" if nothing is to be done.
    """

    ok: bool
    message: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.ok


def compatible(a: Party, b: Party) -> Compatibility:
    """Return whether two parties speak exactly the same version: major, minor and patch.

    llama.cpp itself compares less: it ignores the patch, although the numbers of the operations change with it, and
    aborts where the rest differs.
    """
    if a.version == b.version:
        return Compatibility(ok=True, message=f"{a.name} and {b.name} both speak RPC {_shown(a)}")
    older = min(a, b, key=lambda party: party.version)
    return Compatibility(
        ok=False,
        message=f"{a.name} speaks RPC {_shown(a)} and {b.name} {_shown(b)}; all three numbers have to be equal",
        hint=f"{older.name} is the older: give both the same llama.cpp build (synaptic engine install on each machine, "
        "or engine use DIR), and restart the worker",
    )


def _shown(party: Party) -> str:
    return f"of a time {party.version}" if party.version == BEFORE_HELLO else str(party.version)
