"""``synaptic runs``: going on with recorded runs, beginning others with them, playing them again."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import ECHO, SCRIPTED, Outcome, run_here

from synaptic import paths
from synaptic.processes import process_mark
from synaptic.runtime.journal import Journal, Owner
from synaptic.runtime.journal.row_seal import seal_all

FLOW = """\
version: 1
name: flow
inputs: {query: {required: true}, tone: {default: calm}}
steps:
  plan: {agent: editor, prompt: "plan {{ inputs.query }}"}
  end: {agent: editor, prompt: "{{ inputs.tone }} {{ steps.plan }}"}
result: "{{ steps.end }}"
"""
ASKING = FLOW.replace("  end:", '  city: {ask: "Which city?"%s}\n  end:').replace(
    "plan }}", "plan }} in {{ steps.city }}"
)


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    file = tmp_path / "flow.yaml"
    file.write_text(FLOW)
    return file


def latest() -> str:
    with Journal() as journal:
        return journal.runs()[0].id


def ask(flow: Path, *more: str) -> str:
    """Run the pipeline and return the run's id."""
    assert run_here("-p", str(flow), *SCRIPTED, *more, "why").code == 0
    return latest()


def leave(status: str, *, alive: bool = False, until: str = "end") -> str:
    """Make the latest run one whose process was killed before a step; or one that a living process works on."""
    run_id, parent = latest(), os.getppid()
    owner = Owner(os.uname().nodename, parent, (process_mark(parent) or "") if alive else "gone").written()
    with sqlite3.connect(paths.journal_file()) as file:
        (run,) = file.execute("SELECT n FROM runs WHERE id = ?", (run_id,)).fetchone()
        (seq,) = file.execute("SELECT min(seq) FROM events WHERE run = ? AND path = ?", (run, until)).fetchone()
        file.execute("UPDATE runs SET status = ?, owner = ?, ended = NULL WHERE n = ?", (status, owner, run))
        file.execute("DELETE FROM events WHERE run = ? AND seq >= ?", (run, seq))
        seal_all(file)
    file.close()
    return run_id


def resume(*more: str) -> Outcome:
    return run_here("runs", "resume", *SCRIPTED, *more)


def test_a_failure_ends_with_the_line_that_goes_on_with_it(flow: Path):
    budget = FLOW.replace("inputs:", "budget: {calls: 1}\ninputs:")
    for text, code in ((ASKING % "", 2), (budget, 1)):
        flow.write_text(text)
        ended = run_here("-p", str(flow), *SCRIPTED, "why")
        assert ended.code == code
        assert ("runs resume" in ended.err) == (code == 1)
    assert ended.err.rstrip().endswith(f"hint: to go on with it: synaptic runs resume {latest()}")
    assert resume().out == "calm plan why\n"  # a budget holds for each go
    assert "runs resume" not in run_here("-p", str(flow), *SCRIPTED, "--set", "journal=off", "why").err


def test_the_last_run_that_did_not_end_goes_on(flow: Path):
    ask(flow)
    run_id = leave("running")
    done = resume()
    assert (done.code, done.out) == (0, "calm plan why\n")
    assert f"going on with the run {run_id}" in done.err
    assert re.search(r"plan: done, \d+\.\d s, from the journal", done.err)
    assert "1 call · 1 step from the journal" in done.err
    again = resume()
    assert again.code == 2
    assert "there is no run to go on with" in again.err
    named = resume(run_id)
    assert named.code == 2
    assert "has succeeded: there is nothing left to do" in named.err


def test_a_run_of_a_living_process_is_left_alone_and_named(flow: Path):
    ask(flow)
    run_id = leave("running", alive=True)
    for more in ((), (run_id,)):
        left = resume(*more)
        assert left.code == 2
        assert f"the run {run_id} is at work in process {os.getppid()}" in left.err


SENDING = """\
version: 1
name: sending
inputs: {query: {required: true}}
steps:
  send: {tool: send, idempotent: false, with: {text: "{{ inputs.query }}"}}
  end: {agent: editor, prompt: "{{ steps.send }}"}
result: "{{ steps.end }}"
"""
SEND = '''\
"""A tool that is killed with its program the first time that it works."""

import os
import signal
from pathlib import Path

from synaptic import tool

SENT = Path(__file__).with_name("sent")


@tool
def send(text: str) -> str:
    """Send a text."""
    with SENT.open("a") as file:
        file.write(f"{text}\\n")
    if len(SENT.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"sent {text}"
'''


