"""``synaptic serve`` with the embedded model: real nodes, asked over real sockets and hit by real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import pytest
from ollama_nodes import MODEL, RealNode, real_nodes

from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.ollama.pull import pull_model
from synaptic.errors import ContextOverflow
from synaptic.messages import ChatRequest, Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.real_model

WITHIN = 60.0  # seconds; the machine may be busy
USER = [{"role": "user", "content": "Why is the sky blue?"}]
LONG = {"num_predict": 4000, "temperature": 0}  # longer than any test waits
SHORT = {"num_predict": 4, "temperature": 0}


class Api:
    """A client that shows statuses, headers and lines as they are."""

    def __init__(self, session: aiohttp.ClientSession, node: RealNode) -> None:
        self.session = session
        self.node = node

    async def get(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
        async with self.session.request(method, self.node.url + path, **options) as reply:
            return reply.status, await reply.text()

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self.session.post(self.node.url + path, json=body) as reply:
            return reply.status, await reply.json()

    async def lines(self, path: str, **body: Any) -> list[dict[str, Any]]:
        async with self.session.post(self.node.url + path, json=body) as reply:
            assert reply.status == 200
            assert reply.headers["content-type"] == "application/x-ndjson"
            return [json.loads(line) async for line in reply.content]

    async def chat(self, messages: list[dict[str, str]] = USER, **body: Any) -> list[dict[str, Any]]:
        return await self.lines("/api/chat", model=body.pop("model", MODEL), messages=messages, **body)

    async def loaded(self) -> list[dict[str, Any]]:
        return list(json.loads((await self.get("/api/ps"))[1])["models"])

    async def until_loaded(self, *names: str) -> None:
        """Wait until exactly these are in memory."""
        async with asyncio.timeout(WITHIN):
            while {model["name"] for model in await self.loaded()} != set(names):
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def talking(self, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A long reply of which the first line has come; it is dropped at the end of the block."""
        body = {"model": MODEL, "messages": USER, "options": {**LONG, **options}}
        async with self.session.post(self.node.url + "/api/chat", json=body) as reply:
            assert reply.status == 200
            await reply.content.readline()
            yield reply
            reply.close()


@asynccontextmanager
async def api(**options: Any) -> AsyncIterator[Api]:
    async with real_nodes(1, **options) as nodes, aiohttp.ClientSession() as session:
        yield Api(session, nodes[0])


def text_of(lines: list[dict[str, Any]]) -> str:
    return "".join(line["message"]["content"] for line in lines)


def engines(node: RealNode) -> list[int]:
    return [child.pid for child in psutil.Process(node.pid).children()]


async def until_gone(pids: list[int]) -> None:
    def alive(pid: int) -> bool:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        return False

    async with asyncio.timeout(WITHIN):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.02)


async def test_what_a_node_says_of_itself_and_of_its_model() -> None:
    async with api() as node:
        assert await node.get("/") == (200, "Ollama is running")
        assert await node.get("/", "HEAD") == (200, "")
        assert "version" in json.loads((await node.get("/api/version"))[1])
        (tag,) = json.loads((await node.get("/api/tags"))[1])["models"]
        assert tag["name"] == tag["model"] == MODEL
        assert tag["size"] == 98_362_432
        assert tag["details"] == {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_1",
        }
        status, shown = await node.post("/api/show", model=MODEL)
        assert status == 200
        assert shown["capabilities"] == ["completion"]
        info = shown["model_info"]
        assert (info["general.architecture"], info["llama.context_length"], info["llama.block_count"]) == (
            "llama",
            8192,
            30,
        )
        assert info["general.parameter_count"] == 134_515_008
        assert info["tokenizer.ggml.tokens"] == []
        assert "<|im_start|>" in shown["template"]
        assert await node.loaded() == []


