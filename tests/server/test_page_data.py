"""The data behind the gateway's page: what runs now and has run, live and from the journal, and what it may start."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from gateway_support import gateway
from tool_node import MODEL, tool_node

from synaptic import paths
from synaptic.backends.scripted import Failure, ScriptedBackend
from synaptic.runtime import Journal
from synaptic.server.gateway import KeyFile
from synaptic.server.gateway.same_user import is_of_same_user
from synaptic.server.ollama_api import ServeSettings
from synaptic.server.page.feed import NewsFeed
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PIPELINE = """
version: 1
name: two
inputs:
  query: {type: string, required: true}
agents:
  digger: {prompt: You dig.}
  writer: {prompt: You write.}
steps:
  dig:
    agent: digger
    prompt: "Dig: {{ inputs.query }}"
  write:
    agent: writer
    prompt: "Write of {{ steps.dig }}"
result: "{{ steps.write }}"
"""
SCRIPT: dict[str, Any] = {"dig": "gold found", "write": "It is gold."}
TWO = "pipeline/two"


@asynccontextmanager
async def serving(
    tmp_path: Path, backend: ScriptedBackend | None = None, **serve: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    file = tmp_path / "two.yaml"
    file.write_text(PIPELINE)
    settings = ServeSettings(pipelines={"two": file}, **serve)
    async with (
        gateway(backend=backend or ScriptedBackend(SCRIPT), serve=settings) as url,
        aiohttp.ClientSession(url) as client,
    ):
        yield client


async def got(client: aiohttp.ClientSession, path: str, status: int = 200, **more: Any) -> Any:
    async with client.get(path, **more) as reply:
        assert reply.status == status, await reply.text()
        return await reply.json()


async def posted(client: aiohttp.ClientSession, path: str, body: Any, status: int = 202, **more: Any) -> Any:
    async with client.post(path, json=body, **more) as reply:
        assert reply.status == status, await reply.text()
        return await reply.json()


async def ended(client: aiohttp.ClientSession, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            run = await got(client, f"/ui/runs/{run_id}")
            if run["ended"] is not None:
                return run
            await asyncio.sleep(0.02)


async def messages(reply: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield id and data of server-sent events, but for those that say how the nodes stand."""
    name = ""
    async for raw in reply.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("id: "):
            name = line.removeprefix("id: ")
        elif line.startswith("data: "):
            told = json.loads(line.removeprefix("data: "))
            if told["type"] != "now":
                yield name, told


async def test_a_question_to_a_pipeline_is_a_run_that_can_be_watched_and_found_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.get("/ui/events") as reply:
            assert reply.headers["content-type"] == "text/event-stream"
            coming = messages(reply)
            assert (await anext(coming))[1] == {"type": "snapshot", "runs": []}
            run_id = (await posted(client, "/ui/ask", {"pipeline": TWO, "query": "What is there?"}))["run_id"]
            told = []
            async for _, message in coming:
                told.append(message)
                if message.get("run", {}).get("ended"):
                    break
        assert told[0]["type"] == "run"
        assert [row["id"] for row in told[0]["run"]["plan"]] == ["dig", "write"]
        assert told[0]["run"]["plan"][1]["needs"] == ["dig"]
        last = {step["path"]: step for message in told[1:] for step in message["steps"]}
        assert last["write"]["status"] == "succeeded"
        assert last["write"]["output"] == "It is gold."
        assert told[-1]["run"]["answer"] == "It is gold."
        run = await ended(client, run_id)
        assert (run["status"], run["answer"], run["query"]) == ("succeeded", "It is gold.", "What is there?")
        assert [step["path"] for step in run["steps"]] == ["dig", "write"]
        assert run["steps"][0]["prompt"][-1] == {"role": "user", "content": "Dig: What is there?"}
        assert [row["id"] for row in run["plan"]] == ["dig", "write"]
        listed = await got(client, "/ui/runs")
        assert (listed["total"], [one["id"] for one in listed["runs"]], listed["next"]) == (1, [run_id], None)


