"""What waits for a person, answered from the page; and the runs of other programs, followed there while they go on."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from gateway_support import gateway
from test_page_data import PIPELINE, got, messages, posted

from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import RunOwned
from synaptic.runtime import Approval, Journal, Session
from synaptic.server.gateway import KeyFile
from synaptic.server.ollama_api import ServeSettings
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OTHER = Path(__file__).parents[1] / "support" / "other_run.py"
ASKS = """
version: 1
name: asks
inputs:
  query: {type: string, required: true}
agents:
  writer: {prompt: You write.}
steps:
  which:
    ask: "Which {{ inputs.query }}?"
    output: {country: string(2..60), likes?: "list[string](..3)"}
  write:
    agent: writer
    approve: output
    prompt: "Write of {{ steps.which.country }}"
result: "{{ steps.write }}"
"""
NAME = "pipeline/asks"
WHERE = {"step": "which", "decision": "edited", "value": {"country": "Texas"}}


@asynccontextmanager
async def asking(tmp_path: Path, keys: KeyFile | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    file = tmp_path / "asks.yaml"
    file.write_text(ASKS)
    settings = ServeSettings(pipelines={"asks": file}, keys=keys)
    served = gateway(backend=ScriptedBackend({"write": "Big."}), serve=settings)
    async with served as url, aiohttp.ClientSession(url) as client:
        yield client


async def until(client: aiohttp.ClientSession, run_id: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return a run once something holds of it."""
    async with asyncio.timeout(60):
        while not holds(run := await got(client, f"/ui/runs/{run_id}")):
            await asyncio.sleep(0.02)
    return run


def asks(path: str) -> Callable[[dict[str, Any]], bool]:
    return lambda run: [one["path"] for one in run["asks"]] == [path]


