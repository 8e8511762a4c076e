"""``synaptic pipelines test``: what it prints, how it ends, and which files it finds."""

import json
from pathlib import Path

import pytest
from cli_support import SCRIPTED, Outcome, run_here

HEAD = """\
version: 1
name: mine
inputs: {query: {required: true}}
steps: {write: {agent: editor, prompt: "{{ inputs.query }}"}}
result: "{{ steps.write }}"
"""
CASE = "inputs: {query: q}, replies: {write: %s}, expect: {%s}"
RIGHT = f"  right: {{{CASE % ('x', 'result: x')}}}\n"
WRONG = f"  wrong: {{{CASE % ('Hallo', 'result: Hello, that: steps.write == inputs.query')}}}\n"
LINES = """\
  lines:
    inputs: {query: q}
    replies: {write: "one\\ntwo\\nthree"}
    expect: {result: "one\\n2\\nthree", contains: four}
"""
LACKING = "  lacking: {inputs: {query: q}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(f"{HEAD}tests:\n{RIGHT}")
    return tmp_path


def test_it_is_silent_where_all_is_right_but_for_a_line_a_test(folder: Path):
    assert run_here("pipelines", "test", "mine.yaml", cwd=folder) == Outcome(
        0, "mine.yaml\n  ok      right\n1 test: 1 ok, 0 failed\n", ""
    )


def test_what_differs_is_below_its_test(folder: Path):
    (folder / "mine.yaml").write_text(f"{HEAD}tests:\n{RIGHT}{WRONG}{LINES}{LACKING}")

    tested = run_here("pipelines", "test", "mine.yaml", cwd=folder)

    assert (tested.code, tested.err) == (1, "")
    assert tested.out.splitlines() == [
        "mine.yaml",
        "  ok      right",
        "  failed  wrong",
        "          expected  Hello",
        "          came      Hallo",
        "          this does not hold: steps.write == inputs.query",
        '            steps.write is "Hallo"',
        '            inputs.query is "q"',
        "  failed  lines",
        "          the result differs (- expected, + came):",
        "             one",
        "            -2",
        "            +two",
        "             three",
        "          this is not in the result:",
        "            four",
        "          the result:",
        "            one",
        "            two",
        "            three",
        "  failed  lacking",
        "          write has no reply; write one under 'replies', as in write: …",
        "4 tests: 1 ok, 3 failed",
    ]


def test_a_program_gets_one_document(folder: Path):
    (folder / "mine.yaml").write_text(f"{HEAD}tests:\n{RIGHT}{WRONG}")

    tested = run_here("pipelines", "test", "--json", cwd=folder)

    found = json.loads(tested.out)
    assert (tested.code, tested.err) == (1, "")
    assert {key: found[key] for key in ("ok", "passed", "failed", "problems")} == {
        "ok": False,
        "passed": 1,
        "failed": 1,
        "problems": [],
    }
    right, wrong = found["tests"]
    assert {key: right[key] for key in ("file", "pipeline", "test", "ok", "failures", "answer")} == {
        "file": "mine.yaml",
        "pipeline": "mine",
        "test": "right",
        "ok": True,
        "failures": [],
        "answer": "x",
    }
    assert wrong["failures"][0] == {"what": "result", "expected": "Hello", "came": "Hallo"}
    assert wrong["failures"][1]["came"] == {"steps.write": "Hallo", "inputs.query": "q"}


def test_without_a_name_the_pipelines_of_the_folder_that_have_tests_are_tested(folder: Path):
    (folder / "other.yml").write_text(f"{HEAD}tests:\n{RIGHT}")
    (folder / "none.yaml").write_text(HEAD)
    (folder / "compose.yaml").write_text("services: {a: b}\ntests: [c]\n")
    (folder / "broken.txt").write_text("tests: [\nsteps: [\n")

    here, named = run_here("pipelines", "test", cwd=folder), run_here("pipelines", "test", ".", "mine.yaml", cwd=folder)

    assert here.out.splitlines()[::2] == ["mine.yaml", "other.yml", "2 tests: 2 ok, 0 failed"]
    assert named.code == here.code == 0
    assert named.out.startswith("mine.yaml\n  ok      right\nother.yml\n")


