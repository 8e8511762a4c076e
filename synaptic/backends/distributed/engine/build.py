"""Build an engine and install it: fetch, unpack, configure, build, look whether it works; only then it gets its name.

All of it happens in one working directory of the cache. A build that was broken off leaves it there, and the next
one goes on from it; what has an engine's name is an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil

from synaptic import paths
from synaptic.backends.distributed.engine import recipe
from synaptic.backends.distributed.engine import source as engine_source
from synaptic.backends.distributed.engine import tools as engine_tools
from synaptic.backends.distributed.engine.builds import builder, progress_of
from synaptic.backends.distributed.engine.engine import is_library, locate
from synaptic.backends.distributed.engine.examine import examine
from synaptic.backends.distributed.engine.progress import BuildMeter, EngineProgress, ignore_progress
from synaptic.backends.distributed.engine.source import LLAMA_CPP
from synaptic.backends.distributed.engine.store import (
    BUILT,
    MANIFEST,
    EngineManifest,
    look_at,
    refuse_changed,
    write_manifest,
)
from synaptic.backends.distributed.engine.unchanged import digests_of
from synaptic.errors import EngineUnavailable, UsageError
from synaptic.processes import (
    STARTS,
    ChildProcess,
    cause_of,
    child_environment,
    own_folder,
    python_command,
    thread_to_its_end,
    tied,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from synaptic.backends.distributed.engine.engine import Engine, EngineFiles
    from synaptic.backends.distributed.engine.progress import EngineReporter
    from synaptic.backends.distributed.engine.source import EngineSource
    from synaptic.backends.distributed.engine.tools import Tools

STOP_GRACE = 8.0  # seconds for the compilers to end
TICK = 1.0  # seconds between two reports while the tools are silent
KEPT_LINES = 400
QUERY_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What to build.

    Attributes:
        acceleration: ``cpu``, ``cuda``, ``vulkan`` or ``metal``.
        jobs: Compilations at once; ``None`` for what the machine can bear.
        force: Build it from nothing, even if it is installed.
        archive: The source distribution, where it was fetched already.
        source: What is pinned.
        targets: What the build tool is asked for.
    """

    acceleration: str = "cpu"
    jobs: int | None = None
    force: bool = False
    archive: Path | None = None
    source: EngineSource = LLAMA_CPP
    targets: tuple[str, ...] = recipe.TARGETS

    @property
    def key(self) -> str:
        """The name of the engine's directory: version, content, kind, recipe."""
        return f"{self.source.key}-{self.acceleration}-r{recipe.RECIPE}"


@dataclass(frozen=True, slots=True)
class Installation:
    """An engine, and where it came from.

    Attributes:
        engine: It works: its programs were started.
        was_there: Whether it was not built by this call.
        waited: Whether another process built it while this call waited.
        build_seconds: How long this call built.
    """

    engine: Engine
    was_there: bool
    waited: bool = False
    build_seconds: float = 0.0


async def install(order: BuildOrder, report: EngineReporter = ignore_progress) -> Installation:
    """Make sure that an engine is installed.

    Where another process builds the same engine, wait for it and report its progress. If that process ends without
    an engine, this one goes on with the build.

    Raises:
        UsageError: If the archive cannot be read, or this kind of machine has no such acceleration.
        EngineUnavailable: If it cannot be fetched or built, or does not work.
    """
    place = paths.engine_dir() / order.key
    if not order.force and (there := await _installed(place)) is not None:
        return Installation(there, was_there=True)
    tools = engine_tools.find_tools(order.acceleration, os.environ)
    waited = False
    try:
        while True:
            with builder(order.key, report) as publish:
                if publish is not None:
                    # The process that built it until now may have finished between the last look and the lock.
                    if (waited or not order.force) and (there := await _installed(place)) is not None:
                        return Installation(there, was_there=True, waited=waited)
                    return await Build(order, tools, publish).run(place)
            if (progress := progress_of(order.key)).process is not None:
                waited = True  # for a build; a process that only looks at the lock has it for an instant
                report(progress)
            await asyncio.sleep(TICK)
    except OSError as error:
        raise EngineUnavailable(
            f"the engine could not be installed: {error.strerror or error} ({error.filename or paths.engine_dir()})",
            hint="what was built so far is kept: run it again to go on",
        ) from error