def test_a_tool_that_was_killed_at_work_is_called_again_only_if_a_person_says_so(tmp_path: Path):
    (tmp_path / "sending.yaml").write_text(SENDING)
    (tmp_path / "send.py").write_text(SEND)
    tools, sent = ("--tools", str(tmp_path / "send.py")), tmp_path / "sent"
    program = [sys.executable, "-m", "synaptic", "-p", str(tmp_path / "sending.yaml"), *tools, *SCRIPTED, "why"]
    killed = subprocess.run(program, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    asked = resume(*tools)
    assert asked.code == 1
    assert "the tool 'send' was called before the run was cut off, and how that ended is not known" in asked.err
    assert sent.read_text() == "why\n"
    assert f"synaptic runs answer {latest()} send yes" in " ".join(asked.err.split())
    assert resume(*tools).code == 1, "it is asked each time"
    assert run_here("runs", "answer", latest(), "send", *tools, "yes").code == 0
    done = resume(*tools)
    assert (done.code, done.out) == (0, "sent why\n")
    assert sent.read_text() == "why\nwhy\n"


def test_a_question_whose_engine_does_not_start_says_how_to_go_on(tmp_path: Path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(range(256)))
    engine = ("--set", "backend=embedded", "--set", f"embedded_model={tmp_path}/broken.gguf")
    failed = run_here("-p", "answer", *engine, "--json", "why")
    document = json.loads(failed.out)
    assert (failed.code, document["status"], document["run_id"]) == (3, "failed", latest())
    assert failed.err.count("the embedded engine did not start") == 1
    assert f"synaptic runs resume {latest()}" in failed.err
    assert resume("--set", "backend=scripted").code == 0


def test_a_changed_file_is_taken_by_force_where_nothing_is_done_again(flow: Path):
    ask(flow)
    run_id = leave("running")
    flow.write_text(FLOW.replace("{{ inputs.tone }}", "very {{ inputs.tone }}"))
    done = resume("--json", "--force")
    document = json.loads(done.out)
    assert (document["run_id"], document["answer"]) == (run_id, "very calm plan why")
    assert [step["reused"] for step in document["steps"]] == [True, False]


def test_force_is_refused_where_something_would_be_done_again(flow: Path):
    ask(flow)
    run_id = leave("running")
    with Journal() as journal:
        before = journal.run(run_id)
    flow.write_text(FLOW.replace('"plan {{', '"a plan of {{'))
    refused = resume("--force")
    assert refused.code == 2
    assert "what had ended would be done again: plan (another prompt)" in refused.err
    assert "without --force" in refused.err
    with Journal() as journal:
        assert journal.run(run_id) == before
    assert resume().out == "calm plan why\n"


def test_force_needs_a_file_and_no_other_pipeline(flow: Path):
    ask(flow)
    leave("running")
    both = resume("--force", "-p", str(flow))
    assert (both.code, "contradict" in both.err) == (2, True)
    flow.unlink()
    gone = resume("--force")
    assert gone.code == 2
    assert f"came from {flow}, which is gone" in gone.err
    assert resume().out == "calm plan why\n"


def test_a_changed_file_is_named_and_the_run_goes_on_as_it_was(flow: Path):
    ask(flow)
    run_id = leave("running")
    flow.write_text(FLOW.replace("inputs.tone", "inputs.query"))
    done = resume("--json", "-v")
    document = json.loads(done.out)
    assert (document["run_id"], document["answer"]) == (run_id, "calm plan why")
    assert [step["reused"] for step in document["steps"]] == [True, False]
    assert f"{flow} was changed since the run began; it goes on as it was then" in done.err


def test_a_fork_and_a_rerun_say_what_changed(flow: Path):
    first = ask(flow)
    fork = run_here("runs", "fork", first, *SCRIPTED, "--at", "end", "-i", "tone=loud")
    assert (fork.code, fork.out) == (0, "loud plan why\n")
    assert re.search(r"end: done, 3 tokens, \d+\.\d s, another prompt", fork.err)

    hot = run_here("runs", "rerun", first, *SCRIPTED, "--set", "think=false")
    assert re.search(r"plan: done, 2 tokens, \d+\.\d s, another think", hot.err)

    flow.write_text(FLOW.replace("inputs.tone", "inputs.query"))
    rerun = run_here("runs", "rerun", first, *SCRIPTED, "-p", str(flow))
    assert (rerun.code, rerun.out) == (0, "why plan why\n")
    assert re.search(r"plan: done, \d+\.\d s, from the journal", rerun.err)

    found = run_here("runs", "diff", first, latest())
    assert found.out.splitlines() == [
        "1 step the same: plan",
        "end: changed (asked with another prompt)",
        "  @@ -1 +1 @@",
        "  -calm plan why",
        "  +why plan why",
    ]
    data = json.loads(run_here("runs", "diff", first, latest(), "--json").out)
    assert [(step["id"], step["verdict"], step["asked"]) for step in data["steps"]] == [
        ("plan", "same", []),
        ("end", "changed", ["prompt"]),
    ]


def test_a_replay_says_what_was_said_byte_for_byte_and_contacts_nothing(flow: Path, monkeypatch: pytest.MonkeyPatch):
    said = run_here("-p", str(flow), *SCRIPTED, "--json", "why")

    def refuse(*_: object) -> None:
        raise AssertionError("a replay contacts nothing")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    run_id = json.loads(said.out)["run_id"]
    again = run_here("runs", "replay", run_id, "--json")
    assert (again.code, again.out) == (said.code, said.out)
    plain = run_here("runs", "replay", run_id)
    assert plain.out == "calm plan why\n"
    assert plain.err == said.err

    leave("running")
    cut = run_here("runs", "replay", run_id)
    assert cut.code == 2
    assert f"has not come to its end\nhint: to go on with it: synaptic runs resume {run_id}" in cut.err


@pytest.mark.parametrize(
    ("words", "answer", "error"),
    [
        (("Bern",), "calm plan why in Bern", None),
        (("New", "York"), "calm plan why in New York", None),
        (("--accept",), None, "city was not answered"),
        ((), None, "there is no terminal to ask at"),
        (("x", "--accept"), None, "contradict each other"),
    ],
)
def test_a_question_waits_in_the_journal(flow: Path, words: tuple[str, ...], answer: str | None, error: str | None):
    flow.write_text(ASKING % ", default: Rome")
    ask(flow, "--yes")
    flow.write_text(ASKING % "")
    run_id = leave("running", until="city")
    waiting = resume(run_id, "-p", str(flow))
    assert waiting.code == 1
    assert "city needs an answer" in waiting.err
    assert f"to answer it: synaptic runs answer {run_id} city ANSWER" in " ".join(waiting.err.split())

    asks = run_here("runs", "answer", run_id)
    assert f"the run {run_id} asks: city: Which city?" in asks.err
    assert f"hint: write: synaptic runs answer {run_id} city ANSWER\n" in asks.err
    assert "did you mean 'city'?" in run_here("runs", "answer", run_id, "citi", "x").err
    given = run_here("runs", "answer", run_id, "city", *words)
    if error is not None:
        assert given.code != 0
        assert error in given.err
        return
    assert f"kept; to go on with it: synaptic runs resume {run_id}" in given.err
    assert f"the run {run_id} waits for no answer" in run_here("runs", "answer", run_id).err
    assert resume().out == f"{answer}\n"


def test_a_run_that_asks_nothing_can_only_go_on(flow: Path):
    ask(flow)
    run_id = leave("running")
    asks = run_here("runs", "answer", run_id)
    assert f"waits for no answer\nhint: to go on with it: synaptic runs resume {run_id}" in asks.err
    resume()
    assert run_here("runs", "answer", run_id).err == f"error: the run {run_id} waits for no answer\n"


def test_an_answer_of_a_shape_is_data(flow: Path):
    shaped = ASKING % ", default: {name: Rome}, output: {name: string}"
    flow.write_text(shaped.replace("steps.city", "steps.city.name"))
    ask(flow, "--yes")
    flow.write_text(flow.read_text().replace(", default: {name: Rome}", ""))
    run_id = leave("running", until="city")
    assert resume(run_id, "-p", str(flow)).code == 1
    for wrong, what in (("Bern", "is no JSON"), ('{"town": 1}', "name")):
        refused = run_here("runs", "answer", run_id, "city", wrong)
        assert refused.code == 2
        assert what in refused.err
    assert run_here("runs", "answer", run_id, "city", '{"name": "Bern"}').code == 0
    assert resume().out == "calm plan why in Bern\n"


@pytest.mark.parametrize("command", ["resume", "fork", "rerun", "answer", "replay", "diff"])
def test_an_unknown_run(command: str):
    assert run_here(*ECHO, "hello").code == 0
    near = latest()[:-1] + ("A" if latest()[-1] != "A" else "B")
    more = {"fork": ("--at", "x"), "answer": ("x", "y"), "diff": (near,)}.get(command, ())
    found = run_here("runs", command, near, *more)
    assert (found.code, found.out) == (2, "")
    assert f"no run {near} is recorded\nhint: did you mean {latest()}?" in found.err
