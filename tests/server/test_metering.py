"""What calls of clients are counted with: every dialect, clients that leave, pipelines, the tokens of a key's day."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import aiohttp
import anthropic
import openai
import pytest
from cli_support import run_here
from gateway_support import embedded_application, gateway
from tool_node import MODEL, ToolNode, tool_node

from synaptic import paths
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import JournalError
from synaptic.messages import ChatRequest, Message, Usage
from synaptic.models import MODEL_NAME, ModelStore
from synaptic.runtime import Journal, Session
from synaptic.server.gateway import CallMeter, KeyFile, ModelFront, Refusal
from synaptic.server.gateway.key_ring import KeyRing
from synaptic.server.limits import listening
from synaptic.server.ollama_api import ServeSettings
from synaptic.server.program.metered import metered
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from synaptic.backends import Backend
    from synaptic.runtime import UsedCall

QUESTION: Any = [{"role": "user", "content": "one two three"}]
CHAT = {"model": MODEL, "messages": QUESTION, "stream": False}


def over(node: ToolNode) -> Settings:
    return Settings.model_validate({"nodes": [{"url": node.url, "parallel": 8}], "task_distribution_enabled": True})


@asynccontextmanager
async def counted(
    node: ToolNode | None = None, *, backend: Backend | None = None, **serve: Any
) -> AsyncIterator[tuple[str, list[UsedCall]]]:
    """Serve a node or a backend; give the address and the calls that have ended."""
    calls: list[UsedCall] = []
    settings = None if node is None else over(node)
    meter = CallMeter(calls.append)
    async with gateway(settings, backend=backend, serve=ServeSettings(**serve), meter=meter) as url:
        yield url, calls


async def ended(calls: list[UsedCall], count: int) -> list[UsedCall]:
    async with asyncio.timeout(30):
        while len(calls) < count:
            await asyncio.sleep(0.005)
    return calls


ASKED: list[tuple[str, dict[str, Any], str, int, int]] = [
    ("/api/chat", CHAT, "ollama", 3, 3),
    ("/api/chat", {**CHAT, "stream": True}, "ollama", 3, 3),
    ("/api/generate", {"model": MODEL, "prompt": "one two", "stream": False}, "ollama", 2, 2),
    ("/api/embed", {"model": MODEL, "input": ["a", "b"]}, "ollama", 2, 0),
    ("/api/embeddings", {"model": MODEL, "prompt": "a"}, "ollama", 1, 0),
    ("/v1/chat/completions", CHAT, "openai", 3, 3),
    ("/v1/chat/completions", {**CHAT, "stream": True}, "openai", 3, 3),
    ("/v1/completions", {"model": MODEL, "prompt": "one"}, "openai", 1, 1),
    ("/v1/embeddings", {"model": MODEL, "input": ["a", "b", "c"]}, "openai", 3, 0),
    ("/v1/messages", {**CHAT, "max_tokens": 9}, "anthropic", 3, 3),
    ("/v1/messages", {**CHAT, "max_tokens": 9, "stream": True}, "anthropic", 3, 3),
]


async def test_a_call_of_every_dialect_is_counted_as_the_node_counts_it() -> None:
    async with tool_node() as node, counted(node) as (url, calls), aiohttp.ClientSession(url) as session:
        for path, body, dialect, prompt, completion in ASKED:
            async with session.post(path, json=body) as reply:
                assert reply.status == 200, path
                await reply.read()
            used = (await ended(calls, 1)).pop()
            assert (used.dialect, used.prompt_tokens, used.completion_tokens) == (dialect, prompt, completion), path
            assert (used.status, used.model, used.key, used.estimated_tokens) == ("succeeded", MODEL, None, 0)
            assert used.node == (node.url if completion else None)
            assert used.seconds >= 0
        async with session.post("/v1/chat/completions", json={**CHAT, "n": 3}) as reply:
            assert (await reply.json())["usage"]["completion_tokens"] == 9
        assert [used.completion_tokens for used in await ended(calls, 3)] == [3, 3, 3]


async def test_a_call_whose_client_leaves_is_counted_by_what_came_until_then() -> None:
    words = [f"w{index}" for index in range(50)]
    body = {"model": MODEL, "messages": [{"role": "user", "content": " ".join(words)}], "stream": True}
    async with tool_node() as node, counted(node) as (url, calls), aiohttp.ClientSession(url) as session:
        for path, kept in (("/api/chat", 4), ("/v1/chat/completions", 7), ("/v1/messages", 1)):
            node.pause_at = f"w{kept}"
            async with session.post(path, json={**body, "max_tokens": 99} if "v1" in path else body) as reply:
                said = b""
                while said.count(b"w") < kept:
                    said += await reply.content.readany()
            used = (await ended(calls, 1)).pop()
            assert (used.status, used.completion_tokens, used.prompt_tokens) == ("cancelled", kept, 0), path
            assert used.estimated_tokens > 0
            await node.idle.wait()
        assert node.sent == 12


async def test_calls_whose_clients_leave_while_pieces_come_are_counted_as_their_nodes_count_them() -> None:
    """What was under way when a client left is counted: the node had generated it."""
    text = " ".join(f"w{index}" for index in range(40))
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 99}
    paths = ["/api/chat", "/v1/chat/completions", "/v1/messages"]
    async with tool_node() as node, counted(node) as (url, calls), aiohttp.ClientSession(url) as session:

        async def leave(place: int) -> None:
            said = b""
            async with session.post(paths[place % len(paths)], json=body) as reply:
                while said.count(b"w") < 1 + place % 7:
                    said += await reply.content.readany()

        node.pace = 0.0005
        await asyncio.gather(*[leave(place) for place in range(30)])
        await ended(calls, 30)
        await node.idle.wait()
        assert sum(used.completion_tokens for used in calls) == node.sent
        assert sum(used.prompt_tokens for used in calls) == node.told_prompt
        assert {used.status for used in calls} <= {"cancelled", "succeeded"}


async def test_calls_that_fail_are_counted_by_what_came() -> None:
    backend = ScriptedBackend(lambda _: Failure("truncated", after_tokens=2, text="a b c"))
    async with counted(backend=backend) as (url, calls), aiohttp.ClientSession(url) as session:
        async with session.post("/v1/chat/completions", json={**CHAT, "model": "scripted"}) as reply:
            assert reply.status == 502
        (used,) = calls
        assert (used.status, used.completion_tokens) == ("failed", 2)
        async with session.post("/api/embed", json={"model": "scripted", "input": "x"}) as reply:
            assert reply.status == 400
        assert len(calls) == 1  # nothing was asked


async def test_a_pipeline_is_one_call_with_the_usage_of_all_its_own() -> None:
    backend = ScriptedBackend(lambda _: Reply(text="a b c"))
    body = {**CHAT, "model": "pipeline/answer"}
    serving = counted(backend=backend, pipelines={"answer": "answer"})
    async with serving as (url, calls), aiohttp.ClientSession(url) as session:
        reply = await session.post("/v1/chat/completions", json=body)
        told = (await reply.json())["usage"]
    (used,) = calls
    assert (used.prompt_tokens, used.completion_tokens) == (told["prompt_tokens"], told["completion_tokens"])
    assert (used.model, used.status, used.node) == ("pipeline/answer", "succeeded", "pipeline")
    assert used.completion_tokens > 0


@pytest.mark.parametrize(("model", "runs"), [("pipeline/answer", True), ("pipelines-7b", False)])
def test_only_a_pipeline_is_told_of_as_a_run(model: str, *, runs: bool) -> None:
    told, meter = Mock(), CallMeter()
    meter.telemetry = told
    with meter.begin(model):
        pass
    (end,) = told.request.return_value.ended.call_args.args
    assert end.makes_run is runs


async def test_a_pipeline_whose_client_leaves_is_counted_by_its_steps_so_far(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    steps = "  one: {agent: storyteller, prompt: 'a'}\n  two: {agent: storyteller, prompt: '{{ steps.one }}'}"
    file.write_text(f"version: 1\nname: two\ninputs: {{query: {{}}}}\nsteps:\n{steps}\nresult: '{{{{ steps.two }}}}'\n")
    replies = {"one": Reply(text="a b c d"), "two": Reply(text="e f g h", token_delay=3600.0)}
    backend = ScriptedBackend(replies)
    body = {**CHAT, "model": "pipeline/two", "stream": True}
    async with counted(backend=backend, pipelines={"two": file}) as (url, calls):
        async with aiohttp.ClientSession(url) as session, session.post("/api/chat", json=body) as reply:
            async for line in reply.content:
                assert "message" in json.loads(line), line
                if json.loads(line)["message"]["content"]:
                    break
        (used,) = await ended(calls, 1)
    first = backend.requests[0]
    assert used.status == "cancelled"
    assert used.completion_tokens == 4 + 1
    assert used.prompt_tokens == sum(len(message.content.split()) for message in first.messages)


@pytest.mark.real_model
async def test_calls_of_the_embedded_model_are_counted_as_it_counts_them() -> None:
    calls: list[UsedCall] = []
    app = embedded_application(ServeSettings(threads=2), ModelStore(), CallMeter(calls.append))
    body = {"model": MODEL_NAME, "messages": QUESTION, "options": {"num_predict": 400}}
    async with listening(app, "127.0.0.1", 0, drain=0.1) as (url,), aiohttp.ClientSession(url) as session:
        short = {**body, "stream": False, "options": {"num_predict": 5}}
        async with session.post("/api/chat", json=short) as reply:
            told = await reply.json()
        used = calls.pop()
        assert (used.prompt_tokens, used.completion_tokens) == (told["prompt_eval_count"], told["eval_count"])
        assert (used.status, used.node, used.dialect) == ("succeeded", "embedded", "ollama")
        async with session.post("/api/embed", json={"model": MODEL_NAME, "input": ["a", "b c"]}) as reply:
            counted = (await reply.json())["prompt_eval_count"]
        async with session.post("/api/embeddings", json={"model": MODEL_NAME, "prompt": "a"}) as reply:
            assert reply.status == 200
        assert [used.prompt_tokens for used in calls] == [counted, calls[1].prompt_tokens]
        assert calls.pop().prompt_tokens > 0
        calls.clear()
        async with session.post("/api/chat", json=body) as reply:
            await reply.content.readline()
            await reply.content.readline()
        (used,) = await ended(calls, 1)
        assert used.status == "cancelled"
        assert 2 <= used.completion_tokens < 400
        async with session.post("/api/chat", json={"model": MODEL_NAME, "messages": []}) as reply:
            assert (await reply.json())["done_reason"] == "load"
        assert len(calls) == 1  # nothing was asked


async def test_a_key_has_so_many_tokens_a_day(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("phone", tokens_a_day=10)
    async with tool_node() as node, counted(node, keys=keys) as (url, calls):
        async with aiohttp.ClientSession(url, headers={"x-api-key": key}) as session:
            for _ in range(2):
                async with session.post("/api/chat", json=CHAT) as reply:
                    assert reply.status == 200
            async with session.post("/api/chat", json=CHAT) as reply:
                assert reply.status == 429
                assert 0 < int(reply.headers["retry-after"]) <= 86400
                assert "10 tokens" in (await reply.json())["error"]
            async with session.get("/api/tags") as reply:
                assert reply.status == 200
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            with pytest.raises(openai.RateLimitError, match="00:00 UTC"):
                await client.chat.completions.create(model=MODEL, messages=QUESTION)
            with pytest.raises(openai.RateLimitError):
                await client.embeddings.create(model=MODEL, input="a")
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0) as claude:
            with pytest.raises(anthropic.RateLimitError):
                await claude.messages.create(model=MODEL, max_tokens=9, messages=QUESTION)
        assert [used.key for used in calls] == ["phone", "phone"]


def test_what_calls_under_way_have_come_to_counts_for_the_next_ones(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    ring, meter = KeyRing(keys), CallMeter()
    for name, asked, pieces in (("reply", "x", 10), ("prompt", "x" * 400, 0)):
        own = {"x-api-key": keys.add(name, tokens_a_day=10)}
        other = {"x-api-key": keys.add(f"other {name}", tokens_a_day=10)}
        with ring.let_in(own), meter.begin("m") as call:
            meter.begin("m")
            call.asks(ChatRequest(messages=(Message("user", asked),)))
            for _ in range(pieces):
                call.piece()
            with pytest.raises(Refusal, match=r"under way .* 10 tokens") as refused:
                meter.begin("m")
            assert refused.value.retry_after == 1
            with ring.let_in(other):
                meter.begin("m")
            call.whole(Usage(2, 4), "a")
        with ring.let_in(own):
            meter.begin("m")  # it was less than was thought


def test_a_day_begins_at_midnight_of_utc(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    key = keys.add("phone", tokens_a_day=10)
    now = [1_800_000_000.0 - 1_800_000_000.0 % 86400 + 86390]
    meter = CallMeter(clock=lambda: now[0])
    meter.used_before({"phone": 4, "desk": 100})
    with KeyRing(keys).let_in({"x-api-key": key}):
        with meter.begin("m") as call:
            call.whole(Usage(2, 4))
        with pytest.raises(Refusal) as refused:
            meter.begin("m")
        assert refused.value.retry_after == 10
        now[0] += 10
        meter.begin("m")
    meter.begin("m")  # no key, no bound


async def test_the_tokens_of_the_day_outlive_the_program() -> None:
    said: list[Any] = []
    keys = KeyFile()
    key = keys.add("phone", tokens_a_day=10)
    for used in (6, 6):
        async with metered(Settings(), said.append) as meter:
            with KeyRing(keys).let_in({"x-api-key": key}), meter.begin("m") as call:
                call.whole(Usage(completion_tokens=used))
    async with metered(Settings(), said.append) as meter:
        with KeyRing(keys).let_in({"x-api-key": key}), pytest.raises(Refusal):
            meter.begin("m")
    async with metered(Settings(journal="off"), said.append) as meter:
        with KeyRing(keys).let_in({"x-api-key": key}):
            meter.begin("m")
    assert said == []
    paths.journal_file().write_bytes(b"x" * 8192)
    async with metered(Settings(), said.append) as meter:
        assert "not known" in said[0].message
    with Journal() as journal, pytest.raises(JournalError):
        journal.usage()


async def test_the_tokens_of_a_day_are_those_of_all_gateways_with_the_record() -> None:
    keys = KeyFile()
    key = keys.add("phone", tokens_a_day=10)
    async with metered(Settings(), lambda _: None) as one, metered(Settings(), lambda _: None) as other:
        for meter in (one, other):
            with KeyRing(keys).let_in({"x-api-key": key}), meter.begin("m") as call:
                call.whole(Usage(completion_tokens=6))
        async with asyncio.timeout(60):
            for meter in (one, other):
                with KeyRing(keys).let_in({"x-api-key": key}):
                    while not is_used_up(meter):
                        await asyncio.sleep(0.05)
    with Journal() as journal:
        assert journal.usage()[0].tokens == 12


def is_used_up(meter: CallMeter) -> bool:
    try:
        meter.begin("m")
    except Refusal as refused:
        return "has used its 10 tokens" in refused.message
    return False


async def test_settings_that_want_no_journal_any_more_have_no_call_noted() -> None:
    noted: list[UsedCall] = []
    front = ModelFront(Session(Settings(), backend=ScriptedBackend()), {}, meter=CallMeter(noted.append))
    for journal, count in (("off", 0), ("normal", 1)):
        await front.renew(Session(Settings(journal=journal), backend=ScriptedBackend()))
        with front.meter.begin("m") as call:
            call.whole(Usage(1, 1))
        assert len(noted) == count
    await front.aclose()


async def test_the_command_shows_what_was_used(tmp_path: Path) -> None:
    assert "no call" in run_here("keys", "usage", cwd=tmp_path).out
    async with metered(Settings(), lambda _: None) as meter:
        with meter.begin("m\nodel") as call:
            call.whole(Usage(3, 4), "a")
    told = json.loads(run_here("keys", "usage", "--json", "--since", "1h", cwd=tmp_path).out)
    counts = {"calls": 1, "prompt_tokens": 3, "completion_tokens": 4, "estimated_tokens": 0}
    assert [{**entry, "seconds": 0} for entry in told] == [{"key": None, "model": "m\nodel", **counts, "seconds": 0}]
    (by_day,) = json.loads(run_here("keys", "usage", "--json", "--by", "day", "--by", "node", cwd=tmp_path).out)
    assert (by_day["day"], by_day["node"]) == (time.strftime("%Y-%m-%d", time.gmtime()), "a")
    table = run_here("keys", "usage", cwd=tmp_path).out
    assert "PROMPT TOKENS" in table
    wrong = run_here("keys", "usage", "--since", "yesterday", cwd=tmp_path)
    assert (wrong.code, wrong.out) == (2, "")
