"""A run's inputs: what was given, checked against what the pipeline declares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from synaptic.errors import PipelineError, Problem
from synaptic.pipeline.documents import (
    ClientText,
    FromFile,
    Repeated,
    confined,
    document_of,
    read_file,
    read_files,
    refuse_blank,
)
from synaptic.pipeline.templates import SKIPPED
from synaptic.settings import ADVICE, FolderText
from synaptic.text import did_you_mean, nearest, written_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from synaptic.pipeline.spec import InputSpec
    from synaptic.text import YamlDocument

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_FILES = frozenset({"file", "files"})


class PipelineForm(Protocol):
    """What a pipeline declares."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def description(self) -> str:
        """What it is for."""
        ...

    @property
    def inputs(self) -> Mapping[str, InputSpec]:
        """Name -> what the input takes."""
        ...


class PipelineFile(Protocol):
    """A pipeline that was read, as far as its steps do not matter: :class:`synaptic.Pipeline` is one."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def spec(self) -> PipelineForm:
        """What was declared."""
        ...

    @property
    def document(self) -> YamlDocument:
        """The text, for the places of mistakes."""
        ...

    @property
    def path(self) -> Path | None:
        """Its file, if it has one."""
        ...


def bind_inputs(pipeline: PipelineFile, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared input with its value; files are read.

    Args:
        pipeline: What is run. A file that it has for a default is read from its folder.
        given: What the caller gave; text is read as the declared type. An undeclared name is an error.
        defaults: The person's own defaults (setting ``pipeline_inputs``); undeclared names are passed over.

    Raises:
        PipelineError: With every input that is missing, unknown or of the wrong type, and every file that cannot be
            read.
    """
    declared = pipeline.spec.inputs
    values = {name: value for name, value in defaults.items() if name in declared} | dict(given)
    return _Binding(pipeline, values, convert_given, _how).bound()


