"""``synaptic runs``: what was run is listed, told, found, handed on and removed."""

import io
import json
import random
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cli_support import Outcome, run_here
from flipped_bytes import flip_byte
from repl_terminal import ENTER, ROOT, environment, open_terminal
from run_support import Run

from synaptic import paths
from synaptic.backends.scripted import Failure, Reply
from synaptic.runtime.events import StepThinking
from synaptic.runtime.journal import Journal
from synaptic.runtime.journal.row_seal import seal_all
from synaptic.settings import Settings
from synaptic.text import written_duration, written_size
from synaptic.ui.screen.run_page import account_page
from synaptic.ui.screen.runs_view import account_html, account_lines, account_markdown, step_summary

STEPS = """\
  plan: {agent: writer, prompt: 'Plan: {{ inputs.query }}'}
  end: {agent: writer, prompt: 'Go: {{ steps.plan }}'}"""


def runs(*words: str) -> Outcome:
    return run_here("runs", *words)


async def some_runs() -> list[str]:
    """Three runs: one that failed, and two about pumps and wines."""
    failed = await Run(STEPS, {"end": Failure("truncated", 2)})("what fails?")
    pumps = await Run(STEPS, {"plan": "A heat\npump moves warmth.", "end": "Done."})("why are pumps efficient?")
    wines = await Run(STEPS, {"plan": "Château Über", "end": "日本酒が好きです"})("which wine?")
    return [failed.run_id, pumps.run_id, wines.run_id]


async def test_the_list_begins_with_what_can_go_on():
    failed, pumps, wines = await some_runs()

    shown = runs("list").out.splitlines()
    assert [line.split()[0] for line in shown[1:]] == [failed[-8:], wines[-8:], pumps[-8:]]
    data = json.loads(runs("list", "--json").out)
    assert [(row["run_id"], row["can_go_on"]) for row in data] == [(failed, True), (wines, False), (pumps, False)]


@pytest.mark.parametrize(
    ("options", "which"),
    [
        (("--status", "failed"), [0]),
        (("--pipeline", "demo", "-n", "1"), [2]),
        (("--pipeline", "other"), []),
        (("--since", "1h"), [0, 2, 1]),
        (("--since", "0s"), []),
    ],
)
async def test_the_list_is_chosen_from(options: tuple[str, ...], which: list[int]):
    ids = await some_runs()

    assert [row["run_id"] for row in json.loads(runs("list", *options, "--json").out)] == [ids[each] for each in which]


async def test_a_run_is_told_again_with_prompts_and_answers():
    _, pumps, _ = await some_runs()

    shown = runs("show", pumps[-8:]).out
    for text in (
        "demo, succeeded",
        "Plan: why are pumps efficient?",
        "pump moves warmth.",
        "scripted/scripted",
        "Done.",
    ):
        assert text in shown
    one = runs("show", pumps, "--step", "end").out
    assert "Done." in one and "Plan:" not in one
    told = json.loads(runs("show", pumps, "--json").out)
    assert told["answer"] == "Done." and told["inputs"] == {"query": "why are pumps efficient?"}
    assert told["steps"][1]["messages"][-1] == {"role": "user", "content": "Go: A heat\npump moves warmth."}


async def test_what_a_cut_off_call_had_said_is_shown():
    run_id = (await some_runs())[1]
    with sqlite3.connect(paths.journal_file()) as connection:
        (number,) = connection.execute("SELECT n FROM runs WHERE id = ?", (run_id,)).fetchone()
        connection.execute("DELETE FROM events WHERE run = ? AND kind = 'RunFinished'", (number,))
        connection.execute(
            "DELETE FROM events WHERE run = ? AND path = 'end' AND kind IN ('StepFinished', 'Spoken')", (number,)
        )
        connection.execute("INSERT INTO open_text VALUES (?, 'end', 0, ?, '')", (number, b"half an ans"))
        owner = "elsewhere 1 x"
        connection.execute("UPDATE runs SET status = 'running', ended = NULL, owner = ? WHERE n = ?", (owner, number))
        seal_all(connection)
    connection.close()

    shown = runs("show", run_id).out
    assert "running" in shown and "did not end" in shown and "half an ans" in shown


