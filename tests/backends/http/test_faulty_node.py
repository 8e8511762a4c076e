"""The scripted node: it speaks as Ollama does, misbehaves as it is told, and counts what happened."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from chunk_support import collected, finished
from faulty_node import FaultyNode
from faulty_node_child import child_node
from faulty_node_script import reply_text

from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    ContextOverflow,
    ModelNotFound,
    ProtocolError,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import ChatRequest, Message

BOUND = 10.0
QUESTION = [{"role": "user", "content": "What is a pool?"}]


def question(text: str = "What is a pool?", **options: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("user", text),), model="m", **options)


async def answer(node: FaultyNode, request: ChatRequest | None = None) -> str:
    """Return what our own client gets."""
    async with (
        OllamaBackend(node.url, num_ctx=2048) as backend,
        aclosing(backend.stream(request or question())) as chunks,
    ):
        async with asyncio.timeout(BOUND):
            return collected([chunk async for chunk in chunks])


async def test_our_client_gets_the_whole_text_and_what_it_cost():
    async with FaultyNode(tokens=5, seconds_per_token=0.001) as node, OllamaBackend(node.url) as backend:
        chunks = [chunk async for chunk in backend.stream(question())]
        assert collected(chunks) == reply_text(QUESTION, 5)
        last = finished(chunks)
        assert (last.finish_reason, last.usage.completion_tokens) == ("stop", 5)
        assert node.counters.outcomes == {"ok": 1} and node.counters.in_flight == 0


async def test_num_predict_cuts_and_an_assistants_turn_is_continued_from_exactly_there():
    whole = reply_text(QUESTION, 8)
    async with FaultyNode(tokens=8) as node:
        first = await answer(node, question(max_tokens=3))
        assert first and whole.startswith(first)
        for said in (first, whole[: len(first) + 2]):  # also in the middle of a token
            messages = (Message("user", "What is a pool?"), Message("assistant", said))
            assert said + await answer(node, ChatRequest(messages=messages, model="m")) == whole
        async with httpx.AsyncClient(base_url=node.url) as client:
            body = {"model": "m", "messages": QUESTION, "stream": False, "options": {"num_predict": 3}}
            reply = (await client.post("/api/chat", json=body)).json()
            assert reply["done"] is True and reply["done_reason"] == "length" and reply["message"]["content"] == first


async def test_the_listings_say_what_ollama_says():
    async with (
        FaultyNode(models=["m", "n:1b"], load_seconds=0.001) as node,
        httpx.AsyncClient(base_url=node.url) as client,
    ):
        assert (await client.get("/")).text == "Ollama is running"
        assert "version" in (await client.get("/api/version")).json()
        assert [model["name"] for model in (await client.get("/api/tags")).json()["models"]] == ["m:latest", "n:1b"]
        assert (await client.get("/api/ps")).json() == {"models": []}
        shown = (await client.post("/api/show", json={"model": "m"})).json()
        assert shown["model_info"]["llama.context_length"] == 8192 and "completion" in shown["capabilities"]
        assert (await client.post("/api/show", json={"model": "x"})).json() == {"error": "model 'x' not found"}
        assert (await client.get("/api/other")).text == "404 page not found"
        vectors = (await client.post("/api/embed", json={"model": "m", "input": ["a", "b"]})).json()["embeddings"]
        assert len(vectors) == 2 and vectors[0] != vectors[1]


async def test_an_empty_prompt_loads_and_keep_alive_0_unloads():
    models = {"m": {"vram_share": 0.5}}
    async with FaultyNode(models=models, load_seconds=0.01) as node, httpx.AsyncClient(base_url=node.url) as client:
        loaded = (await client.post("/api/generate", json={"model": "m", "options": {"num_ctx": 512}})).json()
        assert loaded["done_reason"] == "load"
        [listed] = (await client.get("/api/ps")).json()["models"]
        assert listed["context_length"] == 512 and listed["size_vram"] * 2 == listed["size"]
        unloaded = (await client.post("/api/generate", json={"model": "m", "keep_alive": 0})).json()
        assert unloaded["done_reason"] == "unload"
        assert (await client.get("/api/ps")).json() == {"models": []}
        refused = await client.post("/api/generate", json={"model": "m", "keep_alive": "-1"})
        assert (refused.status_code, refused.json()["error"]) == (400, 'time: missing unit in duration "-1"')


async def test_loads_are_joined_and_another_context_reloads():
    async with FaultyNode(load_seconds=0.02, parallel=4) as node:
        await asyncio.gather(*(answer(node) for _ in range(4)))
        assert node.memory.loads["m:latest"] == 1
        await answer(node, question(num_ctx=4096))
        assert node.memory.loads["m:latest"] == 2
        assert node.memory.current()["m:latest"].context == 4096


async def test_more_calls_than_places_wait_inside_and_one_too_many_is_refused():
    async with FaultyNode(parallel=2, max_queue=1, seconds_per_call=0.05) as node:
        results = await asyncio.gather(*(answer(node) for _ in range(4)), return_exceptions=True)
        assert [type(result) for result in results if not isinstance(result, str)] == [BackendBusy]
        assert node.counters.peak_running == 2 and node.counters.peak_in_flight == 4
        assert node.counters.running == node.counters.in_flight == 0
        assert node.duplicates == 3


async def test_a_client_that_leaves_frees_its_place_in_the_queue_and_in_the_slot():
    async with FaultyNode(seconds_per_call=60) as node:
        calls = [asyncio.create_task(answer(node)) for _ in range(3)]
        await node.wait_for(lambda: node.counters.in_flight == 3)
        for call in calls:
            call.cancel()
        await node.wait_until_idle()
        await asyncio.gather(*calls, return_exceptions=True)
        assert node.counters.running == 0 and node.counters.outcomes == {"abandoned": 3}
        node.config.seconds_per_call = 0.0
        assert await answer(node)


@pytest.mark.parametrize(
    ("kind", "details", "error"),
    [
        ("error", {}, ServerError),
        ("flaky", {"probability": 1.0}, ServerError),
        ("busy_503", {}, BackendBusy),
        ("not_found", {}, ModelNotFound),
        ("drop_after_n", {"after": 0}, StreamTruncated),
        ("drop_after_n", {"after": 3}, StreamTruncated),
        ("drop_after_n", {"after": 3, "reset": False}, StreamTruncated),
        ("error_line_after_n", {"after": 3}, StreamFailed),
        ("malformed_json", {"after": 3}, ProtocolError),
        ("no_done", {}, StreamTruncated),
        ("refuse", {}, BackendUnavailable),
    ],
)
async def test_each_fault_is_the_error_that_our_client_knows_and_then_it_is_over(kind, details, error):
    async with FaultyNode() as node:
        node.fail(kind, **details)
        with pytest.raises(error):
            await answer(node)
        await node.wait_until_idle()
        assert node.counters.outcomes == ({"failed": 1} if kind != "refuse" else {})
        node.heal()
        assert await answer(node) == reply_text(QUESTION, 8)


@pytest.mark.parametrize("kind", ["hang_before_headers", "hang_after_n", "blackhole", "slow_headers"])
async def test_a_node_that_hangs_answers_nothing_until_it_is_healed(kind):
    async with FaultyNode() as node:
        node.fail(kind, seconds=0.01 if kind == "slow_headers" else 0.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await answer(node)
        node.heal()
        assert await answer(node)


async def test_slow_headers_come_in_the_end():
    async with FaultyNode() as node:
        node.fail("slow_headers", seconds=0.0001)
        assert await answer(node) == reply_text(QUESTION, 8)


async def test_a_fault_that_is_to_strike_twice_strikes_twice():
    async with FaultyNode() as node:
        node.fail("error", times=2)
        results = [await asyncio.gather(answer(node), return_exceptions=True) for _ in range(4)]
        assert [isinstance(result, BackendError) for [result] in results] == [True, True, False, False]


async def test_a_node_that_lies_lists_what_is_not_loaded():
    async with FaultyNode(models=["m", "n"], loaded=["m"]) as node, OllamaBackend(node.url) as backend:
        node.mode = "lie_in_ps"
        assert {model.name: model.loaded for model in await backend.models()} == {"m:latest": False, "n:latest": True}


async def test_a_prompt_that_is_too_long_is_refused_if_it_must_not_be_cut():
    async with FaultyNode() as node:
        with pytest.raises(ContextOverflow):
            await answer(node, question("word " * 3000))


async def test_a_prefix_that_was_asked_before_costs_nothing():
    async with (
        FaultyNode(prefix_cache=True, seconds_per_prompt_token=0.001) as node,
        OllamaBackend(node.url) as backend,
    ):
        seconds = []
        for text in ("word " * 100, "word " * 100 + "more"):
            chunks = [chunk async for chunk in backend.stream(question(text))]
            seconds.append(finished(chunks).timings.prompt_seconds)
        assert seconds[0] > 0.1
        assert seconds[1] < 0.05


async def test_an_unknown_fault_is_named():
    async with FaultyNode() as node:
        with pytest.raises(ValueError, match="no such fault: 'explode'"):
            node.fail("explode")


async def test_a_schema_is_answered_with_json_that_fits():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    async with FaultyNode() as node:
        assert isinstance(json.loads(await answer(node, question(schema=schema)))["a"], int)


async def test_pipelined_and_chunked_requests_are_read():
    body = json.dumps({"model": "m", "messages": QUESTION, "stream": False}).encode()
    chunked = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    async with FaultyNode() as node, asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        post = b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
        writer.write(post + post[:60])
        await node.wait_for(lambda: node.counters.outcomes["ok"] == 1)
        writer.write(post[60:] + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        said = await reader.read()
        assert said.count(b'"done":true') == 2 and said.endswith(b"Ollama is running")
        writer.close()


async def test_a_child_can_be_controlled_killed_frozen_and_started_again():
    async with child_node(models=["m"], tokens=4) as node:
        whole = await answer(node)
        await node.control(fault={"kind": "busy_503", "times": 1}, config={"parallel": 3}, loaded=["m"])
        with pytest.raises(BackendBusy):
            await answer(node)
        counted = await node.counters()
        assert counted["outcomes"] == {"ok": 1, "failed": 1} and counted["loaded"] == {"m:latest": 4096}
        assert [call["outcome"] for call in await node.asked()] == ["ok", "failed"]
        node.stop_signal()
        call = asyncio.create_task(answer(node))
        await asyncio.sleep(0.05)
        assert not call.done()
        node.cont()
        assert await call == whole
        url = node.url
        node.kill()
        with pytest.raises((BackendUnavailable, StreamTruncated)):
            await answer(node)
        await node.restart()
        assert node.url == url and await answer(node) == whole
        await node.control(fault={"kind": "refuse"})
        await asyncio.sleep(0.2)
        with pytest.raises(BackendUnavailable):
            await answer(node)
