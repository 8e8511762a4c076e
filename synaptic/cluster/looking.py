"""What a machine is and has, asked over SSH with one small shell script."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncssh

from synaptic.cluster.ssh import said, shell
from synaptic.text import one_line

if TYPE_CHECKING:
    from synaptic.cluster.machine_list import Machine

_OLLAMA_SECONDS: Final = 5.0
_ANSWER_BYTES: Final = 1 << 16
_MOST_KIB: Final = 1 << 50
"""An exbibyte; what is more is no number of a machine."""
_MOST_PROCESSORS: Final = 1024
_MOST_CARDS: Final = 64
_LONGEST_VERSION: Final = 40
_SCRIPT: Final = r"""
echo "system=$(uname -s) $(uname -m)"
echo "processors=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
echo "processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1)"
echo "memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo 2>/dev/null)"
echo "free=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo 2>/dev/null)"
echo "disk=$(df -Pk "$HOME" 2>/dev/null | awk 'NR == 2 {print $4}')"
echo "graphics=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | paste -sd, -)"
echo "home=$HOME"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What a machine says of itself.

    Attributes:
        system: Kernel and architecture, as ``uname`` says them: ``Linux x86_64``.
        processors: That the system schedules on.
        processor: Its name; "" where the system does not tell.
        memory_bytes: Of the machine; 0 where the system does not tell.
        free_bytes: Of it, what programs may still take.
        disk_bytes: Free where the account's home is.
        graphics: Names of NVIDIA's cards.
        home: The account's home directory.
    """

    system: str
    processors: int
    processor: str
    memory_bytes: int
    free_bytes: int
    disk_bytes: int
    graphics: tuple[str, ...]
    home: str


async def look_at_machine(machine: Machine, connection: asyncssh.SSHClientConnection) -> MachineFacts:
    """Return what a machine is.

    Raises:
        BackendUnavailable: If the connection breaks.
    """
    with said(machine):
        _, text = await shell(connection, _SCRIPT)
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def number(name: str, most: int = _MOST_KIB) -> int:
        digits = lines.get(name, "")
        return min(int(digits), most) if digits.isdecimal() and len(digits) <= len(str(_MOST_KIB)) else 0

    return MachineFacts(
        system=one_line(lines.get("system", "")),
        processors=max(number("processors", _MOST_PROCESSORS), 1),
        processor=one_line(lines.get("processor", "")),
        memory_bytes=number("memory") << 10,
        free_bytes=number("free") << 10,
        disk_bytes=number("disk") << 10,
        graphics=tuple(filter(None, map(one_line, lines.get("graphics", "").split(",")[:_MOST_CARDS]))),
        home=lines.get("home", ""),
    )


async def look_for_ollama(machine: Machine, connection: asyncssh.SSHClientConnection, port: int) -> str | None:
    """Return the version of the Ollama on a machine's loopback, ``None`` where none answers.

    Raises:
        BackendUnavailable: If the connection breaks.
    """
    with said(machine):
        try:
            async with asyncio.timeout(_OLLAMA_SECONDS):
                reader, writer = await connection.open_connection("127.0.0.1", port, encoding="utf-8")
                writer.write(f"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
                answer = str(await reader.read(_ANSWER_BYTES))
        except (asyncssh.ChannelOpenError, TimeoutError):
            return None
    try:
        version = json.loads(answer.partition("\r\n\r\n")[2])["version"]
    except (ValueError, LookupError, TypeError):
        return None
    return one_line(version, _LONGEST_VERSION) if isinstance(version, str) else None