@pytest.mark.parametrize(
    ("text", "which"),
    [
        ("heat pump", 1),
        ("HEAT  pu", 1),
        ("chateau uber", 2),
        ("酒が", 2),
        ("what fails", 0),
        ("nowhere to be found", None),
        ("warmth moves", None),
    ],
)
async def test_a_text_is_found(text: str, which: int | None):
    ids = await some_runs()

    done = runs("grep", text, "--json")
    found = [row["run_id"] for row in json.loads(done.out)]
    assert (found, done.code) == (([], 1) if which is None else ([ids[which]], 0))


async def test_an_empty_text_is_refused():
    await some_runs()
    done = runs("grep", " ")
    assert done.code == 2 and "empty" in done.err


async def test_a_run_is_exported():
    _, pumps, _ = await some_runs()

    assert json.loads(runs("export", pumps).out)["pipeline_text"].startswith("version: 1")
    markdown = runs("export", pumps, "--md").out
    assert markdown.startswith("# why are pumps efficient?") and "## `plan`" in markdown
    page = runs("export", pumps, "--html").out
    assert page.startswith("<!doctype html>") and "A heat\npump moves warmth." in page


async def test_markup_in_an_answer_is_text_in_the_page():
    run_id = (await Run(STEPS, {"end": "<script>alert(1)</script>"})()).run_id

    page = runs("export", run_id, "--html").out
    assert "<script>" not in page and "&lt;script&gt;" in page


async def test_pruning_removes_the_oldest_and_what_only_they_have():
    ids = await some_runs()
    runs("pin", ids[0])

    assert "removed 1 run," in runs("prune", "--keep", "1").err
    with Journal() as journal:
        assert [run.id for run in journal.runs()] == [ids[2], ids[0]]
        assert journal.grep("heat pump") == []
        assert [each.run.id for each in journal.grep("wine")] == [ids[2]]
        assert list(journal.events(journal.run(ids[0])))
    with sqlite3.connect(paths.journal_file()) as connection:
        unused = "SELECT count(*) FROM blobs WHERE NOT EXISTS (SELECT 1 FROM uses WHERE blob = blobs.n)"
        assert connection.execute(unused).fetchone() == (0,)
    connection.close()


async def test_pruning_by_age_keeps_the_latest_that_are_asked_for():
    ids = await some_runs()
    with sqlite3.connect(paths.journal_file()) as connection:
        connection.execute("UPDATE runs SET started = ?", (time.time() - 40 * 86400,))
        seal_all(connection)
    connection.close()

    runs("prune", "--older", "30d", "--keep", "2")

    with Journal() as journal:
        assert [run.id for run in journal.runs()] == [ids[2], ids[1]]


async def test_pruning_by_size_goes_on_until_it_fits():
    for number in range(12):
        await Run(STEPS, {"end": random.Random(number).randbytes(30_000).hex()})()
    before = paths.journal_file().stat().st_size

    runs("prune", "--max-bytes", "200k")

    with Journal() as journal:
        assert 0 < len(journal.runs()) < 12
    assert paths.journal_file().stat().st_size < before / 1.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "nothing"), "no run nothing is recorded"),
        (("show", "%"), "is no id of a run"),
        (("prune",), "nothing says which runs go"),
        (("prune", "--older", "soon"), "--older 'soon' must be"),
        (("prune", "--max-bytes", "9 apples"), "--max-bytes '9 apples' must be"),
        (("prune", "--max-bytes", "500"), "--max-bytes '500' must be a number and k, M or G, as in 500M"),
        (("list", "--since", "x"), "--since 'x' must be"),
    ],
)
async def test_what_is_wrong_is_said(words: tuple[str, ...], said: str):
    await some_runs()
    done = runs(*words)
    assert done.code == 2 and said in done.err


