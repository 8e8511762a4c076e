"""Which workers have hung up on a ``llama-server``: seen from outside, without contacting them.

It notices the loss of a worker only when it next needs it, and dies of that. But the system knows at once: the
connection's other end is closed, and ``llama-server`` has not read that yet (``CLOSE_WAIT``).
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CLOSE_WAIT: Final = "08"
_FIELDS: Final = 10


def hung_up(pid: int, workers: Iterable[tuple[str, int]]) -> frozenset[tuple[str, int]]:
    """Return which workers have closed a connection that a process still has.

    The process must be ours; workers are given by IPv4 address and port.
    """
    wanted = frozenset(workers)
    if sys.platform != "linux" or not wanted:
        return frozenset()
    try:
        table = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii")
        inodes = {inode for remote, inode in closed_by_peer(table) if remote in wanted}
        if not inodes:
            return frozenset()
        own = _sockets(pid)
    except OSError:  # it has just ended, which its supervisor notices
        return frozenset()
    return frozenset(remote for remote, inode in closed_by_peer(table) if remote in wanted and inode in own)


def closed_by_peer(table: str) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the remote end and the inode of each connection in ``/proc/net/tcp`` whose peer has closed it."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= _FIELDS and fields[3] == _CLOSE_WAIT:
            address, _, port = fields[2].partition(":")
            host = socket.inet_ntoa(struct.pack("=I", int(address, 16)))
            yield (host, int(port, 16)), fields[9]


def _sockets(pid: int) -> frozenset[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return frozenset(found)