class Build:
    """One build, by the process that holds the lock of the engine."""

    def __init__(self, order: BuildOrder, tools: Tools, report: EngineReporter) -> None:
        self.order = order
        self.tools = tools
        self.root = paths.engine_dir() / f".build-{order.key}"
        self._report = report
        self._tail: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def log_file(self) -> Path:
        """What the tools said in the last attempt."""
        return self.root / "build.log"

    async def run(self, place: Path) -> Installation:
        """Build the engine and put it in its place.

        Raises:
            UsageError: If the archive cannot be read.
            EngineUnavailable: If it cannot be fetched or built, or does not work.
            OSError: If the disk does not take it.
        """
        if self.order.force:
            await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)
        await self._get_source()
        begun = time.monotonic()
        before = self._seconds_so_far()
        try:
            await self._configure()
            await self._make()
        finally:
            seconds = before + time.monotonic() - begun
            (self.root / "seconds").write_text(f"{seconds:.1f}\n", encoding="utf-8")
        self._report(EngineProgress(stage="checking"))
        finished = await asyncio.to_thread(self._collect)
        await examine(locate(finished))
        await asyncio.to_thread(self._put, finished, place, seconds)
        return Installation(await look_at(locate(place), BUILT), was_there=False, build_seconds=seconds)

    async def _get_source(self) -> None:
        source, tree = self.order.source, self.root / "source"
        if tree.is_dir():
            return
        free = shutil.disk_usage(paths.engine_dir()).free
        engine_tools.refuse_full_disk(self.order.acceleration, paths.engine_dir(), free)
        own_folder(self.root)
        elapsed = _stopwatch()
        archive = self.order.archive
        if archive is None:
            archive = await engine_source.fetch(source, self.root, self._report, elapsed)
        self._report(EngineProgress(stage="unpacking"))
        await engine_source.check_archive(source, archive)
        unpacked = self.root / "unpacked"
        await asyncio.to_thread(shutil.rmtree, unpacked, ignore_errors=True)
        await engine_source.unpack(source, archive, unpacked)
        await asyncio.to_thread(source.adapt, unpacked)
        unpacked.replace(tree)  # whole and adapted, or not there
        shutil.rmtree(self.root / "download", ignore_errors=True)

    async def _configure(self) -> None:
        """Run CMake; begin from nothing where the last configuration differs, or make built the last files."""
        architectures = await self._cuda_architectures() if self.order.acceleration == "cuda" else None
        options = recipe.cmake_options(
            self.order.acceleration,
            self.order.source.commit,
            root=self.root,
            tools=self.tools,
            cuda_architectures=architectures,
        )
        build, stamp = self.root / "build", self.root / "configuration.json"
        configuration = json.dumps({"options": options, "tools": asdict(self.tools)}, indent=2, sort_keys=True)
        # make takes a file that was half-written when it was killed for a whole one; ninja knows better.
        if not (self.tools.ninja and stamp.is_file() and stamp.read_text(encoding="utf-8") == configuration):
            await asyncio.to_thread(shutil.rmtree, build, ignore_errors=True)
        build.mkdir(exist_ok=True)
        stamp.write_text(configuration, encoding="utf-8")
        self._report(EngineProgress(stage="configuring"))
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        command = [self.tools.cmake, "-S", str(self.root / "source"), "-B", str(build), "-G", self.tools.generator]
        self.log_file.unlink(missing_ok=True)
        if await self._run([*command, *definitions], lambda _: None) != 0:
            raise self._failed("configured")

    async def _make(self) -> None:
        meter, elapsed = BuildMeter(), _stopwatch()
        jobs = self.order.jobs or engine_tools.default_jobs(_cpus(), _available_memory())
        # Not through cmake, which would leave ninja alone when it is told to end.
        command = [self.tools.make, "-C", str(self.root / "build"), "-j", str(jobs)]

        def take(line: str | None) -> None:
            if line is not None:
                meter.read(line)
            self._report(meter.progress(elapsed()))

        if await self._run([*command, *self.order.targets], take) != 0:
            raise self._failed("built")

    async def _run(self, command: Sequence[str], take: Callable[[str | None], None]) -> int:
        """Run a tool and return its exit status; ``take`` gets its lines, and ``None`` every now and then.

        One that is killed or stopped is run again: it goes on with what it has done.
        """
        for _ in range(STARTS):
            child = await self._run_once(command, take)
            if not child.lost:
                break
        return child.returncode or 0

    async def _run_once(self, command: Sequence[str], take: Callable[[str | None], None]) -> ChildProcess:
        job = "synaptic.backends.distributed.engine.job"
        environment = child_environment({"NINJA_STATUS": "[%f/%t] ", "LC_ALL": "C"}, installs=True)
        child = await ChildProcess.start(
            python_command(job, str(self.root / "job.lock"), str(self.root), *command), env=environment
        )
        try:
            with self.log_file.open("a", buffering=1, encoding="utf-8") as log:
                while (line := await _next_line(child)) is not None:
                    if line:
                        self._tail.append(line)
                        log.write(line + "\n")
                    take(line or None)
            await child.wait()
        finally:
            await child.stop(STOP_GRACE)
        return child

    async def _cuda_architectures(self) -> str | None:
        """Return the architectures of the GPUs here; building for all that there are takes many times as long."""
        smi = shutil.which("nvidia-smi")
        if smi is None:
            return None
        child = await ChildProcess.start(tied([smi, "--query-gpu=compute_cap", "--format=csv,noheader"]))
        try:
            lines: list[str] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(QUERY_TIMEOUT):
                    while (line := await child.read_line()) is not None:
                        lines.append(line)
        finally:
            await child.stop()
        return engine_tools.parse_capabilities("\n".join(lines))

    def _collect(self) -> Path:
        """Copy what was built into a directory of its own, and make sure that it is on the disk."""
        finished, built = self.root / "engine", self.root / "build" / "bin"
        shutil.rmtree(finished, ignore_errors=True)
        finished.mkdir()
        for file in sorted(built.iterdir()):
            if file.name in recipe.TARGETS or is_library(file):
                shutil.copy2(file, finished / file.name, follow_symlinks=False)
        for file in finished.iterdir():
            if not file.is_symlink():
                _sync(file)
        return finished

    def _put(self, finished: Path, place: Path, seconds: float) -> None:
        """Give the engine its name; one that was there before goes away after that."""
        manifest = EngineManifest(
            key=self.order.key,
            version=self.order.source.version,
            commit=self.order.source.commit,
            acceleration=self.order.acceleration,
            installed_at=time.time(),
            build_seconds=round(seconds, 1),
            files=digests_of(locate(finished)),
        )
        write_manifest(finished, manifest)
        old = place.with_name(f".old-{place.name}")
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        finished.rename(place)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def _seconds_so_far(self) -> float:
        try:
            return float((self.root / "seconds").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0.0

    def _failed(self, what: str) -> EngineUnavailable:
        reason = cause_of(self._tail)
        return EngineUnavailable(
            f"llama.cpp could not be {what}: {reason or 'the tools did not say why'}",
            hint=f"the whole log: {self.log_file}; what was built so far is kept for the next attempt",
        )


async def _installed(place: Path) -> Engine | None:
    """Return the engine in a directory, if there is one whose files are all there, as they were built.

    Raises:
        EngineUnavailable: If it does not work.
    """
    if not (place / MANIFEST).is_file():
        return None
    try:
        files = locate(place)
        if await thread_to_its_end(lambda: _changed(files)):
            return None
        return await look_at(files, BUILT, afresh=True)
    except UsageError:  # files are missing: it is built again
        return None
    except EngineUnavailable as error:
        raise EngineUnavailable(
            f"the engine is installed, but does not work: {error.message}",
            hint="build it again: synaptic engine install --force",
        ) from error


def _changed(files: EngineFiles) -> bool:
    try:
        refuse_changed(files, BUILT)
    except EngineUnavailable:
        return True
    return False


async def _next_line(child: ChildProcess) -> str | None:
    """Return the next line, "" where none came for a moment, and ``None`` at the end."""
    try:
        async with asyncio.timeout(TICK):
            return await child.read_line()
    except TimeoutError:
        return ""


def _stopwatch() -> Callable[[], float]:
    begun = time.monotonic()
    return lambda: time.monotonic() - begun


def _cpus() -> int:
    """Return on how many CPUs this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _available_memory() -> int:
    return psutil.virtual_memory().available


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
