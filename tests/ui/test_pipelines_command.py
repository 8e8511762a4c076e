"""``synaptic pipelines``: list, show, graph, validate and schema, as a person types them."""

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jsonschema
import pexpect
import pytest
from cli_support import MAIN, NOTHING_THERE, PATIENCE, Outcome, node, ollama
from fault_server import respond
from repl_terminal import ROOT

from synaptic.errors import PipelineError
from synaptic.pipeline.drawing import FORMATS
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.text.yaml_positions import parse_yaml
from synaptic.ui import cli
from synaptic.ui.commands import pipelines as command

EXAMPLES = ROOT / "examples"
OWN_TOOLS = ("--tools", str(EXAMPLES / "tools.py"))

MINE = """\
version: 1
name: mine
description: My own.
inputs:
  query: {required: true, description: What is asked.}
  rounds: {type: integer, default: 2, minimum: 1, maximum: 5}
  tone: {choices: [dry, warm], default: dry}
budget: {calls: 9}
concurrency: 2
steps:
  draft: {agent: editor, prompt: "{{ inputs.query }}", description: The first try.}
  judge: {agent: critic, model: big, prompt: "{{ steps.draft }}"}
  write:
    when: steps.judge.score < 0.5
    agent: editor
    prompt: "In {{ inputs.rounds }} lines, {{ inputs.tone }}: {{ steps.draft }} {{ steps.judge.issues }}"
result: "{{ steps.write if steps.write else steps.draft }}"
"""

BAD = """\
version: 1
name: bad
steps:
  a: {agent: edtor, prompt: "{{ steps.b.scroe }}"}
  b: {agent: critic, prompt: x}
  d: {agent: critic, prompt: x, modle: big}
result: "{{ steps.c }}"
"""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command line in this process, in a directory with two pipelines."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "bad.yaml").write_text(BAD)

    def run_here(*arguments: str) -> Outcome:
        code = cli.run(("pipelines", *arguments))
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run_here


def on_a_terminal(*arguments: str, columns: int = 120) -> list[str]:
    """Return the lines that a command prints on a terminal of its own, in this directory."""
    program = pexpect.spawn(
        sys.executable, [MAIN, "pipelines", *arguments], encoding="utf-8", dimensions=(60, columns), timeout=PATIENCE
    )
    program.expect(pexpect.EOF)
    program.close()
    assert program.exitstatus == 0
    return (program.before or "").splitlines()


# -- list ------------------------------------------------------------------------------------------------------------


def test_list_names_every_built_in_pipeline_with_its_inputs(run):
    lines = run("list").out.splitlines()
    data = {pipeline["name"]: pipeline for pipeline in json.loads(run("list", "--json").out)}

    assert sorted(line.split()[0] for line in lines[1:] if line[0] != " ") == sorted(builtin_pipelines())
    assert sorted(data) == sorted(builtin_pipelines())
    assert data["research"]["inputs"]["rounds"]["default"] == 1
    assert data["research"]["inputs"]["query"]["type"] == "string"


# -- show ------------------------------------------------------------------------------------------------------------


def test_show_prints_the_file_into_a_pipe_so_that_it_can_be_changed(run, tmp_path: Path):
    shown = run("show", "answer")

    assert (shown.code, shown.err) == (0, "")
    (tmp_path / "copy.yaml").write_text(shown.out)
    assert Pipeline.load(tmp_path / "copy.yaml").spec == Pipeline.builtin("answer").spec


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_show_prints_utf_8_whatever_the_file_is(run, tmp_path: Path, encoding: str):
    """``pipelines show answer > copy.yaml`` in PowerShell writes UTF-16."""
    text = run("show", "answer").out
    (tmp_path / "copy.yaml").write_bytes(text.encode(encoding))

    assert run("show", "copy.yaml") == Outcome(0, text, "")
    assert run("validate", "copy.yaml").code == 0


def test_show_on_a_terminal_says_what_the_pipeline_takes_and_does(run):
    lines = on_a_terminal("show", "mine.yaml")

    assert lines[:2] == ["pipeline  mine: My own.", "file      mine.yaml"]
    assert lines[2:5] == [
        "inputs    query (string, required): What is asked.",
        "          rounds (integer, default 2, at least 1, at most 5)",
        "          tone (string, default 'dry', one of dry, warm)",
    ]
    assert lines[5] == "limits    at most 9 calls, 2 calls at once"
    assert [line.split()[:2] for line in lines[8:11]] == [["1", "draft*"], ["2", "judge*"], ["3", "write*"]]
    assert "          big (the step says so): judge" in lines
    assert "about     draft: The first try." in lines
    assert lines[-1] == "The file itself: synaptic pipelines show mine.yaml --source"


