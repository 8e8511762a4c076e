"""Every slash command and the conversation, in one process with the scripted backend."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from repl_talk import Talk, files, make_talk, mode_of, read, write
from trust_support import trust

from synaptic import paths
from synaptic.backends.scripted import Failure
from synaptic.errors import BackendUnavailable, ExitCode, UsageError
from synaptic.messages import Message
from synaptic.runtime.journal import Journal
from synaptic.runtime.kept_sessions import INTERRUPTED_MARK, conversation_of, find_session, turns_of
from synaptic.ui.question import read_documents
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.commands_session import save
from synaptic.ui.repl.commands_settings import take_assignment
from synaptic.ui.repl.conversation import Asked, Conversation, Turn, as_json, as_markdown
from synaptic.ui.repl.prompt import status_line
from synaptic.ui.repl.sessions import SessionHolder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Any


PIPELINE = """\
version: 1
name: greet
inputs:
  who: {type: string, required: true}
steps:
  greet: {agent: editor, prompt: "Greet {{ inputs.who }}"}
result: "{{ steps.greet }}"
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a home and a working directory of its own."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    for name in [name for name in os.environ if name.startswith(("SYNAPTIC_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return home


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    """Give a program whose backend echoes."""
    made = make_talk()
    yield made
    await made.repl.aclose()


def a_turn(question: str = "why?", answer: str = "because", **more: Any) -> Turn:
    """Return a turn."""
    fields = {"status": "answered", "pipeline": "answer", "run_id": "r1", "at": 0.0, **more}
    return Turn(question=question, answer=answer, **fields)


# -- /help -----------------------------------------------------------------------------------------------------


async def test_help_lists_every_command_with_its_line(talk: Talk) -> None:
    out, err = await talk.say("/help")
    for command in REGISTRY:
        assert any(line.startswith(command.usage) and line.endswith(command.help) for line in out.splitlines())
    assert "Alt-Enter" in out
    assert err == ""


@pytest.mark.parametrize("line", ["/help set", "/help /set", "/help SET"])
async def test_help_explains_one_command(talk: Talk, line: str) -> None:
    out, _ = await talk.say(line)
    assert out.startswith("/set KEY VALUE\n  Change a setting until the program ends.\n")
    assert "Example: /set temperature 0.2" in out


async def test_help_names_aliases(talk: Talk) -> None:
    out, _ = await talk.say("/help quit")
    assert "Also /quit." in out


async def test_help_of_an_unknown_command_names_the_nearest(talk: Talk) -> None:
    _, err = await talk.say("/help modle")
    assert "did you mean /model?" in err


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        ("/help a b", "usage: /help [COMMAND]"),
        ("/model a b", "usage: /model [NAME]"),
        ("/pipeline a b", "usage: /pipeline [NAME|FILE]"),
        ("/agents a b", "usage: /agents [NAME]"),
        ("/run", "usage: /run PIPELINE|FILE"),
        ("/run -i a=b", "usage: /run PIPELINE|FILE"),
        ("/run answer -i", "usage: /run PIPELINE|FILE"),
        ("/run answer -i =x", "usage: /run PIPELINE|FILE"),
        ("/run answer -i query=a -i query=b", "usage: /run PIPELINE|FILE"),
        ("/set", "usage: /set KEY VALUE"),
        ("/set model", "usage: /set KEY VALUE"),
        ("/config nonsense", "usage: /config [show|path|set KEY VALUE]"),
        ("/config show more", "usage: /config [show|path|set KEY VALUE]"),
        ("/config set model", "usage: /config [show|path|set KEY VALUE]"),
        ("/status now", "usage: /status"),
        ("/history 1 2", "usage: /history [NUMBER]"),
        ("/save", "usage: /save FILE [--force]"),
        ("/save a b", "usage: /save FILE [--force]"),
        ("/undo 2", "usage: /undo"),
        ("/retry now", "usage: /retry [-m MODEL]"),
        ("/retry -m", "usage: /retry [-m MODEL]"),
        ("/sessions all", "usage: /sessions"),
        ("/fork 1 2", "usage: /fork [TURN]"),
        ("/name", "usage: /name [--force] NAME"),
        ("/raw on", "usage: /raw"),
        ("/copy code 2", "usage: /copy [code|NUMBER]"),
        ("/clear all", "usage: /clear"),
        ("/exit now", "usage: /exit"),
    ],
)
async def test_wrong_arguments_show_the_usage_and_do_nothing(talk: Talk, line: str, usage: str) -> None:
    before = talk.repl.loaded
    out, err = await talk.say(line)
    assert out == ""
    assert usage in err
    assert talk.repl.last_exit is ExitCode.USAGE
    assert talk.repl.loaded is before
    assert not talk.repl.leaving
    assert not talk.backend.requests


# -- questions and the conversation ----------------------------------------------------------------------------


