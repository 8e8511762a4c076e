"""A batch: its inputs are looked at first, its results are whole, and no kill has a run made twice."""

import asyncio
import errno
import json
import os
import random
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cli_support import SCRIPTED, Outcome, node, ollama, run_here
from fault_server import json_reply, ollama_reply
from kill_trials import CountingNode
from warm_python import start_program

from synaptic import paths
from synaptic.errors import UsageError
from synaptic.runtime.batches import results

TWO_STEPS = """\
version: 1
name: two
inputs: {n: {type: integer}}
agents: {writer: {prompt: "Write."}}
steps:
  first: {agent: writer, prompt: "first {{ inputs.n }}"}
  second: {agent: writer, prompt: "second {{ inputs.n }} {{ steps.first }}"}
result: "{{ steps.second }}"
"""


@pytest.fixture(autouse=True)
def folder(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def batch(*arguments: str, settings: tuple[str, ...] = SCRIPTED) -> Outcome:
    return run_here("batch", *arguments, *settings)


def write(*lines: Any, file: str = "in.jsonl") -> None:
    Path(file).write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows(file: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def test_every_line_gets_a_row_and_the_rows_stand_as_the_lines_do(folder: Path):
    write("one", {"query": "two"}, *(f"more {number}" for number in range(40)))
    ended = batch("answer", "in.jsonl", "-o", "out.jsonl")

    assert ended.code == 0, ended.err
    assert [(row["line"], row["status"], row["answer"]) for row in rows()][:3] == [
        (1, "succeeded", "one"),
        (2, "succeeded", "two"),
        (3, "succeeded", "more 0"),
    ]
    assert [row["line"] for row in rows()] == list(range(1, 43))
    assert "42 of 42" in ended.err
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_the_same_command_does_nothing_twice_and_takes_up_what_was_added():
    write("one", "two", "two")
    batch("answer", "in.jsonl", "-o", "out.jsonl")
    before = {row["key"]: row["run_id"] for row in rows()}
    write("zero", "two", "one", "two", "three")
    ended = batch("answer", "in.jsonl", "-o", "out.jsonl")

    assert "3 results of 5 were there already" in ended.err
    assert [row["answer"] for row in rows()] == ["zero", "two", "one", "two", "three"]
    assert before.items() <= {row["key"]: row["run_id"] for row in rows()}.items()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"quer": "x"}\n', "in.jsonl:1: pipeline 'answer' has no input 'quer'; did you mean 'query'?"),
        ("\n{}\n", "in.jsonl:2: pipeline 'answer' needs the input 'query'; a line is"),
        ('"a"\n{"query"\n', "in.jsonl:2:9: no JSON"),
        ("[" * 100_000, "in.jsonl:1: it is nested too deep"),
        ('{"query": "\\ud800"}\n', "in.jsonl:1: it has half a character in it"),
        ('"a"\n{"query": NaN}\n', "in.jsonl:2: NaN is no number of JSON"),
        ('{"query": ' + "9" * 5000 + "}\n", "in.jsonl:1: it has a number of 5000 digits in it"),
        ("[1]\n", "in.jsonl:1: [1] is neither an object nor a text"),
        ("\n \n", "in.jsonl holds nothing to run"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(text: str, said: str, folder: Path):
    Path("in.jsonl").write_text(text)
    ended = batch("answer", "in.jsonl", "-o", "out.jsonl")

    assert ended.code == 2
    assert said in ended.err
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl"]


def test_a_text_with_a_question_a_line_is_told_how_it_becomes_lines_of_json():
    Path("in.txt").write_text("What is iron?\nWhat is rust?\n")
    ended = batch("answer", "in.txt", "-o", "out.jsonl")

    assert ended.code == 2
    assert ended.err.startswith("error: in.txt:1: there are no lines of JSON in this file\n")
    assert "json.dumps(line.strip())" in ended.err


def test_a_list_in_json_is_told_what_makes_lines_of_it_and_that_does_it():
    given = [{"query": "Why?"}, {"query": "How?"}]
    Path("in.json").write_text(json.dumps(given, indent=1))
    ended = batch("answer", "in.json", "-o", "out.jsonl")
    command = ended.err.partition("of a list in JSON: ")[2].partition(" > FILE.jsonl")[0]
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=60)

    assert ended.code == 2
    assert [json.loads(line) for line in done.stdout.splitlines()] == given


@pytest.mark.parametrize(
    ("inputs", "output"), [("-", "out.jsonl"), ("in.jsonl", "-"), ("in.jsonl", "out.csv"), ("in.csv", "out.jsonl")]
)
def test_streams_and_other_tables_are_refused_before_anything_is_written(inputs: str, output: str, folder: Path):
    write("one")
    ended = batch("answer", inputs, "-o", output)

    assert ended.code == 2
    assert "use lines of JSON (.jsonl) or a table (.parquet)" in ended.err
    assert ("csv.DictReader" in ended.err) is (inputs == "in.csv")
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize("text", ["hello\n", "hello", '{"key": 1}\n', '{"key": "a"}\n', "{}"])
def test_a_file_that_is_no_result_stays_as_it_is(text: str):
    write("one")
    Path("out.jsonl").write_text(text)
    ended = batch("answer", "in.jsonl", "-o", "out.jsonl")

    assert ended.code == 2
    assert "out.jsonl:1 is no result of a batch" in ended.err
    assert Path("out.jsonl").read_text() == text
    assert not Path(".out.jsonl.open").exists()


def test_a_folder_that_is_not_there_is_said():
    write("one")
    ended = batch("answer", "in.jsonl", "-o", "nodir/out.jsonl")
    assert (ended.code, Path("nodir").exists()) == (2, False)
    assert f"{Path('nodir/out.jsonl')}: there is no folder nodir" in ended.err


def test_a_name_that_can_be_guessed_leads_to_no_other_file(tmp_path: Path):
    """In a folder that others write to, ``.out.jsonl.open`` may be there already, and be a link of theirs."""
    write("one")
    theirs = tmp_path / "theirs"
    theirs.write_text("before")
    Path(".out.jsonl.open").symlink_to(theirs)
    ended = batch("answer", "in.jsonl", "-o", "out.jsonl")
    assert (ended.code, theirs.read_text()) == (2, "before")
    assert "results cannot be written there" in ended.err
    Path(".out.jsonl.open").unlink()
    assert "no name of a file" in batch("answer", "in.jsonl", "-o", "").err
    # Rows that something else wrote there say nothing of ours.
    Path(".out.jsonl.open").write_text("[" * 100_000 + '\n{"made_by": 1}\n{"key": [], "run_id": 3}\n')
    assert batch("answer", "in.jsonl", "-o", "out.jsonl").code == 0


def test_results_of_another_text_of_the_pipeline_are_kept_apart():
    write({"n": 1})
    Path("two.yaml").write_text(TWO_STEPS)
    assert batch("two.yaml", "in.jsonl", "-o", "out.jsonl").code == 0
    before = Path("out.jsonl").read_text()
    Path("two.yaml").write_text(TWO_STEPS.replace("first {{", "FIRST {{"))
    ended = batch("two.yaml", "in.jsonl", "-o", "out.jsonl")

    assert ended.code == 2
    assert "holds results of another pipeline, of an earlier text of it, or of another model" in ended.err
    assert Path("out.jsonl").read_text() == before


def test_a_row_that_was_cut_off_is_made_again():
    write("one", "two")
    batch("answer", "in.jsonl", "-o", "out.jsonl")
    text = Path("out.jsonl").read_text()
    for length in (1, 9, 12, 200):
        Path("out.jsonl").write_text(text[: text.index("\n") + 1 + length])
        assert batch("answer", "in.jsonl", "-o", "out.jsonl").code == 0
        assert [row["answer"] for row in rows()] == ["one", "two"]


def test_failures_are_rows_and_are_tried_again():
    write(*(f"q{number}" for number in range(6)))
    with ollama(json_reply({"error": "no"}, 400)) as server:
        ended = batch("answer", "in.jsonl", "-o", "out.jsonl", "-m", "tiny", settings=node(server))
    assert ended.code == 1
    assert "the same command goes on" in ended.err
    assert {row["status"] for row in rows()} == {"failed"}
    assert all("no" in row["error"]["message"] for row in rows())

    with ollama(ollama_reply("fine")) as server:
        ended = batch("answer", "in.jsonl", "-o", "out.jsonl", "-m", "tiny", settings=node(server))
    assert ended.code == 0, ended.err
    assert [row["answer"] for row in rows()] == ["fine"] * 6


def test_a_batch_whose_runs_all_fail_is_given_up():
    write(*(f"q{number}" for number in range(200)))
    with ollama(json_reply({"error": "no"}, 400)) as server:
        ended = batch(
            "answer", "in.jsonl", "-o", "out.jsonl", "-m", "tiny", "--concurrency", "2", settings=node(server)
        )

    assert ended.code == 1
    assert len(rows()) < 30
    assert "given up after 20 failures in a row, the last: " in ended.err


def test_what_cannot_run_at_all_is_said_before_it_begins():
    write({"n": 1})
    Path("two.yaml").write_text(TWO_STEPS.replace('agent: writer, prompt: "second', 'agent: nobody, prompt: "second'))
    ended = batch("two.yaml", "in.jsonl", "-o", "out.jsonl")

    assert ended.code == 2
    assert "nobody" in ended.err


async def test_kills_have_no_call_made_twice_and_no_result_lost(folder: Path):
    """Whole calls that ended well before a kill are not made again; each input has one row in the end."""
    (folder / "two.yaml").write_text(TWO_STEPS)
    write(*({"n": number} for number in range(30)))
    chances = random.Random(3)
    arguments = ["batch", "two.yaml", "in.jsonl", "-o", "out.jsonl", "--concurrency", "4", "-m", "m"]
    async with CountingNode(seconds_per_token=0.002, tokens=12) as server:
        arguments += ["--set", f"nodes={server.url}", "--set", "task_distribution_enabled=true"]
        for kills in range(40):
            server.first.clear()
            environ = dict(os.environ)
            program = await asyncio.to_thread(start_program, arguments, folder / "said", cwd=folder, env=environ)
            waiting = asyncio.ensure_future(asyncio.to_thread(program.wait))
            if kills < 5:
                await asyncio.wait_for(server.first.wait(), 60)
                await asyncio.sleep(chances.uniform(0.0, 0.25))
                with suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGKILL)
            if await waiting == 0:
                break
        asked = Counter(call.messages[-1]["content"] for call in server.asked if call.outcome == "ok" and call.messages)

    assert [row["line"] for row in rows()] == list(range(1, 31))
    assert {row["status"] for row in rows()} == {"succeeded"}
    assert len({row["key"] for row in rows()}) == 30
    assert asked.total() <= 60 + 5 * 4  # of each kill, at most the calls that were open or had just ended