def test_without_a_record_there_is_nothing_to_show():
    assert runs("list", "--json").out.strip() == "[]"
    assert "no runs are recorded yet" in runs("list").err
    assert "no runs are recorded yet" in runs("show").err
    assert not paths.journal_file().exists()


async def test_a_run_whose_row_is_damaged_is_listed_as_that_and_the_doctor_says_so():
    ids = await some_runs()
    file = paths.journal_file()
    flip_byte(file, file.read_bytes().index(b"why are pumps"), 0x02)

    rows = {row["run_id"]: row for row in json.loads(runs("list", "--json").out)}
    assert [rows[each]["status"] for each in ids] == ["failed", "damaged", "succeeded"]
    assert rows[ids[1]]["query"] is None
    assert ids[1][-8:] in runs("list", "--status", "damaged").out
    assert "pump moves warmth" in runs("show", ids[1]).out
    doctor = run_here("doctor", "--set", "backend=scripted")
    assert "3 runs" in doctor.out + doctor.err
    assert "of 1 run the row is damaged" in doctor.out + doctor.err


@pytest.mark.parametrize(
    ("text", "value"), [("30d", 30 * 86400), ("12h", 43200), ("1.5 min", 90), ("2w", 14 * 86400), ("7s", 7)]
)
def test_durations(text: str, value: float):
    assert written_duration(text) == value


@pytest.mark.parametrize(("text", "value"), [("500M", 500_000_000), ("2 GB", 2 * 10**9), ("1KiB", 1024), ("0.5k", 500)])
def test_sizes(text: str, value: int):
    assert written_size(text) == value


async def test_what_a_model_thought_is_shown_and_exported():
    thought = "First the spring, then the sea. " * 20
    run = Run("  end: {agent: writer, prompt: x}", [Reply(text="A river.", thinking=thought)])
    result = await run()

    assert [event.text for event in run.events if isinstance(event, StepThinking)] == [thought]
    with Journal() as journal:
        (step,) = journal.account(journal.run(result.run_id)).steps
    assert step.thought == thought
    shown, exported = (runs(*words).out for words in (("show",), ("export", "--json")))
    assert "thought" in shown
    assert "First the spring" in shown
    assert json.loads(exported)["steps"][0]["thinking"] == thought


async def test_what_can_go_on_comes_first_however_old_it_is():
    failed = (await some_runs())[0]
    for _ in range(4):
        latest = (await Run(STEPS)()).run_id

    assert [row["run_id"] for row in json.loads(runs("list", "-n", "2", "--json").out)] == [failed, latest]


async def test_what_can_go_on_leaves_half_of_the_list_to_the_others():
    for _ in range(3):
        await Run(STEPS, {"end": Failure("truncated", 2)})()
    latest = (await Run(STEPS)()).run_id

    rows = json.loads(runs("list", "-n", "2", "--json").out)
    assert [(row["status"], row["run_id"] == latest) for row in rows] == [("failed", False), ("succeeded", True)]
    assert len(json.loads(runs("list", "--all", "--json").out)) == 4


async def test_a_person_is_asked_before_runs_are_pruned(tmp_path: Path, own_home: Path):
    ids = await some_runs()
    for answer, code, left in (("n", 1, ids), ("y", 0, ids[-1:])):
        command = [str(ROOT / "main.py"), "runs", "prune", "--keep", "1"]
        with open_terminal(command, tmp_path, environment(own_home)) as terminal:
            terminal.wait("what fails?", ids[1][-8:], "Remove 2 runs? [y/N]")
            terminal.type(answer, ENTER)
            assert terminal.wait_for_end() == code
        with Journal() as journal:
            assert [run.id for run in journal.runs()] == left[::-1]


async def test_with_yes_and_where_none_would_go_there_is_nothing_to_ask(tmp_path: Path, own_home: Path):
    await some_runs()
    for options, said in ((("--older", "1d"), "removed 0 runs"), (("--keep", "0", "--yes"), "removed 3 runs")):
        command = [str(ROOT / "main.py"), "runs", "prune", *options]
        with open_terminal(command, tmp_path, environment(own_home)) as terminal:
            terminal.wait(said)
            assert terminal.wait_for_end() == 0


