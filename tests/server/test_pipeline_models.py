"""Pipelines as models, in every dialect: agents' work as thinking, the answer as text, usage added up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anthropic
import ollama
import openai
import pytest
from gateway_support import gateway

from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.server.ollama_api import ServeSettings

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
MODEL = "pipeline/two"
USER: Any = [{"role": "user", "content": "What is there?"}]


@asynccontextmanager
async def serving(tmp_path: Path, backend: ScriptedBackend, source: str = PIPELINE) -> AsyncIterator[str]:
    file = tmp_path / "two.yaml"
    file.write_text(source)
    settings = ServeSettings(pipelines={"research": "research", "two": file})
    async with gateway(backend=backend, serve=settings) as url:
        yield url


async def test_ollamas_client_lists_shows_and_asks_a_pipeline(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedBackend(SCRIPT)) as url, ollama.AsyncClient(url) as client:
        names = [model.model for model in (await client.list()).models]
        assert names == ["scripted:latest", "pipeline/research:latest", "pipeline/two:latest"]
        assert (await client.show(MODEL)).capabilities == ["completion", "thinking"]
        whole = await client.chat(MODEL, USER)
        assert whole.message.content == "It is gold."
        assert whole.message.thinking is not None
        assert "dig (digger) begins" in whole.message.thinking
        assert "dig: gold found" in whole.message.thinking
        parts = [part async for part in await client.chat(f"{MODEL}:latest", USER, stream=True)]
        assert "".join(part.message.content or "" for part in parts) == "It is gold."
        assert len([part for part in parts if part.message.content]) == 3  # as it is written
        assert (await client.generate(MODEL, "What?")).response == "It is gold."
        with pytest.raises(ollama.ResponseError, match="not found") as missing:
            await client.chat("pipeline/tow", USER)
        assert missing.value.status_code == 404


async def test_openais_client_asks_one_and_a_conversation_carries_over(tmp_path: Path) -> None:
    backend = ScriptedBackend(SCRIPT)
    async with serving(tmp_path, backend) as url:
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        assert MODEL in [model.id async for model in client.models.list()]
        turns: Any = [{"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": "Hello."}, *USER]
        whole = await client.chat.completions.create(model=MODEL, messages=turns)
        message: Any = whole.choices[0].message
        assert (message.content, whole.choices[0].finish_reason) == ("It is gold.", "stop")
        assert "dig: gold found" in message.reasoning_content
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 5
        said = sum(len(each.content.split()) for request in backend.requests for each in request.messages)
        assert whole.usage.prompt_tokens == said
        assert any("I am Ada." in each.content for each in backend.requests[0].messages)
        for fields in ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"stop": ["x"]}):
            with pytest.raises(openai.BadRequestError, match="a pipeline cannot do"):
                await client.chat.completions.create(**{"model": MODEL, "messages": USER, **fields})
        with pytest.raises(openai.BadRequestError, match="shape of its own result"):
            await client.chat.completions.create(model=MODEL, messages=USER, response_format={"type": "json_object"})
        with pytest.raises(openai.BadRequestError, match="no embeddings"):
            await client.embeddings.create(model=MODEL, input="x")
        await client.close()


async def test_anthropics_client_gets_thinking_before_the_text(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedBackend(SCRIPT)) as url:
        client = anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0)
        async with client.messages.stream(model=MODEL, max_tokens=100, messages=USER) as stream:
            final: Any = await stream.get_final_message()
        assert [block.type for block in final.content] == ["thinking", "text"]
        assert (final.content[1].text, final.stop_reason) == ("It is gold.", "end_turn")
        assert final.usage.output_tokens == 5
        await client.close()


async def test_a_run_that_fails_is_an_error_and_not_an_answer(tmp_path: Path) -> None:
    backend = ScriptedBackend({"dig": Failure("rejected")})
    async with serving(tmp_path, backend) as url, ollama.AsyncClient(url) as client:
        with pytest.raises(ollama.ResponseError, match="rejected"):
            await client.chat(MODEL, USER)
        with pytest.raises(ollama.ResponseError, match="rejected"):
            [part async for part in await client.chat(MODEL, USER, stream=True)]
    source = PIPELINE.replace("agents:\n", "  place: {type: string, required: true}\nagents:\n")
    async with serving(tmp_path, ScriptedBackend(), source) as url, ollama.AsyncClient(url) as client:
        with pytest.raises(ollama.ResponseError) as wrong:
            await client.chat(MODEL, USER)
        assert wrong.value.status_code == 400


async def test_a_mapping_is_answered_as_json(tmp_path: Path) -> None:
    source = PIPELINE.replace('result: "{{ steps.write }}"', 'result: {found: "{{ steps.dig }}"}')
    async with serving(tmp_path, ScriptedBackend(SCRIPT), source) as url, ollama.AsyncClient(url) as client:
        assert (await client.chat(MODEL, USER)).message.content == '{"found": "gold found"}'


async def test_a_client_that_goes_away_cancels_the_run(tmp_path: Path) -> None:
    backend = ScriptedBackend({"dig": Reply(text="a b c", token_delay=600.0)})
    async with serving(tmp_path, backend) as url, ollama.AsyncClient(url) as client:
        stream = await client.chat(MODEL, USER, stream=True)
        await anext(stream)
        async with asyncio.timeout(30):
            while not backend.active:
                await asyncio.sleep(0.01)
            await stream.aclose()
            while backend.active:
                await asyncio.sleep(0.01)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("kind", ["file", "files"])
async def test_what_a_client_writes_names_no_file_of_this_machine(tmp_path: Path, kind: str) -> None:
    (secret := tmp_path / "secret.txt").write_text("the treasure is in the garden")
    backend = ScriptedBackend(lambda _: "read")
    source = PIPELINE.replace("type: string", f"type: {kind}")
    async with (
        serving(tmp_path, backend, source) as url,
        ollama.AsyncClient(url) as client,
        aiohttp.ClientSession() as page,
    ):
        for path in (secret, tmp_path / "no such file"):
            asked: Any = [{"role": "user", "content": str(path)}]
            assert (await client.chat(MODEL, asked)).message.content == "read"
            async with page.post(f"{url}/ui/ask", json={"pipeline": "two", "query": str(path)}) as begun:
                assert begun.status == 202
        async with asyncio.timeout(30):
            while len(backend.requests) < 8:
                await asyncio.sleep(0.01)
    prompts = [message.content for request in backend.requests for message in request.messages]
    assert sum(str(secret) in prompt for prompt in prompts) == 2  # as the text that it is
    assert not any("garden" in prompt for prompt in prompts)