async def test_a_broken_connection_goes_on_behind_the_last_message(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.get("/ui/events") as reply:
            place, _ = await anext(messages(reply))
        run_id = (await posted(client, "/ui/ask", {"pipeline": TWO, "query": "What?"}))["run_id"]
        await ended(client, run_id)
        async with client.get("/ui/events", headers={"last-event-id": place}) as reply:
            name, message = await anext(messages(reply))
            assert (message["type"], message["run"]["id"]) == ("run", run_id)
            assert name.split("-")[0] == place.split("-")[0]
        for unknown in ("another-5", "nonsense", f"{place.split('-')[0]}-999"):
            async with client.get("/ui/events", headers={"last-event-id": unknown}) as reply:
                _, message = await anext(messages(reply))
                assert message["type"] == "snapshot"
                assert [run["id"] for run in message["runs"]] == [run_id]
                assert message["runs"][0]["steps"][-1]["output"] == "It is gold."


def test_a_feed_keeps_what_fits_and_tells_who_missed_more() -> None:
    feed = NewsFeed()
    for number in range(6):
        feed.say({"n": number, "text": "x" * 1_000_000})
    assert [number for number, _ in feed.since(4) or []] == [5, 6]
    assert feed.since(6) == []
    assert feed.since(1) is None
    assert feed.since(7) is None
    assert feed.read_name(feed.name(3)) == 3
    assert feed.read_name("x-3") is None


async def test_two_runs_at_once_do_not_hear_each_other(tmp_path: Path) -> None:
    backend = ScriptedBackend(lambda request: request.messages[-1].content.upper())
    async with serving(tmp_path, backend) as client:

        async def asked(word: str) -> str:
            body = {"model": TWO, "messages": [{"role": "user", "content": word}], "stream": False}
            return (await posted(client, "/api/chat", body, 200))["message"]["content"]

        answers = await asyncio.gather(*(asked(word) for word in ("stone", "water", "wood", "iron")))
    assert answers == [f"WRITE OF DIG: {word}" for word in ("STONE", "WATER", "WOOD", "IRON")]


async def test_now_shows_nodes_their_models_and_why_calls_wait(tmp_path: Path) -> None:
    async with tool_node() as node, tool_node("other:1b") as other:
        node.pace = 600.0
        settings = Settings(nodes=[{"url": node.url, "name": "desk"}, {"url": other.url}], journal="off")
        async with gateway(settings) as url, aiohttp.ClientSession(url) as client:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}
            async with client.post("/api/chat", json=body) as first, asyncio.TaskGroup() as group:
                await first.content.readline()
                second = group.create_task(client.post("/api/chat", json=body))
                async with asyncio.timeout(30):
                    while not (now := await got(client, "/ui/now"))["waiting"]:
                        await asyncio.sleep(0.05)
                desk = next(one for one in now["nodes"] if one["name"] == "desk")
                assert (desk["condition"], desk["in_flight"], desk["cap"]) == ("up", 1, 1)
                assert [(model["name"], model["loaded"]) for model in desk["models"]] == [(MODEL, True)]
                assert now["waiting"][0]["model"] == MODEL
                assert "desk" in now["waiting"][0]["why"]
                assert [call["model"] for call in now["calls"]] == [MODEL, MODEL]
                second.cancel()
            assert now["backend"] == "ollama"


async def test_now_says_why_nothing_serves_and_shows_a_backend_that_is_one_place(tmp_path: Path) -> None:
    settings = Settings(nodes=[{"url": "http://127.0.0.1:9"}], journal="off", backend="ollama", model="x")
    async with gateway(settings) as url, aiohttp.ClientSession(url) as client:
        now = await got(client, "/ui/now")
        assert now["backend"] is None or now["nodes"][0]["condition"] == "down"
    async with serving(tmp_path) as client:
        now = await got(client, "/ui/now")
        assert [(node["condition"], node["models"][0]["name"]) for node in now["nodes"]] == [("up", "scripted")]


async def test_history_is_searched_and_read_in_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        for word in ("amber", "basalt", "chalk"):
            run = (await posted(client, "/ui/ask", {"pipeline": TWO, "query": f"Where is {word}?"}))["run_id"]
            await ended(client, run)
        first = await got(client, "/ui/runs?limit=2")
        assert [one["query"] for one in first["runs"]] == ["Where is chalk?", "Where is basalt?"]
        rest = await got(client, f"/ui/runs?limit=2&below={first['next']}")
        assert ([one["query"] for one in rest["runs"]], rest["next"]) == (["Where is amber?"], None)
        found = await got(client, "/ui/runs?q=basalt")
        assert [one["found"]["text"] for one in found["runs"]] == ["basalt"]
        page = await got(client, "/ui/runs?q=Where&limit=1")
        assert [one["query"] for one in page["runs"]] == ["Where is chalk?"]
        page = await got(client, f"/ui/runs?q=Where&limit=5&below={page['next']}")
        assert [one["query"] for one in page["runs"]] == ["Where is basalt?", "Where is amber?"]
        assert (await got(client, "/ui/runs?status=failed"))["runs"] == []
        assert (await got(client, "/ui/runs?pipeline=other"))["runs"] == []
        assert "status must be" in (await got(client, "/ui/runs?status=lost", 400))["error"]
        for number in ("x", str(2**63), "9" * 5000):
            assert "whole number" in (await got(client, f"/ui/runs?below={number}", 400))["error"]
        assert "no run" in (await got(client, "/ui/runs/NOSUCH", 404))["error"]


