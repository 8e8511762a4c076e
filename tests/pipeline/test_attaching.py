"""Where documents beside a question go: into the pipeline's input of files, else behind the question."""

from typing import Any

import pytest

from synaptic import Pipeline
from synaptic.pipeline import attach

PIPE = {"name": "", "path": "", "text": "Piped.\n"}
FILE = {"name": "a.txt", "path": "in/a.txt", "text": "Read.\n"}

ROWS: list[tuple[str, dict[str, Any], list[dict[str, str]], dict[str, Any]]] = [
    ("answer", {"query": "Why?"}, [], {"query": "Why?"}),
    ("answer", {"query": "Why?"}, [PIPE], {"query": "Why?\n\nPiped."}),
    ("answer", {}, [PIPE], {"query": "Piped."}),
    ("answer", {"query": "Why?"}, [PIPE, FILE], {"query": "Why?\n\nPiped.\n\na.txt:\n\nRead."}),
    ("map_reduce", {"query": "Why?"}, [PIPE, FILE], {"query": "Why?", "files": [PIPE, FILE]}),
    ("map_reduce", {}, [PIPE], {"files": [PIPE]}),
    ("map_reduce", {"files": "b.txt"}, [PIPE], {"files": "b.txt", "query": "Piped."}),
    ("fact_check", {"query": "It is."}, [FILE], {"query": "It is.", "sources": [FILE]}),
    ("fact_check", {}, [FILE], {"query": "a.txt:\n\nRead."}),  # it needs a text: this is the one to check
]


@pytest.mark.parametrize(("name", "given", "documents", "inputs"), ROWS)
def test_where_documents_go(name: str, given: dict[str, Any], documents: list[dict[str, str]], inputs: dict[str, Any]):
    attached = attach(Pipeline.builtin(name).spec, given, documents)

    assert attached.inputs == inputs


def test_a_question_is_told_apart_from_what_stands_behind_it():
    attached = attach(Pipeline.builtin("answer").spec, {"query": "Why?"}, [PIPE, FILE])

    assert (attached.question, attached.documents) == ("Why?", (PIPE, FILE))


def test_a_single_file_goes_into_an_input_of_one():
    text = (
        "version: 1\nname: one\ninputs: {query: {}, it: {type: file}}\n"
        "steps: {s: {agent: editor, prompt: '{{ inputs.query }} {{ inputs.it.text }}'}}\nresult: '{{ steps.s }}'\n"
    )
    spec = Pipeline.parse(text).spec

    assert attach(spec, {"query": "?"}, [FILE]).inputs == {"query": "?", "it": FILE}
    assert attach(spec, {"query": "?"}, [FILE, PIPE]).inputs == {"query": "?\n\na.txt:\n\nRead.\n\nPiped."}
