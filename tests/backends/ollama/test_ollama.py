"""Ollama: what is sent, what is understood, and every way in which a server can fail."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from chunk_support import collected, deltas, finished
from fault_server import (
    Behaviour,
    FaultServer,
    before_headers,
    broken_chunk,
    cut,
    finish,
    hang,
    html,
    json_reply,
    ollama_lines,
    ollama_reply,
    reset,
    respond,
    stream,
)
from http_support import connections_in_use

from synaptic.backends.base import Backend, BackendContext, create_backend
from synaptic.backends.http.client import new_client
from synaptic.backends.ollama.api import (
    Defaults,
    chat_payload,
    keep_alive_value,
)
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendNotReady,
    BackendUnavailable,
    ContextOverflow,
    FeatureMissing,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import ChatRequest, Chunk, Delta, Finished, Message, Timings, Usage
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

HELLO = (Message("system", "Be brief."), Message("user", "Hello"))
GB = 10**9


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(messages=HELLO, **{"model": "tiny", **fields})


async def ask(url: str, ask_for: ChatRequest | None = None, **settings: Any) -> list[Chunk]:
    async with OllamaBackend(url, **settings) as backend:
        return [chunk async for chunk in backend.stream(ask_for or request())]


def text_of(chunks: list[Chunk]) -> str:
    return collected(chunks)


def unused_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def tags(*models: dict[str, Any]) -> Behaviour:
    return json_reply({"models": list(models)})


# A reply.


async def test_a_reply_comes_token_by_token_and_ends_with_its_usage() -> None:
    async with FaultServer({"/api/chat": ollama_reply(["Hel", "lo", "!"])}) as server:
        chunks = await ask(server.url)
    assert chunks[:-1] == [Delta("Hel"), Delta("lo"), Delta("!")]
    last = finished(chunks)
    assert last.finish_reason == "stop"
    assert last.usage == Usage(prompt_tokens=11, completion_tokens=7)
    assert last.timings == Timings(load_seconds=1.5, prompt_seconds=0.25, generation_seconds=2.0)
    assert (last.model, last.node) == ("tiny:latest", server.url)


async def test_everything_that_is_asked_for_is_sent() -> None:
    asked = request(
        schema={"type": "object"},
        temperature=0.25,
        max_tokens=64,
        seed=7,
        num_ctx=8192,
        keep_alive="10m",
        think=False,
        tag="never sent",
    )
    async with FaultServer(ollama_reply(["x"])) as server:
        await ask(server.url, asked)
    assert server.requests[0].path == "/api/chat"
    assert server.requests[0].json == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "stream": True,
        "truncate": False,
        "format": {"type": "object"},
        "options": {"num_ctx": 8192, "temperature": 0.25, "num_predict": 64, "seed": 7, "repeat_penalty": 1.1},
        "keep_alive": "10m",
        "think": False,
    }


def test_what_nobody_asked_for_is_not_sent() -> None:
    payload = chat_payload(request(repetition_guard=False), "tiny")
    assert set(payload) == {"model", "messages", "stream", "truncate", "options"}
    assert payload["options"] == {}


def test_a_request_wins_over_the_defaults() -> None:
    defaults = Defaults(num_ctx=4096, keep_alive="5m", think=True, temperature=0.9)
    payload = chat_payload(request(), "tiny", defaults)
    assert (payload["options"]["num_ctx"], payload["options"]["temperature"]) == (4096, 0.9)
    assert (payload["keep_alive"], payload["think"]) == ("5m", True)
    payload = chat_payload(request(num_ctx=512, temperature=0.0, think=False, keep_alive="0"), "tiny", defaults)
    assert (payload["options"]["num_ctx"], payload["options"]["temperature"]) == (512, 0.0)
    assert (payload["keep_alive"], payload["think"]) == (0, False)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (None, None),
        ("5m", "5m"),
        (" 1h30m ", "1h30m"),
        ("-1", -1),
        ("300", 300),
        ("0", 0),
        ("1.5", 1.5),
        ("inf", "inf"),
    ],
)
def test_keep_alive_that_is_a_number_is_sent_as_one(text: str | None, sent: object) -> None:
    """Go refuses a duration without a unit: {"keep_alive": "-1"} is an error."""
    value = keep_alive_value(text)
    assert (value, type(value)) == (sent, type(sent))


async def test_thinking_is_told_from_the_reply() -> None:
    thought = json.dumps({"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False})
    async with FaultServer(stream([thought.encode() + b"\n", *ollama_lines(["Yes."])])) as server:
        chunks = await ask(server.url)
    assert chunks[:-1] == [Delta(thinking="Hm."), Delta("Yes.")]


@pytest.mark.parametrize(
    ("final", "max_tokens", "reason"),
    [
        ({"done_reason": "stop"}, 7, "stop"),
        ({"done_reason": "length"}, None, "length"),
        ({"done_reason": None}, 7, "length"),
        ({"done_reason": None}, 8, "stop"),
        ({"done_reason": None}, None, "stop"),
        ({"done_reason": "max_tokens"}, None, "length"),
        ({"done_reason": "something new"}, None, "stop"),
    ],
)
async def test_why_a_reply_ends(final: dict[str, Any], max_tokens: int | None, reason: str) -> None:
    """Old servers do not say why: there the token limit is compared with what came."""
    async with FaultServer(ollama_reply(["x"], **final)) as server:
        chunks = await ask(server.url, request(max_tokens=max_tokens))
    assert finished(chunks).finish_reason == reason


@pytest.mark.parametrize("reason", ["abort", "error", "content_filter"])
async def test_half_an_answer_that_the_server_gave_up_is_no_answer(reason: str) -> None:
    async with FaultServer(ollama_reply(["Half an"], done_reason=reason)) as server:
        with pytest.raises(StreamFailed, match=f"it ended the reply with '{reason}'"):
            await ask(server.url)


@pytest.mark.parametrize("reason", ["load", "unload"])
async def test_a_model_that_was_only_loaded_has_not_replied(reason: str) -> None:
    async with FaultServer(ollama_reply([], done_reason=reason)) as server:
        with pytest.raises(StreamFailed, match="generated nothing"):
            await ask(server.url)


async def test_the_last_line_may_bring_text_and_lack_everything_else() -> None:
    line = b'{"message":{"content":"all at once"},"done":true,"eval_count":"many","load_duration":null}\n'
    async with FaultServer(stream([line, b'{"error":"never read"}\n'])) as server:
        chunks = await ask(server.url)
    assert chunks == [
        Delta("all at once"),
        Finished("stop", usage=Usage(), timings=Timings(), model="tiny", node=server.url),
    ]


async def test_a_last_line_without_message_is_an_end() -> None:
    async with FaultServer(stream([b'{"done":true}'])) as server:
        assert text_of(await ask(server.url)) == ""


async def test_done_is_the_end_even_if_the_server_hangs_after_it() -> None:
    async with FaultServer(ollama_reply(["x"], then=hang)) as server:
        assert text_of(await asyncio.wait_for(ask(server.url), 20)) == "x"
        await server.wait_until_idle()


async def test_calls_share_a_connection_and_run_in_parallel() -> None:
    async with FaultServer(ollama_reply(["x"] * 5, delay=0.001)) as server, OllamaBackend(server.url) as backend:

        async def one() -> str:
            return text_of([chunk async for chunk in backend.stream(request())])

        assert await one() == await one() == "xxxxx"
        assert server.connections == 1
        assert await asyncio.gather(one(), one(), one()) == ["xxxxx"] * 3
        assert server.connections == 3


# Every failure has its error.

NOT_FOUND = {"error": "model 'tiny' not found"}
BUSY = {"error": "server busy, please try again.  maximum pending requests exceeded"}
MEMORY = {"error": "model requires more system memory (9.1 GiB) than is available (3.2 GiB)"}
TOO_LONG = {"error": "the input length exceeds the context length"}
ENGINE_SAYS = {
    "error": {"code": 400, "message": "request (900 tokens) exceeds the available context size (512 tokens)"}
}
NO_THINKING = {"error": '"tiny" does not support thinking'}


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (json_reply(NOT_FOUND, 404), ModelNotFound),
        (json_reply(BUSY, 503), BackendBusy),
        (json_reply(BUSY, 500), BackendBusy),
        (json_reply({"error": "no"}, 429), BackendBusy),
        (json_reply({"error": "llm server loading model"}, 500), BackendNotReady),
        (stream([json.dumps({"error": "llm server loading model"}).encode() + b"\n"]), BackendNotReady),
        (json_reply(MEMORY, 500), RequestRejected),
        (json_reply(TOO_LONG, 400), ContextOverflow),
        (json_reply({"error": json.dumps(ENGINE_SAYS)}, 400), ContextOverflow),
        (stream([json.dumps({"error": json.dumps(ENGINE_SAYS)}).encode() + b"\n"]), ContextOverflow),
        (json_reply(NO_THINKING, 400), FeatureMissing),
        (json_reply({"error": "registry.ollama.ai/library/tiny does not support tools"}, 400), FeatureMissing),
        (json_reply({"error": "invalid format"}, 400), RequestRejected),
        (json_reply({"error": "context deadline exceeded"}, 500), ServerError),
        (json_reply({"error": "llama runner process has terminated"}, 500), ServerError),
        (json_reply({"error": "Unexpected endpoint or method. (POST /api/chat)"}, 200), RequestRejected),
        (json_reply({"error": "llama runner process no longer running: -1"}, 200), StreamFailed),
        (json_reply({"response": "a", "done": False}, 200), ProtocolError),
        (respond(404, b"404 page not found", "text/plain"), RequestRejected),
        (html(200), ProtocolError),
        (html(404), RequestRejected),
        (html(502), BackendNotReady),
        (respond(200, b"Ollama is running", "text/plain"), ProtocolError),
        (respond(200, b"Ollama is running\n", "text/plain"), ProtocolError),
        (before_headers(cut), BackendUnavailable),
        (before_headers(reset), BackendUnavailable),
        (stream([*ollama_lines(["a"], done=False), b'{"error":"an error was encountered"}\n']), StreamFailed),
        (stream([*ollama_lines(["a"], done=False), json.dumps(NOT_FOUND).encode() + b"\n"]), ModelNotFound),
        (stream([*ollama_lines(["a"], done=False), json.dumps(BUSY).encode() + b"\n"]), BackendBusy),
        (stream([*ollama_lines(["a"], done=False), b"garbage\n"]), ProtocolError),
        (stream([*ollama_lines(["a"], done=False), b'{"status":"success"}\n']), ProtocolError),
        (stream([*ollama_lines(["a"], done=False), b'{"message":{"content":"\xc3']), StreamTruncated),
        (stream([]), StreamTruncated),
        (ollama_reply(["a", "b"], done=False), StreamTruncated),
        (ollama_reply(["a", "b"], done=False, then=cut), StreamTruncated),
        (ollama_reply(["a", "b"], done=False, then=reset), StreamTruncated),
        (ollama_reply(["a", "b"], done=False, then=broken_chunk), ProtocolError),
    ],
)
async def test_every_failure_is_a_typed_error(behaviour: Behaviour, kind: type[BackendError]) -> None:
    async with FaultServer(behaviour) as server:
        with pytest.raises(kind) as caught:
            await ask(server.url)
        await server.wait_until_idle()
    assert type(caught.value) is kind
    assert caught.value.backend == "ollama"
    assert caught.value.node == server.url
    assert '{"' not in caught.value.message, "it is said in plain words"


async def test_text_before_a_failure_is_given() -> None:
    got: list[Chunk] = []

    async def read(url: str) -> None:
        async with OllamaBackend(url) as backend:
            async for chunk in backend.stream(request()):
                got.append(chunk)  # noqa: PERF401 - kept although the loop fails

    async with FaultServer(ollama_reply(["x", "y"], done=False, then=cut)) as server:
        with pytest.raises(StreamTruncated):
            await read(server.url)
    assert deltas(got) == ["x", "y"]


async def test_a_missing_model_says_what_to_pull() -> None:
    async with FaultServer(json_reply(NOT_FOUND, 404)) as server:
        with pytest.raises(ModelNotFound) as caught:
            await ask(server.url, request(model="llama3.1:70b"))
    assert caught.value.hint == "ollama pull llama3.1:70b"


async def test_a_busy_server_says_when_to_come_again() -> None:
    async with FaultServer(json_reply(BUSY, 503, {"retry-after": "4"})) as server:
        with pytest.raises(BackendBusy) as caught:
            await ask(server.url)
    assert caught.value.retry_after == 4.0


async def test_nobody_there() -> None:
    with pytest.raises(BackendUnavailable, match="nothing answers at"):
        await ask(unused_url())


async def test_replies_name_the_server_as_people_do_and_errors_its_address() -> None:
    async with FaultServer(ollama_reply(["x"])) as server:
        assert finished(await ask(server.url, shown="desk")).node == "desk"
    with pytest.raises(BackendUnavailable, match=r"nothing answers at http://127\.0\.0\.1") as caught:
        await ask(unused_url(), shown="desk")
    assert (caught.value.node or "").startswith("http://127.0.0.1:")


async def test_passwords_are_sent_but_never_shown() -> None:
    async with FaultServer(ollama_reply(["x"])) as server:
        chunks = await ask(server.url.replace("http://", "http://me:secret@"))
        assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert finished(chunks).node == server.url


async def test_a_backend_that_was_closed_refuses() -> None:
    backend = OllamaBackend(unused_url())
    await backend.aclose()
    await backend.aclose()
    with pytest.raises(BackendUnavailable, match="closed"):
        await backend.models()


async def test_a_client_that_was_handed_in_stays_open() -> None:
    async with FaultServer(ollama_reply(["x"])) as server, new_client(server.url) as client:
        assert text_of(await ask(server.url, client=client)) == "x"
        assert not client.is_closed


# A stream can be left at any moment.


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def other_tasks(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return the tasks that are neither this one, nor the server's, nor were there before."""
    ours = {asyncio.current_task(), *before}
    known = ("_Connection.serve", "_accept_connection2")
    return {task for task in asyncio.all_tasks() - ours if not any(name in repr(task) for name in known)}


