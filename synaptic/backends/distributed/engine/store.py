"""Which engines there are on this machine, which of them is in use, and what is known of each.

Built engines are directories in the cache, each complete from the moment that it has its name. One that a person
adopted stays where it is; a small file says so.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synaptic import paths
from synaptic.backends.distributed.engine.engine import Engine, EngineFacts, fingerprint, identify, locate
from synaptic.backends.distributed.engine.examine import examine
from synaptic.errors import EngineUnavailable, UsageError
from synaptic.processes import replace_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.backends.distributed.engine.engine import EngineFiles

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

    """

    key: str
    version: str
    commit: str
    acceleration: str
    installed_at: float
    build_seconds: float


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
    """Write what is known of a build beside it."""
    (directory / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def adopted_directory() -> Path | None:
    """Return the directory of the engine that a person adopted, if they did.

    Raises:
        UsageError: If the file that says so cannot be read.

    """
    file = paths.engine_choice_file()
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return Path(document["directory"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file} does not say which engine to use: {error}", hint="run: synaptic engine use --none"
        ) from error


async def adopt(directory: Path) -> Engine:
    """Use an engine that was built elsewhere, from now on.

    Raises:
        UsageError: If the directory holds no engine.
        EngineUnavailable: If it does not work on this machine; what was in use stays so.

    """
    files = await asyncio.to_thread(locate, directory)
    engine = await look_at(files, ADOPTED, afresh=True)
    replace_json(paths.engine_choice_file(), {"directory": str(files.directory)})
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
        EngineUnavailable: If there is none, or the adopted one is not complete any more.

    """
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
    files, origin = await asyncio.to_thread(chosen_files)
    return await look_at(files, origin)


async def look_at(files: EngineFiles, origin: str, *, afresh: bool = False) -> Engine:
    """Return what an engine is.

    Args:
        files: Its files.
        origin: ``built`` or ``adopted``.
        afresh: Start it even if its files are known.

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
            document = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
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
        document = json.loads((paths.engine_dir() / KNOWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