def bind_values(pipeline: PipelineFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared input of a sub-pipeline, from values of the pipeline that uses it.

    No file is read for a value: documents are mappings with ``text``, or text. The output of a skipped step counts
    as not given.

    Raises:
        PipelineError: With every input that is missing, unknown or of the wrong type.
    """
    given = {name: value for name, value in values.items() if value is not SKIPPED}
    return _Binding(pipeline, given, convert, _how_inside).bound()


def bind_written(pipeline: PipelineFile, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return every declared input of a run whose inputs stand in the pipeline's own file, as those of a test do.

    Paths of files are relative to the pipeline's folder; documents may be mappings with ``text``.

    Raises:
        PipelineError: With every input that is missing, unknown or of the wrong type, and every file that cannot be
            read.
    """
    folder = None if pipeline.path is None else pipeline.path.parent

    def read(value: Any, declared: InputSpec) -> Any:
        if declared.type not in _FILES:
            return convert(value, declared)
        return (read_file if declared.type == "file" else read_files)(value, folder=folder)

    given = {name: value for name, value in written.items() if value is not None}
    return _Binding(pipeline, given, read, _how_inside).bound()


class _Binding:
    """Inputs on the way to their values, with every mistake on the way."""

    def __init__(
        self,
        pipeline: PipelineFile,
        given: Mapping[str, Any],
        read: Callable[[Any, InputSpec], Any],
        how: Callable[[str, InputSpec], str],
    ) -> None:
        self._pipeline = pipeline
        self._given = given
        self._read = read
        self._how = how
        self._problems: list[Problem] = []

    def bound(self) -> dict[str, Any]:
        """Return the values.

        Raises:
            PipelineError: With every mistake.
        """
        inputs, called = self._pipeline.spec.inputs, self._pipeline.name
        for name in self._given:
            if name not in inputs:
                message = f"pipeline {called!r} has no input {name!r}"
                self._problems.append(Problem(message, suggestion=did_you_mean(name, inputs)))
        values = {name: self._value(name, declared) for name, declared in inputs.items()}
        if self._problems:
            raise PipelineError.of(self._problems)
        return values

    def _value(self, name: str, declared: InputSpec) -> Any:
        own = name in self._given
        value = self._given[name] if own else declared.default
        if value is None:
            if declared.required:
                message = f"pipeline {self._pipeline.name!r} needs the input {name!r}"
                self._problems.append(Problem(message, suggestion=self._how(name, declared)))
            return None
        try:
            return self._read(value, declared) if own else self._default(name, value, declared)
        except ValueError as exc:
            self._problems += [self._located(name, str(message), own=own) for message in exc.args]
            return None

    def _default(self, name: str, value: Any, declared: InputSpec) -> Any:
        if declared.type not in _FILES:
            written = isinstance(value, bool) and declared.type == "string"
            return convert(self._as_written(name, value) if written else value, declared)
        check_default(value, declared)
        path = self._pipeline.path
        if path is None:
            raise ValueError("has a file for a default, but the pipeline was not read from a file")
        read = read_file if declared.type == "file" else read_files
        return read(value, folder=path.parent)

    def _as_written(self, name: str, value: Any) -> Any:
        """Return a default that YAML takes for a truth value as the file spells it: ``TRUE``, ``False``."""
        span = self._pipeline.document.spans.get(("inputs", name, "default"))
        return value if span is None else self._pipeline.document.text[span.start : span.end]

    def _located(self, name: str, message: str, *, own: bool) -> Problem:
        what, _, suggestion = message.partition("; ")
        problem = f"input {name!r} {what}"
        if own:
            return Problem(problem, suggestion=suggestion or None)
        document = self._pipeline.document
        return document.problem(problem, ("inputs", name, "default"), suggestion=suggestion or None)


def _how(name: str, declared: InputSpec) -> str:
    if name == "query":
        return "write the question after the command"
    value = {"file": "PATH", "files": "'PATTERN'"}.get(declared.type, "VALUE")
    return f"give it with -i {name}={value}"


def _how_inside(name: str, _: InputSpec) -> str:
    return f"write it under 'with', as in {name}: …"


def misnamed(given: Iterable[str], declared: Mapping[str, InputSpec]) -> dict[str, tuple[str | None, str]]:
    """Return each name that is not declared, with the required input that is meant, if one is, and what to write."""
    names = list(given)
    missing = [name for name, spec in declared.items() if spec.required and name not in names]
    found: dict[str, tuple[str | None, str]] = {}
    for name in names:
        if name not in declared:
            near = nearest(name, missing) or (missing[0] if len(missing) == 1 else None)
            found[name] = near, f"did you mean {near!r}?" if near else did_you_mean(name, declared)
    return found


def convert_given(value: Any, declared: InputSpec) -> Any:
    """Return what a person gave as the declared type: as :func:`convert` does it, but files are read.

    Raises:
        ValueError: Saying what was expected; one message in ``args`` for each mistake.
    """
    if isinstance(value, ClientText):
        return convert(str(value), declared)
    if isinstance(value, FromFile) and declared.type in _FILES:
        value = str(value)  # a path that needs no mark
    if declared.type in _FILES and (folder := _confining(value)) is not None:
        return _read_inside(value, declared, folder)
    if declared.type == "files":
        files = read_files(value)
        if declared.required:
            refuse_blank(files)
        return files
    if isinstance(value, Repeated) and declared.type == "list":
        return [item for part in value for item in _list(part)]
    if isinstance(value, Repeated):
        value = value[-1]
    if isinstance(value, FromFile) and declared.type not in _FILES:
        value = _text_of(value)
    if declared.type != "file":
        return convert(value, declared)
    file = read_file(value)
    if declared.required:
        refuse_blank([file])
    return file


def _read_inside(value: Any, declared: InputSpec, folder: Path) -> Any:
    """Return documents that the settings of a folder name that is not trusted: they lie in it.

    Raises:
        ValueError: If they do not, or cannot be read.
    """
    read = read_file if declared.type == "file" else read_files
    try:
        return read(value, folder=folder)
    except ValueError as exc:
        raise ValueError(*(text if ";" in text else f"{text}; {ADVICE}" for text in map(str, exc.args))) from exc


def _confining(value: Any) -> Path | None:
    """Return the folder that the paths in a value may not leave, because its own settings gave them."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    return next((text.folder for text in texts if isinstance(text, FolderText)), None)


def _text_of(path: FromFile) -> str:
    """Return the text of a file, without the line end that closes it.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return read_file(str(path))["text"].rstrip("\n")
    except ValueError as exc:
        hint = "; for a text that begins with '@', write '@@'" if ";" not in exc.args[0] else ""
        raise ValueError(f"{exc.args[0]}{hint}") from exc


def check_default(value: Any, declared: InputSpec) -> None:
    """Check what stands behind ``default:``, without reading a file.

    Raises:
        ValueError: Saying what was expected.
    """
    if declared.type not in _FILES:
        convert(value, declared)
        return
    paths: Iterable[Any] = value if declared.type == "files" and isinstance(value, list) else [value]
    for path in paths:
        if not isinstance(path, str) or not path.strip():
            raise ValueError(f"must be a path inside the pipeline's folder, not {value!r}")
        for part in path.split(",") if declared.type == "files" else [path]:
            confined(part.strip())


def convert(value: Any, declared: InputSpec) -> Any:
    """Return ``value`` as the declared type, reading text where text is given. Documents are data here, not paths.

    Raises:
        ValueError: Saying what was expected.
    """
    kind = declared.type
    if kind == "string":
        result: Any = _string(value, declared.choices)
    elif kind == "boolean":
        result = value if isinstance(value, bool) else _BOOLEANS.get(str(value).strip().lower())
        if result is None:
            raise ValueError(f"must be true or false, not {value!r}")
    elif kind == "list":
        result = _list(value)
    elif kind == "file":
        result = document_of(value)
    elif kind == "files":
        result = [document_of(item) for item in (value if isinstance(value, (list, tuple)) else [value])]
    else:
        result = _number(value, whole=kind == "integer")
        if declared.minimum is not None and result < declared.minimum:
            raise ValueError(f"must be at least {declared.minimum:.15g}, not {value}")
        if declared.maximum is not None and result > declared.maximum:
            raise ValueError(f"must be at most {declared.maximum:.15g}, not {value}")
    return result


def _string(value: Any, choices: list[str] | None) -> str:
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"must be text, not {type(value).__name__}")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not text.strip():
        raise ValueError("is empty")
    if choices is not None and text not in choices:
        match = nearest(text, choices)
        meant = f"; did you mean {match!r}?" if match else ""
        raise ValueError(f"must be one of {', '.join(choices)}, not {text!r}{meant}")
    return text


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ValueError(f"must be a list (on the command line: a,b,c), not {value!r}")


def _number(value: Any, *, whole: bool) -> int | float:
    what = "a whole number" if whole else "a number"
    if isinstance(value, bool):
        raise ValueError(f"must be {what}, not {value}")
    number = written_number(value.strip()) if isinstance(value, str) else value
    if not isinstance(number, int if whole else (int, float)) or not math.isfinite(number):
        raise ValueError(f"must be {what}, not {value!r}")
    return number