@pytest.mark.parametrize("model", ["tiny", None])
@pytest.mark.parametrize("times", [1, 2])
async def test_cancellation_at_any_step_leaves_nothing(model: str | None, times: int) -> None:
    """Cancelled after each number of steps of the event loop; without a model, also while one is being chosen."""
    before = asyncio.all_tasks()
    script = {
        "/api/chat": ollama_reply(["a", "b"], done=False, then=hang),
        "/api/tags": tags({"name": "tiny"}),
        "/api/ps": tags(),
    }
    for count in range(40 if model else 90):
        async with FaultServer(script) as server, new_client(server.url) as client:
            backend = OllamaBackend(server.url, client=client)

            async def consume(stream: AsyncGenerator[Chunk, None]) -> None:
                async for _ in stream:
                    pass

            task = asyncio.ensure_future(consume(backend.stream(request(model=model))))
            await steps(count)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            await steps(2)
            assert not other_tasks(before), f"tasks are left after {count} steps"
            assert connections_in_use(client) == 0, f"after {count} steps"
            await client.aclose()
            await server.wait_until_idle()


async def test_closing_the_generator_closes_the_connection() -> None:
    before = asyncio.all_tasks()
    async with (
        FaultServer(ollama_reply(["x", "y"], done=False, then=hang)) as server,
        OllamaBackend(server.url) as backend,
    ):
        chunks = backend.stream(request())
        assert await anext(chunks) == Delta("x")
        assert server.open_connections == 1
        await chunks.aclose()
        assert not other_tasks(before)
        await server.wait_until_idle()