def test_runs_that_cannot_be_recorded_are_said_once(own_home: Path):
    paths.state_dir().parent.mkdir(parents=True, exist_ok=True)
    paths.state_dir().write_text("a file where a folder should be: no user, root included, can write there")
    write("one", "two", "three")
    ended = batch("answer", "in.jsonl", "-o", "out.jsonl")

    assert (ended.code, len(rows())) == (0, 3)
    assert ended.err.count("not recorded") == 1


def test_where_there_is_no_room_to_put_rows_in_order_they_stay_and_the_next_call_does(monkeypatch: pytest.MonkeyPatch):
    write("one", "two", "three")
    whole = results.replace_file

    def no_room(path: Path, data: bytes) -> None:
        if data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(results, "replace_file", no_room)
        ended = batch("answer", "in.jsonl", "-o", "out.jsonl")
    assert (ended.code, len(rows())) == (2, 3)
    assert "cannot be put in order: No space left" in ended.err
    assert batch("answer", "in.jsonl", "-o", "out.jsonl").code == 0
    assert [row["line"] for row in rows()] == [1, 2, 3]


def test_a_disk_that_fills_up_meanwhile_is_said_once(tmp_path: Path):
    begun = results.Results.open(tmp_path / "out.jsonl", "p")
    begun.close()
    begun._open, begun._out = (os.fdopen(os.open("/dev/full", os.O_WRONLY), "w") for _ in range(2))
    with pytest.raises(UsageError, match="No space left"):
        begun.begin("a", "run")
    with pytest.raises(UsageError, match="No space left"):
        begun.add("a", {})
    begun.close()
