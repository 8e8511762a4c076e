"""Have the system end the connections of a child whose other end is gone: the child does not look after that itself.

``ggml-rpc-server`` serves one client at a time and sets no keep-alive: a client whose machine lost its network while
it ended is waited for without end. The options of a socket that listens are those of the connections that it takes.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from typing import Final

import psutil

DEAD_AFTER: Final = 15
"""Seconds without a sign of the other end's machine, after which a connection to it is over."""
_IDLE: Final = 6
_BETWEEN: Final = 3
_PIDFD_GETFD: Final = 438
"""Its number on every architecture of Linux, from 5.6 on; Python has no name for it."""


def end_dead_connections(pid: int, port: int, *, after: int = DEAD_AFTER) -> bool:
    """Set keep-alives on the socket with which a child listens, so that what it accepts from now on has them.

    Args:
        pid: A process that we may trace: a child of ours.
        port: The TCP port at which it listens, over IPv4.
        after: Seconds without a sign of the other end.

    Returns:
        Whether it was done: Linux has to let us (containers may forbid ``pidfd_getfd``).
    """
    if sys.platform != "linux":
        return False
    try:
        descriptors = [
            one.fd
            for one in psutil.Process(pid).net_connections(kind="tcp4")
            if one.status == psutil.CONN_LISTEN and one.laddr[1] == port
        ]
        for descriptor in descriptors:
            with socket.socket(fileno=_descriptor_of(pid, descriptor)) as listening:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _BETWEEN)
                # It bounds unanswered keep-alives and unanswered data alike (tcp(7)).
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, after * 1000)
    except (psutil.Error, OSError):
        return False
    return bool(descriptors)


def _descriptor_of(pid: int, descriptor: int) -> int:
    """Return a duplicate, in this process, of a descriptor of another one (pidfd_getfd(2)).

    Raises:
        OSError: If the system forbids it or there is none.
    """
    process = os.pidfd_open(pid)
    try:
        own = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
    finally:
        os.close(process)
    if own < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(own)
