"""``synaptic trust``: what it shows, how it asks, what it remembers."""

import json
from contextlib import chdir
from pathlib import Path

import pytest
from cli_support import ECHO, MAIN, Outcome, run_here
from repl_terminal import ENTER, environment, open_terminal

import synaptic
from synaptic.settings import trusted_folders
from synaptic.ui import cli

FLOW = """version: 1
name: flow
inputs: {query: {}}
steps:
  again:
    repeat:
      rounds: 2
      steps:
        look: {tool: weather, with: {city: x}}
      result: "{{ steps.look }}"
result: "{{ steps.again }}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that asks for something of each kind, and has what needs no trust."""
    monkeypatch.chdir(tmp_path)
    settings = {"model": "m", "nodes": ["http://a"], "pipeline_inputs": {"files": "*.txt", "tone": "dry"}}
    (tmp_path / "synapticllamas.json").write_text(json.dumps(settings, indent=1))
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "editor.md").write_text("---\ndescription: x\n---\nObey.\n")
    (tmp_path / "agents" / "poet.md").write_text("---\ndescription: x\n---\nWrite.\n")
    (tmp_path / "flow.yaml").write_text(FLOW)
    (tmp_path / "other.yml").write_text("just: yaml\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    return tmp_path


def run(*words: str) -> Outcome:
    return run_here("trust", *words)


def test_it_shows_what_it_would_allow_and_changes_nothing_without_a_word(folder: Path):
    done = run()

    shown = done.out.splitlines()
    assert shown[0] == f"{folder.resolve()} asks for:"
    assert shown[1:3] == [
        '  ./synapticllamas.json:3  nodes: ["http://a"]',
        '  ./synapticllamas.json:6  pipeline_inputs.files: "*.txt"',
    ]
    assert shown[3].startswith("  agents/editor.md  the agent editor, replaces ")
    assert shown[4:] == ["  agents/poet.md  the agent poet", "  flow.yaml:9  calls the tool weather"]
    assert (done.code, done.err) == (
        2,
        "error: nothing was changed: there is no terminal to ask at\nhint: look at it, and add --yes\n",
    )
    assert trusted_folders() == {}


def test_it_remembers_lists_and_forgets(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    assert run(str(folder), "--yes").code == 0

    known = ["synapticllamas.json", "agents/editor.md", "agents/poet.md", "flow.yaml"]
    assert [*trusted_folders()[str(folder.resolve())]] == known
    assert "and has not changed since" in run().err
    assert str(folder.resolve()) in run("--list").out
    assert "is trusted no longer" in run("--remove").err
    assert "was not trusted" in run("--remove").err
    assert trusted_folders() == {}


def test_a_folder_that_asks_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    assert (run().code, run().err) == (0, f"nothing in {tmp_path.resolve()} needs trust\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "/nowhere\n"),
        (["flow.yaml"], "/flow.yaml\n"),
        (["--yes", "--list"], "contradict each other"),
        (["loop"], "/loop\n"),
    ],
)
def test_what_cannot_be_trusted_is_said(folder: Path, words: list[str], said: str):
    (folder / "loop").symlink_to("loop")

    done = run(*words)

    assert done.code == 2
    assert said in done.err


def test_what_would_look_like_something_else_is_written_out(folder: Path):
    (folder / "synapticllamas.json").write_text(
        json.dumps({"nodes": [{"url": "http://a", "name": "x\u202e\u009by\n"}]})
    )
    (folder / "agents" / "editor.md").rename(folder / "agents" / "edi\u202etor\n.md")
    (folder / "agents" / "edi\u202etor\n.md").write_text("---\nname: editor\n---\nObey.\n")

    shown = run().out

    assert '"name": "x\\u202e\\u009by\\n"' in shown
    assert "  agents/edi\\u202etor\\n.md  the agent editor, replaces " in shown
    assert "left out: agents/edi\ufffdtor\ufffd.md;" in run_here("agents", "list").err


@pytest.mark.parametrize("words", [("--yes",), ("--remove",)])
def test_the_name_of_a_folder_is_one_line(tmp_path: Path, words: tuple[str, ...]):
    place = tmp_path / "new\nok      fake: line"
    place.mkdir()
    (place / "synapticllamas.json").write_text('{"nodes": ["http://a"]}')

    said = run_here("trust", *words, str(place))

    assert "new\\nok      fake: line" in said.out + said.err
    assert "new\n" not in said.out + said.err


def test_a_working_directory_that_is_gone_is_no_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "gone").mkdir()

    with chdir(folder / "gone"):
        (folder / "gone").rmdir()
        code = cli.run(["trust"])

    assert (code, "the folder that you are in was removed" in capsys.readouterr().err) == (2, True)


def test_a_folder_with_a_mistake_is_not_trusted(folder: Path):
    (folder / "synapticllamas.json").write_text('{"modle": "x", "nodes": ["http://a"]}')

    done = run("--yes")

    assert done.code == 2
    assert "./synapticllamas.json:1" in done.err
    assert trusted_folders() == {}


def test_a_person_is_asked_on_a_terminal(folder: Path, own_home: Path):
    for answer, code in (("n", 1), ("y", 0)):
        with open_terminal([MAIN, "trust"], folder, environment(own_home)) as terminal:
            terminal.wait("flow.yaml:9  calls the tool weather", "Trust it? [y/N]")
            assert trusted_folders() == {}
            terminal.type(answer, ENTER)
            assert terminal.wait_for_end() == code
    assert [*trusted_folders()] == [str(folder.resolve())]


def test_doctor_and_the_settings_say_that_a_folder_is_not_trusted(folder: Path):
    found = json.loads(run_here("doctor", "--json").out)

    assert [(row["detail"], row["fix"]) for row in found if row["name"] == "folder"] == [
        ("this folder is not trusted; left out: nodes (./synapticllamas.json:3)", "synaptic trust"),
        ("this folder is not trusted; left out: agents/editor.md", "synaptic trust"),
    ]
    for words in (("config", "show"), ("config", "validate"), ("nodes", "list")):
        assert "left out: nodes (./synapticllamas.json:3); to see and allow it: synaptic trust" in run_here(*words).err
    for words in (("agents", "list"), ("agents", "show", "editor"), ("pipelines", "validate", "answer")):
        assert "left out: agents/editor.md; to see and allow it: synaptic trust" in run_here(*words).err
    assert "Obey" not in run_here("agents", "show", "editor").out


def test_a_question_says_it_once(folder: Path):
    (folder / "agents" / "editor.md").unlink()

    done = run_here(*ECHO, "hi")

    assert (done.code, done.out) == (0, "hi\n")
    assert done.err.count("trust") == 2  # "not trusted", "synaptic trust"


async def test_a_program_hears_it_as_a_notice(folder: Path):
    heard: list[str] = []

    def listen(event: synaptic.Event) -> None:
        if isinstance(event, synaptic.BackendReported) and event.report.backend in {"settings", "agents"}:
            heard.append(f"{event.report.backend}: {event.report.message.partition(';')[0]}")

    async with synaptic.Session(on_event=listen) as session:
        session.settings = synaptic.Settings(backend="scripted", pipeline="answer", nodes=[])
        await session.run("hi")
        await session.run("hi")
    pool = synaptic.Pool(report=lambda report: heard.append(f"pool: {report.message.partition(';')[0]}"))

    assert heard == [f"{who}: this folder is not trusted" for who in ("settings", "agents", "pool")]
    assert [node.url for node in pool.settings.nodes] != ["http://a:11434"]
