"""A pipeline file: its form, and every mistake of form at its place."""

import pytest

from synaptic.errors import PipelineError
from synaptic.pipeline.loader import MAX_PIPELINE_BYTES, Pipeline, builtin_pipelines, known_keys

GOOD = """\
version: 1
name: good
steps:
  a: {agent: editor, prompt: hello}
result: "{{ steps.a }}"
"""


NAME_RULE = "use small letters, digits and _, beginning with a letter, at most 64"


def mistakes(text: str) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        Pipeline.parse(text, "p.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_built_in_pipeline_has_its_files_name():
    names = builtin_pipelines()

    assert {"answer", "parallel", "research"} <= set(names)
    assert [Pipeline.builtin(name).name for name in names] == list(names)


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
        ("version: 1", "version: 2", "p.yaml:1:10: 'version' must be 1, not 2"),
        ("prompt: hello", "prompt: 3", "p.yaml:4:30: 'prompt' must be text, not a number (3); put it in quotes: '3'"),
        (
            "prompt: hello",
            "prompt: [a]",
            "p.yaml:4:30: 'prompt' must be text, not a list; write '|' behind 'prompt:', and its lines below, indented",
        ),
        (
            "prompt: hello",
            "prompt: x, when: true",
            "p.yaml:4:39: 'when' must be text, not true/false (true); put it in quotes: 'true'",
        ),
        ("  a:", "  A-b:", "p.yaml:4:3: 'A-b' is not a usable name; " + NAME_RULE),
        ('result: "{{ steps.a }}"', "", "p.yaml:1:1: the pipeline lacks 'result'; add \"result: '{{ steps.NAME }}'\""),
        ("prompt: hello", "prompt: x, temperature: 9", "p.yaml:4:46: 'temperature' must be at most 2, not 9"),
        (
            "prompt: hello",
            "prompt: x, on_error: fial",
            "p.yaml:4:43: 'on_error' must be fail, skip, or {use: STEP}, not 'fial'; did you mean 'fail'?",
        ),
        ("prompt: hello", "prompt: x, repeat: {stps: {}}", "p.yaml:4:42: unknown key 'stps'; did you mean 'steps'?"),
        (
            "steps:\n  a: {agent: editor, prompt: hello}",
            "steps: {}",
            "p.yaml:3:8: 'steps' must have at least 1 entry",
        ),
        (
            "steps:\n  a: {agent: editor, prompt: hello}",
            "steps: [1]",
            (
                "p.yaml:3:8: 'steps' must be a mapping (key: value lines), not a list; "
                "write 'NAME:' in the place of each '- ', and what the step does below it"
            ),
        ),
        ("steps:", "inputs: {q: {tpe: string}}\nsteps:", "p.yaml:3:14: unknown key 'tpe'; did you mean 'type'?"),
    ],
)
def test_a_mistake_of_form_is_one_problem(old: str, new: str, expected: str):
    assert mistakes(GOOD.replace(old, new)) == [expected]


def test_a_key_without_a_value_is_as_if_it_were_not_there():
    assert Pipeline.parse(GOOD.replace("prompt: hello", "prompt: ~")).spec.steps["a"].prompt is None


def test_a_misspelt_key_inside_a_loop_knows_the_loops_keys():
    text = GOOD.replace("agent: editor, prompt: hello", "repeat: {untill: x, steps: {b: {agent: e, prompt: x}}}")

    assert mistakes(text) == ["p.yaml:4:16: unknown key 'untill'; did you mean 'until'?"]


def test_every_mistake_is_reported_once_and_in_order():
    found = mistakes("version: 1\nnam: x\nsteps:\n  a: {agnt: x, prompt: 1}\n")

    assert [problem.split(": ")[0] for problem in found] == ["p.yaml:1:1", "p.yaml:2:1", "p.yaml:4:7", "p.yaml:4:24"]


def test_a_misspelt_key_is_not_missing_too():
    assert mistakes(GOOD.replace("result:", "reslt:")) == ["p.yaml:5:1: unknown key 'reslt'; did you mean 'result'?"]
    assert mistakes(GOOD.replace("result:", "output:")) == ["p.yaml:5:1: unknown key 'output'; write 'result'"]


@pytest.mark.parametrize(
    ("path", "some"),
    [
        ((), {"version", "inputs", "result"}),
        (("defaults",), {"model", "num_ctx"}),
        (("defaults", "timeout"), {"total", "idle", "first_token"}),
        (("inputs", "x"), {"type", "choices"}),
        (("agents", "x"), {"prompt", "output"}),
        (("budget",), {"tokens", "calls", "seconds"}),
        (("steps", "x"), {"agent", "with", "as", "on_error"}),
        (("steps", "x", "retry"), {"attempts", "on", "repairs"}),
        (("steps", "x", "timeout"), {"total"}),
        (("steps", "x", "on_error"), {"use"}),
        (("steps", "x", "choose"), {"prompt", "options", "agent"}),
        (("steps", "x", "choose", "options", "y"), {"description", "steps"}),
        (("steps", "x", "repeat"), {"steps", "self", "until"}),
        (("steps", "x", "repeat", "steps", "y", "repeat", "steps", "z"), {"agent", "prompt"}),
    ],
)
def test_the_keys_of_every_mapping_are_known(path: tuple[str, ...], some: set[str]):
    keys = known_keys(path)

    assert some <= set(keys)
    assert "itself" not in keys and "item_name" not in keys


@pytest.mark.parametrize("path", [("steps",), ("inputs",), ("agents", "x", "output"), ("steps", "x", "with"), ("no",)])
def test_where_keys_are_free_none_is_known(path: tuple[str, ...]):
    assert known_keys(path) == ()


def test_thousands_of_mistakes_are_told_in_short():
    found = mistakes(GOOD + "".join(f"k{number}: 1\n" for number in range(5000)))

    assert len(found) == 501
    assert found[-1].endswith("and 4500 more mistakes")


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]", "3"])
def test_what_is_no_mapping_is_no_pipeline(text: str):
    assert mistakes(text) == ["p.yaml:1:1: a pipeline is a mapping that begins with 'version: 1'"]


def test_a_text_that_is_too_long_is_refused():
    assert "at most" in mistakes(GOOD + "#" * MAX_PIPELINE_BYTES)[0]


def test_nothing_reads_as_nothing():
    assert "nothing" in mistakes(GOOD.replace("  a: {agent: editor, prompt: hello}", "  a:"))[0]
