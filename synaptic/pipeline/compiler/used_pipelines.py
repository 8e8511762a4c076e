"""Other pipelines that a pipeline uses: which file is meant, and that nothing uses itself."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, TypeAlias

from synaptic import paths
from synaptic.errors import PipelineError, Problem
from synaptic.pipeline.checking import UnusablePath, UsedPipeline
from synaptic.pipeline.compiler.salvage import salvage
from synaptic.pipeline.loader import MAX_PIPELINE_BYTES, builtin_pipelines, looks_like_path
from synaptic.text import did_you_mean, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from synaptic.pipeline.loader import Pipeline
    from synaptic.text import KeyPath

    Broken: TypeAlias = Mapping[KeyPath, Collection[str]]
    Build: TypeAlias = Callable[[Pipeline, Broken], UsedPipeline]

MAX_DEPTH = 12
"""Pipelines that use each other in a chain; more is a mistake, and every one of them is read."""

_INSIDE = "write a path inside the folder of this file, or the name of a built-in pipeline"


class Library:
    """Every pipeline file of one compilation, each compiled once.

    Args:
        build: Compiles one pipeline, reporting what is wrong with it; of what is broken in it, only names are known.
        problems: Where files that cannot be read are reported.
        kept: Texts that stand in the place of files, which may be gone.
    """

    def __init__(self, build: Build, problems: list[Problem], kept: Mapping[Path, str]) -> None:
        self._build = build
        self._problems = problems
        self._kept = kept
        self._done: dict[Path, UsedPipeline] = {}
        self._open: dict[Path, str] = {}

    def compile(self, pipeline: Pipeline, broken: Broken) -> UsedPipeline:
        """Compile the pipeline that everything begins with."""
        return self._enter(pipeline, broken, _resolved(pipeline.path) if pipeline.path else None)

    def use(self, name: str, user: Pipeline) -> UsedPipeline:
        """Return what ``user`` means by ``use: name``, compiled.

        Raises:
            UnusablePath: If there is no such pipeline, it may not be used, or it uses ``user`` again.
        """
        path = find_used(name, user, self._kept)
        key = _resolved(path)
        if key in self._open:
            chain = [*list(self._open.values())[list(self._open).index(key) :], self._open[key]]
            what = "the pipeline uses itself" if len(chain) == 2 else "these pipelines use each other"
            raise UnusablePath(f"{what}: {' -> '.join(chain)}", "a loop inside one pipeline is written with 'repeat'")
        if key not in self._done:
            if len(self._open) >= MAX_DEPTH:
                raise UnusablePath(f"more than {MAX_DEPTH} pipelines use each other in a chain", "use fewer")
            self._done[key] = self._read(path, key)
        return self._done[key]

    def _read(self, path: Path, key: Path) -> UsedPipeline:
        try:
            text = self._kept.get(key) or read_text(path, "pipeline", PipelineError, limit=MAX_PIPELINE_BYTES)
        except PipelineError as exc:
            self._problems += exc.problems
            return UsedPipeline()
        found = salvage(text, str(path), path)
        self._problems += found.problems
        if found.pipeline is None:
            return UsedPipeline()
        used = self._enter(found.pipeline, found.broken, key, found.misspelt)
        return UsedPipeline(used.name) if found.problems else used

    def _enter(
        self, pipeline: Pipeline, broken: Broken, key: Path | None, misspelt: Collection[tuple[int, int]] = ()
    ) -> UsedPipeline:
        known = len(self._problems)
        if key is None:
            return self._build(pipeline, broken)
        self._open[key] = pipeline.path.name if pipeline.path else pipeline.name
        try:
            used = self._build(pipeline, broken)
        finally:
            del self._open[key]
        source = pipeline.document.source
        self._problems[known:] = [
            each for each in self._problems[known:] if each.source != source or (each.line, each.column) not in misspelt
        ]
        return used


def find_used(name: str, user: Pipeline, kept: Collection[Path] = ()) -> Path:
    """Return the file that ``user`` means by ``use: name``; one of the ``kept`` need not be there any more.

    Raises:
        UnusablePath: If there is none, or it may not be used.
    """
    builtin = builtin_pipelines()
    if not looks_like_path(name):
        if name in builtin:
            return builtin[name]
        beside = [path.name for path in _folder(user).glob("*.yaml")]
        match = f"{name}.yaml"
        advice = f"did you mean {match!r}?" if match in beside else did_you_mean(name, [*builtin, *beside])
        raise UnusablePath(f"there is no built-in pipeline {name!r}", advice)
    path = inside_folder(name, user)
    if path.is_file() or _resolved(path) in kept:
        return path
    if path.is_dir():
        raise UnusablePath(f"{name!r} is a directory, not a pipeline file")
    beside = [found.relative_to(_folder(user)).as_posix() for found in path.parent.glob("*.yaml")]
    raise UnusablePath(f"there is no file {name!r} here", did_you_mean(name, [*builtin, *beside]))


def inside_folder(name: str, user: Pipeline) -> Path:
    """Return the path that ``name`` is, relative to the folder of ``user``, which it cannot leave.

    Raises:
        UnusablePath: If it is absolute, climbs out, also through a link, or is not a path at all.
    """
    if "\0" in name or not name.strip():
        raise UnusablePath(f"{name!r} is no path", _INSIDE)
    written = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if written.is_absolute() or windows.drive or windows.root or name.startswith("~"):
        raise UnusablePath(f"{name!r} is an absolute path", _INSIDE)
    if ".." in written.parts or ".." in windows.parts:
        raise UnusablePath(f"{name!r} climbs out of the folder", _INSIDE)
    folder = _folder(user)
    path = folder / written
    try:
        inside = paths.resolved(path).is_relative_to(paths.resolved(folder))
        path.is_file()  # a name that is too long for the system is found out here
    except (OSError, RuntimeError, ValueError) as exc:
        raise UnusablePath(f"{name!r} is no path that can be read", _INSIDE) from exc
    if not inside:
        raise UnusablePath(f"{name!r} leads out of the folder through a link", _INSIDE)
    return path


def _folder(user: Pipeline) -> Path:
    return user.path.parent if user.path is not None else Path()


def _resolved(path: Path) -> Path:
    try:
        return paths.resolved(path)
    except (OSError, RuntimeError):  # a loop of links; opening the file says so
        return path.absolute()
