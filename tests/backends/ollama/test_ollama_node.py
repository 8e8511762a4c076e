"""What a pool asks an Ollama server beside chats: listings, details, and to load and unload."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from chunk_support import collected
from faulty_node import FaultyNode
from faulty_node_script import Model

from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.errors import BackendUnavailable, ModelNotFound, ServerError
from synaptic.messages import ChatRequest, Message


@asynccontextmanager
async def backend_of(**config):
    async with FaultyNode(**config) as node, OllamaBackend(node.url) as backend:
        yield node, backend
        node.heal()


class Together(FaultyNode):
    """A node that answers no listing before both were asked for."""

    async def serve(self, connection, request):
        if request.path in {"/api/tags", "/api/ps"}:
            self.came = getattr(self, "came", 0) + 1
            while self.came < 2:
                await asyncio.sleep(0.005)
        await super().serve(connection, request)


async def test_listings_are_asked_for_at_once():
    async with Together(loaded=("m",)) as node, OllamaBackend(node.url) as backend:
        tags, loaded = await asyncio.wait_for(backend.listings(), 20)
        assert (tags["models"][0]["name"], loaded["models"][0]["name"]) == ("m:latest", "m:latest")


async def test_listings_that_fail_are_one_error_and_leave_nothing():
    async with backend_of() as (node, backend):
        node.fail("refuse")
        with pytest.raises(BackendUnavailable, match="nothing answers"):
            await backend.listings()


async def test_listings_that_are_cancelled_leave_nothing():
    async with FaultyNode() as node, OllamaBackend(node.url) as backend:
        node.fail("blackhole")
        before = asyncio.all_tasks()
        task = asyncio.create_task(backend.listings())
        await node.wait_for(lambda: node.counters.open_connections == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert {one for one in asyncio.all_tasks() - before if "list" in repr(one.get_coro())} == set()
        node.heal()


async def test_details_of_a_model():
    model = Model(context=2048, capabilities=("completion", "vision"))
    async with backend_of(models={"m": model}) as (_, backend):
        shown = await backend.show("m")
        assert shown["capabilities"] == ["completion", "vision"]
        with pytest.raises(ModelNotFound):
            await backend.show("other")


async def test_a_model_comes_and_goes():
    async with backend_of() as (node, backend):
        await backend.load("m", num_ctx=2048, keep_alive="300")
        assert node.memory.current()["m:latest"].context == 2048
        await backend.unload("m")
        assert node.memory.current() == {}


async def test_a_load_that_fails_is_our_error():
    async with backend_of() as (node, backend):
        with pytest.raises(ModelNotFound, match="other"):
            await backend.load("other")
        node.fail("error")
        with pytest.raises(ServerError, match="terminated"):
            await backend.load("m")


async def test_a_reply_that_was_begun_is_continued():
    async with backend_of(tokens=6) as (node, backend):
        question = (Message("user", "Say it."),)
        request = ChatRequest(messages=question, model="m")
        whole = collected([chunk async for chunk in backend.stream(request)])
        begun = whole[: whole.index("w2")]
        request = ChatRequest(messages=(*question, Message("assistant", begun)), model="m")
        rest = collected([chunk async for chunk in backend.stream(request)])
        assert begun + rest == whole
        assert node.asked[-1].messages[-1] == {"role": "assistant", "content": begun}
