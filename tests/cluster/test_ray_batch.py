"""A batch on a real Ray cluster: its items run on the nodes, and no loss of a node or of the program costs one."""

import asyncio
import json
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_support import run_here
from kill_trials import CountingNode
from ray_nodes import NODE, kill_with_all, ray_nodes, raylet_of
from trust_support import trust
from warm_python import start_program

from synaptic import paths, runtime
from synaptic.cluster import BatchOrder, RayRuns
from synaptic.cluster.ray_batch import NodeRuns
from synaptic.cluster.ray_cluster import end_actor
from synaptic.errors import AgentError, BackendUnavailable, SynapticError, UsageError
from synaptic.messages import BackendNotice
from synaptic.pipeline import Pipeline
from synaptic.settings import Settings

TWO_STEPS = """\
version: 1
name: two
inputs: {n: {type: integer}}
steps:
  first: {agent: clerk, prompt: "first {{ inputs.n }}"}
  second: {agent: clerk, prompt: "second {{ inputs.n }} {{ steps.first }}"}
result: "{{ steps.second }}"
"""
CLERK = "---\nname: clerk\n---\nWrite.\n"
NODES = ("one", "two")
HOMES = ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME")

pytestmark = pytest.mark.filterwarnings("default")  # Ray has its own


@pytest.fixture(autouse=True)
def folder(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program's own place, with an agent that the nodes do not have."""
    monkeypatch.chdir(tmp_path)
    paths.user_agents_dir().mkdir(parents=True)
    (paths.user_agents_dir() / "clerk.md").write_text(CLERK)
    Path("two.yaml").write_text(TWO_STEPS)
    return tmp_path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes, each with a home of its own, which share a token with the program."""
    pytest.importorskip("ray")
    homes = {name: tmp_path_factory.mktemp(name) for name in NODES}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with ray_nodes({name: dict.fromkeys(HOMES, str(home)) for name, home in homes.items()}) as made:
            made.homes = homes
            yield made


def write(count: int) -> None:
    Path("in.jsonl").write_text("".join(json.dumps({"n": number}) + "\n" for number in range(count)))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def told(server: CountingNode) -> Counter[str]:
    """Return how often which question has been answered whole."""
    return Counter(call.messages[-1]["content"] for call in server.asked if call.outcome == "ok" and call.messages)


def order_of(url: str | None = None, at_once: int = 1, **settings: Any) -> BatchOrder:
    if url is not None:
        settings |= {"nodes": [url], "task_distribution_enabled": True}
    return BatchOrder.of(Pipeline.load("two.yaml"), Settings(**settings), model="m", at_once=at_once)


@pytest.mark.real_model  # no model, but as long as with one
@pytest.mark.timeout(600)
async def test_after_a_kill_the_same_command_does_nothing_twice(cluster: Any, folder: Path):
    write(30)
    arguments = ["batch", "two.yaml", "in.jsonl", "-o", "out.jsonl", "--concurrency", "6", "-m", "m"]
    arguments += ["--ray", cluster.address]
    async with CountingNode(seconds_per_token=0.02, tokens=12) as server:
        arguments += ["--set", f"nodes={server.url}", "--set", "task_distribution_enabled=true"]
        program = await asyncio.to_thread(start_program, arguments, folder / "said", cwd=folder, env=dict(os.environ))
        waiting = asyncio.ensure_future(asyncio.to_thread(program.wait))
        while len(told(server)) < 20 and not waiting.done():
            await asyncio.sleep(0.02)
        with suppress(ProcessLookupError):
            os.kill(program.pid, signal.SIGKILL)
        assert await waiting != 0, (folder / "said.err").read_text()
        before = rows()
        code = await asyncio.to_thread(
            lambda: start_program(arguments, folder / "said", cwd=folder, env=dict(os.environ)).wait()
        )
        asked = told(server)

    assert code == 0, (folder / "said.err").read_text()
    assert [row["line"] for row in rows()] == list(range(1, 31))
    assert {row["status"] for row in rows()} == {"succeeded"}
    assert {row["run_id"] for row in before} <= {row["run_id"] for row in rows()}
    assert asked.total() <= 60 + 6  # at most the calls that were open or had just ended


@pytest.mark.real_model
@pytest.mark.timeout(600)
async def test_the_loss_of_a_node_costs_no_item(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(60)
    third = cluster.add_node(**NODE, node_name="three", env_vars=dict.fromkeys(HOMES, str(tmp_path / "three")))
    items = runtime.read_items(Path("in.jsonl"), Pipeline.load("two.yaml"), {})
    results = runtime.Results.open(Path("out.jsonl"), "test")
    heard: list[str] = []

    def report(news: Any) -> None:
        heard.append(news.message if isinstance(news, BackendNotice) else "")

    async with CountingNode(seconds_per_token=0.02, tokens=12) as server:

        def told_of(count: runtime.BatchCount) -> None:
            if count.ended == 20:
                kill_with_all(raylet_of(third))

        async with RayRuns(cluster.address, order_of(server.url, 12), report) as runs:
            batch = runtime.Batch(runs, items, results, told=told_of)
            await batch.check()
            count = await batch.run(12)
            again = await runs.row_again(rows()[-1]["run_id"])
            unknown = await runs.row_again(runtime.new_run_id())

            monkeypatch.setattr("synaptic.cluster.ray_batch.START_SECONDS", 0.1)
            for place in runs._places:
                end_actor(place.actor)
            with pytest.raises(BackendUnavailable, match="was lost before the batch began"):
                while runs._places:  # Ray ends an actor a little later
                    await runs.check({"n": 1})
            while runs._places:
                await runs.row({"n": 1}, runtime.new_run_id())
            failed = await runs.row({"n": 1}, runtime.new_run_id())
        asked = told(server)
    results.close(complete=True)

    assert (again or {})["answer"] == rows()[-1]["answer"]
    assert unknown is None
    assert (failed or {})["error"]["message"] == "all nodes of the Ray cluster are lost"
    assert count.succeeded == 60, rows()
    assert sorted(row["line"] for row in rows()) == list(range(1, 61))
    assert {row["status"] for row in rows()} == {"succeeded"}
    assert "Ray's node three is lost: its runs go on elsewhere" in heard
    assert asked.total() <= 120 + 12 * 2  # of what was under way at the kill, at most all again
    assert not paths.journal_file().exists()
    assert (tmp_path / "three" / "synapticllamas" / "journal.sqlite3").exists()
    assert all((home / "synapticllamas" / "journal.sqlite3").exists() for home in cluster.homes.values())


# -- what a node does, without a cluster -----------------------------------------------------------------------------


async def test_a_node_goes_on_with_what_it_has_recorded():
    runs = NodeRuns(order_of(backend="scripted"))
    await runs.check({"n": 1})
    run_id, unknown = runtime.new_run_id(), runtime.new_run_id()
    row = await runs.row({"n": 1}, run_id)
    again = await runs.row_again(run_id)

    assert (row["run_id"], row["status"]) == (run_id, "succeeded")
    assert again is not None and again["answer"] == row["answer"] and again["usage"]["total_tokens"] == 0
    assert await runs.knows(run_id) and not await runs.knows(unknown)
    assert await runs.row_again(unknown) is None
    await runs.close()


async def test_a_node_that_is_told_to_end_cuts_off_what_can_be_gone_on_with():
    async with CountingNode(seconds_per_token=0.02, tokens=1000) as server:
        first, run_id = NodeRuns(order_of(server.url)), runtime.new_run_id()
        running = asyncio.create_task(first.row({"n": 1}, run_id))
        await asyncio.wait_for(server.first.wait(), 60)
        await first.close()
        with pytest.raises(asyncio.CancelledError):
            await running
    async with CountingNode(seconds_per_token=0.001, tokens=3) as server:
        second = NodeRuns(order_of(server.url))
        row = await second.row_again(run_id)
        await second.close()
    assert row is not None and (row["run_id"], row["status"]) == (run_id, "succeeded"), row


async def test_a_node_waits_for_the_process_of_a_program_that_was_killed(folder: Path):
    write(1)
    arguments = ["batch", "two.yaml", "in.jsonl", "-o", "out.jsonl", "-m", "m"]
    async with CountingNode(seconds_per_token=0.1, tokens=3000) as server, CountingNode(tokens=3) as quick:
        arguments += ["--set", f"nodes={server.url}", "--set", "task_distribution_enabled=true"]
        program = await asyncio.to_thread(start_program, arguments, folder / "said", cwd=folder, env=dict(os.environ))
        await asyncio.wait_for(server.first.wait(), 60)
        run_id = json.loads(Path(".out.jsonl.open").read_text())["run_id"]
        runs = NodeRuns(order_of(quick.url))
        while not await runs.knows(run_id):  # it is recorded by a thread, beside its first call
            await asyncio.sleep(0.05)
        waiting = asyncio.create_task(runs.row_again(run_id))
        await asyncio.wait([waiting], timeout=1)
        assert not waiting.done()
        os.kill(program.pid, signal.SIGKILL)
        await asyncio.to_thread(program.wait)
        row = await waiting
        await runs.close()

    assert row is not None and (row["run_id"], row["status"]) == (run_id, "succeeded"), row


async def test_agents_beside_the_pipeline_are_brought_along(folder: Path):
    (folder / "apart" / "agents").mkdir(parents=True)
    (folder / "apart" / "agents" / "helper.md").write_text(CLERK.replace("clerk", "helper"))
    (folder / "apart" / "two.yaml").write_text(TWO_STEPS.replace("agent: clerk", "agent: helper"))
    trust(folder / "apart")
    pipeline = Pipeline.load(folder / "apart" / "two.yaml")
    runs = NodeRuns(replace(BatchOrder.of(pipeline, Settings(backend="scripted")), path=None))
    row = await runs.row({"n": 1}, runtime.new_run_id())
    await runs.close()

    assert row["status"] == "succeeded"
    (folder / "apart" / "agents" / "helper.md").write_text("---\nname: helper\ntemperature: hot\n---\nWrite.\n")
    with pytest.raises(AgentError, match="temperature"):
        BatchOrder.of(pipeline, Settings())


async def test_what_a_node_lacks_is_an_error_as_it_is_here():
    Path("two.yaml").write_text(TWO_STEPS.replace("agent: clerk", "agent: nobody"))
    runs = NodeRuns(order_of(backend="scripted"))
    with pytest.raises(UsageError, match="nobody"):
        await runs.check({"n": 1})
    row = await runs.row({"n": 1}, runtime.new_run_id())
    await runs.close()

    assert row["status"] == "failed"
    assert "nobody" in row["error"]["message"]


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("answer", UsageError, "'answer' is no address of a Ray cluster"),
        ("127.0.0.1:", UsageError, "write host:port, 'auto' or 'local'"),
        ("127.0.0.1:9", BackendUnavailable, "the Ray cluster 127.0.0.1:9 is not reached"),
    ],
)
async def test_an_address_where_there_is_no_cluster_is_an_error(address: str, error: type[SynapticError], said: str):
    pytest.importorskip("ray")
    with pytest.raises(error, match="Ray cluster") as raised:
        async with RayRuns(address, order_of(backend="scripted")):
            pass
    assert said in str(raised.value)


def test_the_command_line_says_so_too():
    pytest.importorskip("ray")
    write(1)
    words = ("batch", "two.yaml", "in.jsonl", "-o", "out.jsonl", "--set", "backend=scripted", "--ray")
    ended = run_here(*words, "--set", "ray_address=127.0.0.1:9")

    assert ended.code == 3
    assert "the Ray cluster 127.0.0.1:9 is not reached" in ended.err
    assert run_here(*words, "here").code == 2
    assert rows() == []