NESTED = """\
  plan: {agent: writer, prompt: 'Plan: {{ inputs.query }}'}
  each: {agent: writer, foreach: '{{ [1, 2] }}', prompt: 'Say {{ item }}'}
  end: {agent: writer, prompt: 'Go: {{ steps.plan }}'}"""


@pytest.mark.parametrize("colours", [True, False])
async def test_on_a_terminal_a_run_is_a_tree_with_rendered_answers(tmp_path: Path, own_home: Path, *, colours: bool):
    await Run(NESTED, {"plan": "# Tea\n\nIt is **hot**.", "end": "*Done.*"})("why *tea*?")
    variables = environment(own_home, **({} if colours else {"NO_COLOR": "1"}))

    with open_terminal([str(ROOT / "main.py"), "runs", "show"], tmp_path, variables, rows=80) as terminal:
        assert terminal.wait_for_end() == 0

    shown = terminal.text
    for text in ("why *tea*?", "── each  succeeded", "    └── each[1]", "── end", "Plan: why *tea*?", "It is hot."):
        assert text in shown, shown
    assert (b"\x1b[32m" in terminal.raw) == colours


async def test_a_run_that_does_not_fit_is_shown_through_the_pager(tmp_path: Path, own_home: Path):
    await Run(NESTED)("why?")
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "through the pager"\ntail -n 2\n')
    pager.chmod(0o700)

    command = [str(ROOT / "main.py"), "runs", "show"]
    for rows, paged in ((20, True), (200, False)):
        with open_terminal(command, tmp_path, environment(own_home, PAGER=str(pager)), rows=rows) as terminal:
            assert terminal.wait_for_end() == 0
        assert ("through the pager" in terminal.text) == paged


@pytest.mark.parametrize("text", ["max_tokens", "timeouts", "properties"])
async def test_what_was_neither_asked_nor_said_is_not_found(text: str):
    steps = "  plan: {agent: lister, prompt: 'Plan: {{ inputs.query }}'}\n  end: {agent: writer, prompt: 'Go.'}"
    run = Run(steps, {"plan": '{"items": ["one"]}', "end": "Done."}, settings=Settings(retries=0, max_tokens=50))
    assert (await run("why?")).status == "succeeded"

    assert runs("grep", text).code == 1
    assert runs("grep", "Done.").code == 0


async def test_what_happened_to_a_step_is_told_in_every_form():
    run_id = (await some_runs())[1]
    with Journal() as journal:
        account = journal.account(journal.run(run_id))
    first, second = account.steps
    assert first.result is not None and second.asked is not None
    first.thought, first.troubles = "hm, a ``` fence", ["tried again: it was away"]
    first.result = replace(first.result, attempts=3, cached=True, reused=True, stop_reason="length")
    second.result, second.said = None, "half an ans"
    second.asked = replace(second.asked, tool="search", arguments={"words": "tea"})
    row = replace(account.run, parent="EARLIER", forked_at="plan", error="the laptop was closed")
    account = replace(account, run=row)

    assert "taken from before, from the cache, 3 requests" in step_summary(first)
    assert step_summary(first).endswith("ended by length")
    assert step_summary(second) == "did not end"
    lines = "\n".join(account_lines(account))
    page = account_page(account, None, io.StringIO())
    for shown in (lines, page):
        for text in ("goes on from EARLIER, at plan", "error: the laptop was closed", "tried again: it was away"):
            assert text in shown
        for text in ("called search", '"words": "tea"', "thought", "had said", "half an ans", "pump moves warmth."):
            assert text in shown
    assert "called search" not in account_page(account, "plan", io.StringIO())
    markdown, html = account_markdown(account), account_html(account)
    assert "Thought:\n\n````\nhm, a ``` fence\n````" in markdown and "half an ans" in markdown
    assert "<h4>Thought</h4>" in html and "<pre>half an ans</pre>" in html