async def test_a_question_is_answered_on_stdout(talk: Talk) -> None:
    out, err = await talk.say("Hello there")
    assert out == "Hello there\n"
    assert "answer: done" in err
    assert talk.repl.last_exit is ExitCode.ANSWERED


async def test_the_conversation_reaches_the_next_question(talk: Talk) -> None:
    await talk.say("My name is Ada")
    await talk.say("What is my name?")
    assert "My name is Ada" in talk.backend.requests[-1].messages[-1].content


async def test_turns_that_do_not_fit_are_mentioned(talk: Talk) -> None:
    long = "iron " * 3000
    await talk.say(f"One? {long}")
    _, err = await talk.say("Two?")
    assert "the earlier turn is passed on with its beginning only" in err
    assert "Person: One? iron iron" in talk.backend.requests[-1].messages[-1].content


async def test_clear_forgets_the_conversation(talk: Talk) -> None:
    await talk.say("My name is Ada")
    out, _ = await talk.say("/clear")
    assert out == ""
    await talk.say("What is my name?")
    assert "Ada" not in talk.backend.requests[-1].messages[-1].content


async def test_a_failed_run_shows_its_error_and_the_next_question_is_answered() -> None:
    talk = make_talk([Failure("server_error"), "fine"])
    out, err = await talk.say("first")
    assert "error: the server failed (scripted)" in err
    assert talk.repl.last_exit is ExitCode.FAILED
    assert out == ""
    assert (await talk.say("second"))[0] == "fine\n"
    assert [turn.status for turn in talk.repl.conversation] == ["failed", "answered"]
    assert "first" not in talk.backend.requests[-1].messages[-1].content


async def test_a_failed_run_says_how_it_goes_on_where_it_is_recorded() -> None:
    talk = make_talk({"answer": Failure("rejected", 9)})
    _, err = await talk.say("Why?")
    run_id = talk.repl.conversation[-1].run_id
    line = f"hint: to go on with it: synaptic runs resume {run_id}\n"
    assert err.endswith(line)
    await talk.say("/clear")
    assert (await talk.say("/resume"))[1].endswith(line)
    await talk.say("/set journal off")
    _, err = await talk.say("Why?")
    assert "error:" in err
    assert "runs resume" not in err


async def test_a_failed_run_that_could_not_be_recorded_is_not_said_to_go_on() -> None:
    paths.journal_file().parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("PRAGMA user_version = 9999")  # a newer program's
    connection.close()
    _, err = await make_talk({"answer": Failure("rejected", 9)}).say("Why?")
    assert "error:" in err
    assert "runs resume" not in err


async def test_every_question_is_about_the_files_of_the_conversation(talk: Talk) -> None:
    write("notes.md", "Tea at nine.")
    talk.repl.about(["notes.md"], read_documents(["notes.md"]))
    assert talk.err.getvalue().endswith("every question is about notes.md (12 characters)\n")
    for question in ("What?", "And when?"):
        await talk.say(question)
        asked = talk.backend.requests[-1].messages[-1].content
        assert question in asked
        assert asked.rpartition(question)[2].count("Tea at nine.") == 1
    out, _ = await talk.say("/plan What?")
    assert "answer" in out


async def test_files_of_the_conversation_are_taken_once_where_a_turn_has_them_too(talk: Talk) -> None:
    write("notes.md", "Tea at nine.")
    talk.repl.about(["notes.md"], read_documents(["notes.md"]))
    await talk.repl.ask(Asked("What?", documents=list(talk.repl.documents)))
    assert talk.backend.requests[-1].messages[-1].content.count("Tea at nine.") == 1


async def test_a_bug_costs_neither_the_conversation_nor_the_prompt() -> None:
    """An exception that nobody expected is one line; the traceback comes with -v."""
    talk = make_talk({"answer": ("fine", ZeroDivisionError("boom"), "fine")}, verbose=True)
    await talk.say("first")
    _, err = await talk.say("second")
    assert "error: this is a bug: ZeroDivisionError: boom" in err
    assert "Traceback" in err
    assert talk.repl.last_exit is ExitCode.FAILED
    assert (await talk.say("third"))[0] == "fine\n"


async def test_a_question_that_cannot_begin_leaves_no_turn() -> None:
    talk = make_talk(overrides=("pipeline=missing.yaml",))
    _, err = await talk.say("Hello")
    assert "missing.yaml" in err
    assert talk.repl.last_exit is ExitCode.USAGE
    assert not talk.repl.conversation


def test_messages_leave_out_failures_and_mark_what_was_interrupted() -> None:
    conversation = Conversation()
    for turn in (
        a_turn("a", "1"),
        a_turn("b", "2", status="failed"),
        a_turn("c", "3", status="interrupted"),
        a_turn("d", "", status="interrupted"),
    ):
        conversation.append(turn)
    assert conversation.messages() == (
        Message("user", "a"),
        Message("assistant", "1"),
        Message("user", "c"),
        Message("assistant", f"3\n\n{INTERRUPTED_MARK}"),
    )
    assert [turn.question for turn in conversation] == ["a", "b", "c", "d"]


