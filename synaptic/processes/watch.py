"""What the system tells of a child process: whether it listens, whether it is stopped, what it takes, up to what."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Final

import psutil

HEADROOM_BYTES: Final = 2 << 30
"""Beside its layers a worker needs the stacks of its threads and, for a moment, the tensor that just comes in."""


def is_listening(pid: int, port: int) -> bool:
    """Return whether a process listens at a TCP port; false where the system does not tell."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp4")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr[1] == port for one in connections)


def connected(pid: int, port: int) -> tuple[str, ...]:
    """Return the addresses of those who are connected to a port of a process."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp4")
    except psutil.Error:
        return ()
    return tuple(
        f"{one.raddr[0]}:{one.raddr[1]}"
        for one in connections
        if one.status == psutil.CONN_ESTABLISHED and one.laddr[1] == port and one.raddr
    )


def is_stopped(pid: int) -> bool:
    """Return whether a process has been stopped by a signal: it lives and does nothing. A debugger's stop is none."""
    return stopped_at(pid) is not None


def stopped_at(pid: int) -> float | None:
    """Return the processor seconds at which a process stands that a signal has stopped, ``None`` if none has."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_STOPPED:
            return None
        used = process.cpu_times()
    except psutil.Error:
        return None
    return float(used.user + used.system)


def session_of(leader: int) -> list[int]:
    """Return the processes of the session that a process leads: all that it has started, unless they left it."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def resident_bytes(pid: int) -> int:
    """Return what a process has in memory, 0 if there is none."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def bound_memory(pid: int, layers_bytes: int) -> None:
    """Let a child process allocate no more than some layers and what it needs beside them. On Linux only.

    An allocation beyond that fails, which the RPC server answers properly; without it the machine would swap, or
    kill whatever it likes.
    """
    if sys.platform == "linux":
        limit = layers_bytes + HEADROOM_BYTES
        with contextlib.suppress(OSError, ValueError):  # it has just ended, or has a lower bound already
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
