"""Which engines there are on this machine, which of them is in use, and what is known of each.

Built engines are directories in the cache, each complete from the moment that it has its name. One that a person
adopted stays where it is; a small file says so. Both files have the digests of what was built or adopted: an engine
that is not that any more is not used.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synaptic import paths
from synaptic.backends.distributed.engine.engine import Engine, EngineFacts, fingerprint, identify, locate
from synaptic.backends.distributed.engine.examine import examine
from synaptic.backends.distributed.engine.unchanged import compare, describe, digests_of
from synaptic.errors import EngineUnavailable, UsageError
from synaptic.processes import read_json, replace_json, thread_to_its_end
from synaptic.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.backends.distributed.engine.engine import EngineFiles
    from synaptic.backends.distributed.engine.unchanged import FileState

MANIFEST = "engine.json"
KNOWN = "known.json"
INSTALL_HINT = "run: synaptic engine install"
BUILT, ADOPTED = "built", "adopted"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineManifest:
    """What was written beside an engine when it was built.

    Attributes:
        key: The name of its directory.
        version: Of the source distribution.
        commit: Of llama.cpp.
        acceleration: ``cpu``, ``cuda``, ``vulkan`` or ``metal``.
        installed_at: Seconds since the epoch.
        build_seconds: How long the tools worked, all attempts together.
        files: The SHA-256 of each file, by its path in the directory; none where an older version built it.
    """

    key: str
    version: str
    commit: str
    acceleration: str
    installed_at: float
    build_seconds: float
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstalledEngine:
    """A built engine."""

    directory: Path
    manifest: EngineManifest


def installed_engines() -> list[InstalledEngine]:
    """Return the engines that were built here, the latest first."""
    directory = paths.engine_dir()
    found = [] if not directory.is_dir() else list(_with_manifest(directory))
    return sorted(found, key=lambda engine: engine.manifest.installed_at, reverse=True)


def write_manifest(directory: Path, manifest: EngineManifest) -> None:
    """Write what is known of a build beside it; like its programs, everybody may read it."""
    replace_json(directory / MANIFEST, asdict(manifest))
    (directory / MANIFEST).chmod(0o644)


def adopted_directory() -> Path | None:
    """Return the directory of the engine that a person adopted, if they did.

    Raises:
        UsageError: If the file that says so cannot be read.
    """
    return None if (choice := _choice()) is None else choice[0]


def _choice() -> tuple[Path, dict[str, str]] | None:
    file = paths.engine_choice_file()
    try:
        document = read_json(file, missing=None)
        return None if document is None else (Path(document["directory"]), dict(document.get("files", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{file} does not say which engine to use: {reason_of(error)}", hint="run: synaptic engine use --none"
        ) from error


async def adopt(directory: Path) -> Engine:
    """Use an engine that was built elsewhere, from now on.

    Raises:
        UsageError: If the directory holds no engine.
        EngineUnavailable: If it does not work on this machine; what was in use stays so.
    """
    files = await asyncio.to_thread(locate, directory)
    engine = await look_at(files, ADOPTED, afresh=True)
    await thread_to_its_end(lambda: keep_digests(files, ADOPTED))
    return engine


def forget_adopted() -> Path | None:
    """Go back to the engine that was built here; return the directory that was in use until now, if one was."""
    file = paths.engine_choice_file()
    try:
        before = adopted_directory()
    except UsageError:
        before = file
    file.unlink(missing_ok=True)
    return before


def chosen_files() -> tuple[EngineFiles, str]:
    """Return the files of the engine in use, and whether it was ``built`` here or ``adopted``.

    Raises:
        EngineUnavailable: If there is none, or it is not what was built or adopted any more.
    """
    files, origin = _chosen()
    refuse_changed(files, origin)
    return files, origin


def refuse_changed(files: EngineFiles, origin: str) -> None:
    """Make sure that an engine is what was built, or adopted, as far as that is known. Blocking.

    Raises:
        EngineUnavailable: If it is not.
    """
    expected = expected_digests(files, origin)
    changed = describe(compare(digests_of(files), expected)) if expected else ""
    if changed:
        again = f"if you know why, adopt it as it is now: synaptic engine use {shlex.quote(str(files.directory))}"
        build = "build it again: synaptic engine install; or, " if origin == BUILT else ""
        raise EngineUnavailable(
            f"the engine in {files.directory} is not the one that was {origin}: {changed}", hint=f"{build}{again}"
        )


async def check_unchanged(engine: Engine) -> None:
    """Make sure that an engine, one of whose programs is about to be started, is what was built or adopted.

    Raises:
        EngineUnavailable: If it is not.
    """
    await thread_to_its_end(lambda: _refuse_changed_now(engine))


def _refuse_changed_now(engine: Engine) -> None:
    try:
        files = locate(engine.files.directory)  # once more: a library that came since would be loaded, too
    except UsageError as error:
        raise EngineUnavailable(f"the engine is not complete any more: {error.message}", hint=INSTALL_HINT) from error
    refuse_changed(files, engine.origin)


def verify_engine() -> tuple[EngineFiles, list[FileState]]:
    """Read all files of the engine in use, and return what became of each. Blocking.

    Where no digests were kept, those of now are kept from now on.

    Raises:
        EngineUnavailable: If there is no engine, or a file cannot be read.
    """
    files, origin = _chosen()
    actual = digests_of(files, afresh=True)
    expected = expected_digests(files, origin)
    if not expected:
        with suppress(OSError):
            keep_digests(files, origin)
    return files, compare(actual, expected or actual)


def expected_digests(files: EngineFiles, origin: str) -> dict[str, str]:
    """Return the SHA-256 of the files of an engine as they were built or adopted; none where that was not kept.

    Raises:
        EngineUnavailable: If it cannot be read.
    """
    try:
        if origin == BUILT:
            return dict(read_json(files.directory / MANIFEST, missing={}).get("files", {}))
        choice = _choice()
        return choice[1] if choice is not None and choice[0] == files.directory else {}
    except (OSError, ValueError, TypeError, AttributeError, UsageError) as error:
        raise EngineUnavailable(
            f"the digests of the engine in {files.directory} cannot be read: {reason_of(error)}", hint=INSTALL_HINT
        ) from error


def keep_digests(files: EngineFiles, origin: str) -> None:
    """Keep the digests of an engine's files as they are now; for an adopted one that is what adopting it means.

    Raises:
        EngineUnavailable: If a file cannot be read.
        OSError: If they cannot be written.
    """
    digests = digests_of(files)
    if origin == ADOPTED:
        replace_json(paths.engine_choice_file(), {"directory": str(files.directory), "files": digests})
        return
    for one in installed_engines():
        if paths.resolved(one.directory) == files.directory:
            write_manifest(one.directory, replace(one.manifest, files=digests))


def _chosen() -> tuple[EngineFiles, str]:
    try:
        if (adopted := adopted_directory()) is not None:
            return locate(adopted), ADOPTED
    except UsageError as error:
        raise EngineUnavailable(
            f"the engine in use is not complete: {error.message}",
            hint="go back to the built one: synaptic engine use --none",
        ) from error
    for engine in installed_engines():
        with suppress(UsageError):  # files were removed from it; an older engine may be whole
            return locate(engine.directory), BUILT
    raise EngineUnavailable(
        "no engine is installed: distributed inference needs llama-server and the RPC server of llama.cpp",
        hint=f"{INSTALL_HINT} (builds it, some minutes), or, if you have built one: synaptic engine use DIR",
    )


async def current_engine() -> Engine:
    """Return the engine in use. It is started to learn what it is, but only if its files are not known already.

    Raises:
        EngineUnavailable: If there is none, or it does not work on this machine.
    """
    files, origin = await thread_to_its_end(chosen_files)
    engine = await look_at(files, origin)
    with suppress(OSError):  # it was built or adopted by a version that kept none
        if not await asyncio.to_thread(expected_digests, files, origin):
            await thread_to_its_end(lambda: keep_digests(files, origin))
    return engine


async def look_at(files: EngineFiles, origin: str, *, afresh: bool = False) -> Engine:
    """Return what an engine is.

    It is ``built`` or ``adopted``; ``afresh`` starts it even if its files are known.

    Raises:
        EngineUnavailable: If it does not work on this machine, or its files cannot be read.
    """
    try:
        mark = await asyncio.to_thread(fingerprint, files)
        known = None if afresh else _recall(mark)
        if known is not None:
            return Engine(files=files, facts=known[0], identity=known[1], origin=origin)
        facts = await examine(files)
        identity = await asyncio.to_thread(identify, files, facts.rpc_version)
    except OSError as error:
        raise EngineUnavailable(
            f"a file of the engine cannot be read: {error.filename}: {error.strerror or error}", hint=INSTALL_HINT
        ) from error
    _remember(mark, facts, identity)
    return Engine(files=files, facts=facts, identity=identity, origin=origin)


def _with_manifest(directory: Path) -> Iterator[InstalledEngine]:
    for place in directory.iterdir():
        if place.name.startswith("."):  # a build that is not complete
            continue
        with suppress(OSError, ValueError, TypeError):
            document = read_json(place / MANIFEST, missing=None)
            yield InstalledEngine(place, EngineManifest(**document))


def _recall(mark: str) -> tuple[EngineFacts, str] | None:
    """Return what was learned of an engine; nothing where the cache is missing, damaged or of another version."""
    try:
        document = _read_known()[mark]
        facts = {name: tuple(value) if isinstance(value, list) else str(value) for name, value in document.items()}
        identity = facts.pop("identity")
        return EngineFacts(**facts), str(identity)  # type: ignore[arg-type]  # checked by name, and every value is text
    except (LookupError, TypeError, AttributeError):
        return None


def _remember(mark: str, facts: EngineFacts, identity: str) -> None:
    known = {**_read_known(), mark: {**asdict(facts), "identity": identity}}
    with suppress(OSError):  # a cache that cannot be written costs a second the next time, and no more
        replace_json(paths.engine_dir() / KNOWN, dict(list(known.items())[-20:]))


def _read_known() -> dict[str, Any]:
    try:
        document = read_json(paths.engine_dir() / KNOWN, missing={})
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