# -- /model ----------------------------------------------------------------------------------------------------


async def test_model_shows_the_models_and_marks_the_one_in_use(talk: Talk) -> None:
    out, err = await talk.say("/model")
    assert re.search(r"^scripted\* .* yes$", out, re.MULTILINE)
    assert "given by the caller" in err


async def test_model_sets_a_model_for_the_next_question(talk: Talk) -> None:
    _, err = await talk.say("/model scripted")
    assert "/config set model scripted" in err
    await talk.say("Hello")
    assert talk.backend.requests[-1].model == "scripted"
    assert talk.repl.loaded.origins["model"] == "/set"


async def test_model_refuses_what_the_backend_does_not_have(talk: Talk) -> None:
    _, err = await talk.say("/model scriptde")
    assert "did you mean 'scripted'?" in err
    assert "/set model scriptde" in err
    assert talk.repl.settings.model is None


async def test_model_that_is_like_no_other_names_them_all(talk: Talk) -> None:
    _, err = await talk.say("/model zzz")
    assert "known: scripted." in err


async def test_model_none_lets_the_backend_choose_again(talk: Talk) -> None:
    await talk.say("/model scripted")
    _, err = await talk.say("/model none")
    assert "what the backend chooses" in err
    assert talk.repl.settings.model is None


async def test_model_goes_before_the_flag_of_the_start() -> None:
    talk = make_talk(flags={"model": ("-m", "first")})
    assert talk.repl.settings.model == "first"
    await talk.say("/model scripted")
    assert talk.repl.settings.model == "scripted"


async def test_model_is_set_unchecked_where_the_backend_cannot_be_asked() -> None:
    """A closed backend is like one that is down: the name may be right, and is taken."""
    talk = make_talk(overrides=("pipeline=answer", "backend=ollama", "nodes=http://127.0.0.1:9"))
    talk.repl.sessions = SessionHolder()
    _, err = await talk.say("/model llama3.1:8b")
    assert "model: llama3.1:8b" in err
    _, err = await talk.say("/model")
    assert "error:" in err
    out, _ = await talk.say("/status")
    assert re.search(r"^backend +none: ", out, re.MULTILINE)
    await talk.repl.aclose()


# -- /pipeline -------------------------------------------------------------------------------------------------


async def test_pipeline_lists_the_built_in_ones_and_marks_the_current(talk: Talk) -> None:
    out, _ = await talk.say("/pipeline")
    assert re.search(r"^\* +answer +One call", out, re.MULTILINE)
    assert re.search(r"^ +research +Sub-questions", out, re.MULTILINE)


async def test_pipeline_chooses_a_file_and_lists_it(talk: Talk) -> None:
    write("greet.yaml", PIPELINE)
    await talk.say("/pipeline greet.yaml")
    assert talk.repl.settings.pipeline == "greet.yaml"
    out, _ = await talk.say("/pipeline")
    assert re.search(r"^\* +greet\.yaml", out, re.MULTILINE)


async def test_pipeline_keeps_the_session(talk: Talk) -> None:
    """A pipeline says nothing about the backend, whose model need not be loaded again."""
    await talk.say("Hello")
    await talk.say("/pipeline parallel")
    await talk.say("/set temperature 0.5")
    await talk.say("Hello")
    assert len(talk.sessions_made) == 1
    assert talk.backend.requests[1].tag == "research"


async def test_a_folder_that_changes_while_it_is_trusted_is_said(talk: Talk) -> None:
    write("synapticllamas.json", '{"nodes": ["http://a"]}')
    trust()
    assert "trust" not in (await talk.say("/set retries 1"))[1]
    assert talk.repl.settings.nodes
    write("synapticllamas.json", '{"nodes": ["http://b"]}')
    _, err = await talk.say("/set retries 2")
    assert "this folder has changed since it was trusted; left out: nodes (./synapticllamas.json:1)" in err
    assert not talk.repl.settings.nodes
    assert "trust" not in (await talk.say("/set retries 3"))[1]


@pytest.mark.parametrize("line", ["/pipeline flow.yaml", "/set pipeline flow.yaml", "/config set pipeline flow.yaml"])
async def test_pipeline_says_all_that_is_wrong_with_a_file(talk: Talk, line: str) -> None:
    step = "agent: editr, prompt: 'Say {{ inputs.nosuch }}'"
    for more in ("", ", temperature: hot"):
        text = f"version: 1\nname: flow\nsteps:\n  a: {{{step}{more}}}\nresult: '{{{{ steps.b }}}}'\n"
        write("flow.yaml", text)
        _, err = await talk.say(line)
        said = ("flow.yaml:4:", "did you mean 'editor'", "nosuch", "flow.yaml:5:", *more.split()[2:])
        assert all(word in err for word in said)
    assert talk.repl.settings.pipeline == "answer"


