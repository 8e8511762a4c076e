"""Tensors that local RPC workers keep on disk. A damaged one would silently change answers, so each is verified.

llama.cpp's RPC server believes the name of a file in its cache, and writes files in place, so that a crash or a full
disk leaves short ones. Therefore each worker gets a directory of its own (a view) in which it finds, as hard links,
only tensors whose bytes were read and found to be what their names say; what it writes there comes into the common
store once that has been verified, too. Verified bytes are not read again while size and time of the file stay the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.workers.fnv import Fnv
from synaptic.backends.distributed.workers.tensor_cache_files import (
    THRESHOLD,
    Books,
    Entry,
    copy_range,
    files_in,
    is_tensor_name,
    last_read,
    mark_unread,
    new_entry,
    remove,
    status_of,
    to_evict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

QUICK_BYTES: Final = 1 << 30
"""What a start in a hurry verifies, about a second of work; the rest waits for the next one that has time."""
SETTLED_SECONDS: Final = 2.0
"""A file that was not written to for so long is probably whole; one that is not is recognised by its digest."""
VIEWS_OF_A_NAME: Final = 64

_STORE, _VIEWS, _RPC, _LATER, _COMING = "store", "views", "rpc", "later", ".coming-"


class TensorCache:
    """The store of verified tensors below a directory, shared by all workers of a person on this machine.

    Everything here blocks: call it from a thread.
    """

    def __init__(self, root: Path, *, limit_bytes: int | None = None) -> None:
        """Use ``root``; nothing is read or written yet.

        Args:
            root: Where.
            limit_bytes: What the store may take; the tensors that were not read for the longest time go first.

        """
        self.root = root
        self.limit_bytes = limit_bytes
        self._store = root / _STORE
        self._books = Books(self._store)
        self._hasher: Fnv | None = None

    def open_view(self, name: str) -> TensorView:
        """Return a directory for one worker, which nobody else uses until it is released.

        What views of processes that have ended still hold is verified and kept.

        Raises:
            EngineUnavailable: If there is no C compiler to verify tensors with.
            OSError: If the directory cannot be written.

        """
        self._store.mkdir(parents=True, exist_ok=True)
        self._fnv()
        view = self._lock_view(name)
        try:
            self._take_over(view)
        except BaseException:
            view.release()
            raise
        return view

    def size_bytes(self) -> int:
        """Return what the store holds.

        Raises:
            OSError: If its index cannot be read.

        """
        return sum(entry.size for entry in self._books.read()[0].values())

    def names(self) -> frozenset[str]:
        """Return the digests of the tensors in the store.

        Raises:
            OSError: If its index cannot be read.

        """
        return frozenset(self._books.read()[0])

    def prefill(self, tensors: Iterable[tuple[str, int, int, Path]]) -> int:
        """Take tensors from a model on this machine into the store, so that no coordinator has to send them.

        Args:
            tensors: Name, offset, bytes and file of each, as
                :func:`synaptic.models.gguf_file.large_tensors` yields them; small ones are skipped.

        Returns:
            How many bytes were added.

        Raises:
            EngineUnavailable: If there is no C compiler.
            OSError: If a file cannot be read or the store not be written; what came before stays.

        """
        self._store.mkdir(parents=True, exist_ok=True)
        hasher, added = self._fnv(), 0
        for _, offset, size, file in tensors:
            if size <= THRESHOLD:
                continue
            status = file.stat()
            source = f"{file.absolute()} {status.st_size} {status.st_mtime_ns} {offset} {size}"
            entries, sources = self._books.read()
            name = sources.get(source) or hasher.of_range(file, offset, size)
            if name is None:
                raise OSError(5, "ends before its last tensor does", str(file))
            if name not in entries:
                added += self._copy(name, offset, size, file)
            if source not in sources:
                with self._books.changed() as (_, sources):
                    sources[source] = name
        self.tidy()
        return added

    def admit(self, files: Iterable[Path]) -> None:
        """Take files into the store whose bytes are what their names say; remove all others.

        Raises:
            OSError: If a file cannot be read or the index not be written.

        """
        found: dict[str, tuple[Path, Entry]] = {}
        for file in files:
            entry = self._verified(file)
            if entry is None:
                remove([file])
            else:
                found[file.name] = (file, entry)
        if not found:
            return
        with self._books.changed() as (entries, _):
            for name, (file, entry) in found.items():
                place = self._store / name
                if name in entries and place.exists():
                    remove([file])  # somebody else had it first; the view gets a link to that one
                    self._link(place, file)
                else:
                    remove([place])
                    file.chmod(0o444)
                    os.link(file, place)
                    entries[name] = entry

    def tidy(self) -> None:
        """Verify what has changed in the store, forget what is gone, and remove what is too much.

        Raises:
            OSError: If something cannot be read or written.

        """
        known, _ = self._books.read()
        revised: dict[str, Entry | None] = {}
        for file in files_in(self._store):
            if file.name.startswith(_COMING):
                self._remove_leftover(file)
            elif is_tensor_name(file.name):
                status, entry = status_of(file), known.get(file.name)
                if status is not None and (entry is None or not entry.fits(status)):
                    revised[file.name] = self._verified(file)
        with self._books.changed() as (entries, sources):
            for name, fresh in revised.items():
                if fresh is None:
                    self._drop(name, entries)
                else:
                    entries[name] = fresh
            self._note_reads(entries)
            for name in to_evict(entries, self.limit_bytes):
                self._drop(name, entries)
            for source in [source for source, name in sources.items() if name not in entries]:
                del sources[source]

    def trusted(self) -> dict[str, Path]:
        """Return the files of the store that are as they were when they were verified, by name.

        Raises:
            OSError: If the index cannot be read.

        """
        found = {}
        for name, entry in self._books.read()[0].items():
            file = self._store / name
            status = status_of(file)
            if status is not None and entry.fits(status):
                found[name] = file
        return found

    def _fnv(self) -> Fnv:
        if self._hasher is None:
            self._hasher = Fnv(self.root)
        return self._hasher

    def _verified(self, file: Path) -> Entry | None:
        """Return the entry of a file, ``None`` if it is not what its name says, or changes while it is read."""
        before = status_of(file)
        if before is None or not is_tensor_name(file.name) or not file.is_file() or before.st_size <= THRESHOLD:
            return None
        if self._fnv().of_range(file, 0, before.st_size) != file.name:
            return None
        after = status_of(file)
        entry = new_entry(before)
        if after is None or not entry.fits(after):
            return None
        mark_unread(file, after)
        return entry

    def _copy(self, name: str, offset: int, size: int, file: Path) -> int:
        coming = self._store / f"{_COMING}{os.getpid()}-{uuid.uuid4().hex}"
        try:
            copied = copy_range(file, offset, size, coming)
            if not copied or self._fnv().of_range(coming, 0, size) != name:
                raise OSError(5, "changes while it is read", str(file))
            coming.chmod(0o444)
            status = coming.stat()
            mark_unread(coming, status)
            with self._books.changed() as (entries, _):
                coming.replace(self._store / name)
                entries[name] = new_entry(status)
        finally:
            remove([coming])
        return size

    def _note_reads(self, entries: dict[str, Entry]) -> None:
        for name, entry in list(entries.items()):
            file = self._store / name
            status = status_of(file)
            if status is None:
                del entries[name]
            elif (read := last_read(status)) is not None:
                entries[name] = replace(entry, used_at=max(entry.used_at, read))
                mark_unread(file, status)

    def _drop(self, name: str, entries: dict[str, Entry]) -> None:
        """Remove a tensor from the store and from every view; a worker that has it open keeps it until it is done."""
        entries.pop(name, None)
        remove([self._store / name, *(self.root / _VIEWS).glob(f"*/{_RPC}/{name}")])

    @staticmethod
    def _link(source: Path, target: Path) -> None:
        # Where the file system has no links, or the file has just gone: the worker is sent the tensor.
        with contextlib.suppress(OSError):
            os.link(source, target)

    @staticmethod
    def _remove_leftover(file: Path) -> None:
        status = status_of(file)
        if status is not None and time.time() - status.st_mtime > 3600:  # noqa: PLR2004 - nobody copies for an hour
            remove([file])

    def _lock_view(self, name: str) -> TensorView:
        views = self.root / _VIEWS
        views.mkdir(parents=True, exist_ok=True)
        for number in range(1, VIEWS_OF_A_NAME + 1):
            directory = views / f"{name}-{number}"
            lock = _locked(directory)
            if lock is not None:
                (directory / _RPC).mkdir(parents=True, exist_ok=True)
                return TensorView(self, directory, lock)
        raise OSError(11, f"{VIEWS_OF_A_NAME} workers of this name use it", str(views))

    def _take_over(self, own: TensorView) -> None:
        for directory in files_in(self.root / _VIEWS):
            if directory == own.directory or not directory.is_dir():
                continue
            lock = _locked(directory)
            if lock is None:
                continue
            try:
                known = self.trusted()
                self.admit(file for file in _contents(directory) if not _same(file, known.get(file.name)))
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


class TensorView:
    """What one worker sees of the cache: ``directory`` is its ``LLAMA_CACHE``. Everything here blocks."""

    def __init__(self, cache: TensorCache, directory: Path, lock: int) -> None:
        """Take over a locked directory; use :meth:`TensorCache.open_view`."""
        self.directory = directory
        self._cache = cache
        self._lock: int | None = lock
        self._busy = threading.Lock()

    def prepare(self, *, quick: bool) -> bool:
        """Make sure that the worker finds whole tensors only; return whether it may use the directory.

        Call it while the worker does not run, or nobody is connected to it.

        Args:
            quick: Somebody waits: verify no more than a second's worth of new tensors now.

        """
        with self._busy:
            return self._prepared(quick=quick)

    def _prepared(self, *, quick: bool) -> bool:
        try:
            files = self._foreign()
            if quick:
                files = self._put_off(files)
            else:
                files += files_in(self.directory / _LATER)
            self._cache.admit(self._while_ours(files))
            if not quick:
                self._cache.tidy()
            self._show()
        except OSError:  # a full disk, somebody who keeps the lock: begin with nothing
            return self._emptied()
        return True

    def adopt(self, *, settled: float = SETTLED_SECONDS) -> None:
        """Take into the store what the worker has written since, as far as it is whole; the worker may run meanwhile.

        Args:
            settled: For how many seconds a file must not have been written to.

        Raises:
            OSError: If something cannot be read or written.

        """
        until = time.time() - settled
        with self._busy:
            files = [file for file in self._foreign() if (status := status_of(file)) and status.st_mtime <= until]
            if files:
                self._cache.admit(self._while_ours(files))
                self._cache.tidy()

    def release(self) -> None:
        """Let others use the directory; what is in it is verified when it is used again."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _while_ours(self, files: Iterable[Path]) -> Iterator[Path]:
        """Yield files until the directory is released: nobody shall wait at the end for gigabytes to be read."""
        for file in files:
            if self._lock is None:
                return
            yield file

    def _foreign(self) -> list[Path]:
        """Return the files of the worker's directory that are not links to what the store holds verified."""
        known = self._cache.trusted()
        return [file for file in files_in(self.directory / _RPC) if not _same(file, known.get(file.name))]

    def _put_off(self, files: list[Path]) -> list[Path]:
        """Move what would take too long out of the worker's sight; return the rest."""
        now: list[Path] = []
        total = 0
        for file in files:
            status = status_of(file)
            total += 0 if status is None else status.st_size
            if total <= QUICK_BYTES:
                now.append(file)
            else:
                (self.directory / _LATER).mkdir(exist_ok=True)
                file.replace(self.directory / _LATER / file.name)
        return now

    def _show(self) -> None:
        place = self.directory / _RPC
        place.mkdir(exist_ok=True)
        there = {file.name for file in files_in(place)}
        for name, file in self._cache.trusted().items():
            if name not in there:
                self._cache._link(file, place / name)  # noqa: SLF001 - one module

    def _emptied(self) -> bool:
        try:
            remove(files_in(self.directory / _RPC))
        except OSError:
            return False
        return True


def _locked(directory: Path) -> int | None:
    """Return a descriptor that keeps others out of a view until it is closed, ``None`` if somebody is in it."""
    lock = directory.with_name(f".{directory.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _contents(directory: Path) -> list[Path]:
    return [*files_in(directory / _RPC), *files_in(directory / _LATER)]


def _same(file: Path, other: Path | None) -> bool:
    if other is None:
        return False
    one, two = status_of(file), status_of(other)
    return one is not None and two is not None and os.path.samestat(one, two)
