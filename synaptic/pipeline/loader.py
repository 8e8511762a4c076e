"""A pipeline file to a ``Pipeline``: every mistake of form is found here, with its place in the file."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from synaptic import paths
from synaptic.agents import discover_agents
from synaptic.errors import AgentError, PipelineError, Problem
from synaptic.pipeline.spec import PipelineSpec, put_right, translate
from synaptic.pipeline.spec import known_keys as known_keys  # noqa: PLC0414  (the loader's public face)
from synaptic.text import YamlDocument, cut, did_you_mean, misspelt, nearest, read_text, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_PIPELINE_BYTES = 1 << 20
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that was read and has the right form. Planning checks what it refers to."""

    spec: PipelineSpec
    document: YamlDocument = field(repr=False)
    path: Path | None = None

    @property
    def name(self) -> str:
        """The name that the file gives it."""
        return self.spec.name

    @classmethod
    def parse(cls, text: str, source: str = "<pipeline>", *, path: Path | None = None) -> Pipeline:
        """Return the pipeline that the YAML text describes.

        Args:
            text: The YAML.
            source: What messages call it.
            path: The file that it stands in; what it uses is looked for beside it, else in the current folder.

        Raises:
            PipelineError: With every mistake of form, each located.
        """
        if not isinstance(text, str):
            raise PipelineError.of_kind("text", text, "the YAML of a pipeline as a str")
        document, problems = read_leniently(text, source)
        data, misplaced = put_right(document)
        problems += misplaced
        try:
            spec = PipelineSpec.model_validate(data)
        except pydantic.ValidationError as exc:
            raise PipelineError.of([*problems, *translate(exc.errors(include_url=False), document)]) from exc
        if problems:
            raise PipelineError.of(problems)
        return cls(spec, document, path)

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Return the pipeline in the file at ``path``.

        Raises:
            PipelineError: If the file cannot be read or is not a pipeline.
        """
        path = _a_path(path)
        text = read_text(path, "pipeline", PipelineError, limit=MAX_PIPELINE_BYTES)
        return cls.parse(text, str(path), path=path)

    @classmethod
    def builtin(cls, name: str) -> Pipeline:
        """Return the pipeline called ``name`` that comes with the package.

        Raises:
            PipelineError: If there is none of that name.
        """
        return cls.load(_builtin_file(name))

    @classmethod
    def find(cls, name: str | Path) -> Pipeline:
        """Return a built-in pipeline by its name, or the one in a file by its path.

        Raises:
            PipelineError: If it is neither, or the file is wrong.
        """
        return cls.load(find_file(name))


def _a_path(path: str | Path) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise PipelineError.of_kind("pipeline", path, "a built-in name, or the path of a file")
    return Path(path)


def read_leniently(text: str, source: str) -> tuple[YamlDocument, list[Problem]]:
    """Return the YAML of a pipeline, and mistakes in it in spite of which it is clear what is meant.

    Raises:
        PipelineError: If it is too long, broken, or no mapping.
    """
    if len(text) > MAX_PIPELINE_BYTES:
        message = f"the text has {len(text):,} characters; a pipeline has at most {MAX_PIPELINE_BYTES:,}"
        raise PipelineError.of([Problem(message, source, 1, 1)])
    document, problems = read_yaml(text, source, PipelineError)
    if not isinstance(document.value, dict):
        problem = document.problem("a pipeline is a mapping that begins with 'version: 1'", ())
        raise PipelineError.of([*problems, problem])
    return document, problems


def builtin_pipelines() -> Mapping[str, Path]:
    """Return name -> file of the pipelines that come with the package."""
    return {path.stem: path for path in sorted(paths.builtin_pipelines_dir().glob("*.yaml"))}


def misspelt_defaults(pipeline: Pipeline, defaults: Iterable[str]) -> Iterator[str]:
    """Yield a line for each name in ``pipeline_inputs`` that is nearly an input of the pipeline.

    One that a built-in pipeline has was meant for that: the setting serves all.
    """
    declared = pipeline.spec.inputs
    near = {name: [each for each in declared if misspelt(name, each)] for name in defaults if name not in declared}
    if not any(near.values()):
        return
    known = {name for file in builtin_pipelines().values() for name in Pipeline.load(file).spec.inputs}
    for name, meant in near.items():
        if meant and name not in known:
            what = f"pipeline_inputs.{name} has no effect: pipeline {pipeline.name!r} has no such input"
            yield f"{what}; did you mean {nearest(name, meant)!r}?"


def find_file(name: str | Path) -> Path:
    """Return the file of a built-in pipeline by its name, or a path as it is.

    Raises:
        PipelineError: If it is not a path, and no built-in pipeline has that name.
    """
    _a_path(name)
    return paths.expanded(name) if looks_like_path(name) else _builtin_file(str(name))


def _builtin_file(name: str) -> Path:
    path = builtin_pipelines().get(name)
    if path is None:
        here = [file for file in (f"{name}.yaml", f"{name}.yml") if paths.is_file(file)]
        hint = f"to use the file that is here, write {here[0]}" if here else did_you_mean(name, builtin_pipelines())
        if not here and _is_agent(name):
            hint = f"{name} is an agent: a pipeline's step names it, as in ask: {{agent: {name}, prompt: ...}}; {hint}"
        if not here and (paths.is_file(name) or paths.is_dir(name)):
            what = "folder" if paths.is_dir(name) else "file"
            raise PipelineError(
                f"{name!r} is a {what}, and no pipeline", hint=f"a pipeline's file ends in .yaml; {hint}"
            )
        raise PipelineError(f"there is no pipeline {cut(name, _SHOWN)!r}", hint=hint)
    return path


def _is_agent(name: str) -> bool:
    with suppress(AgentError):  # what is wrong with another file is not what was asked
        return name in discover_agents()
    return False


def looks_like_path(name: str | Path) -> bool:
    """Return whether ``name`` is meant as a file and not as the name of a built-in pipeline."""
    return isinstance(name, Path) or paths.names_pipeline_file(name)