async def test_refusals_have_ollamas_statuses_and_words() -> None:
    async with api() as node:
        missing = "/api/chat", {"model": "smollm2", "messages": USER}  # means smollm2:latest, which is not here
        asking, chat = {"model": MODEL, "prompt": "p"}, {"model": MODEL, "messages": USER}
        cases: list[tuple[tuple[str, dict[str, Any]], int, str]] = [
            (missing, 404, "model 'smollm2' not found"),
            (("/api/show", {"model": "x"}), 404, "model 'x' not found"),
            (("/api/show", {}), 400, "model is required"),
            (("/api/generate", {"model": "x", "prompt": "p"}), 404, "model 'x' not found"),
            (("/api/embed", {"model": "x", "input": "p"}), 404, 'model "x" not found, try pulling it first'),
            (
                ("/api/embed", {"model": MODEL, "input": [1]}),
                400,
                "invalid input type: 'input' must be a text or an array of texts",
            ),
            (("/api/chat", {"messages": USER}), 400, "model is required"),
            (("/api/chat", {"model": "a b", "messages": USER}), 400, "invalid model name"),
            (
                ("/api/chat", {"model": MODEL, "messages": USER, "think": True}),
                400,
                f'"{MODEL}" does not support thinking',
            ),
            (("/api/chat", {**chat, "tools": [{}]}), 400, f"{MODEL} does not support tools"),
            (
                ("/api/generate", {"model": MODEL, "prompt": "p", "suffix": "s"}),
                400,
                f"{MODEL} does not support insert",
            ),
            (
                ("/api/chat", {"model": MODEL, "messages": USER, "keep_alive": "5"}),
                400,
                'time: missing unit in duration "5"',
            ),
            (
                ("/api/generate", {**asking, "raw": True, "system": "s"}),
                400,
                "raw mode does not support template, system, or context",
            ),
            (("/api/pull", {"model": "x", "stream": False}), 500, "pull model manifest: file does not exist"),
        ]
        for (path, body), status, said in cases:
            assert await node.post(path, **body) == (status, {"error": said}), path
        assert await node.get("/api/chat", "POST") == (400, '{"error":"missing request body"}')
        assert await node.get("/api/nothing", "POST", json={}) == (404, "404 page not found")
        assert (await node.get("/api/chat"))[0] == 405
        assert (await node.get("/api/tags", headers={"origin": "https://evil.example"}))[0] == 403
        assert await node.loaded() == []  # none of that has loaded anything


async def test_a_reply_is_streamed_line_by_line_or_sent_at_once() -> None:
    async with api() as node:
        lines = await node.chat(options={"num_predict": 8, "temperature": 0})
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        end = lines[-1]
        assert (end["model"], end["done_reason"], end["eval_count"]) == (MODEL, "length", 8)
        assert end["prompt_eval_count"] > 20
        assert 0 < end["load_duration"] < end["total_duration"]
        assert end["prompt_eval_duration"] + end["eval_duration"] < end["total_duration"]

        body = {"model": MODEL, "messages": USER, "stream": False, "options": {"num_predict": 8, "temperature": 0}}
        status, whole = await node.post("/api/chat", **body)
        assert status == 200
        assert whole["message"] == {"role": "assistant", "content": text_of(lines)}
        assert whole["done"] is True
        assert whole["load_duration"] < end["load_duration"]  # it was there already

        (model,) = await node.loaded()
        assert (model["name"], model["context_length"], model["size_vram"]) == (MODEL, 4096, 0)
        assert model["size"] > 98_362_432


async def test_the_format_is_enforced_and_a_stop_word_ends_the_reply() -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "maxLength": 20}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    async with api() as node:
        lines = await node.chat(format=schema, options={"num_predict": 60, "temperature": 0})
        assert list(json.loads(text_of(lines))) == ["colour"]
        assert lines[-1]["done_reason"] == "stop"
        (first, *_) = text_of(await node.chat(format="json", options=SHORT))
        assert first == "{"
        counting = {"model": MODEL, "prompt": "1, 2, 3,", "raw": True, "stream": False}
        _, reply = await node.post(
            "/api/generate", **counting, options={"stop": [" 6"], "temperature": 0, "num_predict": 40}
        )
        assert (reply["response"], reply["done_reason"]) == (" 4, 5,", "stop")
        assert "context" not in reply


