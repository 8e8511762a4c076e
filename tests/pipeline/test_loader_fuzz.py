"""Whatever is read, the loader and the compiler give a pipeline or a ``PipelineError`` that a person can read.

Here are data over the known keys, and every mistake that people make with something changed in it; any text and any
bytes are the target ``pipeline`` of ``tests/whole/test_fuzz.py``.
"""

import json

from fuzz_files import CONTEXT
from fuzz_mutations import changed
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_mistakes import MISTAKES

from synaptic.errors import PipelineError
from synaptic.pipeline.compiler import compile_pipeline, examine_text
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.pipeline.spec.keys import known_keys

VALID = [path.read_text(encoding="utf-8") for path in builtin_pipelines().values()]
VALID += [mistake.text.replace("§", "") for mistake in MISTAKES if len(mistake.text) < 2000]

PLACES = [
    (),
    ("steps", "x"),
    ("steps", "x", "repeat"),
    ("steps", "x", "choose"),
    ("steps", "x", "retry"),
    ("inputs", "x"),
    ("agents", "x"),
    ("defaults",),
    ("budget",),
]
KEYS = sorted({key for place in PLACES for key in known_keys(place)})
PIECES = [" ", "\n", "\t", ":", "- ", "{{", "}}", "a", "0", '"', "'", "*x", "&x"]
NAMES = ["a", "b", "r"]
TEXTS = [
    "editor",
    "critic",
    "answer",
    "count_words",
    "{{ steps.a }}",
    "{{ steps.r.b.score }} {{ inputs.a }}",
    "{{ previous.b }}{{ item }}",
    "{% for x in steps.a %}{{ x }}{% endfor %}",
    "{{",
    "{% if %}",
    "steps.a",
    "steps.b.score > 0.5",
    "inputs.a",
    "string",
    "list[string](1..2)",
    "p.yaml",
    "any",
    "best",
    "\0",
    "é😀\ud800",
]

scalars = st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=6)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS + NAMES), inner, min_size=1, max_size=4)
    ),
    max_leaves=12,
)
steps = st.fixed_dictionaries(
    {"agent": st.sampled_from(["editor", "critic"]), "prompt": st.sampled_from(TEXTS)},
    optional={
        key: values
        for key in known_keys(("steps", "x"))
        if key not in {"agent", "prompt", "tool", "use", "choose", "description"}
    },
)
loops = st.fixed_dictionaries(
    {"repeat": st.fixed_dictionaries({"steps": st.dictionaries(st.sampled_from(NAMES), steps, min_size=1)})},
    optional={"when": values, "needs": st.lists(st.sampled_from(NAMES)), "foreach": st.sampled_from(TEXTS)},
)
pipelines = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "name": st.just("fuzz"),
        "steps": st.dictionaries(st.sampled_from(NAMES), steps | loops | values, min_size=1),
        "result": st.sampled_from(TEXTS),
    },
    optional=dict.fromkeys(("inputs", "defaults", "agents", "budget", "concurrency"), values),
)


def outcome(text: str) -> str:
    """Return what is said of the text; "" if it is a pipeline."""
    _, every = examine_text(text, "p.yaml", CONTEXT)
    try:
        compile_pipeline(Pipeline.parse(text, "p.yaml"), CONTEXT)
    except PipelineError as error:
        assert error.problems
        assert set(error.problems) <= set(every)
        assert all(problem.line and problem.column for problem in every)
        assert "Traceback" not in str(error)
        assert len(set(every)) == len(every)
        return str(error)
    assert not every
    return ""


@settings(max_examples=120, deadline=None, derandomize=True)
@given(pipelines)
def test_any_data_over_the_known_keys(data: dict):
    outcome(json.dumps(data))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(values)
def test_any_nested_data(data: object):
    outcome(json.dumps(data))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(changed([text.encode() for text in VALID], [piece.encode() for piece in PIECES]))
def test_a_pipeline_with_something_changed_in_it(data: bytes):
    outcome(data.decode(errors="replace"))


def test_the_pipelines_that_are_changed_are_right_before():
    assert [outcome(text) for text in VALID[: len(builtin_pipelines())]] == [""] * len(builtin_pipelines())
