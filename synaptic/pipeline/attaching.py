"""Where documents go that stand beside a question: into an input that takes files, else behind the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.inputs import convert_given

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.pipeline.documents import Text
    from synaptic.pipeline.inputs import PipelineForm


@dataclass(frozen=True, slots=True)
class Attached:
    """The inputs of a run with its documents in them.

    Attributes:
        inputs: What is given to the pipeline.
        question: The question alone, where documents stand behind it in the input ``query``.
    """

    inputs: Mapping[str, Any]
    question: str = ""
    documents: tuple[Text, ...] = ()


def attach(form: PipelineForm, given: Mapping[str, Any], documents: Sequence[Text]) -> Attached:
    """Return the inputs with the documents where the pipeline reads them.

    An input of the type ``file`` or ``files`` that was not given takes them, unless there is no question and the
    pipeline needs one: then they are what is asked.
    """
    if not documents:
        return Attached(given)
    name = _taker(form, given, len(documents))
    if name is not None and ("query" in given or not _needs_query(form)):
        value: Any = list(documents) if form.inputs[name].type == "files" else documents[0]
        return Attached({**given, name: value})
    declared = form.inputs.get("query")
    question = str(given.get("query") or "")
    if declared is not None and question:
        try:
            question = str(convert_given(given["query"], declared))
        except ValueError:
            return Attached(given)  # binding the inputs says what is wrong
    texts = [_with_name(document) for document in documents]
    query = "\n\n".join(part for part in (question, *texts) if part)
    return Attached({**given, "query": query}, question, tuple(documents))


def _taker(form: PipelineForm, given: Mapping[str, Any], count: int) -> str | None:
    """Return the input that takes the documents: one that is required, before one that is not."""
    free = [
        name
        for name, spec in form.inputs.items()
        if name not in given and (spec.type == "files" or (spec.type == "file" and count == 1))
    ]
    return min(free, key=lambda name: not form.inputs[name].required, default=None)


def _needs_query(form: PipelineForm) -> bool:
    query = form.inputs.get("query")
    return query is not None and query.required


def _with_name(document: Text) -> str:
    text = document["text"].strip()
    return f"{document['name']}:\n\n{text}" if document["name"] else text
