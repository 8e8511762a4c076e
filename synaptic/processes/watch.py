"""What the system tells of a child process: whether it listens, whether it is stopped, what it takes, up to what."""

from __future__ import annotations

import contextlib
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
    """Return whether a process has been stopped by a signal: it lives and does nothing."""
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}
    except psutil.Error:
        return False


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
