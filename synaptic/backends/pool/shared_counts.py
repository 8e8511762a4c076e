"""Calls in flight that a person's programs on one machine tell each other, so that they do not all run to one node.

Each pool has a file of its own in a folder that all of them read, and writes no other one: nobody needs a lock, and
nobody waits. A file is a row of pairs, which server and how many calls it has from here, and its name says which
process writes it: what a killed one has left counts no more, and whoever sees it removes it. The files are written and
read, not mapped into memory: a disk that is full, or a file that was cut short, is an error then, and no signal.
Where the folder cannot be used, the pool goes on without.
"""

from __future__ import annotations

import os
import time
from array import array
from collections import Counter
from contextlib import suppress
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.backends.pool.node import server_names
from synaptic.processes import number_space, private_folder, process_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from synaptic.backends.pool.node import NodeState

SUFFIX: Final = ".calls"
LOOK_EVERY = 0.005
"""Seconds between two looks at the others' counts, unless a look takes so long that it would cost more than
:data:`MOST_SHARE` of the time."""

MOST_SHARE = 0.02
LIST_EVERY = 0.25
"""Seconds between two looks at who else there is."""

KEPT_DAYS = 30
"""A file of another boot or container goes after so many: whether its process lives cannot be told from here."""

MOST_BYTES = 2**20
_NUMBERS = count()


class SharedCounts:
    """What this pool tells others of its calls, and what it knows of theirs.

    Before :meth:`join` and after :meth:`leave` it tells and knows nothing.

    Args:
        folder: Where the programs meet; the person's own unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: Path | None = None
        self._descriptor: int | None = None
        self._rows: dict[int, int] = {}
        self._states: dict[int, NodeState] = {}
        self._peers: dict[str, _Peer] = {}
        self._next_look = self._next_list = 0.0

    async def join(self, nodes: Mapping[str, NodeState]) -> None:
        """Begin to tell, and to look.

        ``nodes`` are what is known of them by address; one server is the same for all programs, whatever its name.
        """
        names = await server_names(list(nodes))
        self._states = {_number(name): state for name, state in zip(names, nodes.values(), strict=True)}
        self._rows = {state.key: row for row, state in enumerate(self._states.values())}
        try:
            self._folder = private_folder(self._folder or paths.in_flight_dir())
            self._open(self._folder)
        except OSError:
            self.leave()

    def tell(self, node: NodeState) -> None:
        """Tell how many calls a node has from here."""
        row = self._rows.get(node.key)
        if self._descriptor is not None and row is not None:
            try:
                os.pwrite(self._descriptor, array("Q", [node.in_flight]).tobytes(), 16 * row + 8)
            except OSError:
                self.leave()

    def look(self, now: float) -> Iterable[NodeState]:
        """Write into the nodes what the others have there; return those where that is another number than before.

        ``now`` is by the clock of the event loop. It costs little to call this before every decision.
        """
        if now < self._next_look or self._descriptor is None:
            return ()
        began = time.perf_counter()
        listed = now >= self._next_list
        if listed:
            self._next_list = now + LIST_EVERY
            listed = self._list()
        news = [peer.read() for peer in self._peers.values()]
        changed = self._taken_over() if listed or any(news) else ()
        self._next_look = now + max(LOOK_EVERY, (time.perf_counter() - began) / MOST_SHARE)
        return changed

    def leave(self) -> None:
        """Take back what was told, and look no more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink()
            self._file = None
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        for state in self._states.values():
            state.elsewhere = 0

    def _open(self, folder: Path) -> None:
        pid = os.getpid()
        file = folder / f"{_owner(pid)}-{next(_NUMBERS)}{SUFFIX}"
        table = array("Q", [value for number, state in self._states.items() for value in (number, state.in_flight)])
        part = file.with_suffix(".part")  # a reader finds the whole table or none
        self._file = part
        self._descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.write(self._descriptor, table.tobytes())
        self._file = part.rename(file)
        for old in folder.iterdir():
            with suppress(OSError):
                if old.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                    old.unlink()

    def _list(self) -> bool:
        """Find out who else there is; return whether these are others than before."""
        assert self._folder is not None, "only who has joined looks"
        before = set(self._peers)
        try:
            there = {file.name for file in self._folder.iterdir() if file.suffix == SUFFIX}
        except OSError:
            there = set()
        for name in there:
            if self._file is None or name == self._file.name or not name.startswith(_space()):
                continue
            pid = name.removeprefix(_space() + "-").partition("-")[0]
            if not pid.isdecimal() or not name.startswith(_owner(int(pid)) + "-"):
                with suppress(OSError):
                    (self._folder / name).unlink()
                self._drop(name)
            elif name not in self._peers:
                with suppress(OSError):
                    self._peers[name] = _Peer(self._folder / name)
        for name in before - there:
            self._drop(name)
        return before != set(self._peers)

    def _drop(self, name: str) -> None:
        if (peer := self._peers.pop(name, None)) is not None:
            peer.close()

    def _taken_over(self) -> list[NodeState]:
        calls = Counter[int]()
        for peer in self._peers.values():
            calls.update(peer.calls)
        changed = [state for number, state in self._states.items() if state.elsewhere != calls[number]]
        for number, state in self._states.items():
            state.elsewhere = calls[number]
        return changed


class _Peer:
    """Another pool's file. ``calls`` is what it tells: number of the server, and how many calls it has."""

    def __init__(self, file: Path) -> None:
        self.calls: dict[int, int] = {}
        self._told = b""
        self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def read(self) -> bool:
        """Return whether there is news."""
        try:
            told = os.pread(self._descriptor, MOST_BYTES, 0)
        except OSError:
            told = b""
        if told == self._told:
            return False
        self._told = told
        values = array("Q", told[: len(told) // 16 * 16])
        self.calls = dict(zip(values[::2], values[1::2], strict=True))
        return True

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _number(server: str) -> int:
    return int.from_bytes(blake2b(server.encode(), digest_size=8).digest())


def _owner(pid: int) -> str:
    """Return the beginning of the names of a process's files; another one for a later process of its number."""
    return f"{_space()}-{pid}-{_short(process_mark(pid) or '')}"


def _space() -> str:
    return _short(number_space())


def _short(text: str) -> str:
    return blake2b(text.encode(), digest_size=6).hexdigest()
