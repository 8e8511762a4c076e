"""What a caller gives a session to run: the question, the pipeline, documents."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from synaptic.agents import Agent
from synaptic.errors import PipelineError, Problem, UsageError
from synaptic.messages import PRIORITIES, Message
from synaptic.pipeline import Pipeline, Tool, document_of, examine
from synaptic.settings import Settings
from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.pipeline import CompileContext

SHOWN_CHARACTERS: Final = 60

_Check: TypeAlias = "Callable[[Any], bool]"


def _a(*kinds: type) -> _Check:
    return lambda value: isinstance(value, kinds)


def _named(*kinds: type) -> _Check:
    return lambda value: (
        isinstance(value, Mapping)
        and all(isinstance(key, str) and isinstance(each, kinds) for key, each in value.items())
    )


def _several(kind: type) -> _Check:
    return lambda value: (
        isinstance(value, Collection)
        and not isinstance(value, (str, Mapping))
        and all(isinstance(each, kind) for each in value)
    )


_TEXT: Final = (_a(str), "a text")
_FUNCTION: Final = (callable, "a function")
_AGENTS: Final = (_named(Agent), "a mapping of names to agents, as in {'poet': synaptic.Agent.load('poet.md')}")
_WANTED: Final[Mapping[str, tuple[_Check, str]]] = {
    "settings": (_a(Settings), "of synaptic.Settings, as in synaptic.Settings(model='llama3.2')"),
    "backend": (
        lambda value: hasattr(value, "stream") and not isinstance(value, type),
        "a backend; one that has a name is a setting, as in synaptic.Settings(backend='embedded')",
    ),
    "agents": _AGENTS,
    "steady": _AGENTS,
    "tools": (
        lambda value: (
            _named(object)(value) and all(isinstance(each, Tool) or callable(each) for each in value.values())
        ),
        "a mapping of names to tools or functions, as in {'weather': synaptic.Tool.of(weather)}",
    ),
    "approver": _FUNCTION,
    "on_event": _FUNCTION,
    "priority": (lambda value: isinstance(value, str) and value in PRIORITIES, f"one of {', '.join(PRIORITIES)}"),
    "runs_at_once": (_a(int), "a whole number"),
    "pipeline": (_a(str, PathLike, Pipeline), "a built-in name, the path of a file or a synaptic.Pipeline"),
    "inputs": (_named(object), "a mapping of names to values, as in {'rounds': 2}"),
    "conversation": (_several(Message), "a list of messages, as in [synaptic.Message('user', 'Hello')]"),
    "files": (_several(str), "a list of paths, as in ['notes.txt']"),
    "changed": (_several(str), "a list of names of settings, as in ['model']"),
    "model": _TEXT,
    "run_id": (_a(str), "the id of a run, as in RunResult.run_id"),
    "at": _TEXT,
    "session": _TEXT,
    "after": _TEXT,
    "title": _TEXT,
    "instead": _TEXT,
    "last": _TEXT,
}

_NEVER_NONE: Final = frozenset({"priority", "runs_at_once"})


def refuse_others(**given: Any) -> None:
    """Refuse arguments of the library that are of another kind than they should be; ``None`` is none that is given.

    Raises:
        UsageError: With every one, and what to give.
    """
    wrong = [
        UsageError.of_kind("settings" if name == "changed" else name, value, _WANTED[name][1]).problems[0]
        for name, value in given.items()
        if (value is not None or name in _NEVER_NONE) and not _WANTED[name][0](value)
    ]
    if wrong:
        raise UsageError.of(wrong)


def with_query(query: str | None, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the inputs with the question among them.

    Raises:
        UsageError: If it is given twice, and not the same.
    """
    if query is None:
        return inputs
    other = inputs.get("query", query)
    if other != query:
        one, two = (one_line(str(text), SHOWN_CHARACTERS) for text in (query, other))
        said = f"the question is given twice: {one!r}, and {two!r} as the input 'query'"
        raise UsageError(said, hint="give it once; a value with blanks needs quotes, as in -i 'query=two words'")
    return {**inputs, "query": query}


def read_pipeline(pipeline: str | Path | Pipeline, context: CompileContext) -> Pipeline:
    """Return the pipeline.

    Raises:
        PipelineError: With every mistake in its file, those of form and those of meaning together.
    """
    if isinstance(pipeline, Pipeline):
        return pipeline
    try:
        return Pipeline.find(pipeline)
    except PipelineError as exc:
        _, problems = examine(pipeline, context)
        if not problems:
            raise
        raise PipelineError.of(problems) from exc


def read_documents(given: object) -> list[dict[str, str]]:
    """Return documents that are given as data.

    Raises:
        UsageError: With every one that is none; for one alone, whose letters or keys would be the documents.
    """
    if given is None:
        return []
    if not isinstance(given, Iterable):
        raise UsageError.of_kind("documents", given, "a list of texts, as in documents=[text]")
    if isinstance(given, (str, bytes, Mapping)):
        hint = "write documents=[text]; the text of a file is Path('notes.txt').read_text()"
        raise UsageError("documents is a list of texts, not one alone", hint=hint)
    found, problems = [], []
    for number, document in enumerate(given, 1):
        try:
            found.append(document_of(document))
        except ValueError as exc:
            problems.append(Problem(f"document {number} {exc}"))
    if problems:
        raise UsageError.of(problems)
    return found
