"""Tensors that local RPC workers keep on disk. A damaged one would silently change answers, so each is verified.

llama.cpp's RPC server believes the name of a file in its cache, and writes files in place, so that a crash or a full
disk leaves short ones. Therefore each worker gets a directory of its own (a view) in which it finds, as hard links,
only the tensors of a common store. A file that a worker wrote comes into the store once its bytes have been found to be
what its name says. A manifest keeps its size and time from then on: while both stay the same, it is not read again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.workers.tensor_digest import file_digest
from synaptic.processes import Stamp, lock, only_one, own_folder, read_json, replace_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

THRESHOLD: Final = 10 * 1024 * 1024
"""llama.cpp caches tensors that are larger than this (``HASH_THRESHOLD`` in ggml-rpc.cpp)."""
VERIFIED_AT_ONCE: Final = 1 << 30
"""Bytes that a worker's start verifies, some seconds of work of all cores; the rest is verified while it runs."""
SETTLED_SECONDS: Final = 2.0
"""A file that was not written to for so long is probably whole; one that is not is recognised by its digest."""
VIEWS_OF_A_NAME: Final = 64
LOCK_SECONDS: Final = 60.0
LEFTOVER_SECONDS: Final = 3600.0
"""No copy into the store takes so long; an older unfinished one was left by a process that was killed."""

_STORE, _VIEWS, _RPC, _UNVERIFIED, _COMING = "store", "views", "rpc", "unverified", ".coming-"
_NAME: Final = re.compile("[0-9a-f]{16}")


