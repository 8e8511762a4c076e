"""Inputs of a run: defaults, types, bounds, and every mistake at once."""

from pathlib import Path

import pytest

from synaptic.errors import PipelineError
from synaptic.pipeline.documents import Repeated
from synaptic.pipeline.inputs import bind_inputs, bind_values, check_default
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.spec.parts import InputSpec
from synaptic.pipeline.templates.values import SKIPPED

HEAD = """\
version: 1
name: demo
inputs:
"""
TAIL = """\
steps:
  a: {agent: editor, prompt: x}
result: "{{ steps.a }}"
"""
PIPELINE = f"""\
{HEAD}  query: {{type: string, required: true}}
  rounds: {{type: integer, default: 1, minimum: 0, maximum: 5}}
  threshold: {{type: number, default: 0.5}}
  loud: {{type: boolean, default: false}}
  tags: {{type: list, default: []}}
  tone: {{type: string, choices: [plain, formal], default: plain}}
  note: {{type: string}}
{TAIL}"""
DEMO = Pipeline.parse(PIPELINE)
DOCUMENTS = f"{HEAD}  doc: {{type: file}}\n  docs: {{type: files}}\n{TAIL}"


def with_default(kind: str, default: str, folder: Path | None) -> Pipeline:
    text = f"{HEAD}  docs: {{type: {kind}, default: {default}}}\n{TAIL}"
    return Pipeline.parse(text, "demo.yaml", path=folder / "demo.yaml" if folder else None)


def test_defaults_fill_what_is_not_given():
    assert bind_inputs(DEMO, {"query": "q"}, {}) == {
        "query": "q",
        "rounds": 1,
        "threshold": 0.5,
        "loud": False,
        "tags": [],
        "tone": "plain",
        "note": None,
    }


@pytest.mark.parametrize(
    "written",
    ["TRUE", "False", "true", "No", "0x1F", "1_000", ".5", "007", "1e3", "2024-01-01", "12:30:00", "+5"],
)
def test_a_default_of_a_text_stays_as_it_is_spelled(written: str):
    for default in (written, f"'{written}'", f"&name {written}"):
        pipeline = Pipeline.parse(f"{HEAD}  note: {{type: string, default: {default}}}\n{TAIL}")
        assert bind_inputs(pipeline, {}, {}) == {"note": written}


def test_a_given_value_wins_over_the_persons_default_and_that_over_the_pipelines():
    assert bind_inputs(DEMO, {"query": "q"}, {"rounds": 3, "other": 1})["rounds"] == 3
    assert bind_inputs(DEMO, {"query": "q", "rounds": "4"}, {"rounds": 3})["rounds"] == 4


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
        ("tags", Repeated(("a", "b,c")), ["a", "b", "c"]),
        ("rounds", Repeated(("1", "2")), 2),
        ("tone", "formal", "formal"),
        ("query", 7, "7"),
    ],
)
def test_text_is_read_as_the_declared_type(name: str, given: object, value: object):
    assert bind_inputs(DEMO, {"query": "q", name: given}, {})[name] == value


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
        ({"query": "q", "tone": "formel"}, "must be one of plain, formal, not 'formel'; did you mean 'formal'?"),
        ({"query": "q", "tone": "xx"}, "must be one of plain, formal, not 'xx'"),
    ],
)
def test_each_mistake_says_what_to_write(given: dict, message: str):
    with pytest.raises(PipelineError) as caught:
        bind_inputs(DEMO, given, {})

    assert message in str(caught.value)


def test_every_mistake_is_reported():
    with pytest.raises(PipelineError) as caught:
        bind_inputs(DEMO, {"rounds": "x", "lod": 1}, {})

    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("kind", "how"), [("string", "-i topic=VALUE"), ("file", "-i topic=PATH"), ("files", "-i topic='PATTERN'")]
)
def test_a_required_input_that_is_no_question_says_how_to_give_it(kind: str, how: str):
    pipeline = Pipeline.parse(f"{HEAD}  topic: {{type: {kind}, required: true}}\n{TAIL}")

    with pytest.raises(PipelineError, match=f"give it with {how}"):
        bind_inputs(pipeline, {}, {})


def test_files_are_read_when_the_inputs_are_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    monkeypatch.chdir(tmp_path)

    bound = bind_inputs(Pipeline.parse(DOCUMENTS), {"doc": "a.txt", "docs": Repeated(("b.txt", "*.txt"))}, {})

    assert bound["doc"] == {"name": "a.txt", "path": "a.txt", "text": "one"}
    assert [document["text"] for document in bound["docs"]] == ["two", "one"]


