"""The scripted backend: every reply and every failure a test or a newcomer may want, without a model."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, get_args

import pytest
from chunk_support import collected, deltas, finished
from hypothesis import given
from hypothesis import strategies as st

from synaptic.agents.shape import Shape
from synaptic.backends.base import Backend, BackendContext, create_backend
from synaptic.backends.schema_sample import MAX_DEPTH, sample_value
from synaptic.backends.scripted import Failure, FailureKind, Reply, ScriptedBackend, matching_key, tokens_of
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    ContextOverflow,
    EngineCrashed,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import ChatRequest, Chunk, Delta, Message, ModelInfo, Usage
from synaptic.settings import Settings

KINDS: dict[str, type[BackendError]] = {
    "unavailable": BackendUnavailable,
    "busy": BackendBusy,
    "not_found": ModelNotFound,
    "rejected": RequestRejected,
    "server_error": ServerError,
    "stream_failed": StreamFailed,
    "truncated": StreamTruncated,
    "protocol": ProtocolError,
    "crash": EngineCrashed,
}


def request(text: str = "hello there", **fields: Any) -> ChatRequest:
    return ChatRequest(messages=(Message("system", "Be brief."), Message("user", text)), **fields)


async def chunks_of(backend: Backend, asked: ChatRequest | None = None) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(asked or request())]


async def text_of(backend: Backend, asked: ChatRequest | None = None) -> str:
    return collected(await chunks_of(backend, asked))


async def test_without_a_script_it_echoes_the_last_user_message() -> None:
    backend = ScriptedBackend()
    chunks = await chunks_of(backend, request("one  two\nthree "))
    assert deltas(chunks) == ["one", "  two", "\nthree", " "]
    assert await text_of(backend, ChatRequest(messages=())) == ""
    turns = (Message("user", "a"), Message("assistant", "b"))
    assert await text_of(backend, ChatRequest(messages=turns)) == "a"


async def test_the_last_chunk_has_everything() -> None:
    *_, last = await chunks_of(ScriptedBackend(model="fake"))
    assert (last.finish_reason, last.model, last.node) == ("stop", "fake", "scripted")
    assert last.usage == Usage(prompt_tokens=4, completion_tokens=2)
    assert last.timings is not None
    assert last.timings.generation_seconds is not None
    *_, last = await chunks_of(ScriptedBackend(), request(model="asked"))
    assert last.model == "asked"


async def test_a_list_is_answered_in_order_and_then_ends() -> None:
    backend = ScriptedBackend(["a", {"b": ["ü"]}, [1]])
    assert [await text_of(backend) for _ in range(3)] == ["a", '{"b": ["ü"]}', "[1]"]
    with pytest.raises(RequestRejected, match="3 answers, and none is left for the call 'plan'"):
        await text_of(backend, request(tag="plan"))


async def test_a_function_answers_what_it_is_asked() -> None:
    backend = ScriptedBackend(lambda asked: f"{asked.tag}!")
    assert await text_of(backend, request(tag="plan")) == "plan!"


async def test_a_function_may_wait() -> None:
    """So that a test decides when a reply comes, without a clock."""
    gate = asyncio.Event()

    async def answer(_: ChatRequest) -> str:
        await gate.wait()
        return "now"

    backend = ScriptedBackend(answer)
    call = asyncio.ensure_future(text_of(backend))
    await asyncio.sleep(0)
    assert (backend.active, call.done()) == (1, False)
    gate.set()
    assert await call == "now"


async def test_a_mapping_answers_by_step() -> None:
    backend = ScriptedBackend({"research[1]": "second", "research*": "any", "retry": (Failure("busy"), "a", "b")})
    assert await text_of(backend, request(tag="research[1]")) == "second"
    assert await text_of(backend, request(tag="research[0]")) == "any"
    assert await text_of(backend, request("echo", tag="other")) == "echo"
    with pytest.raises(BackendBusy):
        await text_of(backend, request(tag="retry"))
    assert [await text_of(backend, request(tag="retry")) for _ in range(3)] == ["a", "b", "b"]


async def test_a_mapping_with_no_answers_for_a_step() -> None:
    with pytest.raises(RequestRejected, match="0 answers"):
        await text_of(ScriptedBackend({"x": ()}), request(tag="x"))


@pytest.mark.parametrize(
    ("tag", "key"),
    [("a[0]", "a[0]"), ("a[1]", "a[*]"), ("a[1].b", "*.b"), ("ab", "a?"), ("zzz", None), ("A[1]", None)],
)
def test_patterns_of_steps(tag: str, key: str | None) -> None:
    """The exact path wins; brackets stand for themselves; the first pattern that fits is taken."""
    assert matching_key(tag, ["*.b", "a[*]", "a?", "a[0]"]) == key


async def test_a_reply_says_why_it_ends_and_what_it_thought() -> None:
    reply = Reply(text="cut of", thinking="Hm.", finish_reason="length", token_delay=0.0)
    chunks = await chunks_of(ScriptedBackend([reply]))
    assert chunks[0] == Delta(thinking="Hm.")
    assert finished(chunks).finish_reason == "length"


def test_every_kind_of_failure_has_a_test() -> None:
    assert {*KINDS, "stall"} == set(get_args(FailureKind))


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
async def test_failures(kind: Any, after: int) -> None:
    got: list[Chunk] = []
    backend = ScriptedBackend([Failure(kind, after_tokens=after)])

    async def read() -> None:
        async for chunk in backend.stream(request()):
            got.append(chunk)  # noqa: PERF401 - kept although the loop fails

    with pytest.raises(KINDS[kind]) as caught:
        await read()
    assert type(caught.value) is KINDS[kind]
    assert caught.value.backend == "scripted"
    assert deltas(got) == ["one", " two"][:after]
    assert backend.active == 0


async def test_a_stall_lasts_until_it_is_cancelled() -> None:
    backend = ScriptedBackend([Failure("stall", after_tokens=1)])
    stream = backend.stream(request())
    assert await anext(stream) == Delta("one")
    stalled = asyncio.ensure_future(anext(stream))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (stalled.done(), backend.active) == (False, 1)
    stalled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stalled
    assert backend.active == 0


async def test_an_exception_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await text_of(ScriptedBackend([ZeroDivisionError()]))


def test_an_unknown_kind_of_failure_is_refused() -> None:
    with pytest.raises(ValueError, match="no failure of the kind 'explode'; known: unavailable, busy"):
        Failure("explode")  # type: ignore[arg-type]


async def test_it_records_what_it_was_asked_and_how_much_at_once() -> None:
    backend = ScriptedBackend(token_delay=0.001)
    asked = [request(f"{number} a b", tag=str(number)) for number in range(5)]
    await asyncio.gather(*(text_of(backend, one) for one in asked))
    assert backend.requests == asked
    assert (backend.active, backend.max_active) == (0, 5)


async def test_slots_bound_how_much_is_served_at_once() -> None:
    backend = ScriptedBackend(slots=2, token_delay=0.001)
    await asyncio.gather(*(text_of(backend) for _ in range(6)))
    assert (backend.max_active, len(backend.requests)) == (2, 6)


async def test_a_context_refuses_what_does_not_fit_as_a_server_does() -> None:
    backend = ScriptedBackend(context=4)
    assert await backend.context_length(request()) == 4
    assert await backend.count_tokens("one  two\nthree ") == 3
    assert await text_of(backend, request("one two")) == "one two"
    with pytest.raises(ContextOverflow, match="the prompt is 5 tokens, but the context is 4 tokens"):
        await text_of(backend, request("one two three"))
    assert backend.active == 0
    assert await ScriptedBackend().context_length(request()) is None


async def test_leaving_early_frees_the_slot() -> None:
    backend = ScriptedBackend(slots=1)
    stream = backend.stream(request())
    await anext(stream)
    await stream.aclose()
    assert backend.active == 0
    assert await asyncio.wait_for(text_of(backend), 20) == "hello there"


async def test_delays_are_kept() -> None:
    backend = ScriptedBackend(["a b c", Reply(text="a b", token_delay=0.05)], first_token_delay=0.03, token_delay=0.01)
    started = time.perf_counter()
    await text_of(backend)
    first = time.perf_counter()
    await text_of(backend)
    assert first - started >= 0.05 - 0.001
    assert time.perf_counter() - first >= 0.08 - 0.001


async def test_a_closed_backend_refuses() -> None:
    async with ScriptedBackend() as backend:
        assert await backend.models() == [ModelInfo(name="scripted", loaded=True)]
        assert await backend.default_model() == "scripted"
        assert not backend.closed
    assert backend.closed
    await backend.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await text_of(backend)


async def test_it_is_made_from_settings() -> None:
    backend = create_backend("scripted", BackendContext(Settings(model="fake")))
    assert isinstance(backend, Backend)
    assert await backend.models() == [ModelInfo(name="fake", loaded=True)]
    assert await text_of(backend) == "hello there"


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens_of(text)) == text


# The value of a schema.


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 7}, "text text"),
        ({"type": "string", "minLength": 5, "maxLength": 5}, "text."),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "maximum": -2}, -2),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "minimum": 0, "maximum": 1}, 0.0),
        ({"type": "number", "minimum": 0.5}, 0.5),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 0.5),
        ({"type": "number", "exclusiveMinimum": 0}, 1.0),
        ({"type": "number", "exclusiveMaximum": 0}, -1.0),
        ({"type": "boolean"}, False),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, "text"),
        ({"const": 7}, 7),
        ({"enum": ["a", "b"]}, "a"),
        ({"type": "array", "items": {"type": "string"}}, ["text"]),
        ({"items": {"enum": ["a", "b"]}, "minItems": 3}, ["a", "b", "a"]),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["text", "text 2"]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "array"}, ["text"]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"oneOf": [{"type": "integer"}]}, 0),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}}, 1),
        ({"$ref": "#/nowhere/at/all"}, None),
        ({"properties": {"a": {"type": "integer"}, "b": True}}, {"a": 0, "b": None}),
        ({"type": "object"}, {}),
        ({}, "text"),
        (
            {
                "allOf": [{"properties": {"a": {"const": 1}}}, {"$ref": "#/$defs/b"}],
                "type": "object",
                "$defs": {"b": {"properties": {"b": {"const": 2}}}},
            },
            {"a": 1, "b": 2},
        ),
    ],
)
def test_the_sample_of_a_schema(schema: dict[str, Any], value: object) -> None:
    sample = sample_value(schema)
    assert (sample, type(sample)) == (value, type(value))


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"next": {"$ref": "#/$defs/n"}}}}}
    assert json.dumps(sample_value(schema)).count("next") < MAX_DEPTH


@pytest.mark.parametrize(
    "notation",
    [
        {"key_facts": "list[string(1..200)](2..5)", "score": "number(0..1)", "verdict": "enum(good, bad)"},
        {"inner": {"count": "integer(3..9)", "sure": "boolean"}, "note?": "string"},
    ],
)
def test_samples_fit_the_shapes_of_agents(notation: dict[str, Any]) -> None:
    shape = Shape.parse(notation)
    for schema in (shape.json_schema(), shape.decoding_schema()):
        assert shape.validate(sample_value(schema))


async def test_a_request_with_a_schema_is_answered_in_its_shape() -> None:
    schema = {
        "type": "object",
        "properties": {
            "key_facts": {"type": "array", "items": {"type": "string", "maxLength": 200}, "minItems": 2},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "verdict": {"enum": ["good", "bad"]},
        },
    }
    answer = json.loads(await text_of(ScriptedBackend(), request(schema=schema)))
    assert answer == {"key_facts": ["text", "text 2"], "score": 0.0, "verdict": "good"}
    assert await text_of(ScriptedBackend(["as scripted"]), request(schema=schema)) == "as scripted"