@dataclass
class CacheManifest:
    """What the store holds.

    Attributes:
        tensors: The stamp of each file that was verified, by its name.
        sources: Names of tensors, by the model's file and the place in it that they were copied from.
    """

    tensors: dict[str, Stamp] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


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
        self._file = self._store / "manifest.json"

    def open_view(self, name: str) -> TensorView:
        """Return a directory for one worker, which no other uses until it is released.

        It takes over what is left in the views of processes that have ended.

        Raises:
            OSError: If the directory cannot be written.
        """
        own_folder(self._store)
        view = self._lock_view(name)
        try:
            self._take_over(view)
        except BaseException:
            view.release()
            raise
        return view

    def names(self) -> frozenset[str]:
        """Return the digests of the tensors in the store.

        Raises:
            OSError: If its manifest cannot be read.
        """
        return frozenset(self._read().tensors)

    def prefill(self, tensors: Iterable[tuple[str, int, int, Path]]) -> int:
        """Take tensors from a model on this machine into the store, so that no coordinator has to send them.

        Args:
            tensors: Name, offset, bytes and file of each, as
                :func:`synaptic.models.gguf_file.large_tensors` yields them; small ones are skipped.

        Returns:
            How many bytes were added.

        Raises:
            OSError: If a file cannot be read or the store not be written; what came before stays.
        """
        own_folder(self._store)
        wanted: dict[str, Callable[[], int]] = {}
        for _, offset, size, file in tensors:
            if size > THRESHOLD:
                stamp = file.stat()
                source = f"{file.absolute()} {stamp.st_size} {stamp.st_mtime_ns} {offset} {size}"
                wanted[source] = partial(self._copy, source, offset, size, file)
        manifest, trusted = self._read(), self.trusted()
        missing = [copy for source, copy in wanted.items() if manifest.sources.get(source) not in trusted]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            added: int = sum(threads.map(lambda copy: copy(), missing))
        self.tidy()
        return added

    def admit(self, files: Iterable[Path], stop: threading.Event | None = None) -> None:
        """Take files into the store whose bytes are what their names say; remove all others.

        The files are those of a view, or of the store itself; ``stop`` ends the work early.

        Raises:
            InterruptedError: If ``stop`` was set.
            OSError: If a file cannot be read or the manifest not be written.
        """
        found = list(files)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            whole = dict(zip(found, threads.map(partial(_verified, stop=stop), found), strict=True))
        _remove(file for file, stamp in whole.items() if stamp is None)
        if not any(whole.values()):
            return
        with self._changed() as manifest:
            for file, stamp in whole.items():
                if stamp is not None:
                    self._keep(file, stamp, manifest)

    def verify(self, heard: Callable[[int, int], None] = lambda _done, _total: None) -> tuple[int, int]:
        """Read all tensors of the store, and remove those that are not what their names say.

        A worker that has such a one open keeps it until it is done.

        Args:
            heard: Told how many bytes have been read, and of how many.

        Returns:
            How many are whole, and how many were removed.

        Raises:
            OSError: If something cannot be read or written.
        """
        files = [file for file in _files_in(self._store) if _is_tensor(file)]
        sizes = [0 if (stamp := _stamp(file)) is None else stamp.size for file in files]
        damaged = []
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            found = threads.map(partial(_verified, stop=None), files)
            for file, stamp, done in zip(files, found, accumulate(sizes), strict=True):
                heard(done, sum(sizes))
                if stamp is None:
                    damaged.append(file.name)
        if damaged:
            with self._changed() as manifest:
                for name in damaged:
                    self._drop(name, manifest)
        return len(files) - len(damaged), len(damaged)

    def tidy(self) -> None:
        """Verify what has changed in the store, forget what is gone, and remove what is too much.

        Raises:
            OSError: If something cannot be read or written.
        """
        files = _files_in(self._store)
        _remove(file for file in files if file.name.startswith(_COMING) and _age(file) > LEFTOVER_SECONDS)
        self.admit(_at_once(self.changed()))  # the others are not trusted until their turn comes
        with self._changed() as manifest:
            for name in [name for name in manifest.tensors if not (self._store / name).exists()]:
                self._drop(name, manifest)
            for name in self._excess(manifest):
                self._drop(name, manifest)
            manifest.sources = {key: name for key, name in manifest.sources.items() if name in manifest.tensors}

    def trusted(self) -> dict[str, Path]:
        """Return the files of the store that are as they were when they were verified, by name.

        Raises:
            OSError: If the manifest cannot be read.
        """
        known = self._read().tensors
        return {name: self._store / name for name, stamp in known.items() if _stamp(self._store / name) == stamp}

    def changed(self) -> list[Path]:
        """Return the files of the store that are not trusted: changed, or not verified yet.

        Raises:
            OSError: If the manifest cannot be read.
        """
        trusted = self.trusted()
        return [file for file in _files_in(self._store) if _is_tensor(file) and file.name not in trusted]

    def _copy(self, source: str, offset: int, size: int, file: Path) -> int:
        """Copy a tensor of a model into the store; return how many bytes are new in it."""
        coming = self._store / f"{_COMING}{os.getpid()}-{uuid.uuid4().hex}"
        try:
            _copy_range(file, offset, size, coming)
            name = file_digest(coming, 0, size)
            if name is None:
                raise OSError(5, "ends before its last tensor does", str(coming))
            coming.chmod(0o444)
            stamp = _stamp(coming)
            assert stamp is not None
            with self._changed() as manifest:
                new = name not in self.trusted()
                if new:
                    coming.replace(self._store / name)
                    manifest.tensors[name] = stamp
                manifest.sources[source] = name
        finally:
            _remove([coming])
        return size if new else 0

    def _keep(self, file: Path, stamp: Stamp, manifest: CacheManifest) -> None:
        """Take a verified file into the store; a file that the store has already becomes a link to that one."""
        place = self._store / file.name
        known = manifest.tensors.get(file.name)
        if file != place and known is not None and _stamp(place) == known:
            _remove([file])
            _link(place, file)
            return
        if file != place:
            _remove([place])
            file.chmod(0o444)
            os.link(file, place)
        manifest.tensors[file.name] = stamp

    def _excess(self, manifest: CacheManifest) -> list[str]:
        """Return the names that have to go for the limit, those first that were not read for the longest time.

        When a file was read is what the system notes: within a day, mostly.
        """
        if self.limit_bytes is None:
            return []
        status = {name: (self._store / name).stat() for name in manifest.tensors}
        waiting = sum(stamp.size for file in self.changed() if (stamp := _stamp(file)) is not None)
        excess = sum(one.st_size for one in status.values()) + waiting - self.limit_bytes
        gone: list[str] = []
        for name, one in sorted(status.items(), key=lambda item: (max(item[1].st_atime, item[1].st_mtime), item[0])):
            if excess <= 0:
                break
            gone.append(name)
            excess -= one.st_size
        return gone

    def _drop(self, name: str, manifest: CacheManifest) -> None:
        """Remove a tensor from the store and from every view; a worker that has it open keeps it until it is done."""
        manifest.tensors.pop(name, None)
        _remove([self._store / name, *(self.root / _VIEWS).glob(f"*/{_RPC}/{name}")])

    def _read(self) -> CacheManifest:
        """Return the manifest; a damaged one counts as empty, and all is verified once more."""
        try:
            document = read_json(self._file, missing={})
            tensors = {str(name): Stamp(*map(int, stamp)) for name, stamp in document.get("tensors", {}).items()}
            return CacheManifest(tensors, {str(key): str(name) for key, name in document.get("sources", {}).items()})
        except (ValueError, TypeError, AttributeError):
            return CacheManifest()

    @contextlib.contextmanager
    def _changed(self) -> Iterator[CacheManifest]:
        """Hand out the manifest for a change, under a lock, and write it.

        Raises:
            OSError: If that cannot be; the file stays as it was.
        """
        with only_one(self._file, patience=LOCK_SECONDS):
            manifest = self._read()
            yield manifest
            replace_json(self._file, {"tensors": manifest.tensors, "sources": manifest.sources})

    def _lock_view(self, name: str) -> TensorView:
        views = self.root / _VIEWS
        own_folder(views)
        for number in range(1, VIEWS_OF_A_NAME + 1):
            directory = views / f"{name}-{number}"
            descriptor = _locked(directory)
            if descriptor is not None:
                for part in (_RPC, _UNVERIFIED):
                    (directory / part).mkdir(parents=True, exist_ok=True)
                return TensorView(self, directory, descriptor)
        raise OSError(11, f"{VIEWS_OF_A_NAME} workers of this name use it", str(views))

    def _take_over(self, own: TensorView) -> None:
        """Move what is left in the views of processes that have ended into one that is ours."""
        for directory in _files_in(self.root / _VIEWS):
            if directory == own.directory or not directory.is_dir():
                continue
            descriptor = _locked(directory)
            if descriptor is None:
                continue
            try:
                for file in [*_files_in(directory / _RPC), *_files_in(directory / _UNVERIFIED)]:
                    if file.is_file():
                        file.replace(own.directory / _UNVERIFIED / file.name)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)


