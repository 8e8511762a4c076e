"""Replies that are known: what makes two requests the same, how long a reply holds, and a file that may be anything."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from chunk_support import collected
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.base import Backend
from synaptic.backends.scripted import Failure, Reply, ScriptedBackend
from synaptic.errors import EngineCrashed
from synaptic.messages import ChatRequest, Chunk, Delta, Finished, Message, Timeouts, Usage
from synaptic.runtime.policies import Retrying, reply_store
from synaptic.runtime.policies.call_cache import Cached, CallCache, request_key
from synaptic.runtime.policies.reply_store import ReplyStore, StoredReply
from synaptic.waiting import Backoff

FOREVER = float("inf")
ASK = ChatRequest(messages=(Message("user", "hello there"),), model="m")


class Counting(ScriptedBackend):
    """Answers with the number of the call."""

    def __init__(self) -> None:
        super().__init__(lambda _: f"answer {len(self.requests)}")


@pytest.fixture
async def store(tmp_path: Path):
    notices: list = []
    store = ReplyStore(tmp_path / "deep" / "replies.sqlite3", notices.append)
    store.notices = notices
    store.path = tmp_path / "deep" / "replies.sqlite3"
    yield store
    await store.aclose()


async def chunks_of(backend: Backend, request: ChatRequest = ASK) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(request)]


async def text_of(backend: Backend, request: ChatRequest = ASK) -> str:
    return collected(await chunks_of(backend, request))


async def test_the_same_request_is_asked_once(store: ReplyStore):
    inner = Counting()
    backend = Cached(inner, CallCache(store), FOREVER)
    first = await chunks_of(backend)

    again = await chunks_of(backend, replace(ASK, tag="x", priority=3, rank=4, timeouts=Timeouts(1.0)))

    assert (first[-1].cached, len(inner.requests)) == (False, 1)
    assert again == [
        Delta("answer 1"),
        Finished("stop", usage=Usage(), model="m", node="scripted", cached=True),
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message("user", "hello, there"),)},
        {"messages": (Message("system", "hello there"),)},
        {"messages": (Message("user", "hello"), Message("user", " there"))},
        {"model": "other"},
        {"schema": {"type": "object"}},
        {"temperature": 0.1},
        {"max_tokens": 5},
        {"seed": 1},
        {"num_ctx": 512},
        {"think": False},
        {"repetition_guard": False},
    ],
)
def test_whatever_the_reply_depends_on_makes_another_request(change: dict):
    assert request_key(replace(ASK, **change)) != request_key(ASK)


def test_who_serves_makes_another_request():
    assert len({request_key(ASK, origin) for origin in [(), ("ollama", "a"), ("ollama", "b"), ("other", "a")]}) == 4


def test_the_order_of_a_schemas_properties_matters_since_it_is_the_order_of_the_reply():
    one, other = {"a": {}, "b": {}}, {"b": {}, "a": {}}
    assert request_key(replace(ASK, schema=one)) != request_key(replace(ASK, schema=other))


async def test_a_reply_is_found_by_another_session(store: ReplyStore):
    await text_of(Cached(Counting(), CallCache(store), FOREVER))
    await store.aclose()
    other = ReplyStore(store.path)

    assert await text_of(Cached(ScriptedBackend(["other"]), CallCache(other), FOREVER)) == "answer 1"
    await other.aclose()


async def test_the_readers_age_limit_counts(store: ReplyStore, monkeypatch: pytest.MonkeyPatch):
    cache, inner = CallCache(store), Counting()
    await text_of(Cached(inner, cache, FOREVER))
    now = reply_store.time.time()
    monkeypatch.setattr(reply_store.time, "time", lambda: now + 100)

    assert await text_of(Cached(inner, cache, 200)) == "answer 1"
    assert await text_of(Cached(inner, cache, 50)) == "answer 2"
    assert await text_of(Cached(inner, cache, 50)) == "answer 2"


async def test_a_reply_from_the_future_is_kept_and_grows_old_from_now_on(
    store: ReplyStore, monkeypatch: pytest.MonkeyPatch
):
    """As a clock leaves them that was set back; or they would hold until it is there again, however old they are."""
    cache, inner = CallCache(store), Counting()
    clock = [time.time() + 1e6]
    monkeypatch.setattr(reply_store.time, "time", lambda: clock[0])
    await text_of(Cached(inner, cache, FOREVER))

    clock[0] -= 1e6
    assert await text_of(Cached(inner, cache, 3600)) == "answer 1"
    with contextlib.closing(sqlite3.connect(store.path)) as file:
        assert file.execute("SELECT stored_at FROM replies").fetchone() == (clock[0],)
    clock[0] += 4000
    assert await text_of(Cached(inner, cache, 3600)) == "answer 2"


@pytest.mark.parametrize(
    "change", ["text = text || 'x'", "model = 'other'", "stored_at = stored_at + 1", "node = x'ff'"]
)
async def test_a_reply_that_changed_on_the_disk_is_asked_for_again(store: ReplyStore, change: str):
    cache, inner = CallCache(store), Counting()
    await text_of(Cached(inner, cache, FOREVER))
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as file:
        file.execute(f"UPDATE replies SET {change}")

    assert [await text_of(Cached(inner, cache, FOREVER)) for _ in range(2)] == ["answer 2"] * 2
    assert "a kept reply was damaged" in store.notices[0].message


@pytest.mark.parametrize("answer", [Reply(text="cut", finish_reason="length"), Failure("crash", after_tokens=2)])
async def test_only_complete_replies_are_kept(store: ReplyStore, answer: object):
    inner = ScriptedBackend([answer, "fine"])
    backend = Cached(inner, CallCache(store), FOREVER)
    if isinstance(answer, Failure):
        with pytest.raises(EngineCrashed):
            await text_of(backend)
    else:
        await text_of(backend)

    assert await text_of(backend) == "fine"


async def test_a_reply_to_a_schema_that_is_no_json_is_not_kept(store: ReplyStore):
    backend = Cached(ScriptedBackend(["nonsense", '{"a": 1}']), CallCache(store), FOREVER)
    request = replace(ASK, schema={"type": "object"})

    assert [await text_of(backend, request) for _ in range(3)] == ["nonsense", '{"a": 1}', '{"a": 1}']


async def test_a_reply_that_nobody_could_use_is_forgotten(store: ReplyStore):
    backend = Cached(Counting(), CallCache(store), FOREVER)
    await text_of(backend)
    await backend.forget(ASK)

    assert await text_of(backend) == "answer 2"


async def test_what_a_restart_voided_is_not_kept(store: ReplyStore):
    inner = Retrying(ScriptedBackend([Failure("crash", after_tokens=3), "fine"]), 1, Backoff((0.0,)))
    backend = Cached(inner, CallCache(store), FOREVER)
    await chunks_of(backend)

    assert await text_of(backend) == "fine"


async def test_a_stream_that_is_left_is_not_kept(store: ReplyStore):
    inner = Counting()
    backend = Cached(inner, CallCache(store), FOREVER)
    stream = backend.stream(ASK)
    await anext(stream)
    await stream.aclose()

    assert inner.active == 0
    assert await text_of(backend) == "answer 2"


class Gated(Counting):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def stream(self, request: ChatRequest):
        async for chunk in super().stream(request):
            await self.gate.wait()
            yield chunk


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_equal_calls_at_once_are_one_call(store: ReplyStore):
    inner = Gated()
    backend = Cached(inner, CallCache(store), FOREVER)
    tasks = [asyncio.create_task(text_of(backend)) for _ in range(5)]
    await until(lambda: inner.active)
    inner.gate.set()

    assert set(await asyncio.gather(*tasks)) == {"answer 1"}
    assert len(inner.requests) == 1


async def test_if_the_first_of_equal_calls_goes_away_the_second_goes_on_by_itself(store: ReplyStore):
    inner, cache = Gated(), CallCache(store)
    backend = Cached(inner, cache, FOREVER)
    first = asyncio.create_task(text_of(backend))
    await until(lambda: inner.active)
    others = [asyncio.create_task(text_of(backend)) for _ in range(2)]
    await asyncio.sleep(0.02)

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    inner.gate.set()

    assert {text.split()[0] for text in await asyncio.gather(*others)} == {"answer"}
    assert not cache.under_way


async def test_a_call_that_waits_for_an_equal_one_may_be_cancelled_alone(store: ReplyStore):
    inner, cache = Gated(), CallCache(store)
    backend = Cached(inner, cache, FOREVER)
    first = asyncio.create_task(text_of(backend))
    await until(lambda: inner.active)
    second = asyncio.create_task(text_of(backend))
    await asyncio.sleep(0.02)

    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    inner.gate.set()

    assert await first == "answer 1"


async def test_if_the_first_of_equal_calls_fails_the_second_asks_itself(store: ReplyStore):
    gate = asyncio.Event()

    async def answer(_: ChatRequest) -> object:
        await gate.wait()
        return Failure("crash") if len(inner.requests) == 1 else "fine"

    inner = ScriptedBackend(answer)
    backend = Cached(inner, CallCache(store), FOREVER)
    first = asyncio.create_task(text_of(backend))
    await until(lambda: inner.active)
    second = asyncio.create_task(text_of(backend))
    await asyncio.sleep(0.02)
    gate.set()

    with pytest.raises(EngineCrashed):
        await first
    assert await second == "fine"


# The file.


async def test_only_the_owner_may_read_it(store: ReplyStore):
    await store.put("k", StoredReply("secret", None, None))

    for file in store.path.parent.iterdir():
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077


async def test_the_oldest_replies_make_room(tmp_path: Path):
    store = ReplyStore(tmp_path / "r", max_bytes=400_000)
    for number in range(100):
        await store.put(str(number), StoredReply("x" * 10_000, None, None))

    kept = [number for number in range(100) if await store.get(str(number), FOREVER)]
    await store.aclose()

    assert kept
    assert kept == list(range(kept[0], 100))
    assert (tmp_path / "r").stat().st_size < 600_000


@pytest.mark.parametrize(
    "content",
    [b"no database at all, but long enough to have a header " * 40, b"\0" * 8192, b"SQLite format 3\0" + b"x" * 5000],
)
async def test_a_damaged_file_is_moved_aside(store: ReplyStore, content: bytes):
    store.path.parent.mkdir()
    store.path.write_bytes(content)

    await store.put("k", StoredReply("fine", "m", "n"))

    assert await store.get("k", FOREVER) == StoredReply("fine", "m", "n")
    (notice,) = store.notices
    assert notice.level == "warning"
    assert str(store.path) in notice.message
    assert (store.path.parent / "replies.sqlite3.damaged").read_bytes() == content


async def test_a_file_that_is_damaged_while_it_is_open_is_moved_aside(store: ReplyStore):
    for number in range(50):
        await store.put(str(number), StoredReply("x" * 5000, None, None))
    await store._in_thread(store._database.close)
    raw = bytearray(store.path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    store.path.write_bytes(raw)

    assert [await store.get(str(number), FOREVER) for number in range(50)].count(None) >= 49
    await store.put("k", StoredReply("fine", None, None))
    assert (await store.get("k", FOREVER)).text == "fine"
    assert len(store.notices) == 1


async def test_a_place_that_cannot_be_written_costs_no_call(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    notices: list = []
    store = ReplyStore(tmp_path / "file" / "replies.sqlite3", notices.append)
    backend = Cached(Counting(), CallCache(store), FOREVER)

    assert [await text_of(backend) for _ in range(3)] == ["answer 1", "answer 2", "answer 3"]
    (notice,) = notices
    assert "cannot be used" in notice.message
    await store.aclose()


async def test_a_file_of_another_version_is_begun_anew(store: ReplyStore):
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.execute("CREATE TABLE replies (other TEXT)")
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    await store.put("k", StoredReply("fine", None, None))

    assert (await store.get("k", FOREVER)).text == "fine"


async def test_half_a_character_is_not_kept_and_fails_no_call(store: ReplyStore):
    backend = Cached(ScriptedBackend(["\ud83d", "again"]), CallCache(store), FOREVER)

    assert [await text_of(backend) for _ in range(2)] == ["\ud83d", "again"]


async def test_after_closing_nothing_is_found_and_no_thread_is_left(store: ReplyStore):
    await store.put("k", StoredReply("fine", None, None))
    await store.aclose()
    await store.aclose()

    assert await store.get("k", FOREVER) is None
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("replies")])


WRITER = """
import asyncio, sys
from pathlib import Path
from synaptic.runtime.policies.reply_store import ReplyStore, StoredReply
async def main(path, name):
    store = ReplyStore(Path(path), lambda notice: sys.exit(notice.message))
    for number in range(60):
        await store.put(f"{name} {number}", StoredReply(name * 500, None, None))
        assert await store.get(f"{name} {number}", 100)
    await store.aclose()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_several_processes_share_it(store: ReplyStore):
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, str(store.path), name) for name in "abc"
    ]

    assert [await writer.wait() for writer in writers] == [0, 0, 0]
    for name in "abc":
        assert [await store.get(f"{name} {number}", FOREVER) for number in range(60)].count(None) == 0


@given(st.text(), st.text(), st.text())
def test_no_two_different_conversations_have_one_key(one: str, two: str, three: str):
    keys = {
        (one, two, three): request_key(
            replace(ASK, messages=tuple(Message("user", text) for text in (one, two, three)))
        ),
        (one + two, three): request_key(
            replace(ASK, messages=tuple(Message("user", text) for text in (one + two, three)))
        ),
    }
    assert len(set(keys.values())) == 2