async def test_pipeline_refuses_one_that_does_not_exist(talk: Talk) -> None:
    _, err = await talk.say("/pipeline anser")
    assert "did you mean 'answer'?" in err
    assert talk.repl.settings.pipeline == "answer"


# -- /agents, /plan, /run --------------------------------------------------------------------------------------


async def test_agents_lists_them_with_their_origin(talk: Talk) -> None:
    write("agents/editor.md", "---\ndescription: Mine\nmax_tokens: 9\n---\nWrite.\n")
    out, err = await talk.say("/agents")
    assert "left out: agents/editor.md" in err
    assert "Mine" not in out
    trust()
    out, err = await talk.say("/agents")
    assert err == ""
    assert re.search(r"^critic +shipped +\S", out, re.MULTILINE)
    assert re.search(r"^editor +project, overrides .*editor\.md +Mine$", out, re.MULTILINE)


async def test_agents_shows_one_with_its_prompt_and_output(talk: Talk) -> None:
    out, _ = await talk.say("/agents critic")
    assert out.startswith("critic\n")
    assert "issues" in out
    assert re.search(r"^ +output +\{", out, re.MULTILINE)


async def test_agents_names_the_nearest(talk: Talk) -> None:
    _, err = await talk.say("/agents editer")
    assert "did you mean 'editor'?" in err


async def test_plan_prints_the_steps_and_calls_no_model(talk: Talk) -> None:
    out, _ = await talk.say("/plan What's a heat pump, and what's it for?")
    assert "answer" in out
    assert "editor" in out
    assert not talk.backend.requests


async def test_plan_without_a_question_takes_the_last_one(talk: Talk) -> None:
    assert "editor" in (await talk.say("/plan"))[0]
    await talk.say("Hello")
    assert "editor" in (await talk.say("/plan"))[0]


async def test_run_runs_another_pipeline_once(talk: Talk) -> None:
    out, _ = await talk.say("/run parallel What's up, and what's down?")
    assert "What's up, and what's down?" in out
    assert talk.repl.conversation[-1].pipeline == "parallel"
    assert talk.repl.settings.pipeline == "answer"


async def test_run_takes_inputs_and_a_file_with_a_space(talk: Talk) -> None:
    write("my greet.yaml", PIPELINE)
    out, _ = await talk.say("/run 'my greet.yaml' -i who=\"Ada Lovelace\"")
    assert out == "Greet Ada Lovelace\n"
    assert talk.repl.conversation[-1].question == "/run 'my greet.yaml' -i who=\"Ada Lovelace\""


async def test_run_takes_the_question_as_an_input(talk: Talk) -> None:
    await talk.say("/run answer -i query=Hello")
    assert talk.repl.conversation[-1].question == "Hello"


async def test_run_takes_a_question_that_begins_with_a_dash(talk: Talk) -> None:
    await talk.say("/run answer -- -i is what?")
    assert talk.repl.conversation[-1].question == "-i is what?"


async def test_run_refuses_an_undeclared_input(talk: Talk) -> None:
    _, err = await talk.say("/run answer -i quary=x")
    assert "has no input 'quary'" in err
    assert not talk.backend.requests


# -- /set and /config ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("model x", ("model", "x")),
        ("model=x", ("model", "x")),
        ("model = x", ("model", "x")),
        ('model "a b"', ("model", "a b")),
        ("model=a b", ("model", "a b")),
        ('nodes [{"url": "http://a"}]', ("nodes", '[{"url": "http://a"}]')),
        ("model", ("model", "")),
        ("", ("", "")),
    ],
)
def test_an_assignment_may_be_written_with_or_without_a_sign(text: str, pair: tuple[str, str]) -> None:
    assert take_assignment(text) == pair


async def test_set_applies_and_says_how_to_keep_it(talk: Talk) -> None:
    _, err = await talk.say("/set temperature 0.3")
    assert err.startswith("temperature: 0.3 ")
    assert "/config set temperature 0.3" in err
    assert talk.repl.settings.temperature == pytest.approx(0.3)
    out, _ = await talk.say("/config")
    assert re.search(r"^temperature +/set +0\.3$", out, re.MULTILINE)
    await talk.say("/set pipeline_inputs.rounds 2")
    out, _ = await talk.say("/config")
    assert re.search(r'^pipeline_inputs +/set +{"rounds": 2}$', out, re.MULTILINE)
    assert re.search(r"^pipeline +--set +answer$", out, re.MULTILINE)
    assert re.search(r"^retries +--set +0$", out, re.MULTILINE)