def test_show_takes_either_form_wherever_it_is_asked_for(run):
    assert on_a_terminal("show", "mine.yaml", "--source") == MINE.splitlines()
    assert run("show", "mine.yaml", "--source").out == MINE
    both = run("show", "mine.yaml", "--plan", "--source")
    assert both.code == 2
    assert "take one" in both.err


def test_show_can_print_the_plan_into_a_pipe_and_as_json(run):
    assert run("show", "mine.yaml", "--plan").out.startswith("pipeline  mine: My own.\n")
    data = json.loads(run("show", "mine.yaml", "--plan", "--json").out)

    assert data["critical_path"] == ["draft", "judge", "write"]
    assert data["limits"] == {"calls": 9, "concurrency": 2}
    assert data["steps"][1]["model_reason"] == "the step says so"


def test_show_knows_the_models_of_the_settings(run, own_home: Path):
    (own_home / ".synapticllamas.json").write_text('{"agent_models": {"editor": "small"}}')

    assert "small (setting agent_models): draft, write" in run("show", "mine.yaml", "--plan").out


def test_show_as_json_is_what_the_file_says(run):
    data = json.loads(run("show", "mine.yaml", "--json").out)

    assert data["path"] == "mine.yaml"
    assert data["steps"] == parse_yaml(MINE, "mine.yaml", PipelineError).value["steps"]
    assert data["inputs"]["tone"] == {
        "type": "string",
        "description": "",
        "required": False,
        "default": "dry",
        "choices": ["dry", "warm"],
    }


@pytest.mark.parametrize("name", builtin_pipelines())
def test_every_built_in_pipeline_has_an_overview(run, name: str):
    shown = run("show", name, "--plan")

    assert (shown.code, shown.err) == (0, "")
    for step in Pipeline.builtin(name).spec.steps:
        assert f" {step}" in shown.out


def test_the_file_of_a_wrong_pipeline_that_has_the_right_form_can_be_shown(run, tmp_path: Path):
    text = MINE.replace("agent: critic", "agent: nobody")
    (tmp_path / "nobody.yaml").write_text(text)

    assert run("show", "nobody.yaml").out == text
    refused = run("show", "nobody.yaml", "--plan")
    assert refused.code == 2
    assert "there is no agent 'nobody'" in refused.err


def test_show_of_nothing_that_there_is(run):
    shown = run("show", "reserch")

    assert (shown.code, shown.out) == (2, "")
    assert "did you mean 'research'?" in shown.err


# -- graph -----------------------------------------------------------------------------------------------------------


def test_the_formats_are_those_that_can_be_drawn():
    assert command._FORMATS == FORMATS  # written out there: the help need not load the drawing


def test_graph_draws_text_unless_told_otherwise(run):
    assert run("graph", "mine.yaml").out.splitlines()[:4] == ["mine", "My own.", "", "● draft  editor"]
    assert run("graph", "mine.yaml", "--format", "mermaid").out.startswith("flowchart TD\n")
    assert run("graph", "mine.yaml", "--format", "dot").out.startswith('digraph "mine" {\n')
    assert run("graph", "mine.yaml", "--format", "png").code == 2


def test_graph_is_as_wide_as_the_terminal(run):
    assert max(map(len, on_a_terminal("graph", "research", columns=50))) <= 50


def test_graph_writes_a_file(run, tmp_path: Path):
    drawn = run("graph", "research", "--format", "svg", "-o", "r.svg")

    assert (drawn.code, drawn.out, drawn.err) == (0, "", "")
    root = ET.parse(tmp_path / "r.svg").getroot()
    steps = {group.get("data-step") for group in root.iter("{http://www.w3.org/2000/svg}g")}
    assert {"plan", "research", "refine", "refine.revise", "write"} <= steps


def test_a_file_that_cannot_be_written_is_said(run, tmp_path: Path):
    drawn = run("graph", "research", "-o", "no/such/place.txt")

    assert drawn.code == 2
    assert "no/such/place.txt cannot be written" in drawn.err


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_is_drawn(run, file: Path, form: str):
    drawn = run("graph", str(file), "--format", form, *OWN_TOOLS)

    assert (drawn.code, drawn.err) == (0, "")
    for step in Pipeline.load(file).spec.steps:
        assert step in drawn.out


def test_a_wrong_pipeline_is_not_drawn(run):
    drawn = run("graph", "bad.yaml")

    assert (drawn.code, drawn.out) == (2, "")
    assert "bad.yaml:" in drawn.err


# -- validate --------------------------------------------------------------------------------------------------------