async def test_log_probabilities_are_told_for_each_token_with_as_many_alternatives_as_asked() -> None:
    raw = {"model": MODEL, "prompt": "1, 2, 3,", "raw": True}
    options = {"num_predict": 4, "temperature": 0}
    async with api() as node:
        _, whole = await node.post("/api/generate", **raw, stream=False, logprobs=True, top_logprobs=3, options=options)
        told = whole["logprobs"]
        assert "".join(entry["token"] for entry in told) == whole["response"]
        for entry in told:
            assert bytes(entry["bytes"]).decode() == entry["token"]
            assert entry["top_logprobs"][0]["token"] == entry["token"]  # the likeliest, at temperature 0
            assert len(entry["top_logprobs"]) == 3
            assert entry["logprob"] == max(other["logprob"] for other in entry["top_logprobs"]) <= 0
        lines = await node.chat(logprobs=True, options=options)
        assert all("top_logprobs" not in entry for line in lines for entry in line.get("logprobs", ()))
        assert "".join(entry["token"] for line in lines for entry in line.get("logprobs", ())) == text_of(lines)
        lines = await node.chat(top_logprobs=3, options=options)  # as at Ollama, it counts with logprobs alone
        assert not any("logprobs" in line for line in lines)


async def test_generate_has_a_system_prompt_and_hands_back_its_context() -> None:
    async with api() as node:
        asking = {"model": MODEL, "system": "You are a pirate.", "stream": False, "options": SHORT}
        _, first = await node.post("/api/generate", **asking, prompt="Say hello.")
        assert first["done_reason"] == "length"
        _, second = await node.post("/api/generate", **asking, prompt="Again.", context=first["context"])
        assert second["prompt_eval_count"] > first["prompt_eval_count"] + 10
        assert len(second["context"]) > len(first["context"])


@pytest.mark.parametrize(
    "question", ["List three fruits, one per line.", "Write a Python function that adds two numbers."]
)
async def test_a_last_message_of_the_assistant_is_continued_to_the_letter(question: str) -> None:
    """Text is handed over, not tokens: blanks at the very end of it may become other tokens than they were.

    An empty line, for one, is two tokens before a word and one at the end. Without its blanks the text becomes what it
    was, and the model says them again.
    """
    async with api() as node:
        user = [{"role": "user", "content": question}]
        asked = {"temperature": 0, "seed": 7, "num_predict": 18}
        lines = await node.chat(user, options=asked)
        parts = [line["message"]["content"] for line in lines[:-1]]
        assert any(part != part.strip() for part in parts)
        for cut in range(len(parts)):
            begun = "".join(parts[:cut])
            if begun.endswith("\n\n"):
                begun = begun.rstrip()
                cut -= 2  # noqa: PLW2901 - two tokens less have been said
            rest = await node.chat(
                [*user, {"role": "assistant", "content": begun}], options={**asked, "num_predict": 18 - cut}
            )
            assert begun + text_of(rest) == text_of(lines), cut


async def test_the_prompt_is_told_instead_of_a_reply() -> None:
    async with api() as node:
        begun = [*USER, {"role": "assistant", "content": "Once upon"}]
        status, told = await node.post("/api/chat", model=MODEL, messages=begun, _debug_render_only=True)
        prompt = told["_debug_info"]["rendered_template"]
        assert (status, told["done"]) == (200, False)
        assert prompt.endswith("<|im_start|>assistant\nOnce upon")
        _, other = await node.post("/api/generate", model=MODEL, prompt="Hello", raw=True, _debug_render_only=True)
        assert (other["response"], other["_debug_info"]) == ("", {"rendered_template": "Hello"})


async def test_a_prompt_that_is_too_long_is_cut_unless_that_is_forbidden() -> None:
    async with api(context=256) as node:
        many = [{"role": "user", "content": "tell me a story about a dog and a cat " * 5}] * 12 + USER
        lines = await node.chat(many, options=SHORT)
        assert lines[-1]["prompt_eval_count"] <= 256
        lines = await node.chat([{"role": "user", "content": "hi"}] * 800 + USER, options=SHORT)
        assert lines[-1]["prompt_eval_count"] <= 256
        _, told = await node.post("/api/generate", model=MODEL, prompt="A" * 900_000, options=SHORT, stream=False)
        assert (told["done"], told["prompt_eval_count"] < 256, len(told["context"]) < 512) == (True, True, True)
        for path, asked in (
            ("chat", {"messages": [{"role": "user", "content": "A" * 900_000}]}),
            ("generate", {"prompt": "A" * 900_000}),
        ):
            assert (await node.post(f"/api/{path}", model=MODEL, truncate=False, **asked))[0] == 400
        one = [{"role": "user", "content": "word " * 400}]
        assert (await node.chat(one, options=SHORT))[-1]["prompt_eval_count"] < 256
        status, refused = await node.post("/api/chat", model=MODEL, messages=one, truncate=False)
        assert status == 400
        assert "exceeds the available context size (256 tokens)" in refused["error"]
        backend = OllamaBackend(node.node.url, num_ctx=256)
        try:
            with pytest.raises(ContextOverflow):
                async for _ in backend.stream(ChatRequest(model=MODEL, messages=(Message("user", "word " * 400),))):
                    pass
        finally:
            await backend.aclose()
        # A reply that fills the context goes on, the older half forgotten.
        lines = await node.chat(options={"num_predict": 300, "temperature": 1.0, "repeat_penalty": 1.3, "seed": 1})
        assert lines[-1]["eval_count"] <= 300


