"""Start an engine's two programs, to learn what they are and whether they work together.

Each has to show that it works: ``llama-server`` has to say its version, the RPC server has to announce its
protocol, and the one has to accept the other, which ``llama-server --rpc ... --list-devices`` tells without a model.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.backends.distributed.engine.engine import EngineFacts, engine_command
from synaptic.errors import EngineUnavailable
from synaptic.processes import STARTS, ChildProcess, cause_of, child_environment, describe_exit
from synaptic.waiting import awake_timeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from synaptic.backends.distributed.engine.engine import EngineFiles

START_TIMEOUT = 60.0  # seconds; a first start on a GPU compiles kernels
LISTEN_POLL = 0.02  # seconds
NO_CPU = "No devices found"  # what the RPC server says when ggml could load no CPU variant

_VERSION = re.compile(r"version:\s*(\S.*)")
_COMMIT = re.compile(r"(?:commit\s+|\()([0-9a-f]{7,40})\b")
_ANNOUNCED = re.compile(r"Starting RPC server v(\d+\.\d+\.\d+)")
_LOADED = re.compile(r"loaded (\S+) backend from (\S.*)")
_DEVICE = re.compile(r"\s+(\S+): .*MiB.*")
_CPU_VARIANT = re.compile(r"ggml-cpu-([^.]+)\.")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class _Said:
    """How a program ended and what it said; ``code`` is ``None`` where it was still running."""

    code: int | None
    lines: tuple[str, ...]
    stopped: bool


async def examine(files: EngineFiles) -> EngineFacts:
    """Start the engine's programs and return what they say of themselves.

    Raises:
        EngineUnavailable: If one of them does not start or the two do not accept each other; the message says how
            it failed, and a program that was built for another CPU is named as such.
    """
    version = await _ask_version(files)
    for attempt in range(1, STARTS + 1):
        port = _free_port()
        server = await _start(files, files.rpc_server, ("--host", _LOOPBACK, "--port", str(port)))
        try:
            announced = await _announcement(files, server, port)
            if announced is not None:
                devices = await _ask_devices(files, port, announced)
        except EngineUnavailable:
            if not server.lost or attempt == STARTS:
                raise
            announced = None
        finally:
            await server.stop()
        rest = (*await _all_lines(server), *server.tail)
        if announced is not None:
            return _facts(version, announced, rest, devices)
        # Another program may have taken the port: that is no failure to it, it says so and exits with 0.
        if server.returncode and not server.lost:
            break
    raise why_not(files.rpc_server, server.returncode, rest, stopped=server.stopped)


def why_not(program: Path, code: int | None, lines: Iterable[str], *, stopped: bool = False) -> EngineUnavailable:
    """Return the error for a program of an engine that did not do what it was started for.

    Args:
        program: Which.
        code: Its exit status, negative for a signal; ``None`` if it said nothing for too long.
        lines: What it said.
        stopped: Whether it was killed because it had been stopped.
    """
    name = program.name
    if code == -signal.SIGILL:
        return EngineUnavailable(
            f"{name} was killed by SIGILL: it uses instructions that this CPU does not have ({program})",
            hint="it was built for another CPU; build one that suits every CPU: synaptic engine install",
        )
    ended = f"said nothing for {START_TIMEOUT:.0f} s" if code is None else describe_exit(code, stopped=stopped)
    said = [line.strip() for line in lines if line.strip() and not _LOADED.search(line)]
    quoted = cause_of(said)
    if NO_CPU in said:
        return EngineUnavailable(
            f"{name} has no code for this CPU: it {ended} and said: {quoted} ({program})",
            hint="an x86-64 CPU needs SSE 4.2; for an older one, build llama.cpp on it with -DGGML_NATIVE=ON and "
            "-DGGML_RPC=ON, and run: synaptic engine use DIR",
        )
    return EngineUnavailable(
        f"{name} does not start: it {ended}" + (f" and said: {quoted}" if quoted else "") + f" ({program})",
        hint="see the message; to build an engine for this machine: synaptic engine install",
    )


async def _ask_version(files: EngineFiles) -> str:
    said = await _run(files, files.llama_server, ("--version",))
    version = next((match[1] for line in said.lines if (match := _VERSION.match(line))), None)
    if said.code != 0 or version is None:
        raise why_not(files.llama_server, said.code, said.lines, stopped=said.stopped)
    return version


async def _announcement(files: EngineFiles, server: ChildProcess, port: int) -> list[str] | None:
    """Return what the RPC server printed when it started, or ``None`` if it has ended.

    What it prints is flushed when a client has come.
    """
    lines: list[str] = []
    try:
        async with awake_timeout(START_TIMEOUT):
            if not await _listens(server, port):
                return None
            while "Accepted client" not in (line := await server.read_line() or ""):
                lines.append(line)
                if not server.running:
                    return None
    except TimeoutError as error:
        raise why_not(files.rpc_server, None, (*lines, *server.tail)) from error
    if not any(_ANNOUNCED.search(line) for line in lines):
        raise EngineUnavailable(
            f"{files.rpc_server} names no version of its protocol when it starts: it is older than version 1",
            hint="use a build of this year, or run: synaptic engine install",
        )
    return lines


async def _ask_devices(files: EngineFiles, port: int, announced: Sequence[str]) -> tuple[str, ...]:
    """Return llama-server's own devices, after it has accepted the RPC server's protocol."""
    endpoint = f"{_LOOPBACK}:{port}"
    said = await _run(files, files.llama_server, ("--rpc", endpoint, "--list-devices"))
    rpc_version = next(match[1] for line in announced if (match := _ANNOUNCED.search(line)))
    if said.code == 0 and any(endpoint in line for line in said.lines):
        return tuple(line.strip() for line in said.lines if _DEVICE.match(line) and endpoint not in line)
    if any("--rpc" in line and "invalid" in line for line in said.lines):
        raise EngineUnavailable(
            f"{files.llama_server} was built without RPC",
            hint="build llama.cpp with -DGGML_RPC=ON, or run: synaptic engine install",
        )
    if any("RPC" in line and ("mismatch" in line or "handshake" in line) for line in said.lines):
        raise EngineUnavailable(
            f"the two programs in {files.directory} do not agree: {files.rpc_server.name} speaks version {rpc_version} "
            f"of the RPC protocol, and {files.llama_server.name} refuses it",
            hint="both have to come from the same build; or run: synaptic engine install",
        )
    raise why_not(files.llama_server, said.code, said.lines, stopped=said.stopped)


def _facts(version: str, announced: Sequence[str], loaded: Sequence[str], devices: tuple[str, ...]) -> EngineFacts:
    commit = _COMMIT.search(version)
    backends = [(match[1], match[2]) for line in loaded if (match := _LOADED.search(line))]
    variants = (match[1] for _, library in backends if (match := _CPU_VARIANT.search(library)))
    return EngineFacts(
        version=version,
        commit=commit[1] if commit else "",
        rpc_version=next(match[1] for line in announced if (match := _ANNOUNCED.search(line))),
        backends=tuple(dict.fromkeys(name for name, _ in backends)),
        cpu_variant=next(variants, ""),
        devices=devices,
    )


async def _run(files: EngineFiles, program: Path, arguments: Sequence[str]) -> _Said:
    for _ in range(STARTS):
        child = await _start(files, program, arguments)
        try:
            ended = await child.exited_within(START_TIMEOUT)
            lines = (*await _all_lines(child), *child.tail) if ended else child.tail
            said = _Said(child.returncode if ended else None, lines, child.stopped)
        finally:
            await child.stop()
        if not child.lost:
            break
    return said


async def _start(files: EngineFiles, program: Path, arguments: Sequence[str]) -> ChildProcess:
    environment = child_environment({"GGML_NO_BACKTRACE": "1"})  # gdb would come and look at a crash
    return await ChildProcess.start(engine_command(files, program, arguments), env=environment)


async def _all_lines(child: ChildProcess) -> tuple[str, ...]:
    """Return what is left of a standard output that has ended, or nearly."""
    lines: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while (line := await child.read_line()) is not None:
                lines.append(line)
    return tuple(lines)


async def _listens(server: ChildProcess, port: int) -> bool:
    """Wait until something takes a connection at the port, or the server has ended; return whether it has not."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(_LOOPBACK, port)
            writer.close()
            await writer.wait_closed()
            return True
        if await server.exited_within(LISTEN_POLL):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
