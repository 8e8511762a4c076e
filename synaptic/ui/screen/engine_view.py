"""What the engine commands show: how far a build is, and what an engine is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TextIO

from synaptic.text import rough_seconds, size, whole_seconds
from synaptic.ui.screen.output import terminal_width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.backends.distributed import Engine
    from synaptic.backends.distributed import engine as engines

_QUARTER = 25
_STAGES = {
    "starting": "starting",
    "fetching": "fetching the source of llama.cpp",
    "unpacking": "unpacking",
    "configuring": "configuring",
    "building": "building llama.cpp",
    "checking": "checking that it works",
}


class BuildView:
    """Shows progress on stderr: one line that changes on a terminal, a line a quarter elsewhere."""

    def __init__(self, err: TextIO | None, *, quiet: bool = False) -> None:
        self._err = None if quiet else err
        self._live = err is not None and err.isatty() and os.environ.get("TERM") != "dumb"
        self._shown: tuple[int | None, str, int] | None = None
        self._dirty = False

    def __call__(self, progress: engines.EngineProgress) -> None:
        """Show how far it is."""
        if self._err is None:
            return
        if self._live:
            self._err.write("\r\x1b[K" + self._cut(progress_line(progress)))
            self._err.flush()
            self._dirty = True
            return
        percent = 0 if progress.share is None else int(100 * progress.share)
        step = (progress.process, progress.stage, percent - percent % _QUARTER)
        if step != self._shown:
            self._shown = step
            print(progress_line(progress), file=self._err, flush=True)

    def close(self) -> None:
        """Take the changing line away."""
        if self._err is not None and self._dirty:
            self._err.write("\r\x1b[K")
            self._err.flush()
            self._dirty = False

    def _cut(self, line: str) -> str:
        assert self._err is not None
        return line[: terminal_width(self._err) - 1]


def progress_line(progress: engines.EngineProgress) -> str:
    """Return ``building llama.cpp: 42 % (193 of 459 steps), 3 min 2 s, about 4 min left``."""
    title = _STAGES.get(progress.stage, progress.stage)
    if progress.process is not None:
        title = f"process {progress.process} builds this engine: {title}"
    if progress.share is None:
        return f"{title} …"
    parts = [f"{100 * progress.share:.0f} %" + (f" ({progress.detail})" if progress.detail else "")]
    if progress.elapsed >= 1:
        parts.append(whole_seconds(progress.elapsed))
    if progress.remaining is not None:
        parts.append(f"about {rough_seconds(progress.remaining)} left")
    return f"{title}: " + ", ".join(parts)


def engine_rows(engine: Engine) -> Iterator[tuple[str, str]]:
    """Yield what is to be said of an engine: a title and a text."""
    files, facts = engine.files, engine.facts
    yield "directory", f"{files.directory} ({engine.origin}{' here' if engine.origin == 'built' else ''})"
    yield "version", facts.version
    yield "rpc", f"protocol {facts.rpc_version} (has to be the same on every machine)"
    yield "identity", engine.short_identity
    yield "backends", ", ".join(facts.backends) or "built in"
    if files.cpu_variants:
        used = f"{facts.cpu_variant} of " if facts.cpu_variant else ""
        yield "cpu", f"{used}{', '.join(files.cpu_variants)}"
    yield "devices", "; ".join(facts.devices) or "the CPU alone"
    yield "size", size(files.size_bytes)


def engine_json(engine: Engine) -> dict[str, Any]:
    """Return an engine as a JSON object."""
    files, facts = engine.files, engine.facts
    return {
        "directory": str(files.directory),
        "origin": engine.origin,
        "llama_server": str(files.llama_server),
        "rpc_server": str(files.rpc_server),
        "identity": engine.identity,
        "version": facts.version,
        "commit": facts.commit,
        "rpc_version": facts.rpc_version,
        "backends": list(facts.backends),
        "cpu_variant": facts.cpu_variant or None,
        "cpu_variants": list(files.cpu_variants),
        "devices": list(facts.devices),
        "size_bytes": files.size_bytes,
    }


def running_row(build: engines.RunningBuild) -> tuple[str, str]:
    """Return what is to be said of a build that another process runs: a title and a text."""
    return "building", f"{build.engine}: {progress_line(build.progress)}"


def running_json(build: engines.RunningBuild) -> dict[str, Any]:
    """Return a build that another process runs as a JSON object; seconds, and shares from 0 to 1."""
    progress = build.progress
    return {
        "engine": build.engine,
        "process": progress.process,
        "stage": progress.stage,
        "share": progress.share,
        "detail": progress.detail or None,
        "elapsed_seconds": progress.elapsed,
        "remaining_seconds": progress.remaining,
    }


def installed_json(engine: engines.InstalledEngine) -> dict[str, Any]:
    """Return a built engine as a JSON object; its files are not looked at."""
    manifest = engine.manifest
    return {
        "directory": str(engine.directory),
        "acceleration": manifest.acceleration,
        "version": manifest.version,
        "commit": manifest.commit,
        "installed_at": manifest.installed_at,
        "build_seconds": manifest.build_seconds,
    }
