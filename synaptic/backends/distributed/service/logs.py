"""The logs of a distributed model: which files there are, their last lines, and the lines that come."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from synaptic.backends.distributed.service.record import ServiceRecord

POLL_SECONDS: Final = 0.25
BLOCK: Final = 65_536
MOST_BYTES: Final = 8 * 1024 * 1024
"""How far the last lines of a log are looked for from its end."""


class Log(NamedTuple):
    """One log: whose it is, and where."""

    process: str
    file: Path


class Line(NamedTuple):
    """A line of a log."""

    process: str
    text: str


def logs_of(record: ServiceRecord) -> list[Log]:
    """Return the logs of a service: its own, its coordinator's, those of the workers that it started."""
    logs = [Log("service", record.log_file)]
    if record.status is None:
        return logs
    if record.status.log_file is not None:
        logs.append(Log("coordinator", record.status.log_file))
    workers = record.status.workers
    return logs + [Log(str(worker.endpoint), worker.log_file) for worker in workers if worker.log_file is not None]


def last_lines(file: Path, count: int, *, before: int | None = None) -> list[str]:
    """Return the last lines of a log, those of its predecessor (``.1``) included; none if it is not there.

    What begins at the byte ``before`` is left out.

    Raises:
        OSError: If it cannot be read.
    """
    lines = _tail(file, count, before)
    if len(lines) < count:
        lines = _tail(file.with_name(f"{file.name}.1"), count - len(lines), None) + lines
    return lines


class LogReader:
    """Reads several logs: what is there, then what comes; no line is lost in between, and none is read twice.

    Args:
        find: Tells which logs there are, asked each time: a coordinator that is rebuilt may have another. One
            that appears later is read from its beginning.

    Raises:
        OSError: If one cannot be read; so do the methods.
    """

    def __init__(self, find: Callable[[], Sequence[Log]]) -> None:
        self._find = find
        self._readers = {log: _Reader(log.file, at_end=True) for log in find()}

    @property
    def logs(self) -> list[Log]:
        """The logs that are known by now."""
        return list(self._readers)

    def there(self, count: int) -> Iterator[Line]:
        """Yield the last lines of each log, log by log, as it was when this was made."""
        for log, reader in self._readers.items():
            for text in last_lines(log.file, count, before=reader.position):
                yield Line(log.process, text)

    async def coming(self) -> AsyncIterator[Line]:
        """Yield the lines that were written since this was made, and those that are to come, for ever."""
        while True:
            for log in self._find():
                if log not in self._readers:
                    self._readers[log] = _Reader(log.file, at_end=False)
            for log, reader in self._readers.items():
                for text in reader.read():
                    yield Line(log.process, text)
            await asyncio.sleep(POLL_SECONDS)


class _Reader:
    """Reads what is added to a file; one that is turned over (rotated) is read to its end first."""

    def __init__(self, file: Path, *, at_end: bool) -> None:
        self._file = file
        self.position = 0
        self._inode: int | None = None
        self._rest = b""
        if at_end:
            try:
                with file.open("rb") as stream:
                    self._inode = os.fstat(stream.fileno()).st_ino
                    size = stream.seek(0, os.SEEK_END)
                    start = stream.seek(max(size - BLOCK, 0))
                    # Behind the last whole line: the rest of it may come later.
                    end = stream.read(size - start).rfind(b"\n") + 1
            except FileNotFoundError:
                return
            self.position = start + end

    def read(self) -> list[str]:
        """Return the lines that are complete by now."""
        data = b""
        try:
            found = self._file.stat()
            if self._inode not in {None, found.st_ino}:
                data = self._from(self._file.with_name(f"{self._file.name}.1"), self._inode)
                self.position = 0
            elif found.st_size < self.position:  # truncated in place
                self.position = 0
            self._inode = found.st_ino
            data += self._from(self._file, found.st_ino)
        except FileNotFoundError:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _from(self, file: Path, inode: int | None) -> bytes:
        try:
            with file.open("rb") as stream:
                if os.fstat(stream.fileno()).st_ino != inode:
                    return b""
                stream.seek(self.position)
                data = stream.read(MOST_BYTES)
        except FileNotFoundError:
            return b""
        self.position += len(data)
        return data


def _tail(file: Path, count: int, before: int | None) -> list[str]:
    """Return the last lines of one file, read from its end."""
    if count <= 0:
        return []
    data = b""
    try:
        with file.open("rb") as stream:
            position = stream.seek(0, os.SEEK_END)
            if before is not None:
                position = min(before, position)
            while position > 0 and data.count(b"\n") <= count and len(data) < MOST_BYTES:
                step = min(BLOCK, position)
                position -= step
                stream.seek(position)
                data = stream.read(step) + data
    except FileNotFoundError:
        return []
    return [line.decode(errors="replace") for line in data.splitlines()][-count:]