async def test_a_run_that_was_begun_on_the_page_is_answered_there(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        run_id = (await posted(client, "/ui/ask", {"pipeline": NAME, "query": "Paris"}))["run_id"]
        run = await until(client, run_id, asks("which"))
        assert (run["status"], run["asks"][0]["question"]) == ("waiting", "Which Paris?")
        assert run["asks"][0]["schema"]["required"] == ["country"]
        target = f"/ui/runs/{run_id}/answer"
        for wrong, status, said in (
            ({**WHERE, "value": {"country": "x"}}, 400, "country"),
            ({**WHERE, "value": "Texas"}, 400, "the answer"),
            ({**WHERE, "decision": "accepted"}, 400, "proposes nothing"),
            ({**WHERE, "decision": "maybe"}, 400, "decision"),
            ({**WHERE, "step": "write"}, 404, "asks nothing"),
        ):
            assert said in (await posted(client, target, wrong, status))["error"], wrong
        assert "in this very process" in (await posted(client, f"/ui/runs/{run_id}/resume", {}, 400))["error"]
        await posted(client, target, WHERE)
        run = await until(client, run_id, asks("write"))
        assert (run["asks"][0]["what"], run["asks"][0]["value"], run["asks"][0]["schema"]) == ("output", "Big.", None)
        await posted(client, target, {"step": "write", "decision": "edited", "value": "Very big."})
        run = await until(client, run_id, lambda run: run["ended"])
        assert (run["status"], run["answer"], run["asks"]) == ("succeeded", "Very big.", [])
        await posted(client, target, WHERE, 400)


async def test_a_key_answers_for_the_pipelines_that_it_may_ask(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    own = {"x-api-key": keys.add("boss", scopes=("models", "pipelines", "admin"))}
    others = {"x-api-key": keys.add("narrow", scopes=("pipelines", "admin"), models=("pipeline/other",))}
    async with asking(tmp_path, keys) as client:
        run_id = (await posted(client, "/ui/ask", {"pipeline": NAME, "query": "Paris"}, headers=own))["run_id"]
        async with asyncio.timeout(60):
            while not (await got(client, f"/ui/runs/{run_id}", headers=own))["asks"]:
                await asyncio.sleep(0.02)
        target = f"/ui/runs/{run_id}/answer"
        await posted(client, target, WHERE, 403, headers=others)
        await posted(client, f"/ui/runs/{run_id}/cancel", {}, headers=own)
        async with asyncio.timeout(60):
            while not (await got(client, f"/ui/runs/{run_id}", headers=own))["can_go_on"]:
                await asyncio.sleep(0.02)
        await posted(client, target, WHERE, 403, headers=others)
        await posted(client, target, WHERE, headers=own)


async def test_what_is_refused_fails_the_run_which_asks_again_and_goes_on_once_it_is_accepted(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        run_id = (await posted(client, "/ui/ask", {"pipeline": NAME, "query": "Paris"}))["run_id"]
        target = f"/ui/runs/{run_id}/answer"
        await until(client, run_id, asks("which"))
        await posted(client, target, WHERE)
        await until(client, run_id, asks("write"))
        await posted(client, target, {"step": "write", "decision": "refused", "reason": "too big"})
        run = await until(client, run_id, lambda run: run["ended"])
        assert (run["status"], "too big" in run["error"]) == ("failed", True)
        assert [one["path"] for one in run["asks"]] == ["write"]
        await posted(client, target, {"step": "write", "decision": "refused", "reason": "still too big"})
        await until(client, run_id, lambda run: run["ended"] and "still too big" in run["error"])
        await posted(client, target, {"step": "write", "decision": "accepted"})
        assert (await until(client, run_id, lambda run: run["status"] == "succeeded"))["answer"] == "Big."


async def test_a_run_that_waited_when_the_gateway_ended_is_answered_by_the_next_one(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        run_id = (await posted(client, "/ui/ask", {"pipeline": NAME, "query": "Paris"}))["run_id"]
        await until(client, run_id, asks("which"))
    async with asking(tmp_path) as client:
        run = await until(client, run_id, asks("which"))
        assert (run["status"], run["can_go_on"]) == ("cancelled", True)
        await posted(client, f"/ui/runs/{run_id}/answer", {**WHERE, "value": {}}, 400)
        await posted(client, f"/ui/runs/{run_id}/answer", WHERE)
        await until(client, run_id, asks("write"))
        await posted(client, f"/ui/runs/{run_id}/answer", {"step": "write", "decision": "accepted"})
        assert (await until(client, run_id, lambda run: run["ended"]))["answer"] == "Big."


async def test_an_answer_that_is_kept_leaves_a_run_that_nobody_works_on_and_tells_no_other_run(tmp_path: Path) -> None:
    (tmp_path / "asks.yaml").write_text(ASKS)
    heard: list[Any] = []
    async with Session(Settings(), backend=ScriptedBackend({"write": "Big."}), on_event=heard.append) as session:
        process = await asyncio.create_subprocess_exec(sys.executable, str(OTHER), tmp_path / "asks.yaml", "Paris", "0")
        try:
            run = await _recorded("waiting")
            with pytest.raises(RunOwned):
                await session.answer(run.id, "which", _texas)
        finally:
            process.kill()
            await process.wait()
        await session.answer(run.id, "which", _texas)
        with Journal() as journal:
            left = journal.run(run.id)
        assert (left.status, left.can_go_on, heard) == ("interrupted", True, [])


async def _texas(_: object) -> Approval:
    return Approval("edited", {"country": "Texas"})


async def _recorded(status: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            with Journal() as journal:
                if (found := journal.runs()) and found[0].status == status:
                    return found[0]
            await asyncio.sleep(0.05)


async def test_the_run_of_another_program_is_followed_while_it_goes_on_and_no_longer(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(PIPELINE)
    async with asking(tmp_path) as client, client.get("/ui/events") as reply:
        coming = messages(reply)
        assert (await anext(coming))[1] == {"type": "snapshot", "runs": []}
        process = await asyncio.create_subprocess_exec(sys.executable, str(OTHER), tmp_path / "two.yaml", "Where?", "1")
        run: dict[str, Any] = {}
        said: list[str] = []
        steps: dict[str, list[str]] = {}
        async with asyncio.timeout(120):
            async for _, told in coming:
                run |= told.get("run", {})
                said += [text["text"] for text in told.get("texts", [])]
                for step in (*told.get("steps", []), *told.get("run", {}).get("steps", [])):
                    steps.setdefault(step["path"], []).append(step["status"])
                if told["type"] == "run":
                    assert [row["id"] for row in run["plan"]] == ["dig", "write"]
                    assert (run["process"], run["status"], run["query"]) == (process.pid, "running", "Where?")
                if run.get("ended"):
                    break
        assert (run["status"], run["answer"]) == ("succeeded", "one two three four")
        assert steps["write"][0] == "running"  # before it was over
        assert steps["dig"][-1] == steps["write"][-1] == "succeeded"
        assert said
        assert "".join(said).strip() in "one two three four"
        await process.wait()


async def test_the_run_of_a_program_that_is_killed_while_it_waits_is_answered_on_the_page(tmp_path: Path) -> None:
    async with asking(tmp_path) as client, client.get("/ui/events") as reply:
        coming = messages(reply)
        await anext(coming)
        process = await asyncio.create_subprocess_exec(sys.executable, str(OTHER), tmp_path / "asks.yaml", "Paris", "0")
        run: dict[str, Any] = {}
        async with asyncio.timeout(120):
            async for _, told in coming:
                run |= told.get("run", {})
                if run.get("asks") and run["process"] == process.pid:
                    owned = await posted(client, f"/ui/runs/{run['id']}/answer", WHERE, 400)
                    assert "at work in process" in owned["error"]
                    process.kill()
                    await process.wait()
                if run.get("asks") and run["process"] is None:
                    assert (run["status"], run["can_go_on"]) == ("waiting", True)
                    break
        await posted(client, f"/ui/runs/{run['id']}/answer", WHERE)
        await until(client, run["id"], asks("write"))
        await posted(client, f"/ui/runs/{run['id']}/answer", {"step": "write", "decision": "accepted"})
        assert (await until(client, run["id"], lambda run: run["ended"]))["answer"] == "Big."


async def test_a_run_of_another_program_is_forgotten_once_nobody_looks(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        process = await asyncio.create_subprocess_exec(sys.executable, str(OTHER), tmp_path / "asks.yaml", "Paris", "0")
        try:
            run = await _recorded("waiting")
            async with client.get("/ui/events") as reply:
                async for name, told in messages(reply):
                    place = name
                    if told["type"] == "run" or run.id in {one["id"] for one in told.get("runs", [])}:
                        break
            async with asyncio.timeout(60):
                while (await got(client, "/ui/now"))["runs"]:
                    await asyncio.sleep(0.2)
            async with client.get("/ui/events", headers={"last-event-id": place}) as reply:
                async with asyncio.timeout(60):
                    async for _, told in messages(reply):
                        if told["type"] == "gone":
                            break
                assert told["id"] == run.id
        finally:
            process.kill()
            await process.wait()
