"""Inputs of a run: defaults, types, bounds, and every mistake at once."""

import pytest

from synaptic.errors import PipelineError
from synaptic.pipeline.inputs import bind_inputs
from synaptic.pipeline.loader import Pipeline

PIPELINE = """\
version: 1
name: demo
inputs:
  query: {type: string, required: true}
  rounds: {type: integer, default: 1, minimum: 0, maximum: 5}
  threshold: {type: number, default: 0.5}
  loud: {type: boolean, default: false}
  tags: {type: list, default: []}
  note: {type: string}
steps:
  a: {agent: editor, prompt: x}
result: "{{ steps.a }}"
"""
SPEC = Pipeline.parse(PIPELINE).spec


def test_defaults_fill_what_is_not_given():
    assert bind_inputs(SPEC, {"query": "q"}, {}) == {
        "query": "q",
        "rounds": 1,
        "threshold": 0.5,
        "loud": False,
        "tags": [],
        "note": None,
    }


def test_a_given_value_wins_over_the_persons_default_and_that_over_the_pipelines():
    assert bind_inputs(SPEC, {"query": "q"}, {"rounds": 3, "other": 1})["rounds"] == 3
    assert bind_inputs(SPEC, {"query": "q", "rounds": "4"}, {"rounds": 3})["rounds"] == 4


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("rounds", "2", 2),
        ("threshold", "0.25", 0.25),
        ("threshold", 1, 1.0),
        ("loud", "yes", True),
        ("loud", False, False),
        ("loud", "OFF", False),
        ("tags", "a, b,", ["a", "b"]),
        ("tags", ("a",), ["a"]),
        ("query", 7, "7"),
    ],
)
def test_text_is_read_as_the_declared_type(name: str, given: object, value: object):
    assert bind_inputs(SPEC, {"query": "q", name: given}, {})[name] == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs the input 'query'; write the question after the command"),
        ({"query": "  "}, "input 'query' is empty"),
        ({"query": ["a"]}, "input 'query' must be text, not list"),
        ({"query": "q", "round": 1}, "has no input 'round'; did you mean 'rounds'"),
        ({"query": "q", "rounds": "two"}, "'rounds' must be a whole number, not 'two'"),
        ({"query": "q", "rounds": True}, "'rounds' must be a whole number, not True"),
        ({"query": "q", "rounds": 1.5}, "'rounds' must be a whole number, not 1.5"),
        ({"query": "q", "rounds": -1}, "'rounds' must be at least 0, not -1"),
        ({"query": "q", "rounds": 9}, "'rounds' must be at most 5, not 9"),
        ({"query": "q", "threshold": "nan"}, "'threshold' must be a number, not 'nan'"),
        ({"query": "q", "threshold": []}, "'threshold' must be a number"),
        ({"query": "q", "loud": "maybe"}, "'loud' must be true or false, not 'maybe'"),
        ({"query": "q", "tags": 3}, "'tags' must be a list"),
    ],
)
def test_each_mistake_says_what_to_write(given: dict, message: str):
    with pytest.raises(PipelineError) as caught:
        bind_inputs(SPEC, given, {})

    assert message in str(caught.value)


def test_every_mistake_is_reported():
    with pytest.raises(PipelineError) as caught:
        bind_inputs(SPEC, {"rounds": "x", "lod": 1}, {})

    assert len(caught.value.problems) == 3


def test_a_required_input_that_is_no_question_says_how_to_give_it():
    spec = Pipeline.parse(PIPELINE.replace("query:", "topic:")).spec

    with pytest.raises(PipelineError, match="give it with -i topic=VALUE"):
        bind_inputs(spec, {}, {})