async def test_set_twice_keeps_the_last(talk: Talk) -> None:
    await talk.say("/set num_ctx 8192")
    await talk.say("/set num_ctx 1024")
    assert talk.repl.settings.num_ctx == 1024
    assert talk.repl.sources.changes == {"num_ctx": "1024"}


async def test_set_of_an_entry_of_a_table(talk: Talk) -> None:
    await talk.say("/set agent_models.editor llama3.1:70b")
    assert talk.repl.settings.agent_models == {"editor": "llama3.1:70b"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/set temprature 0.3", "error: unknown setting 'temprature'; did you mean 'temperature'?"),
        ("/set num_ctx 3", "error: num_ctx must be at least 256"),
        ("/set nodes ftp://x", "error: "),
    ],
)
async def test_a_broken_set_says_what_is_wrong_and_changes_nothing(talk: Talk, line: str, problem: str) -> None:
    before = talk.repl.loaded
    _, err = await talk.say(line)
    assert problem in err
    assert talk.repl.loaded is before
    assert talk.repl.sources.changes == {}
    assert (await talk.say("Hello"))[0] == "Hello\n"


async def test_a_setting_of_the_backend_makes_a_new_session(talk: Talk) -> None:
    await talk.say("Hello")
    assert talk.repl.sessions.route is not None
    await talk.say("/set embedded_parallel 2")
    assert talk.repl.sessions.route is None
    await talk.say("Hello")
    assert len(talk.sessions_made) == 2


async def test_the_bar_names_no_pipeline_that_may_not_be_the_next_ones() -> None:
    talk = make_talk(overrides=("retries=0",))
    await talk.say("/status")
    assert status_line(talk.repl).startswith("research · ")
    await talk.say("/set retries 1")
    assert status_line(talk.repl) == "/help"
    await talk.repl.aclose()


async def test_config_path_names_the_file(talk: Talk, own_home: Path) -> None:
    out, _ = await talk.say("/config path")
    assert out == f"{own_home / '.synapticllamas.json'}\n"


async def test_config_set_writes_the_file_and_applies(talk: Talk, own_home: Path) -> None:
    await talk.say("/set num_ctx 1024")
    _, err = await talk.say("/config set num_ctx 2048")
    assert json.loads(read(own_home / ".synapticllamas.json")) == {"num_ctx": 2048}
    assert "num_ctx is kept in" in err
    assert talk.repl.settings.num_ctx == 2048


async def test_config_set_says_what_goes_before_the_file(talk: Talk) -> None:
    _, err = await talk.say("/config set pipeline parallel")
    assert "pipeline comes from --set now, which goes before the file" in err
    assert talk.repl.settings.pipeline == "answer"


async def test_config_set_refuses_nonsense_and_writes_nothing(talk: Talk, own_home: Path) -> None:
    _, err = await talk.say("/config set num_ctx 3")
    assert "num_ctx must be at least 256" in err
    assert files(own_home) == []


# -- /status, /history, /save, /exit ---------------------------------------------------------------------------


async def test_status_says_where_questions_go_and_what_was_used(talk: Talk) -> None:
    out, _ = await talk.say("/status")
    assert re.search(r"^backend +scripted scripted$", out, re.MULTILINE)
    assert re.search(r"^why +given by the caller$", out, re.MULTILINE)
    assert re.search(r"^last run +none yet$", out, re.MULTILINE)
    await talk.say("Hello there")
    out, _ = await talk.say("/status")
    assert re.search(r"^turns +1$", out, re.MULTILINE)
    assert re.search(r"^tokens +\d+ \(\d+ in prompts, 2 generated\)$", out, re.MULTILINE)
    assert re.search(r"^last run +[0-9A-Z]{26}, answer, succeeded after", out, re.MULTILINE)


async def test_history_shows_the_turns_and_one_in_full(talk: Talk) -> None:
    assert (await talk.say("/history"))[0] == "nothing was asked yet\n"
    assert "nothing was asked yet" in (await talk.say("/history 1"))[1]
    await talk.say("Hello\nthere")
    out, _ = await talk.say("/history")
    assert out == "  1  Hello there\n     Hello there\n"
    assert (await talk.say("/history 1"))[0] == "Hello\nthere\n\nHello\nthere\n"
    for wrong in ("0", "2", "x"):
        assert f"there is no turn '{wrong}'" in (await talk.say(f"/history {wrong}"))[1]


async def test_history_says_how_a_turn_ended() -> None:
    talk = make_talk([Failure("server_error")])
    await talk.say("Hello")
    assert "(failed: answer: the server failed (scripted))" in (await talk.say("/history"))[0]
    assert "(failed: answer: the server failed (scripted))" in (await talk.say("/history 1"))[0]