class TensorView:
    """What one worker sees of the cache: ``directory`` is its ``LLAMA_CACHE``. Everything here blocks."""

    def __init__(self, cache: TensorCache, directory: Path, descriptor: int) -> None:
        """Take over a locked directory; use :meth:`TensorCache.open_view`."""
        self.directory = directory
        self._cache = cache
        self._lock = descriptor
        self._released = threading.Event()
        self._busy = threading.Lock()

    def prepare(self) -> bool:
        """See to it that the worker finds whole tensors only; return whether it may use the directory.

        Call it while the worker does not run, or no client is connected to it. Files beyond what can be verified at
        once are put out of the worker's sight until :meth:`adopt` comes to them.
        """
        with self._busy:
            try:
                files = self._unverified()
                now = _at_once(files)
                for file in files[len(now) :]:
                    file.replace(self.directory / _UNVERIFIED / file.name)
                self._cache.admit(now, self._released)
                self._cache.tidy()
                self._show()
            except InterruptedError:
                return False
            except OSError:  # a full disk, a process that keeps the lock: the worker begins with an empty directory
                return self._emptied()
            return True

    def adopt(self, *, settled: float = SETTLED_SECONDS) -> None:
        """Verify what the worker has written since and what was put off; the worker may run meanwhile.

        Args:
            settled: For how many seconds a file must not have been written to.

        Raises:
            OSError: If something cannot be read or written.
        """
        files = [file for file in self._unverified() if file.parent.name == _UNVERIFIED or _age(file) >= settled]
        for file in files:
            with self._busy, contextlib.suppress(InterruptedError):
                self._cache.admit([file], self._released)
        while (changed := self._cache.changed()) and not self._released.is_set():
            files.append(changed[0])
            with self._busy, contextlib.suppress(InterruptedError):
                self._cache.admit(changed[:1], self._released)
        if files and not self._released.is_set():
            with self._busy:
                self._cache.tidy()
                self._show()

    def release(self) -> None:
        """Let others use the directory; what is in it is verified when it is used again."""
        if not self._released.is_set():
            self._released.set()
            os.close(self._lock)

    def _unverified(self) -> list[Path]:
        """Return the files that are not links to what the store holds, those that the worker sees first."""
        known = self._cache.trusted()
        seen = [file for file in _files_in(self.directory / _RPC) if not _same(file, known.get(file.name))]
        return seen + _files_in(self.directory / _UNVERIFIED)

    def _show(self) -> None:
        """Link what the store holds into the worker's directory, and remove what was put off and is there by now."""
        place = self.directory / _RPC
        there = {file.name for file in _files_in(place)}
        for name, file in self._cache.trusted().items():
            if name not in there:
                _link(file, place / name)
            _remove([self.directory / _UNVERIFIED / name])

    def _emptied(self) -> bool:
        try:
            _remove(_files_in(self.directory / _RPC))
        except OSError:
            return False
        return True


