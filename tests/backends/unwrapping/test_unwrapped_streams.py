"""Replies of real sockets without what templates put around them: Ollama's and llama-server's, streamed and whole."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from chunk_support import collected, finished
from fault_server import FaultServer, cut, hang, json_reply, ollama_lines, ollama_reply, sse_reply, stream

from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.unwrapping.habits import MOST_SURPLUS, goes_beyond
from synaptic.errors import ContextOverflow, StreamTruncated
from synaptic.messages import ChatRequest, Delta, Message, ThoughtSoFar, Usage

if TYPE_CHECKING:
    from fault_server import Behaviour

    from synaptic.messages import Chunk

ASK = ChatRequest(messages=(Message("user", "Where?"),), model="tiny")
LEAKED = ["Par", "is.", "<|im", "_end|>", "\n<|im_start|>", "user\n", "And Rome?"]
Backend = OllamaBackend | LlamaServerBackend


def openai_reply(tokens: list[str], **end: Any) -> Behaviour:
    events = [{"model": "tiny", "choices": [{"delta": {"content": token}, "finish_reason": None}]} for token in tokens]
    if end.get("done", True):
        events.append({"model": "tiny", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    return sse_reply(events, **end)


SERVERS: dict[str, tuple[type[Backend], Any]] = {
    "ollama": (OllamaBackend, ollama_reply),
    "llama-server": (LlamaServerBackend, openai_reply),
}


@pytest.fixture(params=SERVERS)
def server_kind(request) -> tuple[type[Backend], Any]:
    return SERVERS[request.param]


async def replies(backend: Backend, *requests: ChatRequest) -> list[list[Chunk]]:
    try:
        return [[chunk async for chunk in backend.stream(request)] for request in requests]
    finally:
        await backend.aclose()


async def test_a_leaked_end_of_turn_ends_the_reply_and_the_servers_counts_are_kept(server_kind):
    kind, reply = server_kind
    async with FaultServer(reply(LEAKED)) as server:
        for chunks in await replies(kind(server.url), ASK):
            assert collected(chunks) == "Paris."
            assert finished(chunks).finish_reason == "stop"
            if kind is OllamaBackend:
                assert finished(chunks).usage == Usage(11, 7)


async def test_a_server_that_writes_the_next_turns_is_left(server_kind):
    kind, reply = server_kind
    async with FaultServer(reply([*LEAKED, *["on "] * 500], done=False, then=hang)) as server:
        for chunks in await replies(kind(server.url), ASK):
            assert collected(chunks) == "Paris."
            last = finished(chunks)
            assert last.finish_reason == "stop"
            assert 0 < last.usage.completion_tokens <= len(LEAKED) + MOST_SURPLUS
        await server.wait_until_idle()


@pytest.mark.parametrize(
    ("piece", "most"),
    [
        pytest.param("word ", 60, id="a piece is a token"),
        pytest.param("twenty words at once " * 20, 8, id="a piece is many tokens"),
        pytest.param("x", 250, id="a piece is a character"),
    ],
)
async def test_a_server_that_does_not_end_at_the_limit_is_left_there(server_kind, piece, most):
    kind, reply = server_kind
    asked = ChatRequest(messages=ASK.messages, model="tiny", max_tokens=30)
    async with FaultServer(reply([piece] * 2000, done=False, then=hang)) as server:
        for chunks in await replies(kind(server.url), asked):
            assert finished(chunks).finish_reason == "length"
            assert 1 <= collected(chunks).count(piece) <= most
        await server.wait_until_idle()


async def test_a_server_that_does_not_end_its_thinking_is_left_too():
    lines = [json.dumps({"message": {"thinking": "hm hm "}}).encode() + b"\n"] * 500
    asked = ChatRequest(messages=ASK.messages, model="tiny", max_tokens=30)
    async with FaultServer(stream(lines, then=hang)) as server:
        for chunks in await replies(OllamaBackend(server.url), asked):
            assert finished(chunks).finish_reason == "length"
            assert collected(chunks) == ""
        await server.wait_until_idle()


@pytest.mark.parametrize(
    ("limit", "pieces", "size", "beyond"),
    [
        (1024, 1024, 5000, False),
        (1024, 1041, 5000, True),
        (1024, 4000, 4000, False),  # characters
        (1024, 9000, 9000, True),
        (1024, 1, 60_000, False),  # a reply that is not streamed
        (1024, 1, 70_000, True),
        (1, 1, 300, False),
        (1, 300, 300, True),
    ],
)
def test_how_many_tokens_came_is_judged_by_pieces_and_length(limit, pieces, size, beyond):
    assert goes_beyond(limit, pieces, size) is beyond


async def test_thinking_in_the_text_is_thinking(server_kind):
    kind, reply = server_kind
    async with FaultServer(reply(["<thi", "nk>", "Okay.", "</think>", "\n\n", "Paris", "."])) as server:
        for chunks in await replies(kind(server.url), ASK):
            assert collected(chunks) == "Paris."
            assert "".join(chunk.thinking for chunk in chunks if isinstance(chunk, Delta)) == "Okay."


async def test_thinking_that_the_prompt_opens_is_taken_back_once_and_known_from_then_on(server_kind):
    kind, reply = server_kind
    async with FaultServer(reply(["Okay", " so", ".\n", "</think>", "\n\n", "Paris", ".", " It is."])) as server:
        seen = await replies(kind(server.url), ASK, ASK)
    first, second = seen
    voided = first.index(ThoughtSoFar())
    assert collected(first[voided + 1 :]) == collected(second) == "Paris. It is."
    assert collected(first[:voided]) == "Okay so.\n"
    assert "".join(chunk.thinking for chunk in second if isinstance(chunk, Delta)) == "Okay so.\n"
    assert ThoughtSoFar() not in second


async def test_a_model_that_was_seen_thinking_gets_room_for_it_and_its_answer_keeps_the_limit(server_kind):
    """Servers count thinking against the limit; a step means its answer."""
    kind, reply = server_kind
    asked = ChatRequest(messages=ASK.messages, model="tiny", max_tokens=3)
    thoughts = ["<think>", *["hm "] * 9, "</think>"]
    async with FaultServer([reply([*thoughts, "one "]), reply([*thoughts, *["word "] * 9], then=cut)]) as server:
        first, second = await replies(kind(server.url), asked, asked)
        bodies = [request.json for request in server.requests if request.path.endswith(("/chat", "/completions"))]
    limits = [body.get("max_tokens") or body["options"]["num_predict"] for body in bodies]
    assert limits[0] == 3
    assert limits[1] > 1000
    assert collected(first).strip() == "one"
    assert collected(second) == "word word word "
    assert finished(second).finish_reason == "length"


async def test_a_model_of_which_ollama_says_that_it_thinks_gets_that_room_at_once():
    shown = json_reply({"capabilities": ["completion", "thinking"], "model_info": {}})
    async with (
        FaultServer({"/api/show": shown, "/api/chat": ollama_reply(["x"])}) as server,
        OllamaBackend(server.url, num_ctx=8192) as backend,
    ):
        await backend.show("tiny")
        for think in (None, True, False):
            asked = ChatRequest(messages=ASK.messages, model="tiny", max_tokens=100, think=think)
            assert collected([chunk async for chunk in backend.stream(asked)]) == "x"
        sent = [request.json["options"]["num_predict"] for request in server.requests[1:]]
    assert sent == [100 + 2048, 100 + 2048, 100]


async def test_what_is_held_back_shows_that_the_server_goes_on(server_kind):
    """A bound on silence counts from chunk to chunk."""
    kind, reply = server_kind
    async with FaultServer(reply(["Here", " is", " my", " thought"])) as server:
        for chunks in await replies(kind(server.url), ASK):
            assert chunks[:3] == [Delta(), Delta(), Delta()]
            assert collected(chunks) == "Here is my thought"


async def test_json_under_a_schema_comes_without_its_fence(server_kind):
    kind, reply = server_kind
    asked = ChatRequest(messages=ASK.messages, model="tiny", schema={"type": "object"})
    async with FaultServer(reply(["```", "json\n", '{"a":', ' "<|im_end|>"}', "\n```"])) as server:
        for chunks in await replies(kind(server.url), asked):
            assert collected(chunks) == '{"a": "<|im_end|>"}'


async def test_a_cut_stream_stays_an_error(server_kind):
    kind, reply = server_kind
    async with FaultServer(reply(["<think>Okay</think>Par"], done=False, then=cut)) as server:
        with pytest.raises(StreamTruncated):
            await replies(kind(server.url), ASK)


def chunk(text: str = "", reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "choices": [{"delta": {"content": text}, "finish_reason": reason}], **more}


WHOLE = {"model": "tiny", "choices": [{"message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}]}
COUNTS = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
ENDINGS: dict[str, tuple[Behaviour, str]] = {
    "[DONE]": (sse_reply([chunk("Paris."), chunk("", "stop")]), "stop"),
    "the reason alone": (sse_reply([chunk("Paris."), chunk("", "stop")], done=False), "stop"),
    "the reason with the last text": (sse_reply([chunk("Paris.", "length")], done=False), "length"),
    "the reason, then the counts": (sse_reply([chunk("Paris."), chunk("", "stop"), COUNTS], done=False), "stop"),
    "the reason, then a reset": (sse_reply([chunk("Paris."), chunk("", "stop")], done=False, then=cut), "stop"),
    "the reason, and the connection stays": (sse_reply([chunk("Paris.", "stop")], done=False, then=hang), "stop"),
    "the counts and [DONE]": (sse_reply([chunk("Paris."), COUNTS]), "stop"),
    "the limit's counts and [DONE]": (
        sse_reply([chunk("Paris."), {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 9}}]),
        "length",
    ),
    "an empty reason in every event": (sse_reply([chunk("Paris.", ""), chunk("", "eos")]), "stop"),
    "a reason of another name": (sse_reply([chunk("Paris."), chunk("", "max_tokens")]), "length"),
    "no line end": (
        stream([b'data: {"choices":[{"delta":{"content":"Paris."}}]}\n\ndata: {"choices":[{"finish_reason":"stop"}]}'],
               content_type="text/event-stream"),
        "stop",
    ),
    "[DONE] without a line end": (
        stream([b'data: {"choices":[{"delta":{"content":"Paris."},"finish_reason":"stop"}]}\n\ndata: [DONE]'],
               content_type="text/event-stream"),
        "stop",
    ),
    "not streamed": (json_reply(WHOLE), "stop"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
async def test_servers_end_a_complete_reply_in_several_ways(name: str) -> None:
    behaviour, reason = ENDINGS[name]
    asked = ChatRequest(messages=ASK.messages, max_tokens=9)
    async with asyncio.timeout(60), FaultServer(behaviour) as server:
        for chunks in await replies(LlamaServerBackend(server.url), asked):
            assert collected(chunks) == "Paris."
            assert finished(chunks).finish_reason == reason


CUT: dict[str, Behaviour] = {
    "nothing": sse_reply([], done=False),
    "text alone": sse_reply([chunk("Par")], done=False),
    "text alone, reset": sse_reply([chunk("Par")], done=False, then=cut),
    "an empty reason": sse_reply([chunk("Par", "")], done=False),
    "[DONE] of a proxy": sse_reply([chunk("Par")]),
    "half an event": stream([b'data: {"choices":[{"delta":{"content":"Par'], content_type="text/event-stream"),
    "half a reply that was not streamed": stream([b'{"choices": [{"message"'], content_type="application/json"),
    "an error for a reason": sse_reply([chunk("Par"), chunk("", "error")]),
}


@pytest.mark.parametrize("name", CUT)
async def test_a_reply_that_does_not_end_in_one_of_them_is_an_error(name: str) -> None:
    async with FaultServer(CUT[name]) as server:
        with pytest.raises(Exception, match=r"ended the stream|was cut|without saying why|instead of|mid-stream"):
            await replies(LlamaServerBackend(server.url), ASK)


OLLAMA_ENDINGS: dict[str, tuple[Behaviour, str]] = {
    "done": (ollama_reply(["Paris."]), "stop"),
    "done_reason without done": (
        stream([*ollama_lines(["Paris."], done=False), b'{"message":{"content":""},"done_reason":"stop"}\n']),
        "stop",
    ),
    "done_reason length without done": (
        stream([*ollama_lines(["Paris."], done=False), b'{"message":{"content":""},"done_reason":"length"}\n']),
        "length",
    ),
    "done, no line end": (stream([b'{"message":{"content":"Paris."},"done":true}']), "stop"),
    "done, then a reset": (ollama_reply(["Paris."], then=cut), "stop"),
    "done, then something else": (stream([*ollama_lines(["Paris."]), b"[DONE]\n"]), "stop"),
}


@pytest.mark.parametrize("name", OLLAMA_ENDINGS)
async def test_what_speaks_ollamas_api_ends_a_complete_reply_in_several_ways_too(name: str) -> None:
    behaviour, reason = OLLAMA_ENDINGS[name]
    async with FaultServer(behaviour) as server:
        for chunks in await replies(OllamaBackend(server.url), ASK):
            assert collected(chunks) == "Paris."
            assert finished(chunks).finish_reason == reason


def loaded(context: int) -> Behaviour:
    return json_reply({"models": [{"name": "tiny:latest", "context_length": context}]})


CUT_PROMPTS = [
    ({"num_ctx": 4096}, 4096, 0, True),
    ({"num_ctx": 4096}, 4095, 0, False),
    ({}, 4096, 4096, True),  # the server's own default, which it is asked for
    ({}, 4096, 8192, False),
    ({}, 4097, 4096, False),  # is not looked at: it is no context
]


@pytest.mark.parametrize(("settings", "read", "context", "refused"), CUT_PROMPTS)
async def test_a_prompt_that_ollama_cut_without_a_word_is_refused(settings, read, context, refused):
    """It has read a whole context then; releases before October 2025 ignore that they must not cut."""
    answers = {
        "/api/chat": ollama_reply(["the end only"], prompt_eval_count=read),
        "/api/tags": json_reply({"models": [{"name": "tiny:latest"}]}),
        "/api/ps": loaded(context),
        "/api/show": json_reply({}),
    }
    async with FaultServer(answers) as server, OllamaBackend(server.url, **settings) as backend:
        if refused:
            with pytest.raises(ContextOverflow, match="cut the prompt to its context of 4096 tokens") as caught:
                await text_of(backend)
            assert (caught.value.context, caught.value.end.usage.prompt_tokens) == (4096, 4096)
        else:
            assert await text_of(backend) == "the end only"


async def text_of(backend: OllamaBackend) -> str:
    return collected([chunk async for chunk in backend.stream(ASK)])


async def test_a_tool_that_a_model_calls_is_named_with_the_end(server_kind):
    kind, _ = server_kind
    call = {"function": {"name": "get_weather", "arguments": {}}}
    ollama = {"message": {"content": "", "tool_calls": [call]}, "done": False}
    openai = {"choices": [{"delta": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    sent = {
        OllamaBackend: stream([json.dumps(ollama).encode() + b"\n", *ollama_lines([])]),
        LlamaServerBackend: sse_reply([openai]),
    }
    async with FaultServer(sent[kind]) as server:
        (chunks,) = await replies(kind(server.url), ASK)
    assert [chunk.tool for chunk in chunks] == ["get_weather"]


async def test_a_text_that_is_continued_does_not_begin_with_thinking_again(server_kind):
    """The prompt opens thinking for this model, but a broken text that goes on is beyond it."""
    kind, reply = server_kind
    goes_on = ChatRequest(messages=(*ASK.messages, Message("assistant", "Par")), model="tiny")
    thinks, on = reply(["Okay", ".\n", "</think>", "\n\n", "Par", "is", "."]), reply(["is", ".", " It", " is"])
    async with FaultServer([thinks, on]) as server:
        _, chunks = await replies(kind(server.url), ASK, goes_on)
    assert chunks[:-1] == [Delta("is"), Delta("."), Delta(" It"), Delta(" is")]
