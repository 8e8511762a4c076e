"""llama.cpp's HTTP API: what is sent, what comes back, and each way it can go wrong."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from chunk_support import deltas
from fault_server import (
    FaultServer,
    cut,
    hang,
    html,
    json_reply,
    respond,
    sse_reply,
    stream,
)

from synaptic.backends.base import Backend, BackendContext
from synaptic.backends.llama_server import (
    REPETITION_GUARD,
    LlamaServerBackend,
    chat_payload,
    examine,
    from_context,
    lacking,
    read_error,
    short_count,
)
from synaptic.errors import (
    BackendNotReady,
    BackendUnavailable,
    ConfigError,
    ContextOverflow,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import ChatRequest, Chunk, Delta, Finished, Message, Timings, Usage
from synaptic.runtime.policies.taking_up import TakingUp
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_server import Behaviour

ASK = ChatRequest(messages=(Message("user", "Hi"),))
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def event(delta: dict[str, Any] | None = None, finish_reason: str | None = None, **more: object) -> dict[str, Any]:
    choices = [] if delta is None else [{"finish_reason": finish_reason, "index": 0, "delta": delta}]
    return {"choices": choices, "model": "tiny", "object": "chat.completion.chunk", **more}


LAST = event(
    usage={"completion_tokens": 5, "prompt_tokens": 31, "prompt_tokens_details": {"cached_tokens": 20}},
    timings={"cache_n": 20, "prompt_n": 11, "prompt_ms": 250.0, "predicted_n": 5, "predicted_ms": 1500.0},
)
REPLY = [
    event({"role": "assistant", "content": None}),
    event({"content": "Hel"}),
    event({"content": "lo"}),
    event({}, "stop"),
    LAST,
]


async def ask(server: FaultServer, request: ChatRequest = ASK) -> list[Chunk]:
    backend = LlamaServerBackend(server.url)
    try:
        return [chunk async for chunk in backend.stream(request)]
    finally:
        await backend.aclose()


async def test_text_comes_in_chunks_and_the_last_one_tells_the_rest() -> None:
    async with FaultServer(sse_reply(REPLY)) as server:
        chunks = await ask(server)
    assert chunks == [
        Delta("Hel"),
        Delta("lo"),
        Finished(
            finish_reason="stop",
            usage=Usage(prompt_tokens=31, completion_tokens=5, cached_tokens=20),
            timings=Timings(prompt_seconds=0.25, generation_seconds=1.5),
            model="tiny",
            node=server.url,
        ),
    ]


@pytest.mark.parametrize(("said", "meant"), [("length", "length"), ("stop", "stop"), ("tool_calls", "stop")])
async def test_why_a_reply_ends(said: str, meant: str) -> None:
    async with FaultServer(sse_reply([event({}, said)])) as server:
        chunks = await ask(server)
    (end,) = chunks
    assert (end.finish_reason, end.usage, end.timings) == (meant, None, None)


async def test_what_a_reasoning_model_thinks_is_kept_apart() -> None:
    events = [event({"reasoning_content": "Hm."}), event({"content": "Yes."}), event({}, "stop")]
    async with FaultServer(sse_reply(events)) as server:
        chunks = await ask(server)
    assert chunks[:-1] == [Delta(thinking="Hm."), Delta("Yes.")]
    assert isinstance(chunks[-1], Finished)


async def test_a_message_in_parts_is_its_text_and_its_thinking() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    events = [event({"content": [thought]}), event({"content": [{"type": "text", "text": "Yes."}]}), event({}, "stop")]
    async with FaultServer(sse_reply(events)) as server:
        chunks = await ask(server)
    assert chunks[:-1] == [Delta(thinking="Hm."), Delta("Yes.")]


async def test_what_a_model_says_when_it_refuses_is_its_answer() -> None:
    events = [event({"content": None, "refusal": "I can"}), event({"refusal": "'t."}), event({}, "stop")]
    whole = {"choices": [{"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"}]}
    async with FaultServer([sse_reply(events), json_reply(whole)]) as server:
        for _ in range(2):
            assert "".join(deltas(await ask(server))) == "I can't."


async def test_only_the_first_of_several_choices_is_the_reply_and_an_event_without_any_is_none() -> None:
    other = {"choices": [{"index": 1, "finish_reason": None, "delta": {"content": "No."}}]}
    events = [{"choices": None}, event({"content": "Yes."}), other, event({}, "stop")]
    async with FaultServer(sse_reply(events)) as server:
        chunks = await ask(server)
    assert chunks[:-1] == [Delta("Yes.")]


def test_a_plain_request_leaves_to_the_server_what_was_not_said() -> None:
    request = ChatRequest(messages=(Message("system", "S"), Message("user", "U")), repetition_guard=False)
    assert chat_payload(request) == {
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
    }


def test_everything_that_was_said_is_sent_and_what_the_server_fixed_at_its_start_is_not() -> None:
    request = ChatRequest(
        messages=(Message("user", "U"),),
        model="m",
        schema=SCHEMA,
        temperature=0.0,
        max_tokens=7,
        seed=0,
        num_ctx=4096,
        keep_alive="5m",
        think=False,
        tag="research[1]",
    )
    payload = chat_payload(request)
    assert payload.pop("messages") == [{"role": "user", "content": "U"}]
    assert payload == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
        "model": "m",
        "temperature": 0.0,
        "max_tokens": 7,
        "seed": 0,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "strict": True, "schema": SCHEMA},
        },
        "chat_template_kwargs": {"enable_thinking": False, "thinking": False},
        **REPETITION_GUARD,
    }


async def test_the_key_goes_with_every_request_and_no_connection_is_used_twice() -> None:
    """llama-server closes connections that it announced to keep; a second request on one would be lost."""
    async with FaultServer({"/health": json_reply({"status": "ok"}), "*": sse_reply(REPLY)}) as server:
        backend = LlamaServerBackend(server.url, api_key="sesame")
        async with aclosing(backend.stream(ASK)) as chunks:
            assert [chunk async for chunk in chunks]
        assert await backend.health()
        await backend.aclose()
        assert server.connections == 2
        assert [request.headers["authorization"] for request in server.requests] == ["Bearer sesame"] * 2
        assert [request.path for request in server.requests] == ["/v1/chat/completions", "/health"]
        assert server.requests[0].json == chat_payload(ASK)


def error_reply(status: int, **fields: object) -> Behaviour:
    return json_reply({"error": {"code": status, **fields}}, status)


@pytest.mark.parametrize(
    ("behaviour", "kind", "text"),
    [
        (
            error_reply(400, type="exceed_context_size_error", message="too long", n_prompt_tokens=6031, n_ctx=4096),
            ContextOverflow,
            "the prompt is 6031 tokens, but the context is 4096 tokens",
        ),
        (error_reply(401, message="Invalid API Key"), RequestRejected, "it asks for credentials (Invalid API Key)"),
        (error_reply(400, message="bad schema"), RequestRejected, "bad schema"),
        (error_reply(503, message="Loading model"), BackendNotReady, "Loading model"),
        (error_reply(500, message="out of memory"), ServerError, "out of memory"),
        (html(), ProtocolError, "web page"),
        (respond(400, b"[1, 2]"), RequestRejected, "400"),
        (sse_reply(REPLY[:3], done=False), StreamTruncated, "without announcing its end"),
        (sse_reply(REPLY[:3], done=False, then=cut), StreamTruncated, "cut"),
        (sse_reply(REPLY[:3]), ProtocolError, "without saying why it ends"),
        (sse_reply([*REPLY[:2], {"error": {"code": 500, "message": "slot broke"}}]), StreamFailed, "slot broke"),
        (
            sse_reply([*REPLY[:2], event({}, "content_filter")]),
            StreamFailed,
            "it ended the reply with 'content_filter'",
        ),
        (sse_reply([{"object": "error", "message": "EngineCore died", "code": 500}]), StreamFailed, "EngineCore died"),
        (sse_reply([{"hello": "world"}]), ProtocolError, "not a chat completion"),
        (sse_reply([{"choices": [{"delta": "text"}]}]), ProtocolError, "not a chat completion"),
        (sse_reply([event(usage={"prompt_tokens": "many"})]), ProtocolError, "not a chat completion"),
        (stream([b"data: [1, 2]\n\n"], content_type="text/event-stream"), ProtocolError, "JSON object"),
    ],
)
async def test_each_failure_has_its_own_error(behaviour: Behaviour, kind: type[Exception], text: str) -> None:
    async with FaultServer(behaviour) as server:
        with pytest.raises(kind) as caught:
            await ask(server)
        assert type(caught.value) is kind
        assert text in str(caught.value)
        assert (caught.value.backend, caught.value.node) == ("llama-server", server.url)  # type: ignore[attr-defined]


async def test_text_that_came_before_a_failure_was_passed_on() -> None:
    async with FaultServer(sse_reply(REPLY[:3], done=False, then=cut)) as server:
        backend = LlamaServerBackend(server.url)
        seen: list[Chunk] = []
        with pytest.raises(StreamTruncated):
            async for chunk in backend.stream(ASK):
                seen.append(chunk)  # noqa: PERF401 - a comprehension would lose what came before the error
        await backend.aclose()
    assert deltas(seen) == ["Hel", "lo"]


async def test_nothing_listening_is_unavailable() -> None:
    async with FaultServer(html()) as server:
        url = server.url
    backend = LlamaServerBackend(url)
    with pytest.raises(BackendUnavailable, match="nothing answers"):
        await backend.models()
    await backend.aclose()


async def test_leaving_a_stream_closes_its_connection() -> None:
    async with FaultServer(sse_reply(REPLY[:2], done=False, then=hang)) as server:
        backend = LlamaServerBackend(server.url)
        async with aclosing(backend.stream(ASK)) as chunks:
            assert await anext(chunks) == Delta("Hel")
            assert server.open_connections == 1
        await server.wait_until_idle()
        await backend.aclose()


async def test_cancelling_a_call_closes_its_connection() -> None:
    async with FaultServer(sse_reply(REPLY[:2], done=False, then=hang)) as server:
        started = asyncio.Event()
        backend = LlamaServerBackend(server.url)

        async def read() -> None:
            async for _ in backend.stream(ASK):
                started.set()

        task = asyncio.ensure_future(read())
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_until_idle()
        await backend.aclose()


async def test_models_are_listed_with_what_is_known_of_them() -> None:
    meta = {"n_ctx": 4096, "n_ctx_train": 8192, "n_params": 134515008, "size": 96576768, "ftype": "Q4_1"}
    listing = {"data": [{"id": "tiny", "meta": meta}, {"id": "unknown", "meta": None}]}
    async with FaultServer(json_reply(listing)) as server:
        backend = LlamaServerBackend(server.url)
        tiny, unknown = await backend.models()
        await backend.aclose()
    assert (tiny.name, tiny.size_bytes, tiny.context_length) == ("tiny", 96576768, 4096)
    assert (tiny.parameter_size, tiny.quantization, tiny.loaded) == ("135M", "Q4_1", True)
    assert (unknown.name, unknown.parameter_size, unknown.context_length) == ("unknown", None, None)


async def test_tokens_are_counted_by_the_server() -> None:
    async with FaultServer(json_reply({"tokens": [1, 2, 3]})) as server:
        backend = LlamaServerBackend(server.url)
        assert await backend.count_tokens("a b c") == 3
        await backend.aclose()
        assert server.requests[0].json == {"content": "a b c", "add_special": False}


async def test_the_tokens_of_a_prompt_are_those_of_what_the_template_makes_of_it() -> None:
    request = ChatRequest(messages=(Message("user", "a b c"),))
    async with FaultServer([json_reply({"prompt": "<user>a b c<end>"}), json_reply({"tokens": [1] * 4})]) as server:
        backend = LlamaServerBackend(server.url)
        assert await backend.count_prompt(request) == 4
        await backend.aclose()
        assert server.requests[1].json == {"content": "<user>a b c<end>", "add_special": True}
    async with FaultServer(json_reply({"answer": 42})) as server:
        backend = LlamaServerBackend(server.url)
        with pytest.raises(ProtocolError, match="/apply-template"):
            await backend.count_prompt(request)
        await backend.aclose()


@pytest.mark.parametrize(
    ("behaviour", "goes_on"),
    [
        (json_reply({"prompt": "<|user|>Hi<|assistant|>Once upon"}), True),
        (json_reply({"prompt": "<|user|>Hi<|assistant|>Once upon<|end|><|assistant|>"}), False),
        (json_reply({"prompt": None}), False),
        (json_reply({}), False),
        (json_reply({"error": {"message": "no prefill with thinking"}}, 400), False),
        (json_reply({"error": {"message": "File Not Found"}}, 404), False),
        (json_reply({"error": {"message": "template"}}, 500), False),
        (html(), False),
        (stream([], then=cut), False),
    ],
)
async def test_a_text_is_continued_where_the_prompt_ends_in_it(behaviour: Behaviour, *, goes_on: bool) -> None:
    begun = ChatRequest(messages=(*ASK.messages, Message("assistant", "Once upon")), think=False)
    async with FaultServer({"/apply-template": behaviour}) as server:
        backend = LlamaServerBackend(server.url)
        assert await backend.goes_on_with(begun) is goes_on
        sent = json.loads(server.requests[0].body)
        assert sent["messages"][-1] == {"role": "assistant", "content": "Once upon"}
        assert sent["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
        await backend.aclose()


async def test_a_server_that_cannot_count_tokens_answers_a_call_that_was_cut_off_from_the_start() -> None:
    paths = {"/apply-template": error_reply(404), "/tokenize": error_reply(404), "*": sse_reply(REPLY)}
    async with FaultServer(paths) as server:
        backend = LlamaServerBackend(server.url)
        whole = [chunk async for chunk in backend.stream(ASK)]
        cut_off = replace(ASK, begun="Once upon a time. " * 9, max_tokens=99)
        said = [chunk async for chunk in TakingUp(backend).stream(cut_off)]
        await backend.aclose()
    assert [chunk for chunk in said if isinstance(chunk, Delta)] == [one for one in whole if isinstance(one, Delta)]


async def test_vectors_come_in_the_order_of_the_texts_and_are_counted() -> None:
    rows = [{"embedding": [1.0, 0.0]}, {"embedding": [0.0, 1.0]}]
    async with FaultServer(json_reply({"data": rows, "usage": {"prompt_tokens": 7}})) as server:
        backend = LlamaServerBackend(server.url)
        found = await backend.embed(["a", "b"], "tiny")
        with pytest.raises(ProtocolError, match="never does"):
            await backend.embed(["only one"], "tiny")
        await backend.aclose()
    assert [list(vector) for vector in found.vectors] == [[1.0, 0.0], [0.0, 1.0]]
    assert (found.prompt_tokens, server.requests[0].path) == (7, "/v1/embeddings")


@pytest.mark.parametrize(
    ("behaviour", "length"),
    [
        (json_reply({"default_generation_settings": {"n_ctx": 4096}}), 4096),
        (json_reply({"default_generation_settings": None}), None),
        (error_reply(404, message="File Not Found", type="not_found_error"), None),
    ],
)
async def test_the_context_is_the_servers_where_it_tells_it(behaviour: Behaviour, length: int | None) -> None:
    async with FaultServer(behaviour) as server:
        backend = LlamaServerBackend(server.url)
        assert await backend.context_length(ASK) == length
        await backend.aclose()


async def test_one_token_is_generated_and_not_kept() -> None:
    async with FaultServer(json_reply({"content": "x"})) as server:
        backend = LlamaServerBackend(server.url)
        await backend.generate_one_token(within=30)
        await backend.aclose()
    assert server.requests[0].path == "/completion"


async def test_health_tells_loading_from_ready_and_from_broken() -> None:
    replies = [error_reply(503, message="Loading model"), json_reply({"status": "ok"}), error_reply(500, message="no")]
    async with FaultServer(replies) as server:
        backend = LlamaServerBackend(server.url)
        assert not await backend.health()
        assert await backend.health()
        with pytest.raises(ServerError):
            await backend.health()
        await backend.aclose()


@pytest.mark.parametrize(
    "question",
    [
        lambda backend: backend.models(),
        lambda backend: backend.count_tokens("x"),
        lambda backend: backend.embed(["x"], "tiny"),
    ],
)
async def test_another_program_on_the_port_is_noticed(question: Callable[[LlamaServerBackend], Any]) -> None:
    async with FaultServer(json_reply({"data": [1]})) as server:
        backend = LlamaServerBackend(server.url)
        with pytest.raises(ProtocolError, match="which llama-server never does"):
            await question(backend)
        await backend.aclose()


async def test_a_given_client_is_used_and_left_open() -> None:
    async with (
        FaultServer(json_reply({"tokens": []})) as server,
        httpx.AsyncClient(base_url=server.url, headers={"x-mine": "yes"}) as client,
    ):
        backend = LlamaServerBackend(server.url, client=client)
        assert await backend.count_tokens("") == 0
        await backend.aclose()
        await backend.aclose()
        assert not client.is_closed
        assert server.requests[0].headers["x-mine"] == "yes"


async def test_a_closed_backend_opens_no_new_connection() -> None:
    async with FaultServer(json_reply({"tokens": []})) as server:
        backend = LlamaServerBackend(server.url)
        await backend.aclose()
        with pytest.raises(BackendUnavailable, match="closed by this program"):
            await backend.count_tokens("")
        assert server.connections == 0


async def test_the_address_comes_from_the_context_else_from_the_settings() -> None:
    settings = Settings(coordinator_url="http://127.0.0.1:18080")
    assert from_context(BackendContext(settings)).url == "http://127.0.0.1:18080"
    backend = from_context(BackendContext(settings, url="http://127.0.0.1:1"))
    assert backend.url == "http://127.0.0.1:1"
    assert isinstance(backend, Backend)
    with pytest.raises(ConfigError, match="needs the address of a server"):
        from_context(BackendContext(Settings()))


@pytest.mark.parametrize(
    ("behaviour", "found"),
    [
        (json_reply({"data": [{"id": "tiny"}]}), ("ok", True, "has tiny")),
        (error_reply(503, message="Loading model", type="unavailable_error"), ("note", True, "Loading model")),
        (error_reply(500, message="broken"), ("missing", False, "broken")),
    ],
)
async def test_an_examination_tells_whether_the_server_answers(
    behaviour: Behaviour, found: tuple[str, bool, str]
) -> None:
    async with FaultServer(behaviour) as server:
        (finding,) = await examine(BackendContext(Settings(), url=server.url))
    assert (finding.status, finding.answers) == found[:2]
    assert found[2] in finding.detail


async def test_an_examination_without_an_address_says_which_setting_to_write() -> None:
    (finding,) = await examine(BackendContext(Settings()))
    assert finding.status == "missing"
    assert "coordinator_url" in (finding.fix or "")


def test_what_the_server_says_that_its_model_cannot_do_is_lacking() -> None:
    assert lacking({}) == frozenset()
    assert lacking({"chat_template_caps": {"supports_tools": True}, "modalities": {"vision": True}}) == frozenset()
    assert lacking({"chat_template_caps": {"supports_tools": False}}) == {"tools"}
    assert lacking({"modalities": {"vision": False}}) == {"images"}


def test_a_level_of_thinking_is_sent_under_each_of_its_names() -> None:
    payload = chat_payload(replace(ASK, think="high"))
    assert payload["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}
    assert payload["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    ("count", "text"),
    [(134_515_008, "135M"), (1_543_714_304, "1.54B"), (70_553_706_496, "70.6B"), (405_000_000_000, "405B")],
)
def test_parameters_are_counted_as_people_do(count: int, text: str) -> None:
    assert short_count(count) == text


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "text"}', json.dumps({"error": {}}).encode()])
def test_a_body_without_a_special_meaning_is_left_to_the_usual_rules(body: bytes) -> None:
    assert read_error(400, body) is None
