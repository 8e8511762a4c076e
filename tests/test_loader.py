"""A pipeline file: its form, and every mistake of form at its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.errors import PipelineError
from synaptic.pipeline.loader import Pipeline, builtin_pipelines

GOOD = """\
version: 1
name: good
steps:
  a: {agent: editor, prompt: hello}
result: "{{ steps.a }}"
"""


NAME_RULE = "use small letters, digits and _, beginning with a letter"
AT_MOST_2 = "less than or equal to 2"


def mistakes(text: str) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse(text, "p.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_built_in_pipeline_has_its_files_name():
    assert {name: Pipeline.builtin(name).name for name in builtin_pipelines()} == {
        "answer": "answer",
        "parallel": "parallel",
        "research": "research",
    }


def test_a_pipeline_is_found_by_name_and_by_path(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)

    assert Pipeline.find("answer").name == "answer"
    assert Pipeline.find(file).name == "good"
    assert Pipeline.find(str(file)).path == file


@pytest.mark.parametrize(
    ("name", "message"),
    [("anwser", "did you mean 'answer'"), ("none.yaml", "there is no such file"), ("./x/y", "there is no such file")],
)
def test_what_is_not_there_says_so(name: str, message: str):
    with pytest.raises(PipelineError) as caught:
        Pipeline.find(name)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: good", "nam: good", "p.yaml:2:1: unknown key 'nam'; did you mean 'name'?"),
        ("agent: editor", "agnt: editor", "p.yaml:4:7: unknown key 'agnt'; did you mean 'agent'?"),
        ("version: 1", "version: 2", "p.yaml:1:1: 'version' must be 1, not 2"),
        ("prompt: hello", "prompt: 3", "p.yaml:4:30: 'prompt' must be text, not a number ('3')"),
        ("prompt: hello", "prompt: [a]", "p.yaml:4:30: 'prompt' must be text, not a list (\"['a']\")"),
        ("prompt: hello", "prompt: x, when: true", "p.yaml:4:39: 'when' must be text, not true/false ('True')"),
        ("  a:", "  A-b:", "p.yaml:4:3: 'A-b' is not a usable name; " + NAME_RULE),
        ('result: "{{ steps.a }}"', "", "p.yaml:1:1: the pipeline lacks 'result'"),
        ("prompt: hello", "prompt: x, temperature: 9", "p.yaml:4:46: 'temperature': input should be " + AT_MOST_2),
        ("prompt: hello", "prompt: x, on_error: fial", "p.yaml:4:33: 'on_error' must be 'fail' or 'skip', not 'fial'"),
        ("prompt: hello", "prompt: x, repeat: {stps: {}}", None),
        ("steps:\n  a: {agent: editor, prompt: hello}", "steps: {}", None),
        ("steps:\n  a: {agent: editor, prompt: hello}", "steps: [1]", None),
        ("steps:", "inputs: {q: {tpe: string}}\nsteps:", "p.yaml:3:14: unknown key 'tpe'; did you mean 'type'?"),
        ("prompt: hello", "prompt: ~", None),
    ],
)
def test_a_mistake_of_form_is_located(old: str, new: str, expected: str | None):
    if new == "prompt: ~":
        assert Pipeline.parse(GOOD.replace(old, new)).spec.steps["a"].prompt is None
        return
    found = mistakes(GOOD.replace(old, new))

    assert expected in found if expected else found


def test_a_misspelt_key_inside_a_loop_knows_the_loops_keys():
    text = GOOD.replace("agent: editor, prompt: hello", "repeat: {untill: x, steps: {b: {agent: e, prompt: x}}}")

    assert mistakes(text) == ["p.yaml:4:16: unknown key 'untill'; did you mean 'until'?"]


def test_every_mistake_is_reported_once_and_in_order():
    found = mistakes("version: 1\nnam: x\nsteps:\n  a: {agnt: x, prompt: 1}\n")

    assert [problem.split(":")[1] for problem in found] == ["1", "1", "2", "4", "4"]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]", "3"])
def test_what_is_no_mapping_is_no_pipeline(text: str):
    assert mistakes(text) == ["p.yaml:1:1: a pipeline is a mapping that begins with 'version: 1'"]


def test_nothing_reads_as_nothing():
    assert "nothing" in mistakes(GOOD.replace("  a: {agent: editor, prompt: hello}", "  a:"))[0]


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "name", "steps", "a", "agent", "prompt", "repeat", "inputs"]), inner
        )
    ),
    max_leaves=15,
)


@given(YAML_VALUES)
def test_any_data_gives_a_pipeline_or_a_pipeline_error(value: object):
    import json

    try:
        Pipeline.parse(json.dumps(value))
    except PipelineError as error:
        assert error.problems
