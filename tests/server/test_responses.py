"""OpenAI's stateful responses, spoken by OpenAI's own client, over a node, the pool, and the embedded engine."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import pytest
from gateway_support import embedded_application, gateway
from pydantic import BaseModel
from tool_node import MODEL, ToolNode, tool_node

from synaptic import paths
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import JournalError, RequestRejected
from synaptic.messages import ToolCall
from synaptic.models import ModelStore
from synaptic.runtime import KeptResponse, KeptResponses
from synaptic.runtime.journal import kept_responses
from synaptic.server.gateway import KeyFile
from synaptic.server.limits import ServerLimits, listening
from synaptic.server.ollama_api import ServeSettings
from synaptic.settings.load import Settings
from synaptic.settings.model import NodeSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
EMBEDDED = "smollm2:135m"


def client_of(url: str, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.fixture(params=["one node", "the pool"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ToolNode, openai.AsyncOpenAI]]:
    async with tool_node() as one:
        settings = Settings(nodes=[NodeSettings(url=one.url)], task_distribution_enabled=request.param == "the pool")
        async with gateway(settings) as url, client_of(url) as client:
            yield one, client


@asynccontextmanager
async def scripted(replies: Any = None, **settings: Any) -> AsyncIterator[tuple[ScriptedBackend, openai.AsyncOpenAI]]:
    backend = ScriptedBackend(replies)
    async with gateway(Settings(**settings), backend=backend) as url, client_of(url) as client:
        yield backend, client


async def test_a_conversation_goes_on_from_a_response_that_is_kept(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    first = await client.responses.create(
        model=MODEL, input="Paris in spring", instructions="be short", metadata={"a": "b"}
    )
    assert (first.object, first.status, first.model) == ("response", "completed", MODEL)
    assert first.output_text == "Paris in spring"
    assert first.usage is not None
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.total_tokens) == (5, 3, 8)
    second = await client.responses.create(model=MODEL, input="and Rome", previous_response_id=first.id)
    third = await client.responses.create(
        model=MODEL, input=[{"role": "user", "content": "and Oslo"}], previous_response_id=second.id
    )
    said = [(message["role"], message["content"]) for message in one.bodies[-1]["messages"]]
    assert said == [
        ("user", "Paris in spring"),
        ("assistant", "Paris in spring"),
        ("user", "and Rome"),
        ("assistant", "and Rome"),
        ("user", "and Oslo"),
    ]  # instructions are not carried over
    assert one.bodies[0]["messages"][0] == {"role": "system", "content": "be short"}
    assert await client.responses.retrieve(first.id) == first
    items = await client.responses.input_items.list(third.id)
    assert [(item.type, item.content[0].text) for item in items.data] == [("message", "and Oslo")]  # type: ignore[union-attr]
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="not found") as refused:
        await client.responses.create(model=MODEL, input="x", previous_response_id=second.id)
    assert refused.value.param == "previous_response_id"


async def test_the_events_of_a_stream_come_in_the_official_order(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    _, client = node
    stream = await client.responses.create(model=MODEL, input="a b", reasoning={"effort": "high"}, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    last: Any = events[-1]
    assert [item.type for item in last.response.output] == ["reasoning", "message"]
    assert last.response.output_text == "a b"
    assert await client.responses.retrieve(last.response.id) == last.response
    async with client.responses.stream(model=MODEL, input="c d") as helper:
        deltas = [event.delta async for event in helper if event.type == "response.output_text.delta"]
        final = await helper.get_final_response()
    assert ("".join(deltas), final.output_text) == ("c d", "c d")


async def test_a_function_is_called_and_its_output_comes_back(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    asked = await client.responses.create(model=MODEL, input="Oslo", tools=[TOOL])
    call: Any = asked.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Oslo"})
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    told = await client.responses.create(model=MODEL, input=[output], tools=[TOOL], previous_response_id=asked.id)
    assert told.output_text == "rain"
    again = await client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": "Oslo"}, call.model_dump(exclude_none=True), output],
        tools=[TOOL],
        store=False,
    )
    assert again.output_text == "rain"
    assert one.bodies[-1]["messages"] == one.bodies[-2]["messages"]
    async with client.responses.stream(model=MODEL, input="Rome", tools=[TOOL]) as stream:
        kinds = [event.type.removeprefix("response.") async for event in stream]
        final = await stream.get_final_response()
    assert kinds[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    streamed: Any = final.output[0]
    assert json.loads(streamed.arguments) == {"city": "Rome"}
    wrong: Any = {"type": "function_call_output", "call_id": "nothing", "output": "rain"}
    with pytest.raises(openai.BadRequestError, match="no function was called with that id"):
        await client.responses.create(model=MODEL, input=[wrong])


class Town(BaseModel):
    city: str


async def test_shapes_pictures_and_probabilities_arrive(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    parsed = await client.responses.parse(model=MODEL, input="Oslo", text_format=Town)
    assert parsed.output_parsed == Town(city="Oslo")
    assert one.bodies[-1]["format"]["properties"]["city"]["type"] == "string"
    picture: Any = [
        {"type": "input_text", "text": "?"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8=", "detail": "auto"},
    ]
    seen = await client.responses.create(
        model=MODEL,
        input=[{"role": "developer", "content": "short"}, {"role": "user", "content": picture}],
        include=["message.output_text.logprobs"],
        top_logprobs=1,
        temperature=0.5,
        max_output_tokens=9,
    )
    assert seen.output_text == "5 bytes"
    message: Any = seen.output[0]
    assert [entry.token for entry in message.content[0].logprobs] == ["5", " bytes"]
    assert one.bodies[-1]["options"]["num_predict"] == 9
    free = await client.responses.create(model=MODEL, input="x", text={"format": {"type": "json_object"}})
    assert free.text is not None
    assert one.bodies[-1]["format"] == {"type": "object"}
    counted = await client.responses.input_tokens.count(model=MODEL, input="some words here")
    assert counted.input_tokens >= 1


async def test_what_cannot_be_done_is_refused_by_name(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    elsewhere = {"type": "input_image", "image_url": "http://127.0.0.1/a.png"}
    assistant = {"role": "assistant", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]}
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [elsewhere]}]}, "input[0].content[0].image_url"),
        ({"input": [assistant]}, "input[0]"),
        ({"input": []}, "input"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    )
    for fields, param in wrong:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.responses.create(**{"model": MODEL, "input": "x", **fields})
        assert refused.value.param == param, fields
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(model="nothing:1b", input="x")
    assert missing.value.code == "model_not_found"
    assert not [body for body in one.bodies if body["model"] == MODEL]
    kept = await client.responses.create(model=MODEL, input="x")
    for ask in (client.responses.cancel(kept.id), client.responses.retrieve(kept.id, stream=True)):
        with pytest.raises(openai.BadRequestError):
            await ask
    for query in ({"limit": 0}, {"limit": "0050" + "9" * 5000}, {"limit": "00101"}, {"after": "nothing"}):
        with pytest.raises(openai.BadRequestError):
            await client.responses.input_items.list(kept.id, **query)  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError):
        await client.responses.delete("resp_none")


async def test_input_items_come_in_pages(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    _, client = node
    turns: Any = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    kept = await client.responses.create(model=MODEL, input=turns)
    listed = [item async for item in client.responses.input_items.list(kept.id, limit=1, order="asc")]
    assert [item.content[0].text for item in listed] == ["a", "b", "c"]  # type: ignore[union-attr]
    latest = await client.responses.input_items.list(kept.id, limit=2)
    assert [item.content[0].text for item in latest.data] == ["c", "b"]  # type: ignore[union-attr]
    assert latest.has_more


async def test_a_reply_that_is_cut_is_incomplete_and_one_that_breaks_off_has_failed() -> None:
    replies = [
        Reply(text="one two", finish_reason="length"),
        Reply(text="three", finish_reason="length"),
        Failure("truncated", after_tokens=1),
        Failure("busy"),
    ]
    async with scripted(replies) as (_, client):
        cut = await client.responses.create(model="scripted", input="x")
        assert cut.status == "incomplete"
        assert cut.incomplete_details is not None
        assert cut.incomplete_details.reason == "max_output_tokens"
        events: list[Any] = [e async for e in await client.responses.create(model="scripted", input="x", stream=True)]
        assert (events[-1].type, events[-1].response.output[0].status) == ("response.incomplete", "incomplete")
        events = [e async for e in await client.responses.create(model="scripted", input="x", stream=True)]
        assert events[-1].type == "response.failed"
        assert events[-1].response.error.code == "server_error"
        assert events[-1].sequence_number == len(events) - 1
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(events[-1].response.id)
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model="scripted", input="x", stream=True)


async def test_several_calls_and_a_text_before_them() -> None:
    calls = tuple(ToolCall(f"c{index}", "weather", json.dumps({"city": city})) for index, city in enumerate("AB"))
    async with scripted([Reply(text="so", tool_calls=calls), "fine"]) as (backend, client):
        async with client.responses.stream(model="scripted", input="x", tools=[TOOL], parallel_tool_calls=True) as told:
            final = await told.get_final_response()
        assert [item.type for item in final.output] == ["message", "function_call", "function_call"]
        outputs: Any = [
            {"type": "function_call_output", "call_id": f"c{index}", "output": [{"type": "input_text", "text": "dry"}]}
            for index in range(2)
        ]
        await client.responses.create(model="scripted", input=outputs, tools=[TOOL], previous_response_id=final.id)
    sent = backend.requests[-1].messages
    assert [(message.role, message.content, len(message.tool_calls)) for message in sent] == [
        ("user", "x", 0),
        ("assistant", "so", 2),
        ("tool", "dry", 0),
        ("tool", "dry", 0),
    ]


async def test_a_client_that_goes_away_ends_the_call(node: tuple[ToolNode, openai.AsyncOpenAI]) -> None:
    one, client = node
    one.pace = 60.0
    stream = await client.responses.create(model=MODEL, input="a b", stream=True)
    await anext(stream)
    assert one.active == 1
    await stream.close()
    await asyncio.wait_for(one.idle.wait(), 30)


async def test_a_pipeline_is_asked_and_asked_again() -> None:
    serve = ServeSettings(pipelines={"answer": "answer"})
    backend = ScriptedBackend(["It is blue.", "Since it scatters."])
    async with gateway(backend=backend, serve=serve) as url, client_of(url) as client:
        first = await client.responses.create(model="pipeline/answer", input="What colour is the sky?")
        assert first.output_text == "It is blue."
        second = await client.responses.create(model="pipeline/answer", input="Why?", previous_response_id=first.id)
        assert second.output_text == "Since it scatters."
        assert second.output[0].type == "reasoning"
        with pytest.raises(openai.BadRequestError, match="cannot do tools"):
            await client.responses.create(model="pipeline/answer", input="x", tools=[TOOL])
    assert "It is blue." in str(backend.requests[-1].messages)


async def test_where_nothing_is_recorded_nothing_is_kept() -> None:
    async with scripted(journal="off") as (_, client):
        told = await client.responses.create(model="scripted", input="x")
        assert told.store is False  # type: ignore[attr-defined]
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(told.id)
        with pytest.raises(openai.BadRequestError, match="journal is off"):
            await client.responses.create(model="scripted", input="x", store=True)
        with pytest.raises(openai.BadRequestError):
            await client.responses.create(model="scripted", input="x", previous_response_id=told.id)


async def test_of_several_that_remove_a_response_one_does() -> None:
    async with scripted() as (_, client):
        kept = await client.responses.create(model="scripted", input="x")
        ends = await asyncio.gather(*(client.responses.delete(kept.id) for _ in range(8)), return_exceptions=True)
    gone = [end for end in ends if isinstance(end, openai.NotFoundError)]
    assert (len(gone), len(ends)) == (7, 8)


async def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as (_, client):
        paths.journal_file().parent.mkdir(parents=True, exist_ok=True)
        paths.journal_file().mkdir()
        with pytest.raises(openai.InternalServerError, match="send store: false") as failed:
            await client.responses.create(model="scripted", input="x")
        assert failed.value.status_code == 503
        assert str(paths.journal_file()) not in str(failed.value)
        for _ in range(20):
            with pytest.raises(openai.InternalServerError):
                await client.responses.retrieve("resp_x")
        assert 0 < len([line for line in caplog.messages if str(paths.journal_file()) in line]) <= 10
        assert (await client.responses.create(model="scripted", input="x", store=False)).output_text == "x"
    with pytest.raises(JournalError):
        KeptResponses(tmp_path).find("x", "")


async def test_each_client_sees_its_own(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    one, other = keys.add("one"), keys.add("other")
    serve = ServeSettings(keys=keys)
    async with (
        gateway(backend=ScriptedBackend(), serve=serve) as url,
        client_of(url, one) as mine,
        client_of(url, other) as theirs,
    ):
        kept = await mine.responses.create(model="scripted", input="x")
        assert (await mine.responses.retrieve(kept.id)).id == kept.id
        with pytest.raises(openai.NotFoundError):
            await theirs.responses.retrieve(kept.id)
        with pytest.raises(openai.BadRequestError):
            await theirs.responses.create(model="scripted", input="y", previous_response_id=kept.id)
        keys.revoke("one")
        async with client_of(url, keys.add("one")) as later:  # somebody else, maybe, with the same name
            with pytest.raises(openai.NotFoundError):
                await later.responses.retrieve(kept.id)
            with pytest.raises(openai.NotFoundError):
                await later.responses.delete(kept.id)


def test_what_is_kept_is_bounded_and_damage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptResponses(tmp_path / "journal.sqlite3")

    def keep(name: str, previous: str | None = None) -> None:
        kept.keep(KeptResponse(id=name, previous=previous, given=[], told={"output": []}), "")

    monkeypatch.setattr(kept_responses, "MOST_KEPT", 2)
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        keep(name, previous)
    assert kept.find("a", "") is None
    assert kept.chain("c", "") is None  # its beginning is gone
    keep("d", "d")
    with pytest.raises(RequestRejected):
        kept.chain("d", "")  # it has no beginning
    with sqlite3.connect(tmp_path / "journal.sqlite3") as file:
        file.execute("UPDATE responses SET body = substr(body, 1, 10) WHERE id = 'c'")
        file.execute("UPDATE responses SET at = 0 WHERE id = 'd'")
    assert kept.find("c", "") is None
    keep("e")
    assert kept.find("d", "") is None
    heavy = KeptResponses(tmp_path / "journal.sqlite3", most_bytes=100)
    monkeypatch.setattr(kept_responses, "WEIGHED_EACH", 1)
    heavy.keep(KeptResponse(id="f", previous=None, given=[], told={"text": list(range(500))}), "")
    assert (kept.find("e", ""), kept.find("f", "")) == (None, None)
    keep("e")
    assert kept.forget("e", "")
    assert not kept.forget("e", "")


def test_a_conversation_is_read_up_to_a_size_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptResponses(tmp_path / "journal.sqlite3")
    given = [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "z" * 100_000}]}]
    for index in range(5):
        previous = str(index - 1) if index else None
        kept.keep(KeptResponse(id=str(index), previous=previous, given=given, told={"output": []}), "")
    assert (tmp_path / "journal.sqlite3").stat().st_size < 200_000  # they are packed to next to nothing
    monkeypatch.setattr(kept_responses, "MOST_BYTES", 450_000)
    assert len(kept.chain("3", "") or ()) == 4
    with pytest.raises(RequestRejected, match="begin a new one"):
        kept.chain("4", "")
    monkeypatch.setattr(kept_responses, "LONGEST_CHAIN", 2)
    with pytest.raises(RequestRejected, match="2 responses"):
        kept.chain("3", "")
    monkeypatch.setattr(kept_responses, "LONGEST", 1000)
    assert kept.find("0", "") is None


async def test_what_is_read_for_a_request_counts_as_its_memory() -> None:
    long = "z" * 3_000_000
    limits = ServerLimits(bodies_size=2_500_000)
    async with gateway(backend=ScriptedBackend(["a", "b"])) as url, client_of(url) as client:
        kept = await client.responses.create(model="scripted", input=long)
    async with gateway(backend=ScriptedBackend(), limits=limits) as url, client_of(url) as client:
        for ask in (
            client.responses.create(model="scripted", input="x", previous_response_id=kept.id),
            client.responses.input_items.list(kept.id),
            client.responses.retrieve(kept.id),
        ):
            with pytest.raises(openai.InternalServerError, match="as much of other requests as it may"):
                await ask


async def test_secrets_of_the_settings_are_in_no_response_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_TOKEN", "tok-secret-7731")
    nodes = [NodeSettings(url="http://127.0.0.1:9", token_env="NODE_TOKEN")]
    backend = ScriptedBackend(["it is tok-secret-7731, I hear"])
    async with gateway(Settings(nodes=nodes), backend=backend) as url, client_of(url) as client:
        told = await client.responses.create(
            model="scripted", input="is it tok-secret-7731?", metadata={"tok-secret-7731": "x"}
        )
        assert "tok-secret-7731" in told.output_text
        kept = await client.responses.retrieve(told.id)
        items = await client.responses.input_items.list(told.id)
    assert kept.output_text.startswith("it is ")
    assert "tok-secret-7731" not in kept.to_json() + items.to_json()


@pytest.mark.real_model
async def test_the_embedded_model_answers() -> None:
    app = embedded_application(ServeSettings(threads=2), ModelStore())
    async with listening(app, "127.0.0.1", 0, drain=0.1) as addresses, client_of(addresses[0]) as client:
        asked: dict[str, Any] = {"model": EMBEDDED, "input": "The capital of France is", "temperature": 0}
        whole = await client.responses.create(**asked, max_output_tokens=4)
        assert (whole.status, bool(whole.output_text)) == ("incomplete", True)
        stream = await client.responses.create(**asked, max_output_tokens=4, stream=True)
        events: list[Any] = [event async for event in stream]
        assert events[-1].response.output_text == whole.output_text
        follow: dict[str, Any] = {**asked, "input": "And of Italy?", "previous_response_id": whole.id}
        assert (await client.responses.create(**follow, max_output_tokens=4)).output_text
        parsed = await client.responses.parse(**asked, text_format=Town, max_output_tokens=60)
        assert isinstance(parsed.output_parsed, Town)
        counted = await client.responses.input_tokens.count(model=EMBEDDED, input="a b c")
        again = await client.responses.create(model=EMBEDDED, input="a b c", max_output_tokens=1)
        assert counted.input_tokens == again.usage.input_tokens
        async with aiohttp.ClientSession(addresses[0]) as session, session.post("/v1/responses", data=b"[") as reply:
            assert reply.status == 400


async def test_while_another_program_locks_the_record_all_who_wait_hear_it_together() -> None:
    async with scripted(lambda _: "ok") as (_, client):
        kept = await client.responses.create(model="m", input="before")
        with sqlite3.connect(paths.journal_file(), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(30):  # one after the other, they would wait for a minute
                asked = (client.responses.create(model="m", input=str(number)) for number in range(60))
                replies = await asyncio.gather(*asked, return_exceptions=True)
                found = await client.responses.retrieve(kept.id)  # it can be read meanwhile
            other.execute("ROLLBACK")
        other.close()
        assert [getattr(reply, "status_code", 200) for reply in replies] == [503] * 60
        assert found == kept
        assert (await client.responses.create(model="m", input="after")).output_text == "ok"