async def test_save_writes_markdown_and_json(talk: Talk) -> None:
    assert "nothing to save" in (await talk.say("/save a.md"))[1]
    await talk.say("Hello\nthere")
    _, err = await talk.say("/save a.md")
    assert "saved 1 turn to a.md" in err
    assert read("a.md") == "# Conversation\n\n> Hello\n> there\n\nHello\nthere\n"
    await talk.say("/save 'my talk.JSON'")
    saved = json.loads(read("my talk.JSON"))
    assert saved["turns"][0]["question"] == "Hello\nthere"
    assert saved["turns"][0]["status"] == "answered"


async def test_save_writes_no_markdown_into_what_is_called_otherwise(talk: Talk, tmp_path: Path) -> None:
    await talk.say("Hello")
    assert "/save writes Markdown or JSON, and a.pdf is called otherwise" in (await talk.say("/save a.pdf"))[1]
    assert "a.pdf" not in files(tmp_path)


async def test_save_expands_the_home_directory(talk: Talk, own_home: Path) -> None:
    await talk.say("Hello")
    await talk.say("/save ~/a.md")
    assert "a.md" in files(own_home)


async def test_save_never_overwrites_unasked(talk: Talk) -> None:
    await talk.say("Hello")
    write("a.md", "mine", mode=0o640)
    _, err = await talk.say("/save a.md")
    assert "a.md exists" in err
    assert "--force" in err
    assert read("a.md") == "mine"
    await talk.say("/save --force a.md")
    assert "Hello" in read("a.md")
    assert mode_of("a.md") == 0o640


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, *, force: bool) -> None:
    missing = tmp_path / "missing" / "a.md"
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        save(missing, "text", force=force)
    (tmp_path / "dir.md").mkdir()
    with pytest.raises(UsageError, match=r"dir\.md"):
        save(tmp_path / "dir.md", "text", force=force)
    with pytest.raises(UsageError, match="cannot be written"):
        save(tmp_path / "a\0b", "text", force=force)
    assert files(tmp_path) == ["dir.md", "home", "work"]


def test_a_text_that_cannot_be_encoded_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        save(tmp_path / "a.md", "lone \ud800 surrogate")
    assert not (tmp_path / "a.md").exists()


def test_an_interrupted_turn_is_marked_in_what_is_saved() -> None:
    turns = [a_turn(status="interrupted"), a_turn("and?", "", status="failed", error="it broke")]
    assert as_markdown(turns).endswith("because\n\n*interrupted*\n\n> and?\n\n*failed: it broke*\n")
    saved = json.loads(as_json(turns))["turns"]
    assert [turn["status"] for turn in saved] == ["interrupted", "failed"]
    assert saved[0]["asked_at"] == "1970-01-01T00:00:00+00:00"


@pytest.mark.parametrize("line", ["/exit", "/quit"])
async def test_exit_leaves(talk: Talk, line: str) -> None:
    await talk.say(line)
    assert talk.repl.leaving


# -- the last turn ---------------------------------------------------------------------------------------------


async def test_undo_forgets_the_last_turn(talk: Talk) -> None:
    await talk.say("One?")
    await talk.say("Two?")
    _, err = await talk.say("/undo")
    assert "forgotten: Two? (1 turn left)" in err
    await talk.say("Three?")
    assert "Two?" not in talk.backend.requests[-1].messages[-1].content
    assert [turn.question for turn in talk.repl.conversation] == ["One?", "Three?"]


@pytest.mark.parametrize("line", ["/undo", "/retry", "/copy"])
async def test_without_a_turn_there_is_nothing_to_take_back_or_copy(talk: Talk, line: str) -> None:
    _, err = await talk.say(line)
    assert "yet" in err
    assert talk.repl.last_exit is ExitCode.USAGE


async def test_retry_asks_the_same_in_the_place_of_the_turn(talk: Talk) -> None:
    await talk.say("One?")
    write("greet.yaml", PIPELINE)
    await talk.say("/run ./greet.yaml -i who=Ada")
    out, _ = await talk.say("/retry -m other")
    first, second = talk.backend.requests[-2:]
    assert "Greet Ada" in out
    assert second.messages == first.messages
    assert (first.model, second.model) == ("scripted", "other")
    assert [turn.question for turn in talk.repl.conversation] == ["One?", "/run ./greet.yaml -i who=Ada"]


async def test_a_retry_that_cannot_begin_leaves_the_turn(talk: Talk) -> None:
    write("greet.yaml", PIPELINE)
    await talk.say("/run ./greet.yaml -i who=Ada")
    write("greet.yaml", "version: 1")
    _, err = await talk.say("/retry")
    assert "error:" in err
    assert len(talk.repl.conversation) == 1


