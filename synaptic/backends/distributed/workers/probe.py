"""Talk to one RPC worker: greet it, and ask what it is. Every wait and every reply is bounded.

A worker serves one client at a time, and dies when it answers one that has hung up in the meantime: llama.cpp's RPC
server does not ignore SIGPIPE. Two things follow. No worker that may be held is contacted (``registry.py``). And as
long as an answer is outstanding, our end closes with a reset instead of an end of stream, even if this process is
killed: the worker's system then reports the broken connection as an error, and sends no signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.workers.private_address import allowing, public_ones
from synaptic.backends.distributed.workers.protocol import (
    LENGTH,
    NEWEST_MAJOR,
    Dialect,
    Endpoint,
    ProtocolVersion,
    decode_count,
    decode_number,
    decode_pair,
    greeted_version,
    greetings,
)
from synaptic.errors import BackendBusy, BackendUnavailable, ProtocolError
from synaptic.processes import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from synaptic.backends.distributed.workers.protocol import RpcRequest

MAX_DEVICES: Final = 64
"""More than a coordinator can use (15); a worker that claims more is not believed."""
QUOTED_BYTES: Final = 8
START_HINT: Final = (
    "start one there: synaptic workers start --host ADDRESS --port PORT (docs/how-to/distributed-inference.md)"
)

_BACKEND = "distributed"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_END_ON_CLOSE = struct.pack("ii", 0, 0)
_SCRATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """How long is waited, in seconds.

    Attributes:
        resolve: For the address of a name.
        connect: For a connection.
        answer: For each reply, from the request to its last byte.
        whole: For all that a probe asks, once the worker has been greeted.
    """

    resolve: float = 5.0
    connect: float = 5.0
    answer: float = 5.0
    whole: float = 20.0


DEFAULT_LIMITS: Final = ProbeLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device of a worker. The protocol tells neither its name nor its kind.

    Attributes:
        index: Its number at the worker.
        memory_free: Bytes, as the worker says. A CPU says that all of its memory is free, whatever is.
        memory_total: Bytes.
        alignment: Of its buffers, in bytes.
        max_size: Of one buffer, in bytes; 2^64-1 where there is no limit.
    """

    index: int
    memory_free: int
    memory_total: int
    alignment: int
    max_size: int

    @property
    def memory_is_doubtful(self) -> bool:
        """Whether it says that everything is free, as a CPU does; a GPU keeps some for itself."""
        return self.memory_free == self.memory_total


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What a worker said of itself.

    Attributes:
        version: Of its protocol.
        devices: In its own order; empty where the version is newer than what is known here.
        round_trip: The shortest time from a request to its answer, in seconds.
    """

    version: ProtocolVersion
    devices: tuple[Device, ...]
    round_trip: float


async def probe(endpoint: Endpoint, *, limits: ProbeLimits = DEFAULT_LIMITS) -> WorkerFacts:
    """Return what the worker at ``endpoint`` is.

    Never call it for a worker that a coordinator may hold; ``worker_check.check_worker`` sees to that.

    Raises:
        BackendUnavailable: If the name does not resolve, or nothing takes the connection.
        BackendBusy: If something takes the connection and stays silent, as a worker does that serves another.
        ProtocolError: If what comes back is not this protocol, or breaks off.
    """
    async with conversation(endpoint, limits=limits) as talk:
        return await ask_facts(talk)


async def ask_facts(talk: RpcConnection) -> WorkerFacts:
    """Return what the worker at the other end is.

    Raises:
        BackendBusy: If it falls silent, or is too slow.
        ProtocolError: If it answers wrongly, or not all.
    """
    try:
        async with asyncio.timeout(talk.limits.whole):
            return await _ask_all(talk)
    except TimeoutError as error:
        raise BackendBusy(
            f"{talk.endpoint} answers so slowly that {talk.limits.whole:g} s were not enough to ask what it is",
            hint="look at the network, and at what else that machine does",
            backend=_BACKEND,
            node=str(talk.endpoint),
        ) from error


async def _ask_all(talk: RpcConnection) -> WorkerFacts:
    if talk.version.major > NEWEST_MAJOR:
        return WorkerFacts(version=talk.version, devices=(), round_trip=talk.round_trip)
    count = decode_count(await talk.ask(talk.dialect.device_count())) if talk.dialect.counts_devices else 1
    if not 1 <= count <= MAX_DEVICES:
        raise talk.wrong(f"says that it has {count} devices, which cannot be")
    devices = tuple([await _ask_device(talk, index) for index in range(count)])
    return WorkerFacts(version=talk.version, devices=devices, round_trip=talk.round_trip)


async def _ask_device(talk: RpcConnection, index: int) -> Device:
    dialect = talk.dialect
    free, total = decode_pair(await talk.ask(dialect.device_memory(index)))
    return Device(
        index=index,
        memory_free=free,
        memory_total=total,
        alignment=decode_number(await talk.ask(dialect.alignment(index))),
        max_size=decode_number(await talk.ask(dialect.max_size(index))),
    )


class RpcConnection:
    """A connection to a worker, one request after the other.

    Attributes:
        version: Of the worker's protocol, once it has been greeted.
        round_trip: The shortest answer so far, in seconds.
    """

    def __init__(self, endpoint: Endpoint, sock: socket.socket, limits: ProbeLimits) -> None:
        self.endpoint = endpoint
        self.version = ProtocolVersion(0, 0, 0)
        self.round_trip = float("inf")
        self.limits = limits
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._outstanding = 0
        self._received = 0

    @property
    def dialect(self) -> Dialect:
        """How to write to it."""
        return Dialect(self.version)

    @classmethod
    async def open(cls, endpoint: Endpoint, address: str, limits: ProbeLimits) -> RpcConnection:
        """Connect to a worker.

        Raises:
            BackendUnavailable: If nothing takes the connection.
        """
        # Sockets and not streams, which cost more than a round trip in a local network takes.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            async with asyncio.timeout(limits.connect):
                await asyncio.get_running_loop().sock_connect(sock, (address, endpoint.port))
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError | OSError):
                raise _not_connected(endpoint, error, limits) from error
            raise
        return cls(endpoint, sock, limits)

    async def ask(self, request: RpcRequest) -> bytes:
        """Send a request and return its reply, b"" if it has none.

        Raises:
            BackendBusy: If no answer comes in time.
            ProtocolError: If the reply is not of the length that it has to have, or breaks off.
        """
        began = time.perf_counter()
        await self.send(request)
        if request.reply_bytes is None:
            return b""
        reply = await self.answer(request)
        self.round_trip = min(self.round_trip, time.perf_counter() - began)
        return reply

    async def send(self, request: RpcRequest) -> None:
        """Send a request; the caller has to read the answer, too.

        Raises:
            BackendBusy: If the worker does not take it in time.
            ProtocolError: If the connection breaks.
        """
        self._outstanding += 1
        try:
            async with asyncio.timeout(self.limits.answer):
                await self._loop.sock_sendall(self._socket, request.frame())
        except TimeoutError as error:
            raise self._silent(request) from error
        except OSError as error:
            raise self._broken(request, 0) from error
        if request.reply_bytes is None:
            self._outstanding -= 1

    async def answer(self, request: RpcRequest, *, keep: bool = True) -> bytes:
        """Return the reply to a request that was sent; nothing of it unless it is to be kept.

        Raises:
            BackendBusy: If it does not come in time.
            ProtocolError: If it is not of the length that it has to have, or breaks off.
        """
        size = request.reply_bytes
        assert size is not None
        self._received = 0
        try:
            async with asyncio.timeout(self.limits.answer):
                head = await self._receive(LENGTH.size)
                if LENGTH.unpack(head)[0] != size:
                    raise self._not_this_protocol(request, head)
                reply = await self._receive(size) if keep else await self._skip(size)
        except TimeoutError as error:
            raise self._silent(request) from error
        except OSError as error:
            raise self._broken(request, self._received) from error
        self._outstanding -= 1
        return reply

    def wrong(self, what: str, *, hint: str | None = None) -> ProtocolError:
        """Return the error for a worker that answers what it must not; ``what`` continues its address."""
        return ProtocolError(
            f"{self.endpoint} {what}",
            hint=hint or "is it a worker of llama.cpp? If so, restart it",
            backend=_BACKEND,
            node=str(self.endpoint),
        )

    def close(self) -> None:
        """End the connection: with an end of stream where nothing is outstanding, else with a reset."""
        if not self._outstanding:
            with contextlib.suppress(OSError):  # the other side has gone already
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _END_ON_CLOSE)
        self._socket.close()

    async def _receive(self, count: int) -> bytes:
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            rest = rest[await self._receive_some(rest) :]
        return bytes(data)

    async def _skip(self, count: int) -> bytes:
        scratch = memoryview(bytearray(min(count, _SCRATCH_BYTES)))
        while count:
            count -= await self._receive_some(scratch[:count])
        return b""

    async def _receive_some(self, into: memoryview) -> int:
        count = await self._loop.sock_recv_into(self._socket, into)
        if not count:
            raise ConnectionResetError("the end of the stream")
        self._received += count
        return count

    def _silent(self, request: RpcRequest) -> BackendBusy:
        return BackendBusy(
            f"{self.endpoint} takes the connection and does not answer {request.command.name} "
            f"within {self.limits.answer:g} s",
            hint="is another coordinator connected to it? a worker serves one at a time "
            "(and a server that is not a worker may keep silent, too)",
            backend=_BACKEND,
            node=str(self.endpoint),
        )

    def _broken(self, request: RpcRequest, got: int) -> ProtocolError:
        due = "" if request.reply_bytes is None else f" of the {LENGTH.size + request.reply_bytes} that had to come"
        after = f"after {got} bytes{due}" if got else "without an answer"
        error = self.wrong(f"closed the connection at {request.command.name}, {after}")
        return _Hangup(error.message, hint=error.hint, backend=_BACKEND, node=error.node, empty=not got)

    def _not_this_protocol(self, request: RpcRequest, head: bytes) -> ProtocolError:
        text = head[:QUOTED_BYTES].decode("ascii", errors="replace")
        if text.isascii() and text.rstrip("\r\n").isprintable():
            return self.wrong(
                f"is no RPC worker: it answers {text.rstrip()!r}",
                hint="name the port of the RPC server; llama-server, Ollama and others listen at ports of their own",
            )
        length = LENGTH.unpack(head)[0]
        return self.wrong(
            f"answers {request.command.name} with {length} bytes, where {request.reply_bytes} have to come",
            hint="it is no RPC worker, or one of a version that is not known here",
        )


class _Hangup(ProtocolError):
    """The connection was closed; ``empty`` if nothing at all had come."""

    def __init__(self, message: str, *, hint: str | None, backend: str, node: str | None, empty: bool) -> None:
        super().__init__(message, hint=hint, backend=backend, node=node)
        self.empty = empty


@asynccontextmanager
async def conversation(
    endpoint: Endpoint, *, address: str | None = None, limits: ProbeLimits = DEFAULT_LIMITS
) -> AsyncIterator[RpcConnection]:
    """Connect to a worker, greet it, and close the connection at the end, whatever happens.

    Raises:
        BackendUnavailable: If the name does not resolve, or nothing takes the connection.
        BackendBusy: If something takes the connection and stays silent.
        ProtocolError: If it is no RPC worker.
    """
    address = address or (await resolve(endpoint, within=limits.resolve))[0]
    talk = await _greet(endpoint, address, limits)
    try:
        yield talk
    finally:
        talk.close()


async def _greet(endpoint: Endpoint, address: str, limits: ProbeLimits) -> RpcConnection:
    for greeting in greetings():
        talk = await RpcConnection.open(endpoint, address, limits)
        try:
            talk.version = await _version(talk, greeting)
        except _Hangup as hangup:
            talk.close()
            if not hangup.empty:
                raise
        except BaseException:
            talk.close()
            raise
        else:
            return talk
    raise ProtocolError(
        f"{endpoint} closes the connection, however it is greeted: no RPC worker of any version does",
        hint="is it the right port? If it is the near end of a tunnel, nothing answers at the far end",
        backend=_BACKEND,
        node=str(endpoint),
    )


async def _version(talk: RpcConnection, greeting: RpcRequest) -> ProtocolVersion:
    reply = await talk.ask(greeting)
    version = greeted_version(greeting, reply)
    if version is None:
        shown = ".".join(str(number) for number in reply[:3])
        raise talk.wrong(f"says that it speaks RPC {shown}, in the greeting of another version")
    return version


class PublicWorker(BackendUnavailable):
    """A worker has an address outside private networks, which the settings do not allow: it is not contacted."""

    def __init__(self, endpoint: Endpoint, address: str) -> None:
        where = "" if endpoint.host == address else f" ({address})"
        super().__init__(
            f"{endpoint}{where} is not in a private network, so it is not contacted: RPC knows no password and no "
            "encryption",
            hint=f"reach it through a tunnel (ssh -L, WireGuard), or allow it: {allowing(endpoint.host)}",
            backend=_BACKEND,
            node=str(endpoint),
        )


async def resolve(
    endpoint: Endpoint, *, allowed: Collection[str] = (), within: float = DEFAULT_LIMITS.resolve
) -> tuple[str, ...]:
    """Return the IPv4 addresses of a worker's host; llama.cpp knows no others, and takes the first.

    Args:
        endpoint: Which worker.
        allowed: Names and addresses outside private networks that the settings allow (``public_workers``).
        within: Seconds.

    Raises:
        PublicWorker: If one of them is neither private nor allowed.
        BackendUnavailable: If it has none.
    """
    host = endpoint.host
    if host.startswith("["):
        raise _unresolved(endpoint, "llama.cpp reaches workers over IPv4 only", "write the worker's IPv4 address")

    def look_up() -> tuple[str, ...]:
        with contextlib.suppress(OSError, UnicodeError):
            answers = socket.getaddrinfo(host, endpoint.port, socket.AF_INET, socket.SOCK_STREAM)
            return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
        return ()

    try:
        async with asyncio.timeout(within):
            # A resolver may take half a minute, and the loop's own threads are waited for at the end.
            addresses = await in_thread(look_up)
    except TimeoutError as error:
        message = f"the name {host} was not resolved within {within:g} s"
        raise _unresolved(endpoint, message, "check the network, or write the IPv4 address") from error
    if not addresses:
        message = f"the name {host} does not resolve to an IPv4 address"
        raise _unresolved(endpoint, message, "check how it is written, or write the IPv4 address")
    if public := public_ones(host, addresses, allowed):
        raise PublicWorker(endpoint, public[0])
    return addresses


def _unresolved(endpoint: Endpoint, message: str, hint: str) -> BackendUnavailable:
    return BackendUnavailable(f"{endpoint}: {message}", hint=hint, backend=_BACKEND, node=str(endpoint))


def _not_connected(endpoint: Endpoint, error: OSError, limits: ProbeLimits) -> BackendUnavailable:
    if isinstance(error, ConnectionRefusedError):
        message, hint = f"{endpoint} refuses the connection: no worker listens there", START_HINT
    elif isinstance(error, TimeoutError):
        message = f"{endpoint}: no connection within {limits.connect:g} s"
        hint = (
            "is the machine on, does its firewall let this port through, "
            "and is no coordinator connected to the worker already?"
        )
    else:
        reason = error.strerror or str(error) or type(error).__name__
        message, hint = f"{endpoint} cannot be reached: {reason}", "is the machine on, and is it in this network?"
    return BackendUnavailable(message, hint=hint, backend=_BACKEND, node=str(endpoint))