async def test_a_timeout_around_a_stalled_stream_closes_it() -> None:
    async with FaultServer(ollama_reply(["a"], done=False, then=hang)) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(server.url)
        await server.wait_until_idle()


# Whether it is there.


async def test_the_version_is_what_the_server_says() -> None:
    async with FaultServer(json_reply({"version": "0.12.3"})) as server, OllamaBackend(server.url) as backend:
        assert await backend.version() == "0.12.3"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (json_reply({"hello": "world"}), ProtocolError),
        (html(200), ProtocolError),
        (respond(500), ServerError),
        (before_headers(cut), BackendUnavailable),
        (before_headers(hang), BackendUnavailable),
    ],
)
async def test_what_is_no_ollama_has_no_version(behaviour: Behaviour, error: type[BackendError]) -> None:
    async with FaultServer({"/api/version": behaviour}) as server, OllamaBackend(server.url) as backend:
        with pytest.raises(error):
            await backend.version(within=0.5)


async def test_a_model_is_loaded_and_unloaded_without_a_prompt() -> None:
    done = json_reply({"model": "m", "done": True, "done_reason": "load"})
    async with FaultServer({"/api/generate": done}) as server, OllamaBackend(server.url, keep_alive="10m") as backend:
        await backend.load("m", num_ctx=2048)
        await backend.load("m", keep_alive="-1")
        await backend.unload("m")
        sent = [request.json for request in server.requests]
    assert sent == [
        {"model": "m", "stream": False, "options": {"num_ctx": 2048}, "keep_alive": "10m"},
        {"model": "m", "stream": False, "keep_alive": -1},
        {"model": "m", "keep_alive": 0, "stream": False},
    ]


