"""A batch from and to Parquet files: what holds for lines of JSON holds for them, and no half of one is ever seen."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cli_support import SCRIPTED, Outcome, node, ollama, run_here
from fault_server import json_reply, ollama_reply
from kill_trials import CountingNode
from warm_python import start_program

from synaptic.errors import UsageError
from synaptic.runtime.batches import parquet

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

PAIRS = """\
version: 1
name: pairs
inputs: {n: {type: integer}, day: {type: string, default: today}}
steps: {ask: {agent: writer, prompt: "{{ inputs.n }} {{ inputs.day }}"}}
agents: {writer: {prompt: "Write."}}
result: {text: "{{ steps.ask }}", number: "{{ inputs.n }}"}
"""


@pytest.fixture(autouse=True)
def folder(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pairs.yaml").write_text(PAIRS)
    return tmp_path


def batch(pipeline: str, *arguments: str, settings: tuple[str, ...] = SCRIPTED) -> Outcome:
    return run_here("batch", pipeline, *arguments, "-o", "out.parquet", *settings)


def write(columns: dict[str, list[Any]]) -> str:
    pq.write_table(pa.table(columns), "in.parquet")
    return "in.parquet"


def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table("out.parquet").to_pylist()
    return found


def left(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.suffix not in {".yaml", ".jsonl"} and path.stem != "said"
    )


def test_a_row_of_inputs_is_a_row_of_results_in_their_order(folder: Path):
    ended = batch("answer", write({"query": [f"q{number}" for number in range(50)]}))

    assert ended.code == 0, ended.err
    assert [(row["line"], row["answer"], row["status"]) for row in rows()] == [
        (number + 1, f"q{number}", "succeeded") for number in range(50)
    ]
    assert left(folder) == ["in.parquet", "out.parquet"]


def test_a_result_of_parts_is_text_of_json_and_the_columns_are_those_of_every_table():
    ended = batch("pairs.yaml", write({"n": [Decimal(3), Decimal(4)], "day": [date(2026, 11, 30), None]}))

    assert ended.code == 0, ended.err
    first, second = rows()
    assert json.loads(first["answer"]) == {"text": "3 2026-11-30", "number": 3}
    assert json.loads(second["answer"])["text"] == "4 today"  # what is null is not given
    assert first["usage"]["total_tokens"] == first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"] > 0
    assert first["error"] is None
    schema = pq.read_schema("out.parquet")
    assert batch("pairs.yaml", "none.jsonl").code == 2
    assert pq.read_schema("out.parquet") == schema


def test_lines_and_a_table_of_the_same_inputs_have_the_same_keys():
    Path("in.jsonl").write_text('"one"\n{"query": "two"}\n')
    batch("answer", "in.jsonl")
    before = rows()
    ended = batch("answer", write({"query": ["zero", "two", "one"]}))

    assert "2 results of 3 were there already" in ended.err
    assert [row["answer"] for row in rows()] == ["zero", "two", "one"]
    assert {row["run_id"] for row in before} < {row["run_id"] for row in rows()}


def test_failures_are_rows_of_the_table_and_are_tried_again(folder: Path):
    given = write({"query": ["a", "b"]})
    with ollama(json_reply({"error": "no"}, 400)) as server:
        ended = batch("answer", given, "-m", "tiny", settings=node(server))
    assert ended.code == 1
    assert {row["status"] for row in rows()} == {"failed"}
    assert all("no" in row["error"]["message"] for row in rows())
    assert left(folder) == [".out.parquet.open", "in.parquet", "out.parquet"]

    with ollama(ollama_reply("fine")) as server:
        assert batch("answer", given, "-m", "tiny", settings=node(server)).code == 0
    assert [row["answer"] for row in rows()] == ["fine", "fine"]
    assert left(folder) == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"quer": ["x"]}, "error: in.parquet: the column 'quer' is no input; did you mean 'query'?\n"),
        ({"query": ["x", "y"], "id": [1, 2]}, "in.parquet: the column 'id' is no input; leave it out"),
        ({"query": ["x", None]}, "in.parquet:2: pipeline 'answer' needs the input 'query'"),
        ({"query": [b"x"]}, "in.parquet:1: JSON has nothing for bytes"),
        ({"query": pa.array([], pa.string())}, "in.parquet holds nothing to run"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_runs(columns: dict[str, list[Any]], said: str, folder: Path):
    ended = batch("answer", write(columns))

    assert ended.code == 2
    assert said in ended.err
    assert left(folder) == ["in.parquet"]


def test_the_index_of_pandas_is_no_input():
    assert batch("answer", write({"query": ["x"], "__index_level_0__": [7]})).code == 0
    assert [row["answer"] for row in rows()] == ["x"]


def test_durations_are_seconds():
    ended = batch("pairs.yaml", write({"n": pa.array([2_000], pa.duration("ms"))}))

    assert ended.code == 2
    assert "in.parquet:1" in ended.err
    assert "2.0" in ended.err


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1" + bytes(40) + b"PAR1"])
def test_a_file_that_is_no_table_stays_as_it_is(content: bytes):
    Path("out.parquet").write_bytes(content)
    ended = batch("answer", write({"query": ["x"]}))

    assert ended.code == 2
    assert "out.parquet is no Parquet file that can be read" in ended.err
    assert Path("out.parquet").read_bytes() == content
    Path("in.parquet").write_bytes(content)
    assert "in.parquet is no Parquet file that can be read" in batch("answer", "in.parquet").err


def test_a_table_of_something_else_stays_as_it_is():
    pq.write_table(pa.table({"a": [1]}), "out.parquet")
    before = Path("out.parquet").read_bytes()
    ended = batch("answer", write({"query": ["x"]}))

    assert ended.code == 2
    assert "out.parquet:1 is no result of a batch" in ended.err
    assert Path("out.parquet").read_bytes() == before


def test_results_of_another_text_of_the_pipeline_stay_as_they_are():
    given = write({"n": [1]})
    assert batch("pairs.yaml", given).code == 0
    before = Path("out.parquet").read_bytes()
    Path("pairs.yaml").write_text(PAIRS.replace("Write.", "Speak."))
    ended = batch("pairs.yaml", given)

    assert ended.code == 2
    assert "out.parquet holds results of another pipeline" in ended.err
    assert Path("out.parquet").read_bytes() == before


def test_a_batch_that_cannot_begin_leaves_no_table(folder: Path):
    Path("pairs.yaml").write_text(PAIRS.replace("agent: writer", "agent: nobody"))
    ended = batch("pairs.yaml", write({"n": [1]}))

    assert ended.code == 2
    assert "nobody" in ended.err
    assert left(folder) == [".out.parquet.open", "in.parquet"]


def test_without_pyarrow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, folder: Path):
    Path("in.jsonl").write_text('"one"\n')
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    ended = batch("answer", "in.jsonl")

    assert ended.code == 2
    assert "Parquet needs pyarrow" in ended.err
    assert "pip install 'synapticllamas[parquet]'" in ended.err
    assert left(folder) == []
    assert run_here("batch", "answer", "in.jsonl", "-o", "out.jsonl", *SCRIPTED).code == 0


def test_a_table_that_cannot_be_written_costs_no_row(monkeypatch: pytest.MonkeyPatch, folder: Path):
    given = write({"query": ["one"]})
    Path("out.parquet").symlink_to("gone/out.parquet")  # only the table itself goes through the link
    ended = batch("answer", given)

    assert ended.code == 2
    assert "out.parquet: the table cannot be written" in ended.err
    Path("out.parquet").unlink()
    ended = batch("answer", given)
    assert ended.code == 0
    assert "1 result of 1" in ended.err
    assert [row["answer"] for row in rows()] == ["one"]


async def test_a_kill_costs_no_row_and_leaves_no_half_of_a_table(folder: Path):
    pq.write_table(pa.table({"query": [f"q{number}" for number in range(20)]}), "in.parquet")
    arguments = ["batch", "answer", "in.parquet", "-o", "out.parquet", "--concurrency", "4", "-m", "m"]
    async with CountingNode(seconds_per_token=0.002, tokens=12) as server:
        arguments += ["--set", f"nodes={server.url}", "--set", "task_distribution_enabled=true"]
        for kills in range(40):
            server.first.clear()
            program = await asyncio.to_thread(
                start_program, arguments, folder / "said", cwd=folder, env=dict(os.environ)
            )
            waiting = asyncio.ensure_future(asyncio.to_thread(program.wait))
            if kills < 2:
                await asyncio.wait_for(server.first.wait(), 60)
                with suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGKILL)
            code = await waiting
            if code == 0:
                break
            assert not (folder / "out.parquet").exists()

    assert [row["line"] for row in rows()] == list(range(1, 21))
    assert len({row["key"] for row in rows()}) == 20
    assert left(folder) == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize(("rows", "length"), [(20_000, 100_000), (1000, 1)])
def test_a_small_table_that_unpacks_to_very_much_is_refused(
    tmp_path: Path, rows: int, length: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parquet, "MOST_ROWS", 500)
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * length]))
    file = tmp_path / "small.parquet"
    pq.write_table(pa.table({"query": same}), file, store_schema=False)
    assert file.stat().st_size < 10_000

    with pytest.raises(UsageError, match="unpacked, it has more than"):
        parquet.input_lines(file, ["query"], limit=50_000_000)