def test_validate_prints_every_mistake_of_every_file_once(run):
    checked = run("validate", "bad.yaml", "nope", "mine.yaml", "bad.yaml", "answer")

    assert (checked.code, checked.out) == (2, "mine.yaml: ok (3 steps)\nanswer: ok (1 step)\n")
    lines = checked.err.splitlines()
    assert lines[0] == "bad.yaml:4:14: there is no agent 'edtor'; did you mean 'editor'?"
    assert "bad.yaml:6:33: unknown key 'modle'; did you mean 'model'?" in lines
    assert any(line.startswith("bad.yaml:4:") and "'scroe'; did you mean 'score'?" in line for line in lines)
    assert any(line.startswith("bad.yaml:7:") and "there is no step 'c'" in line for line in lines)
    assert [line for line in lines if "'nope'" in line] == lines[-1:]
    assert len(lines) == len(set(lines)) == 5


def test_validate_is_silent_on_stderr_where_all_is_right(run):
    checked = run("validate", "mine.yaml")

    assert checked == Outcome(0, "mine.yaml: ok (3 steps)\n", "")


def test_what_may_run_and_is_probably_not_meant_is_a_warning(run, tmp_path: Path):
    part = "version: 1\nname: p\ninputs: {topic: {}}\nsteps:\n  a: {agent: editor, prompt: 'On {inputs.topic}'}\n"
    (tmp_path / "odd.yaml").write_text(
        part + "  b: {agent: editor, prompt: 'On {{ steps.a }}'}\nresult: '{{ steps.a }}'\n"
    )

    checked = run("validate", "odd.yaml")

    assert (checked.code, checked.out) == (0, "odd.yaml: ok (2 steps, 2 warnings)\n")
    assert checked.err == (
        "odd.yaml:5:34: warning: '{inputs.topic}' is plain text here, and no value takes its place; "
        "did you mean {{ inputs.topic }}?\n"
        "odd.yaml:6:3: warning: the output of 'b' is read nowhere; "
        "write {{ steps.b }} where it belongs, or remove the step\n"
    )


def test_a_mistake_in_a_file_that_two_others_use_is_said_once(run, tmp_path: Path):
    (tmp_path / "part.yaml").write_text(MINE.replace("agent: critic", "agent: nobody"))
    for name in ("one", "two"):
        steps = "steps: {a: {use: part.yaml, with: {query: x}}}\nresult: '{{ steps.a }}'\n"
        (tmp_path / f"{name}.yaml").write_text(f"version: 1\nname: {name}\n{steps}")

    checked = run("validate", "one.yaml", "two.yaml")

    assert checked.code == 2
    assert sum("part.yaml:" in line and "'nobody'" in line for line in checked.err.splitlines()) == 1


TOOLS = '''\
import synaptic


@synaptic.tool
def count_words(text: str) -> int:
    """Count."""
    return len(text.split())
'''


def test_tools_are_those_of_the_modules_that_are_named(run, tmp_path: Path):
    (tmp_path / "own_tools.py").write_text(TOOLS)
    (tmp_path / "count.yaml").write_text(
        "version: 1\nname: count\nsteps: {a: {tool: count_words, with: {text: x}}}\nresult: '{{ steps.a }}'\n"
    )

    without = run("validate", "count.yaml")
    assert without.code == 2
    assert "count.yaml:3:19: there is no tool 'count_words'" in without.err
    assert run("validate", "--tools", "own_tools.py", "count.yaml") == Outcome(0, "count.yaml: ok (1 step)\n", "")
    assert "a  tool count_words" in run("graph", "--tools", "own_tools.py", "count.yaml").out


def test_models_are_checked_only_on_demand(run):
    assert run("validate", "mine.yaml").code == 0
    with ollama(respond(500)) as server:
        checked = run("validate", "--models", "mine.yaml", "answer", *node(server))

    assert (checked.code, checked.out) == (2, "answer: ok (1 step)\n")
    (line,) = checked.err.splitlines()
    assert line.startswith("mine.yaml:12:33: ")
    assert "'big'" in line


def test_models_cannot_be_checked_where_nothing_answers(run):
    checked = run("validate", "--models", "mine.yaml", "--set", f'nodes=["{NOTHING_THERE}"]')

    assert checked.code == 3


def test_every_file_of_ours_is_right(run):
    files = [str(file) for file in sorted(EXAMPLES.glob("*.yaml"))]

    checked = run("validate", *files, *builtin_pipelines(), *OWN_TOOLS)

    assert (checked.code, checked.err) == (0, "")
    assert len(checked.out.splitlines()) == len(files) + len(builtin_pipelines())


# -- schema ----------------------------------------------------------------------------------------------------------


def test_schema_prints_a_schema_that_a_pipeline_fits(run):
    schema = json.loads(run("schema").out)

    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(parse_yaml(MINE, "mine.yaml", PipelineError).value)
    assert not validator.is_valid(parse_yaml(BAD, "bad.yaml", PipelineError).value)
    assert "yaml-language-server: $schema=pipeline.schema.json" in run("schema", "--help").out