def _at_once(files: list[Path]) -> list[Path]:
    """Return the first of some files: as many as are verified at once, and at least one, however large it is."""
    sizes = [0 if (status := _status(file)) is None else status.st_size for file in files]
    fit = [file for file, total in zip(files, accumulate(sizes), strict=True) if total <= VERIFIED_AT_ONCE]
    return fit or files[:1]


def _verified(file: Path, *, stop: threading.Event | None) -> Stamp | None:
    """Return the stamp of a file, ``None`` if it is not what its name says, or changes while it is read."""
    before = _stamp(file)
    if before is None or not _is_tensor(file) or before.size <= THRESHOLD:
        return None
    if file_digest(file, 0, before.size, stop) != file.name or _stamp(file) != before:
        return None
    return before


def _locked(directory: Path) -> int | None:
    """Return a descriptor that keeps others out of a view until it is closed, ``None`` if a process is in it."""
    path = directory.with_name(f".{directory.name}.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not lock(descriptor):
        os.close(descriptor)
        return None
    return descriptor


def _is_tensor(file: Path) -> bool:
    return _NAME.fullmatch(file.name) is not None and file.is_file()


def _files_in(directory: Path) -> list[Path]:
    """Return what is in a directory, an empty list if it does not exist."""
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def _age(file: Path) -> float:
    """Return how many seconds ago a file was written to; by a clock that was set since, how many in the future."""
    status = _status(file)
    return 0.0 if status is None else abs(time.time() - status.st_mtime)


def _stamp(file: Path) -> Stamp | None:
    return Stamp.of(file, linked=True)  # each view of it is a link


def _same(file: Path, other: Path | None) -> bool:
    one, two = _status(file), None if other is None else _status(other)
    return one is not None and two is not None and os.path.samestat(one, two)


def _link(source: Path, target: Path) -> None:
    # Where the file system has no links, or the file has just gone: the worker is sent the tensor.
    with contextlib.suppress(OSError):
        os.link(source, target)


def _remove(files: Iterable[Path]) -> None:
    """Remove files, as far as they are there."""
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def _copy_range(source: Path, offset: int, size: int, target: Path) -> None:
    """Write a part of a file into a new one, and onto the disk.

    Raises:
        OSError: If it cannot be read to its end or not be written.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        reader.seek(offset)
        while size:
            block = reader.read(min(size, 4 * 1024 * 1024))
            if not block:
                raise OSError(5, "ends before its last tensor does", str(source))
            writer.write(block)
            size -= len(block)
        writer.flush()
        os.fsync(writer.fileno())
