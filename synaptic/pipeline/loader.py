"""A pipeline file to a :class:`Pipeline`: every mistake of form is found here, with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pydantic

from synaptic import paths
from synaptic.errors import PipelineError
from synaptic.pipeline.spec import InputSpec, PipelineSpec, RepeatSpec, StepSpec
from synaptic.problems import Problem, did_you_mean
from synaptic.yaml_source import Document, KeyPath, parse_yaml, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

MAX_PIPELINE_BYTES = 1 << 20

Model: TypeAlias = type[pydantic.BaseModel]

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value lines)",
    "list_type": "a list",
    "model_type": "a mapping (key: value lines)",
}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that was read and has the right form. Planning checks what it refers to."""

    spec: PipelineSpec
    document: Document = field(repr=False)
    path: Path | None = None

    @property
    def name(self) -> str:
        """The name that the file gives it."""
        return self.spec.name

    @classmethod
    def parse(cls, text: str, source: str = "<pipeline>", *, path: Path | None = None) -> Pipeline:
        """Return the pipeline that the YAML text describes.

        Raises:
            PipelineError: With every mistake of form, each located.

        """
        document = parse_yaml(text, source, PipelineError)
        if not isinstance(document.value, dict):
            problem = Problem("a pipeline is a mapping that begins with 'version: 1'", source, 1, 1)
            raise PipelineError.of([problem])
        try:
            spec = PipelineSpec.model_validate(document.value)
        except pydantic.ValidationError as exc:
            problems = [_translate(error, document) for error in exc.errors(include_url=False)]
            raise PipelineError.of(sorted(problems, key=_position)) from exc
        return cls(spec, document, path)

    @classmethod
    def load(cls, path: str | Path) -> Pipeline:
        """Return the pipeline in the file at ``path``.

        Raises:
            PipelineError: If the file cannot be read or is not a pipeline.

        """
        path = Path(path)
        text = read_text(path, "pipeline", PipelineError, limit=MAX_PIPELINE_BYTES)
        return cls.parse(text, str(path), path=path)

    @classmethod
    def builtin(cls, name: str) -> Pipeline:
        """Return the pipeline called ``name`` that comes with the package.

        Raises:
            PipelineError: If there is none of that name.

        """
        path = builtin_pipelines().get(name)
        if path is None:
            raise PipelineError(f"there is no pipeline {name!r}", hint=did_you_mean(name, builtin_pipelines()))
        return cls.load(path)

    @classmethod
    def find(cls, name: str | Path) -> Pipeline:
        """Return a built-in pipeline by its name, or the one in a file by its path.

        Raises:
            PipelineError: If it is neither, or the file is wrong.

        """
        text = str(name)
        looks_like_path = isinstance(name, Path) or "/" in text or text.endswith((".yaml", ".yml"))
        return cls.load(text) if looks_like_path else cls.builtin(text)


def builtin_pipelines() -> Mapping[str, Path]:
    """Return name -> file of the pipelines that come with the package."""
    return {path.stem: path for path in sorted(paths.builtin_pipelines_dir().glob("*.yaml"))}


def _translate(error: ErrorDetails, document: Document) -> Problem:
    """Return one of pydantic's errors in plain words, at its place in the file."""
    kind = error["type"]
    path: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    name = path[-1] if path else "the pipeline"
    if kind == "extra_forbidden":
        suggestion = did_you_mean(str(name), known_keys(path[:-1]))
        return document.problem(f"unknown key {str(name)!r}", path, suggestion=suggestion)
    if kind == "missing":
        owner = ".".join(str(part) for part in path[:-1]) or "the pipeline"
        return document.problem(f"{owner} lacks {str(name)!r}", path[:-1])
    if kind in _EXPECTED:
        got = _describe(error["input"])
        return document.problem(f"{str(name)!r} must be {_EXPECTED[kind]}, not {got}", path, at_key=False)
    if kind == "string_pattern_mismatch" and "[key]" in error["loc"]:
        advice = "use small letters, digits and _, beginning with a letter"
        return document.problem(f"{str(name)!r} is not a usable name", path, suggestion=advice)
    if kind == "literal_error":
        return document.problem(f"{str(name)!r} must be {error['ctx']['expected']}, not {error['input']!r}", path)
    message = error["msg"].removeprefix("Value error, ")
    return document.problem(f"{str(name)!r}: {message[:1].lower()}{message[1:]}", path, at_key=False)


def _position(problem: Problem) -> tuple[int, int]:
    return problem.line or 0, problem.column or 0


def known_keys(path: KeyPath) -> Iterator[str]:
    """Yield the keys that may stand in the mapping at ``path`` of a pipeline file."""
    model: Model = PipelineSpec
    for index, part in enumerate(path):
        before = path[index - 1] if index else None
        if part == "repeat":
            model = RepeatSpec
        elif before == "steps":
            model = StepSpec
        elif before == "inputs":
            model = InputSpec
    for key, info in model.model_fields.items():
        yield info.alias or key


def _describe(value: Any) -> str:
    names = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    if value is None:
        return "nothing"
    return f"{names.get(type(value), type(value).__name__)} ({str(value)[:40]!r})"