async def test_headers_go_with_every_request() -> None:
    async with (
        FaultServer(json_reply({"version": "1"})) as server,
        OllamaBackend(server.url, headers={"authorization": "Bearer secret"}) as backend,
    ):
        await backend.version()
        assert server.requests[0].headers["authorization"] == "Bearer secret"


# Settings.


async def test_it_is_made_from_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer(ollama_reply(["x"])) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        settings = Settings(num_ctx=2048, keep_alive="-1", think=True, temperature=0.5)
        backend = create_backend("ollama", BackendContext(settings))
        assert isinstance(backend, Backend)
        [_ async for _ in backend.stream(request())]
        await backend.aclose()
    sent = server.requests[-1].json
    assert (sent["keep_alive"], sent["think"]) == (-1, True)
    assert (sent["options"]["num_ctx"], sent["options"]["temperature"]) == (2048, 0.5)
    assert OllamaBackend("box").url == "http://box:11434"
    assert OllamaBackend("http://box:1/").url == "http://box:1"


async def test_a_reply_in_one_packet_and_in_packets_of_one_byte() -> None:
    whole = b"".join(ollama_lines(["añ", "€😀"]))
    for pieces in ([whole], [whole[i : i + 1] for i in range(len(whole))]):
        async with FaultServer(stream(pieces, then=finish)) as server:
            assert text_of(await ask(server.url)) == "añ€😀"
