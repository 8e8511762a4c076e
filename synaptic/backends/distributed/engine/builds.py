"""One process builds an engine; the others see that it does, and how far it is.

The builder holds a lock, which ends with its process, and writes its progress into a small file beside it. That file
may outlive a builder that was killed, so it counts only while a process holds the lock.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from synaptic import paths
from synaptic.backends.distributed.engine.progress import EngineProgress
from synaptic.processes import lock, own_folder, read_json, replace_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synaptic.backends.distributed.engine.progress import EngineReporter

WRITE_INTERVAL = 0.5  # seconds between two writes of the progress, where the stage stays the same


@dataclass(frozen=True, slots=True)
class RunningBuild:
    """A build that another process runs.

    Attributes:
        engine: The name of the engine's directory.
        progress: How far it is; see :func:`progress_of`.
    """

    engine: str
    progress: EngineProgress


@contextlib.contextmanager
def builder(engine: str, report: EngineReporter) -> Iterator[EngineReporter | None]:
    """Become the one process that builds an engine, if no other process does.

    Args:
        engine: The name of its directory.
        report: Told how far the build is, as are the processes that wait for it.

    Yields:
        What the build reports to; ``None`` if another process builds it.

    Raises:
        OSError: If the lock or the progress cannot be written.
    """
    directory = paths.engine_dir()
    own_folder(directory)
    with _lock_file(directory, engine).open("ab") as file:
        if not lock(file.fileno()):
            yield None
            return
        state = _state_file(directory, engine)
        try:
            yield _Publisher(state, report)
        finally:
            state.unlink(missing_ok=True)


def running_builds() -> list[RunningBuild]:
    """Return the builds that run on this machine now."""
    directory = paths.engine_dir()
    names = [file.name[1:].removesuffix(".lock") for file in sorted(directory.glob(".*.lock"))]
    return [RunningBuild(name, progress_of(name)) for name in names if _is_built(_lock_file(directory, name))]


def progress_of(engine: str) -> EngineProgress:
    """Return how far the process that builds an engine is.

    The stage is ``starting``, and ``process`` is ``None``, while that process has not said anything.
    """
    with contextlib.suppress(OSError, ValueError, TypeError):
        return EngineProgress(**read_json(_state_file(paths.engine_dir(), engine), missing=None))
    return EngineProgress(stage="starting")


class _Publisher:
    """Writes the progress where other processes read it, and passes it on."""

    def __init__(self, file: Path, report: EngineReporter) -> None:
        self._file = file
        self._report = report
        self._stage = ""
        self._written = 0.0

    def __call__(self, progress: EngineProgress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage or now - self._written >= WRITE_INTERVAL:
            self._stage, self._written = progress.stage, now
            with contextlib.suppress(OSError):  # it is only shown: the build goes on
                replace_json(self._file, asdict(progress) | {"process": os.getpid()})
        self._report(progress)


def _is_built(lock_file: Path) -> bool:
    with contextlib.suppress(OSError), lock_file.open("ab") as file:
        return not lock(file.fileno())
    return False


def _lock_file(directory: Path, engine: str) -> Path:
    return directory / f".{engine}.lock"


def _state_file(directory: Path, engine: str) -> Path:
    return directory / f".{engine}.progress.json"
