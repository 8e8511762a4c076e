"""Whether who asks over loopback is the user of this process: Linux tells whose both ends of a connection are."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

_TABLES: Final = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
_ESTABLISHED: Final = "01"
_WORD: Final = 4  # bytes; an address is written as words in the order of the machine


def is_of_same_user(
    peer: tuple[Any, ...], own: tuple[Any, ...], users: Collection[int] | None = None, table: str | None = None
) -> bool:
    """Return whether the other end of a connection is a socket of this user, or of the administrator.

    Where the system does not tell (others than Linux), every one is taken for that.

    Args:
        peer: Address and port of the other end.
        own: Those of this end.
        users: Whose ends will do; by default this process's user and the administrator.
        table: The system's list of connections (``/proc/net/tcp``); read by default.
    """
    allowed = {os.geteuid(), 0} if users is None else users
    if table is None:
        if (read := _table(ipaddress.ip_address(peer[0]).version)) is None:
            return True
        table = read
    ends = [_written(*peer[:2]), _written(*own[:2]), _ESTABLISHED]
    return any(
        fields[1:4] == ends and int(fields[7]) in allowed
        for fields in (line.split() for line in table.splitlines()[1:])
        if len(fields) > 7
    )


def _table(version: int) -> str | None:
    try:
        return _TABLES[version].read_text("ascii")
    except (OSError, ValueError):
        return None


def _written(address: str, port: int) -> str:
    packed = ipaddress.ip_address(address).packed
    words = (packed[at : at + _WORD] for at in range(0, len(packed), _WORD))
    return "".join((word[::-1] if sys.byteorder == "little" else word).hex().upper() for word in words) + f":{port:04X}"
