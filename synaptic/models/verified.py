"""The content of models on this machine, compared with the digests that are known of them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from synaptic import paths
from synaptic.errors import ModelFileError, ModelNotFound, UsageError
from synaptic.messages import BackendProgress
from synaptic.models.download import ModelStore
from synaptic.models.intact import REGISTER, digest_in_name, said
from synaptic.models.model_source import all_names, find_model
from synaptic.processes import Digests, Stamp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from synaptic.messages import Reporter

PROGRESS_SECONDS: Final = 0.2
PULL_AGAIN: Final = (
    "fetch it again; Ollama takes a file that is there for a good one: move that file away, then run: ollama pull "
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found when a file of a model was read.

    Attributes:
        file: ``None`` where it was not even found.
        status: ``unknown`` where there is nothing to compare its digest with.
        sha256: Of its content, in hex; "" where it could not be read.
        expected: What that should be; ``None`` where it is not known.
        detail: What is wrong, or why that cannot be told.
        fix: What to do about it.
    """

    name: str
    file: Path | None
    status: Literal["whole", "damaged", "unknown"]
    sha256: str
    expected: str | None
    detail: str = ""
    fix: str = ""


def expected_digest(file: Path) -> str | None:
    """Return the SHA-256 that a model's file should have, ``None`` if nothing says it."""
    store = ModelStore()
    return store.artifact.sha256 if file == store.path else digest_in_name(file)


def model_digests() -> Digests:
    """Return what is known of the content of models' files."""
    return Digests(paths.model_cache_dir() / REGISTER)


async def verify_models(
    name: str | None, report: Reporter, *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Verified]:
    """Read the files of a model, or of all models that are here, and yield what is found in each.

    Args:
        name: A name or a path, as :func:`synaptic.models.open_model` takes it; ``None`` for all models.
        report: Hears how far the reading is.
        environ: The environment; ``None`` for that of the process.

    Raises:
        ModelNotFound: If there is no such model.
        UsageError: If the name means several models.
    """
    where = os.environ if environ is None else environ
    names = [name] if name is not None else await asyncio.to_thread(all_names, where)
    read: dict[Path, Verified] = {}
    for one in names:
        try:
            source = await asyncio.to_thread(find_model, one, where)
        except ModelFileError as error:
            yield Verified(one, None, "damaged", "", None, error.message, error.hint or "")
            continue
        for file in source.files:
            if file not in read:  # two names may be one file
                [read[file]] = await read_model(one, [file], report, backend="models")
            yield replace(read[file], name=one)


async def check_model(name: str, files: Sequence[Path], report: Reporter, *, backend: str) -> None:
    """Make sure that a model is what was fetched, as far as its digest is known.

    A file is read only if it has changed since it was last read.

    Raises:
        ModelFileError: If it is not, or cannot be read.
    """
    for found in await read_model(name, files, report, backend=backend, afresh=False):
        if found.status == "damaged":
            raise _error(found)


def known_damage(name: str, files: Sequence[Path]) -> ModelFileError | None:
    """Return what is known to be wrong with a model's content; nothing is read for that.

    Raises:
        ModelFileError: If a file cannot be looked at.
    """
    digests = model_digests()
    for file in files:
        expected = expected_digest(file)
        try:
            known = None if expected is None else digests.known(file)
        except OSError as error:
            raise ModelFileError(f"{file} cannot be looked at: {error.strerror or error}") from error
        if expected is not None and known is not None and known != expected:
            return _error(_compared(name, file, known, expected))
    return None


def doubt_about(name: str, *, environ: Mapping[str, str] | None = None) -> str | None:
    """Return why a model of this machine may not be what was fetched, ``None`` if nothing says so; nothing is read.

    That is known damage, a size that is not its own, or a change since it was read last.
    """
    store = ModelStore()
    try:
        files = find_model(name, os.environ if environ is None else environ).files
        if (damage := known_damage(name, files)) is not None:
            return damage.message
        for file in files:
            if file == store.path and (size := file.stat().st_size) != store.artifact.file_bytes:
                return f"{file} has {size} bytes instead of {store.artifact.file_bytes}"
            if expected_digest(file) is not None and model_digests().has_changed(file):
                return f"{file} has changed since it was read last"
    except (ModelNotFound, UsageError):
        return None
    except (ModelFileError, OSError) as error:
        return str(getattr(error, "message", error))
    return None


async def read_model(
    name: str, files: Sequence[Path], report: Reporter, *, backend: str, afresh: bool = True
) -> list[Verified]:
    """Read the files of a model, and compare what is in them.

    Args:
        name: The model's.
        files: Its files.
        report: Hears how far the reading is.
        backend: Who reports it.
        afresh: Whether to read what has not changed, too; only then are files read whose digest is not known.
    """
    meter = _Meter(name, files, report, backend)
    digests = model_digests()

    def read(file: Path) -> Verified:
        expected = expected_digest(file)
        if expected is None and not afresh:
            return Verified(name, file, "unknown", "", None)
        try:
            known = None if afresh else digests.known(file)
            found = known or digests.afresh(file, meter.heard)
        except OSError as error:
            detail = f"it cannot be read: {error.strerror or error}"
            return Verified(name, file, "damaged", "", expected, detail, "see that it is there and may be read")
        if expected is None:
            return Verified(name, file, "unknown", found, None, "there is no digest of it to compare this one with")
        return _compared(name, file, found, expected)

    try:
        return await asyncio.to_thread(lambda: [read(file) for file in files])
    finally:
        meter.ended.set()


def _compared(name: str, file: Path, found: str, expected: str) -> Verified:
    if found == expected:
        return Verified(name, file, "whole", found, expected)
    return Verified(name, file, "damaged", found, expected, said(found, expected), _fix(name, file))


def _error(found: Verified) -> ModelFileError:
    return ModelFileError(f"{found.name} is damaged: {found.file}: {found.detail}", hint=found.fix)


def _fix(name: str, file: Path) -> str:
    return "run: synaptic models pull" if file == ModelStore().path else f"{PULL_AGAIN}{name}"


class _Meter:
    """Counts what a thread reads, and reports it in the event loop; ends the reading when nobody waits for it."""

    def __init__(self, name: str, files: Sequence[Path], report: Reporter, backend: str) -> None:
        self.ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._total = sum(stamp.size for file in files if (stamp := Stamp.of(file)) is not None)
        self._done, self._said_at = 0, time.monotonic()
        self._say: Callable[[int], None] = lambda done: report(
            BackendProgress(backend, f"checking {name}", done, self._total)
        )

    def heard(self, count: int) -> None:
        """Take note of bytes that were read.

        Raises:
            InterruptedError: If nobody waits for the result.
        """
        if self.ended.is_set():
            raise InterruptedError
        self._done += count
        now = time.monotonic()
        if now - self._said_at >= PROGRESS_SECONDS:
            self._said_at = now
            self._loop.call_soon_threadsafe(self._say, self._done)
