"""``-c``, ``--session`` and ``synaptic sessions``: conversations from one command line to the next."""

import json
from pathlib import Path

from cli_support import ECHO, SCRIPTED, run_here
from repl_terminal import environment, open_terminal
from warm_python import ROOT

from synaptic import RequestRejected, ScriptedBackend, Session, Settings
from synaptic.runtime import Journal, name_session, new_run_id

GREET = """\
version: 1
name: greet
inputs:
  who: {type: string, required: true}
steps:
  greet: {agent: editor, prompt: "Greet {{ inputs.who }}"}
result: "{{ steps.greet }}"
"""


def test_a_question_goes_on_with_the_conversation_before_it():
    assert run_here(*ECHO, "What is iron?").code == 0
    assert run_here(*ECHO, "Elsewhere?").code == 0

    document = json.loads(run_here("sessions", "list", "--json").out)
    with Journal() as journal:
        name_session(journal, document[1]["id"], "metals")
    last = run_here(*ECHO, "-c", "And there?")
    named = run_here(*ECHO, "--session", "metals", "And its colour?")

    assert "Person: Elsewhere?" in last.out and "iron" not in last.out
    assert "Person: What is iron?" in named.out and "Elsewhere" not in named.out
    listed = run_here("sessions", "list").out.splitlines()
    assert listed[1].split()[1:3] == ["metals", "2"]


def test_a_long_question_takes_one_line_of_the_list():
    run_here(*ECHO, "What was decided?\n" * 100)

    (_, line) = run_here("sessions", "list").out.splitlines()
    (kept,) = json.loads(run_here("sessions", "list", "--json").out)
    assert line.endswith("…") and line.count("decided") < 5
    assert kept["begins_with"].count("decided") > 50


def test_a_conversation_is_shown_and_exported():
    run_here(*ECHO, "What is iron?")
    run_here(*ECHO, "-c", "And then?")

    shown, document = run_here("sessions", "show").out, json.loads(run_here("sessions", "export", "--json").out)

    assert shown.startswith("# Conversation\n\n> What is iron?\n\nWhat is iron?\n\n> And then?\n")
    assert run_here("sessions", "export").out == shown
    assert [turn["question"] for turn in document["turns"]] == ["What is iron?", "And then?"]


async def test_on_a_terminal_a_conversation_has_rendered_answers(tmp_path: Path, own_home: Path):
    talk = new_run_id()
    async with Session(Settings(pipeline="answer"), backend=ScriptedBackend(["# Tea\n\nIt is **hot**."])) as session:
        run = await session.run("What is *tea*?", session=talk)
    async with Session(
        Settings(pipeline="answer", retries=0), backend=ScriptedBackend([RequestRejected("no")])
    ) as session:
        await session.run("And coffee?", session=talk, after=run.run_id)

    with open_terminal(
        [str(ROOT / "main.py"), "sessions", "show"], tmp_path, environment(own_home), rows=80
    ) as terminal:
        assert terminal.wait_for_end() == 0

    lines = [line.strip() for line in terminal.text.splitlines()]
    assert [line for line in lines if line][:4] == ["Conversation", "> What is *tea*?", "Tea", "It is hot."]
    assert any(line.startswith("(failed: ") for line in lines)


def test_a_turn_without_a_question_is_told_by_its_pipeline(tmp_path: Path):
    file = tmp_path / "greet.yaml"
    file.write_text(GREET)
    assert run_here("-p", str(file), "-i", "who=Ada", *SCRIPTED).code == 0

    asked = run_here(*ECHO, "-c", "And then?")

    heading = f"/run {file}"
    assert f"Person: {heading}\n" in asked.out
    assert f"> {heading}\n" in run_here("sessions", "show").out
    turns = json.loads(run_here("sessions", "export", "--json").out)["turns"]
    assert [(turn["question"], turn["query"]) for turn in turns] == [(heading, ""), ("And then?", "And then?")]


def test_a_plan_knows_the_conversation_and_leaves_it_alone():
    run_here(*ECHO, "What is iron?")

    assert run_here(*ECHO, "-c", "--plan", "And then?").code == 0
    assert json.loads(run_here("sessions", "list", "--json").out)[0]["runs"][1:] == []


def test_without_a_conversation_there_is_nothing_to_go_on_with():
    assert run_here("sessions", "list").out == "no conversation is kept yet\n"
    for arguments in ((*ECHO, "-c", "And then?"), (*ECHO, "--session", "metals", "And?"), ("sessions", "show")):
        outcome = run_here(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.startswith("error: there is no")


def test_what_a_fork_begins_with_stays_when_the_other_is_removed():
    run_here("chat", *ECHO, stdin="What is iron?\n/name metals\nElsewhere?\n/fork 1\nAnd gold?\n")
    fork = json.loads(run_here("sessions", "list", "--json").out)[0]["id"]

    removed = run_here("sessions", "remove", "metals")

    assert removed.out == f"removed metals: 1 run\n1 turn that the fork {fork} begins with stays there\n"
    assert [line for line in run_here("sessions", "show").out.splitlines() if line.startswith("> ")] == [
        "> What is iron?",
        "> And gold?",
    ]


def test_a_conversation_is_removed_with_its_runs_and_its_name():
    run_here(*ECHO, "What is iron?")
    run_here(*ECHO, "Elsewhere?")
    first = json.loads(run_here("sessions", "list", "--json").out)[1]["id"]
    with Journal() as journal:
        name_session(journal, first, "metals")

    removed = run_here("sessions", "remove", "metals")

    assert (removed.code, removed.out) == (0, "removed metals: 1 run\n")
    assert [entry["begins_with"] for entry in json.loads(run_here("sessions", "list", "--json").out)] == ["Elsewhere?"]
    assert run_here("sessions", "remove", "metals").code == 2