@pytest.mark.parametrize(
    ("line", "copied"),
    [
        ("/copy", "Take:\n\n```sh\nls -l\n```"),
        ("/copy code", "ls -l"),
        ("/copy 1", "Take:\n\n```sh\nls -l\n```"),
    ],
)
async def test_an_answer_or_its_code_is_copied(
    talk: Talk, line: str, copied: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipboard = tmp_path / "clipboard"
    program = tmp_path / "bin" / "pbcopy"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat > '{clipboard}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for name in ("TMUX", "WAYLAND_DISPLAY", "DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    await talk.say("Take:\n\n```sh\nls -l\n```")
    talk.repl.conversation[-1] = replace(talk.repl.conversation[-1], answer="Take:\n\n```sh\nls -l\n```")
    _, err = await talk.say(line)
    assert f"copied {len(copied)} characters (pbcopy)" in err
    assert clipboard.read_text() == copied


async def test_what_cannot_be_copied_is_told(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    await talk.say("Hello?")
    _, err = await talk.say("/copy code")
    assert "there is no code in the last answer" in err
    monkeypatch.setenv("PATH", "/nowhere")
    _, err = await talk.say("/copy")
    assert "there is no clipboard here" in err


async def test_a_question_is_written_in_an_editor(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    _, err = await talk.say("/edit")
    assert "neither $VISUAL nor $EDITOR is set" in err
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf \'%s, and why?\' "$(cat "$1")" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    _, err = await talk.say("/edit")
    assert "an editor needs a terminal" in err


async def test_raw_turns_the_rendering_off_and_on(talk: Talk) -> None:
    assert talk.repl.settings.look == "auto"
    await talk.say("/raw")
    assert talk.repl.settings.look is None
    await talk.say("/raw")
    assert talk.repl.settings.look == "auto"


async def test_the_bar_says_how_full_the_context_was() -> None:
    talk = make_talk(context=200)
    await talk.say("word " * 20)
    share = re.search(r"context (\d+) %", status_line(talk.repl).replace("%", " %"))
    assert share is not None
    assert 30 <= int(share[1]) <= 90
    await talk.repl.aclose()


# -- conversations that are kept -------------------------------------------------------------------------------


async def test_an_answer_stays_where_asking_again_fails() -> None:
    talk = make_talk(["fine", Failure("rejected"), "And fine"])
    await talk.say("One?")
    _, err = await talk.say("/retry")
    assert "error:" in err
    assert err.endswith("the answer that was there stays\n")
    later = make_talk()
    await later.say("/resume")
    assert [(turn.question, turn.answer) for turn in later.repl.conversation] == [("One?", "fine")]
    await talk.say("Two?")
    assert "You: fine" in talk.backend.requests[-1].messages[-1].content
    await talk.repl.aclose()
    await later.say("/clear")
    await later.say("/resume")
    assert asked(later) == ["One?", "Two?"]


def asked(talk: Talk) -> list[str]:
    """Return the questions of the conversation that is open."""
    return [turn.question for turn in talk.repl.conversation]


async def test_a_conversation_is_gone_on_with_in_another_program(talk: Talk) -> None:
    await talk.say("One?")
    await talk.say("Two?")
    await talk.say("/name heat pumps")
    await talk.repl.sessions.recorded()
    later = make_talk()
    out, err = await later.say("/resume heat pumps")
    assert out == "Two?\n\nTwo?\n" or out.startswith("Two?\n\n")
    assert "going on with heat pumps, 2 turns" in err
    await later.say("Three?")
    prompt = later.backend.requests[-1].messages[-1].content
    assert "Person: One?" in prompt and "Person: Two?" in prompt
    await later.repl.aclose()
    last = make_talk()
    await last.say("/resume")
    assert asked(last) == ["One?", "Two?", "Three?"]


async def test_what_was_taken_back_stays_so_once_something_else_was_asked(talk: Talk) -> None:
    await talk.say("One?")
    await talk.say("Wrong?")
    await talk.say("/undo")
    await talk.say("Two?")
    await talk.say("/clear")
    await talk.say("/resume")
    assert asked(talk) == ["One?", "Two?"]


async def test_what_was_taken_back_stays_so_where_nothing_was_asked_since(talk: Talk) -> None:
    await talk.say("One?")
    await talk.say("Wrong?")
    await talk.say("/undo")
    later = make_talk()
    await later.say("/resume")
    assert asked(later) == ["One?"]
    await later.say("/undo")
    await later.say("/clear")
    _, err = await later.say("/resume")
    assert "of which every turn was taken back" in err
    await later.say("Two?")
    assert "One?" not in later.backend.requests[-1].messages[-1].content
    await later.repl.aclose()
    last = make_talk()
    await last.say("/resume")
    assert asked(last) == ["Two?"]


async def test_a_fork_leaves_the_conversation_as_it_is(talk: Talk) -> None:
    for question in ("One?", "Two?", "Three?"):
        await talk.say(question)
    _, err = await talk.say("/fork 1")
    assert "a new conversation of 1 turn, which goes on from: One?" in err
    await talk.say("Other?")
    out, _ = await talk.say("/sessions")
    assert len(out.splitlines()) == 3
    await talk.say("/resume")
    assert asked(talk) == ["One?", "Two?", "Three?"]
    await talk.say("/resume")
    assert asked(talk) == ["One?", "Other?"]


async def test_a_fork_is_found_by_its_name_once_something_was_asked_in_it(talk: Talk) -> None:
    await talk.say("One?")
    _, err = await talk.say("/fork")
    assert "it is kept from its first question on" in err
    _, err = await talk.say("/name aside")
    assert "/resume take that from its first question on" in err
    await talk.say("Two?")
    _, err = await talk.say("/name aside")
    assert err.endswith("/resume take that\n")
    later = make_talk()
    await later.say("/resume aside")
    assert asked(later) == ["One?", "Two?"]


async def test_a_turn_of_an_earlier_program_is_asked_again_with_its_inputs(talk: Talk) -> None:
    write("greet.yaml", PIPELINE)
    await talk.say("/run ./greet.yaml -i who=Ada")
    await talk.repl.sessions.recorded()
    later = make_talk()
    await later.say("/resume")
    out, _ = await later.say("/retry")
    assert "Greet Ada" in out
    await later.repl.aclose()


@pytest.mark.parametrize(
    "line",
    [
        "Why?",
        "/run ./greet.yaml -i who=Ada",
        "/run ./greet.yaml -i who='Ada Lovelace'",
        "/run answer -i query=Why",
        "/run answer -f notes.txt Why?",
    ],
)
async def test_a_turn_reads_the_same_whoever_shows_it(talk: Talk, line: str) -> None:
    """The chat that asked it, one that goes on with it, and what the next run is told: also of one without question."""
    write("greet.yaml", PIPELINE)
    write("notes.txt", "Tea at nine.")
    await talk.say(line)
    await talk.repl.sessions.recorded()
    later = make_talk()
    await later.say("/resume")
    with Journal() as journal:
        turns = turns_of(journal, find_session(journal))

    assert later.repl.conversation.messages() == talk.repl.conversation.messages() == conversation_of(turns)
    assert as_markdown(later.repl.conversation) == as_markdown(talk.repl.conversation)
    assert turns[0].question == talk.repl.conversation[0].question
    await later.say("/retry")
    assert asked(later) == asked(talk)
    await later.repl.aclose()


async def test_a_question_that_could_not_begin_is_a_turn_that_failed(talk: Talk) -> None:
    """The model does not load: it is said once, and the question can be asked again, here and later."""
    reason = ["the engine does not start"]

    async def start() -> None:
        if reason:
            raise BackendUnavailable(reason.pop())

    talk.backend.capabilities = replace(talk.backend.capabilities, start=start)
    _, err = await talk.say("One?")
    assert err.count("error: the engine does not start") == 1
    assert "synaptic runs resume" in err
    assert talk.repl.last_exit is ExitCode.NO_BACKEND
    await talk.repl.sessions.recorded()
    later = make_talk()
    await later.say("/resume")
    assert [(turn.question, turn.status) for turn in later.repl.conversation] == [("One?", "failed")]
    out, _ = await talk.say("/retry")
    assert out == "One?\n"
    assert [turn.status for turn in talk.repl.conversation] == ["answered"]


async def test_nothing_is_kept_where_runs_are_not_recorded() -> None:
    talk = make_talk(overrides=("pipeline=answer", "journal=off"))
    await talk.say("One?")
    out, _ = await talk.say("/sessions")
    assert "no conversation is kept yet" in out
    for line in ("/name x", "/resume"):
        _, err = await talk.say(line)
        assert "kept" in err
    await talk.repl.aclose()


@pytest.mark.parametrize("line", ["/fork", "/name x"])
async def test_before_the_first_turn_there_is_nothing_to_fork_or_name(talk: Talk, line: str) -> None:
    _, err = await talk.say(line)
    assert "nothing was asked yet" in err


async def test_a_name_of_another_conversation_is_refused_unless_forced(talk: Talk) -> None:
    await talk.say("One?")
    await talk.say("/name heat")
    await talk.say("/clear")
    await talk.say("Other?")
    _, err = await talk.say("/name Heat")
    assert "error: another conversation is called heat: " in err and "begins with 'One?'" in err
    assert "/name --force NAME" in err
    await talk.say("/name --force Heat")
    await talk.say("/clear")
    await talk.say("/resume heat")
    assert asked(talk) == ["Other?"]
    _, err = await talk.say("/name --force")
    assert "it needs a name" in err


async def test_an_unknown_conversation_leaves_the_open_one(talk: Talk) -> None:
    await talk.say("One?")
    await talk.say("/name heat")
    _, err = await talk.say("/resume heet")
    assert "did you mean 'heat'?" in err
    assert asked(talk) == ["One?"]
