"""What a caller gives a session to run: the question, the pipeline, documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import PipelineError, Problem, UsageError
from synaptic.pipeline import Pipeline, document_of, examine
from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synaptic.pipeline import CompileContext

SHOWN_CHARACTERS: Final = 60


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


def read_documents(given: Sequence[Mapping[str, str] | str]) -> list[dict[str, str]]:
    """Return documents that are given as data.

    Raises:
        UsageError: With every one that is none; for one alone, whose letters or keys would be the documents.
    """
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