def test_a_mistake_in_one_file_does_not_keep_the_others_from_being_tested(folder: Path):
    (folder / "bad.yaml").write_text(f"{HEAD}tests:\n  one: {{inputs: {{query: q}}, replies: {{wirte: x}}}}\n")

    tested = run_here("pipelines", "test", "mine.yaml", "bad.yaml", "no.yaml", cwd=folder)

    assert tested.code == 2
    assert tested.out.endswith("1 test: 1 ok, 0 failed\n")
    wrong, gone = tested.err.splitlines()
    assert wrong == "bad.yaml:7:39: no step 'wirte' is there to reply; did you mean 'write'?"
    assert "no.yaml" in gone
    document = json.loads(run_here("pipelines", "test", "mine.yaml", "bad.yaml", "--json", cwd=folder).out)
    assert (document["ok"], document["problems"]) == (False, [wrong])


def test_some_tests_alone(folder: Path):
    (folder / "mine.yaml").write_text(f"{HEAD}tests:\n{RIGHT}{WRONG}")

    assert run_here("pipelines", "test", "--only", "right", cwd=folder).code == 0
    assert run_here("pipelines", "test", "--only", "right", "--only", "wrong", cwd=folder).code == 1
    unknown = run_here("pipelines", "test", "--only", "rihgt", cwd=folder)
    assert (unknown.code, unknown.out) == (2, "")
    assert "there is no test 'rihgt'; did you mean 'right'?" in unknown.err


def test_a_test_that_does_not_fit_keeps_no_run_from_its_answer(folder: Path):
    (folder / "mine.yaml").write_text(f"{HEAD}tests: {{one: {{inputs: {{query: q}}, replies: {{wirte: x}}}}}}\n")

    assert run_here("-q", "-p", "mine.yaml", *SCRIPTED, "hello", cwd=folder) == Outcome(0, "hello\n", "")
    for command in ("validate", "test"):
        assert run_here("pipelines", command, "mine.yaml", cwd=folder).code == 2


@pytest.mark.parametrize("names", [("none.yaml",), ("empty",), ("research",)])
def test_nothing_to_test_is_no_success(folder: Path, names: tuple[str, ...]):
    (folder / "none.yaml").write_text(HEAD)
    (folder / "empty").mkdir()

    tested = run_here("pipelines", "test", *names, cwd=folder)

    assert (tested.code, tested.out) == (2, "")
    assert f"there are no tests in {names[0]}" in tested.err


def test_what_a_tool_prints_is_no_part_of_the_document(folder: Path):
    tool = "import synaptic\n\n\n@synaptic.tool\ndef say(text: str) -> str:\n    print(text)\n    return text\n"
    (folder / "own.py").write_text(tool)
    step = "tool: say, with: {text: '{{ inputs.query }}'}}"
    head = HEAD.replace('agent: editor, prompt: "{{ inputs.query }}"}', step)
    (folder / "mine.yaml").write_text(
        f"{head}tests: {{one: {{inputs: {{query: hello}}, expect: {{result: hello}}}}}}\n"
    )

    tested = run_here("pipelines", "test", "--tools", "own.py", "--json", cwd=folder)

    assert (tested.code, tested.err) == (0, "hello\n")
    assert json.loads(tested.out)["ok"]


def test_neither_settings_nor_a_server_are_asked_for(folder: Path, own_home: Path):
    (own_home / ".synapticllamas.json").write_text('{"nodes": ["http://127.0.0.1:9"], "modell": "broken"}')

    assert run_here("pipelines", "test", cwd=folder).code == 0