async def test_a_run_is_done_again_from_a_step_compared_and_gone_on_with(tmp_path: Path) -> None:
    script: dict[str, Any] = {**SCRIPT, "write": (Failure("rejected"), "It is gold.", "Iron.")}
    async with serving(tmp_path, ScriptedBackend(script)) as client:
        first = (await posted(client, "/ui/ask", {"pipeline": TWO, "query": "What?"}))["run_id"]
        assert (await ended(client, first))["status"] == "failed"
        assert (await posted(client, f"/ui/runs/{first}/resume", {}))["run_id"] == first
        async with asyncio.timeout(30):
            while (await got(client, f"/ui/runs/{first}"))["status"] != "succeeded":
                await asyncio.sleep(0.02)
        again = (await posted(client, f"/ui/runs/{first}/rerun", {"at": "write"}))["run_id"]
        run = await ended(client, again)
        assert (run["parent"], run["answer"]) == (first, "Iron.")
        steps = (await got(client, f"/ui/diff?a={first}&b={again}"))["steps"]
        assert [(step["path"], step["verdict"]) for step in steps] == [("dig", "same"), ("write", "changed")]
        assert "no run" in (await got(client, f"/ui/diff?a={first}&b=NOSUCH", 404))["error"]
        assert "succeeded" in (await posted(client, f"/ui/runs/{first}/resume", {}, 400))["error"]
        anew = (await posted(client, f"/ui/runs/{first}/rerun", {}))["run_id"]
        assert anew not in {first, again}
        assert (await ended(client, anew))["query"] == "What?"


async def test_a_run_is_cancelled(tmp_path: Path) -> None:
    backend = ScriptedBackend({**SCRIPT, "write": Failure("stall")})
    async with serving(tmp_path, backend) as client:
        run_id = (await posted(client, "/ui/ask", {"pipeline": TWO, "query": "What?"}))["run_id"]
        await posted(client, f"/ui/runs/{run_id}/cancel", {})
        assert (await ended(client, run_id))["status"] == "cancelled"
        await posted(client, f"/ui/runs/{run_id}/cancel", {}, 404)
        assert "no pipeline" in (await posted(client, "/ui/ask", {"pipeline": "tow", "query": "What?"}, 404))["error"]


async def test_runs_and_streams_end_with_the_gateway(tmp_path: Path) -> None:
    backend = ScriptedBackend({**SCRIPT, "write": Failure("stall")})
    (tmp_path / "two.yaml").write_text(PIPELINE)
    settings = ServeSettings(pipelines={"two": tmp_path / "two.yaml"})
    async with aiohttp.ClientSession() as client:
        async with gateway(backend=backend, serve=settings) as url:
            run_id = (await posted(client, f"{url}/ui/ask", {"pipeline": TWO, "query": "What?"}))["run_id"]
            stream = asyncio.create_task(_read_to_its_end(client, url))
            while not backend.requests:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(30):
            await stream
    with Journal() as journal:
        assert journal.run(run_id).status == "cancelled"


async def _read_to_its_end(client: aiohttp.ClientSession, url: str) -> None:
    with suppress(aiohttp.ClientError):
        async with client.get(f"{url}/ui/events") as reply:
            await reply.read()


async def test_another_site_starts_nothing_and_reads_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, origins=frozenset({"https://chat.example.org"})) as client:
        body = {"pipeline": TWO, "query": "What?"}
        for origin in ("https://evil.example", "https://chat.example.org", "http://127.0.0.1:1", "null"):
            await posted(client, "/ui/ask", body, 403, headers={"origin": origin})
            answer = {"step": "which", "decision": "accepted"}
            await posted(client, "/ui/runs/run-1/answer", answer, 403, headers={"origin": origin})
            await got(client, "/ui/runs", 403, headers={"origin": origin})
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            async with client.post("/ui/ask", data=json.dumps(body), headers={"content-type": kind}) as reply:
                assert reply.status == 415
        for site in ("cross-site", "same-site"):  # the latter is a page at another port of this machine
            await got(client, "/ui/now", 403, headers={"sec-fetch-site": site})
        await got(client, "/ui/now", headers={"sec-fetch-site": "same-origin"})
        assert (await got(client, "/ui/runs"))["total"] == 0
        own = f"http://{client._base_url.authority}"
        await posted(client, "/ui/ask", body, headers={"origin": own})


PROC = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CEC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:C350 0100007F:2CEC 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1
   2: 0100007F:C351 0100007F:2CEC 06 00000000:00000000 03:000000F3 00000000     0        0 0 3 0