async def test_models_come_and_go_by_name_and_by_keep_alive() -> None:
    environ = {"OLLAMA_MAX_LOADED_MODELS": "2"}
    async with api(aliases=["writer", "critic"], keep_alive="10m", environ=environ) as node:
        status, loading = await node.post("/api/generate", model="writer")
        assert (status, loading["done_reason"]) == (200, "load")
        await node.post("/api/chat", model=MODEL, messages=[], keep_alive=-1)
        mine, other = await node.loaded()  # the one that stays longer first
        assert (mine["name"], other["name"]) == (MODEL, "writer:latest")
        assert mine["expires_at"] > "2200"
        assert len(engines(node.node)) == 2
        status, unloading = await node.post("/api/generate", model="writer", keep_alive=0)
        assert (status, unloading["done_reason"]) == (200, "unload")
        await node.until_loaded(MODEL)
        await node.post("/api/generate", model="critic")
        await node.chat(model="writer", options=SHORT, keep_alive=0)  # the third has to make room: the shorter session
        await node.until_loaded(MODEL)
        await node.chat(model="writer", options=SHORT, keep_alive="100ms")
        await node.until_loaded(MODEL)
        async with asyncio.timeout(WITHIN):
            while len(engines(node.node)) > 1:
                await asyncio.sleep(0.02)
        assert {line["status"] for line in await node.lines("/api/pull", model="writer")} >= {
            "pulling manifest",
            "pulling b179c9523d0e",
            "verifying sha256 digest",
            "success",
        }
        assert await pull_model(node.node.url, MODEL, lambda _: None) is None


async def first_of_two(node: Api) -> tuple[int, Any]:
    """Ask for nothing twice at once, and return what the first reply says; the other is given up."""
    calls = [asyncio.create_task(node.post("/api/chat", model=MODEL, messages=[])) for _ in range(2)]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return done.pop().result()


async def test_another_context_waits_for_the_calls_under_way_and_the_queue_is_bounded() -> None:
    async with api(max_queue=1) as node:
        async with node.talking():
            reload = asyncio.create_task(node.chat(options={**SHORT, "num_ctx": 1024}))
            async with asyncio.timeout(WITHIN):
                while (refused := await first_of_two(node))[0] == 200:
                    pass  # until the reload has its turn: then one of the two waits, as the one that may
            assert refused == (
                503,
                {"error": "server busy, please try again.  maximum pending requests exceeded"},
            )
            assert (await node.loaded())[0]["context_length"] == 4096
            assert not reload.done()
        assert (await reload)[-1]["load_duration"] > 0
        (model,) = await node.loaded()
        assert model["context_length"] == 1024
        await node.chat(options={**SHORT, "num_ctx": 100_000})
        assert (await node.loaded())[0]["context_length"] == 8192


async def test_calls_over_the_cap_wait_in_order_and_those_whose_client_leaves_do_not() -> None:
    async with api() as node:
        order: list[str] = []

        async def ask(name: str) -> None:
            await node.chat(options=SHORT)
            order.append(name)

        async with node.talking():
            tasks = {}
            for name in ("first", "left", "second", "third"):
                tasks[name] = asyncio.create_task(ask(name))
                await asyncio.sleep(0.2)  # so that they arrive one after the other
            tasks["left"].cancel()
            await asyncio.sleep(0.2)
            assert order == []  # one place, and it is taken
        async with asyncio.timeout(WITHIN):  # not 4000 tokens: the talk ended with its client
            await asyncio.gather(tasks["first"], tasks["second"], tasks["third"])
        assert order == ["first", "second", "third"]