def test_of_a_file_that_stands_several_times_the_last_counts(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")

    bound = bind_inputs(Pipeline.parse(DOCUMENTS), {"doc": Repeated(("nowhere", str(tmp_path / "a.txt")))}, {})

    assert bound["doc"]["text"] == "one"


def test_every_file_that_cannot_be_read_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError) as caught:
        bind_inputs(Pipeline.parse(DOCUMENTS), {"doc": "x.txt", "docs": "y.txt,z.txt"}, {})

    assert [str(problem).split(",")[0] for problem in caught.value.problems] == [
        "input 'doc' names x.txt",
        "input 'docs' names y.txt",
        "input 'docs' names z.txt",
    ]


@pytest.mark.parametrize(("kind", "default"), [("file", "notes/a.txt"), ("files", "notes/*.txt")])
def test_a_default_is_read_from_the_pipelines_folder(kind: str, default: str, tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("one")

    value = bind_inputs(with_default(kind, default, tmp_path), {}, {})["docs"]

    document = value[0] if kind == "files" else value
    assert document == {"name": "a.txt", "path": "notes/a.txt", "text": "one"}


@pytest.mark.parametrize("kind", ["file", "files"])
@pytest.mark.parametrize(
    ("default", "message"),
    [
        ("/etc/passwd", "relative to the pipeline's folder"),
        ("~/secret", "relative to the pipeline's folder"),
        ("../secret", "climbs out"),
        ("notes/../../secret", "climbs out"),
        ("link", "leads out"),
        ("loop/secret", "leads out"),
        ("missing.txt", "is not there"),
    ],
)
def test_a_default_stays_in_the_pipelines_folder(kind: str, default: str, message: str, tmp_path: Path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(tmp_path)

    with pytest.raises(PipelineError, match=message) as caught:
        bind_inputs(with_default(kind, default, folder), {}, {})

    assert caught.value.problems[0].location.startswith("demo.yaml:4:")


@pytest.mark.parametrize("default", ["../*", "lin*", "loo*/secret"])
def test_a_pattern_does_not_lead_out_of_the_folder_either(default: str, tmp_path: Path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(tmp_path)

    with pytest.raises(PipelineError, match=r"climbs out|leads out"):
        bind_inputs(with_default("files", f"'{default}'", folder), {}, {})


def test_a_pipeline_without_a_file_has_no_folder_to_read_from():
    with pytest.raises(PipelineError, match="was not read from a file"):
        bind_inputs(with_default("file", "a.txt", None), {}, {})


@pytest.mark.parametrize(
    ("kind", "default", "wrong"),
    [
        ("file", "a.txt", False),
        ("files", ["a.txt", "b/*.txt"], False),
        ("integer", 3, False),
        ("file", ["a.txt"], True),
        ("file", {"text": "x"}, True),
        ("files", "a.txt, ../b.txt", True),
        ("files", ["/a.txt"], True),
        ("integer", "x", True),
    ],
)
def test_a_default_is_checked_without_reading_anything(kind: str, default: object, *, wrong: bool):
    declared = InputSpec.model_validate({"type": kind})
    if not wrong:
        check_default(default, declared)
        return
    with pytest.raises(ValueError):
        check_default(default, declared)


def test_values_of_a_sub_pipeline_are_data_and_never_paths():
    document = {"name": "n", "path": "p", "text": "t", "part": 1}

    bound = bind_values(Pipeline.parse(DOCUMENTS), {"doc": "/etc/passwd", "docs": [document, "text"]})

    assert bound == {
        "doc": {"name": "", "path": "", "text": "/etc/passwd"},
        "docs": [{"name": "n", "path": "p", "text": "t"}, {"name": "", "path": "", "text": "text"}],
    }


def test_one_document_is_a_list_of_one():
    assert [each["text"] for each in bind_values(Pipeline.parse(DOCUMENTS), {"docs": "t"})["docs"]] == ["t"]


def test_every_mistake_in_the_values_of_a_sub_pipeline_is_reported():
    with pytest.raises(PipelineError) as caught:
        bind_values(DEMO, {"rounds": [], "tag": 1})

    assert [str(problem) for problem in caught.value.problems] == [
        "pipeline 'demo' has no input 'tag'; did you mean 'tags'?",
        "pipeline 'demo' needs the input 'query'; write it under 'with', as in query: …",
        "input 'rounds' must be a whole number, not []",
    ]


@pytest.mark.parametrize("value", [3, {"name": "x"}, {"text": 3}, [{"text": None}]])
def test_what_is_no_document_is_refused(value: object):
    with pytest.raises(PipelineError, match="must be a document"):
        bind_values(Pipeline.parse(DOCUMENTS), {"docs": value})


def test_the_output_of_a_skipped_step_counts_as_not_given():
    assert bind_values(DEMO, {"query": "q", "rounds": SKIPPED})["rounds"] == 1
    with pytest.raises(PipelineError, match="needs the input 'query'"):
        bind_values(DEMO, {"query": SKIPPED})