"""


def test_the_user_of_a_connection_is_read_from_the_systems_list() -> None:
    own = ("127.0.0.1", 0x2CEC)
    assert is_of_same_user(("127.0.0.1", 0xC350), own, {1000}, PROC)
    assert not is_of_same_user(("127.0.0.1", 0xC350), own, {1001, 0}, PROC)
    assert not is_of_same_user(("127.0.0.1", 0xC351), own, {0}, PROC)  # closed: the list does not say whose it was
    assert not is_of_same_user(("127.0.0.1", 0xC352), own, {0, 1000}, PROC)
    six = PROC.replace("0100007F", "00000000000000000000000001000000")
    assert is_of_same_user(("::1", 0xC350, 0, 0), ("::1", 0x2CEC, 0, 0), {1000}, six)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process of another user")
async def test_another_user_of_the_machine_sees_and_starts_nothing_without_a_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        target = f"http://{client._base_url.authority}/ui/runs"
        ask = "import urllib.request as r, sys; print(r.urlopen(sys.argv[1]).status)"
        for user, said in ((65534, "403"), (0, "200")):
            asked = await asyncio.create_subprocess_exec(
                "/usr/bin/env", "python3", "-c", ask, target, user=user, stdout=-1, stderr=-1, cwd="/"
            )
            out, err = await asked.communicate()
            assert said in (out + err).decode()


async def test_where_keys_are_demanded_the_page_is_open_and_its_data_need_the_scope_admin(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    plain, admin = keys.add("plain"), keys.add("boss", scopes=("models", "admin"))
    async with serving(tmp_path, keys=keys) as client:
        async with client.get("/", headers={"accept": "text/html"}) as reply:
            assert reply.status == 200
        async with client.get("/") as reply:
            assert reply.status == 401
        for path in ("/ui/now", "/ui/runs", "/ui/events"):
            await got(client, path, 401)
            told = await got(client, path, 403, headers={"authorization": f"Bearer {plain}"})
            assert "admin" in told["error"]
        assert (await got(client, "/ui/runs", headers={"authorization": f"Bearer {admin}"}))["runs"] == []
        await posted(client, "/ui/ask", {"pipeline": TWO, "query": "x"}, 403, headers={"x-api-key": plain})
        # To see all is not to ask all: runs take the scope of pipelines, and a model of theirs that the key may ask.
        narrow = keys.add("narrow", scopes=("pipelines", "admin"), models=("pipeline/other",))
        for key, path, body in (
            (admin, "/ui/ask", {"pipeline": TWO, "query": "x"}),
            (admin, "/ui/runs/run-1/rerun", {}),
            (admin, "/ui/runs/run-1/resume", {}),
            (admin, "/ui/runs/run-1/answer", {"step": "which", "decision": "accepted"}),
            (narrow, "/ui/ask", {"pipeline": f"pipeline/{TWO}", "query": "x"}),
            (narrow, "/ui/runs/run-1/rerun", {"model": "scripted"}),
        ):
            await posted(client, path, body, 403, headers={"x-api-key": key})
        all_of_it = keys.add("all", scopes=("pipelines", "admin"))
        asked = await posted(client, "/ui/ask", {"pipeline": TWO, "query": "x"}, headers={"x-api-key": all_of_it})
        run_id = asked["run_id"]
        for path, body in (
            ("rerun", {}),
            ("rerun", {"at": "dig"}),
            ("resume", {}),
        ):  # a pipeline that narrow may not ask
            told = await posted(client, f"/ui/runs/{run_id}/{path}", body, 403, headers={"x-api-key": narrow})
            assert "may not ask" in told["error"]


async def test_browsers_get_the_page_under_a_strict_policy_and_programs_what_ollama_says(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        async with client.get("/", headers={"accept": "text/html,*/*;q=0.8"}) as reply:
            body, policy, tag = await reply.read(), reply.headers["content-security-policy"], reply.headers["etag"]
        assert len(body) <= 150_000
        assert b"https://" not in body.replace(b"http://www.w3.org", b"").replace(b"^https?://", b"")
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        async with client.get("/", headers={"accept": "text/html", "if-none-match": tag}) as reply:
            assert reply.status == 304
        for accept in ("*/*", "application/json"):
            async with client.get("/", headers={"accept": accept}) as reply:
                assert await reply.text() == "Ollama is running"


async def test_a_record_that_cannot_be_read_is_no_fault_of_who_asks(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        paths.journal_file().mkdir(parents=True)
        assert "cannot be read" in (await got(client, "/ui/runs", 503))["error"]
        assert "cannot be read" in (await got(client, "/ui/runs?q=heat", 503))["error"]