async def test_texts_are_embedded() -> None:
    async with api(context=256) as node:
        status, both = await node.post("/api/embed", model=MODEL, input=["a dog barks", "a hound barks"])
        assert status == 200
        assert [len(vector) for vector in both["embeddings"]] == [576, 576]
        assert sum(value * value for value in both["embeddings"][0]) == pytest.approx(1.0, abs=1e-3)
        _, old = await node.post("/api/embeddings", model=MODEL, prompt="a dog barks")
        assert old["embedding"] == pytest.approx(both["embeddings"][0], abs=1e-2)
        _, empty = await node.post("/api/embed", model=MODEL)
        assert empty == {"model": MODEL, "embeddings": []}
        status, cut = await node.post("/api/embed", model=MODEL, input="word " * 400)
        assert (status, len(cut["embeddings"])) == (200, 1)
        _, long = await node.post("/api/embed", model=MODEL, input="word " * 200_000)
        assert long["embeddings"][0] == pytest.approx(cut["embeddings"][0], abs=1e-2)
        for path, field in (("/api/embed", "input"), ("/api/embeddings", "prompt")):
            refused = await node.post(path, model=MODEL, truncate=False, **{field: "word " * 200_000})
            assert refused == (400, {"error": "the input length exceeds the context length"})
        refused = await node.post("/api/embed", model=MODEL, input="word " * 400, truncate=False)
        assert refused == (400, {"error": "the input length exceeds the context length"})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_an_engine_that_dies_or_is_stopped_is_an_error_line_and_the_next_call_starts_another(
    number: signal.Signals,
) -> None:
    async with api() as node:
        async with node.talking() as reply:
            os.kill(engines(node.node)[0], number)
            lines = [json.loads(line) async for line in reply.content]
            assert lines[-1] == {"error": "an error was encountered while running the model: unexpected EOF"}
            assert not any(line.get("done") for line in lines)
        assert (await node.chat(options=SHORT))[-1]["done"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_and_cuts_what_is_under_way(number: signal.Signals) -> None:
    async with api() as node, node.talking() as reply:
        left = engines(node.node)
        node.node.send(number)
        with pytest.raises(aiohttp.ClientPayloadError):
            while await reply.content.readline():
                pass
        assert await node.node.gone() == 0
        await until_gone(left)


async def test_a_node_that_is_killed_takes_its_engine_along_and_comes_back_on_its_port() -> None:
    async with real_nodes(2) as nodes, aiohttp.ClientSession() as session:
        first, second = (Api(session, node) for node in nodes)
        url = nodes[0].url
        async with first.talking() as reply:
            left = engines(nodes[0])
            nodes[0].kill()
            with pytest.raises(aiohttp.ClientError):
                while await reply.content.readline():
                    pass
            assert await nodes[0].gone() == -signal.SIGKILL
            await until_gone(left)
        assert (await second.chat(options=SHORT))[-1]["done"] is True
        await nodes[0].restart()
        assert nodes[0].url == url
        assert (await first.chat(options=SHORT))[-1]["done"] is True
        nodes[0].stop()
        asking = asyncio.create_task(first.chat(options=SHORT))
        done, _ = await asyncio.wait([asking], timeout=0.5)
        assert not done
        nodes[0].cont()
        async with asyncio.timeout(WITHIN):
            assert (await asking)[-1]["done"] is True


def synaptic(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "synaptic", "serve", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=60, check=False
    )


def test_a_server_that_cannot_start_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = synaptic("--port", str(taken.getsockname()[1]))
    assert busy.returncode == 3
    assert "cannot listen at 127.0.0.1 port" in busy.stderr
    public = synaptic("--host", "0.0.0.0")
    assert public.returncode == 2
    assert "this machine only" in public.stderr
    wrong = synaptic("--port", "0", OLLAMA_MAX_QUEUE="many")
    assert wrong.returncode == 2
    assert "OLLAMA_MAX_QUEUE=many" in wrong.stderr
    helped = synaptic("--help")
    assert helped.returncode == 0
    assert "OLLAMA_NUM_PARALLEL" in helped.stdout
