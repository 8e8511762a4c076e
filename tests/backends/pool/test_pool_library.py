"""``synaptic.Pool``: chats over nodes from async code and from code that is not, from one thread and from many."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from chunk_support import collected, finished
from faulty_node import FaultyNode

import synaptic
from synaptic.backends.pool.library import PoolReply
from synaptic.errors import BackendUnavailable, ConfigError, ModelNotFound, ServerError, UsageError
from synaptic.settings import NodeSettings, Settings

FAST = {"seconds_per_token": 0.001, "tokens": 4}


@contextmanager
def nodes_elsewhere(count=2, **config):
    """Give nodes that run in a thread of their own, for tests that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def there(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    nodes = [FaultyNode(**{**FAST, **config}) for _ in range(count)]
    try:
        for node in nodes:
            there(node.__aenter__())
        yield nodes
    finally:
        for node in nodes:
            there(node.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def pool_threads():
    return [thread for thread in threading.enumerate() if thread.name == "synaptic-pool"]


async def test_ten_chats_run_over_all_nodes_and_come_back_in_order():
    async with FaultyNode(**FAST, text="from one") as one, FaultyNode(**FAST, text="from two") as two:
        async with synaptic.Pool([one.url, two.url], model="m") as pool:
            replies = await pool.chat_many(f"question {n}" for n in range(10))
            assert len(replies) == 10
            assert {reply.node for reply in replies} == {one.url, two.url}
            for number, reply in enumerate(replies):
                node = one if reply.node == one.url else two
                assert reply.text == node.config.text
                assert f"question {number}" in [call.messages[-1]["content"] for call in node.asked]
        assert len(one.asked) + len(two.asked) == 10


async def test_a_reply_says_all_about_itself():
    async with FaultyNode(**FAST) as node, synaptic.Pool(node.url, model="m") as pool:
        reply = await pool.chat("one two three")
        assert isinstance(reply, PoolReply)
        assert (reply.model, reply.node, reply.finish_reason, reply.nodes) == ("m:latest", node.url, "stop", 1)
        assert reply.usage.completion_tokens == 4
        assert reply.usage.prompt_tokens > 3
        assert reply.timings.generation_seconds is not None


async def test_a_failover_counts_and_the_text_is_whole():
    async with FaultyNode(**FAST, text="a b c d") as one, FaultyNode(**FAST, text="a b c d") as two:
        one.fail("drop_after_n", after=2)
        async with synaptic.Pool([one.url, two.url], model="m") as pool:
            replies = await pool.chat_many(["x", "y"])
        assert [reply.text for reply in replies] == ["a b c d"] * 2
        assert sorted(reply.nodes for reply in replies) == [1, 2]
        assert {reply.node for reply in replies} == {two.url}
        one.heal()


async def test_a_reply_can_be_read_as_it_comes():
    async with FaultyNode(**FAST) as node, synaptic.Pool([node.url], model="m") as pool:
        chunks = [chunk async for chunk in pool.stream("go")]
        assert collected(chunks).endswith("w1 w2 w3")
        assert finished(chunks).finish_reason == "stop"


async def test_what_a_chat_is_asked_for_is_sent():
    async with FaultyNode(**FAST) as node, synaptic.Pool([node.url], num_ctx=2048) as pool:
        turns = [{"role": "user", "content": "a"}, synaptic.Message("assistant", "b"), {"role": "user", "content": "c"}]
        await pool.chat(turns, system="Be brief.", model="m", temperature=0.5, max_tokens=3, seed=7, keep_alive="9m")
        (call,) = node.asked
        sent = [(message["role"], message["content"]) for message in call.messages]
        assert sent == [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c")]
        options = call.body["options"]
        assert (options["temperature"], options["num_predict"], options["seed"]) == (0.5, 3, 7)
        assert (call.num_ctx, call.keep_alive) == (2048, "9m")


async def test_without_a_model_an_installed_one_is_taken():
    async with FaultyNode(**FAST, models=["only"]) as node, synaptic.Pool([node.url]) as pool:
        assert (await pool.chat("x")).model == "only:latest"
        assert [model.name for model in await pool.models()] == ["only:latest"]


async def test_a_priority_is_passed_on():
    with_priority = synaptic.Pool("http://127.0.0.1:9").request
    assert with_priority("x").priority == 0
    assert with_priority("x", priority="interactive").priority > 0 > with_priority("x", priority="batch").priority


async def test_it_tells_how_its_nodes_stand_and_where_calls_went():
    async with FaultyNode(**FAST) as node, synaptic.Pool([{"url": node.url, "name": "desk"}], model="m") as pool:
        assert [(status.name, status.condition) for status in pool.nodes()] == [("desk", "unknown")]
        assert pool.decisions() == []
        await pool.chat("x", tag="mine")
        (status,) = pool.nodes()
        assert (status.name, status.condition, status.served) == ("desk", "up", 1)
        (decision,) = pool.decisions()
        assert (decision.node, decision.tag, decision.model) == ("desk", "mine", "m:latest")


async def test_a_session_runs_over_it():
    async with FaultyNode(**FAST, text="An answer.") as node, synaptic.Pool([node.url], model="m") as pool:
        async with synaptic.Session(pool.settings, backend=pool.backend) as session:
            result = await session.run("why", pipeline="answer")
        assert result.answer == "An answer."
        assert (await pool.chat("x")).text == "An answer.", "the session has left the pool open"


async def test_the_first_failure_of_many_is_told_and_the_rest_is_given_up():
    async with FaultyNode(**FAST, models=["m", "n"]) as node, synaptic.Pool([node.url], model="m") as pool:
        node.fail("error")
        with pytest.raises(ServerError):
            await pool.chat_many(["a", "b"])
        node.heal()
        with pytest.raises(ModelNotFound):
            await pool.chat("x", model="unheard-of")


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("x", {"temprature": 1}, "no option 'temprature'"),
        ("x", {"priority": "urgent"}, "no priority 'urgent'"),
        ([{"role": "robot", "content": "x"}], {}, "a message is"),
        ([{"role": "user"}], {}, "a message is"),
        (["a", "b"], {}, "chat_many"),
        ({"role": "user", "content": "x"}, {}, "a list of messages"),
        (5, {}, "a text or a list"),
        ([], {}, "needs a message"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(prompt, options, words):
    async with FaultyNode(**FAST) as node, synaptic.Pool([node.url], model="m") as pool:
        for ask in (pool.chat, lambda prompt, **given: pool.chat_many(["fine", prompt], **given)):
            with pytest.raises(UsageError, match=words):
                await ask(prompt, **options)
        with pytest.raises(UsageError, match=words):
            await anext(pool.stream(prompt, **options))
        assert not node.counters.requests


async def test_one_text_is_not_many():
    with pytest.raises(UsageError, match="not one text"):
        await synaptic.Pool("http://127.0.0.1:9").chat_many("hello")


@pytest.mark.parametrize(
    ("nodes", "options", "words"),
    [
        (["ftp://x"], {}, "nodes"),
        ([{"url": "http://x", "paralel": 2}], {}, "paralel"),
        (["http://x"], {"hegde": True}, "hegde"),
        (["http://x"], {"failovers": "many"}, "failovers"),
        ([], {}, "needs a node"),
    ],
)
def test_a_wrong_pool_is_refused_when_it_is_made(nodes, options, words):
    with pytest.raises(ConfigError, match=words):
        synaptic.Pool(nodes, **options)


def test_options_go_over_the_settings_and_nodes_come_from_them(monkeypatch):
    settings = Settings(nodes=[NodeSettings(url="http://desk:11434", parallel=3)], failovers=1, temperature=0.3)
    pool = synaptic.Pool(settings=settings, failovers=0, model="m")
    assert [(str(node.url), node.parallel) for node in pool.settings.nodes] == [("http://desk:11434", 3)]
    assert (pool.settings.failovers, pool.settings.temperature, pool.settings.model) == (0, 0.3, "m")
    monkeypatch.setenv("OLLAMA_HOST", "attic:1234")
    assert [str(node.url) for node in synaptic.Pool(settings=Settings()).settings.nodes] == ["http://attic:1234"]


def test_making_one_asks_nobody_and_starts_nothing():
    with nodes_elsewhere(1) as (node,):
        threads = threading.enumerate()
        pool = synaptic.Pool([node.url])
        assert threading.enumerate() == threads
        pool.close()
        assert node.counters.connections == 0


def test_code_that_is_not_async_does_the_same():
    with nodes_elsewhere(2) as nodes:
        with synaptic.Pool([node.url for node in nodes], model="m") as pool:
            assert [status.condition for status in pool.nodes()] == ["unknown"] * 2
            assert pool.decisions() == []
            assert pool.chat_sync("x").text.endswith("w3")
            replies = pool.chat_many_sync([f"{n}" for n in range(6)], max_tokens=2)
            assert [reply.finish_reason for reply in replies] == ["length"] * 6
            assert [model.name for model in pool.models_sync()] == ["m:latest"]
            assert sum(status.served for status in pool.nodes()) == 7
            assert len(pool.decisions()) == 7
        assert pool_threads() == []
        assert sum(len(node.asked) for node in nodes) == 7


def test_without_with_it_is_closed_by_hand_and_then_takes_no_more():
    with nodes_elsewhere(1) as (node,):
        pool = synaptic.Pool([node.url], model="m")
        pool.chat_sync("x")
        pool.close()
        pool.close()
        assert pool_threads() == []
        for ask in (lambda: pool.chat_sync("x"), pool.nodes, lambda: pool.backend):
            with pytest.raises(BackendUnavailable, match="closed"):
                ask()
        assert pool_threads() == []


def test_threads_share_one_pool():
    with nodes_elsewhere(2) as nodes, synaptic.Pool([node.url for node in nodes], model="m") as pool:
        together = threading.Barrier(8)

        def ask(number):
            together.wait()
            return pool.chat_sync(f"question {number}").text

        with ThreadPoolExecutor(8) as threads:
            texts = list(threads.map(ask, range(8)))
        assert len(set(texts)) == 8
        assert len(pool_threads()) == 1
        assert sum(status.served for status in pool.nodes()) == 8


def test_closing_ends_the_calls_of_other_threads():
    with nodes_elsewhere(1, seconds_per_token=5.0) as (node,):
        pool = synaptic.Pool([node.url], model="m")
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(pool.chat_sync, f"{n}") for n in range(2)]
            while not node.asked:
                time.sleep(0.01)
            pool.close()
            for call in calls:
                assert isinstance(call.exception(10), BackendUnavailable)
        assert pool_threads() == []


def test_errors_come_through_as_they_are():
    with nodes_elsewhere(1) as (node,), synaptic.Pool([node.url], model="m") as pool:
        with pytest.raises(ModelNotFound):
            pool.chat_sync("x", model="unheard-of")
        with pytest.raises(UsageError, match="no option"):
            pool.chat_sync("x", colour="red")


async def test_a_sync_method_where_a_loop_runs_says_what_to_write():
    pool = synaptic.Pool("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="event loop runs") as told:
        pool.chat_sync("x")
    assert "await" in str(told.value)
    with pytest.raises(UsageError, match="event loop runs") as told, pool:
        pass
    assert "async with" in str(told.value)
    assert pool_threads() == []


def test_a_pool_belongs_to_one_event_loop():
    with nodes_elsewhere(1) as (node,):
        pool = synaptic.Pool([node.url], model="m")
        assert pool.chat_sync("x").node == node.url

        async def elsewhere():
            with pytest.raises(UsageError, match="another event loop"):
                await pool.chat("x")
            assert [status.served for status in pool.nodes()] == [1], "looking is allowed from anywhere"
            await pool.aclose()

        asyncio.run(elsewhere())
        assert pool_threads() == []


def test_async_code_closes_what_it_has_used():
    with nodes_elsewhere(1) as (node,):
        pool = synaptic.Pool([node.url], model="m")

        async def use():
            await pool.chat("x")
            with ThreadPoolExecutor(1) as thread:
                sync = thread.submit(pool.chat_sync, "x")
                assert isinstance(await asyncio.wrap_future(thread.submit(sync.exception)), UsageError)
                closing = thread.submit(pool.close)
                assert "await pool.aclose()" in str(await asyncio.wrap_future(thread.submit(closing.exception)))
            await pool.aclose()
            await pool.aclose()

        asyncio.run(use())


def test_a_listener_may_look_at_the_pool():
    seen = []
    with nodes_elsewhere(1) as (node,):
        node.fail("error", everything=True)
        pool = synaptic.Pool([node.url], model="m", report=lambda _: seen.append(pool.nodes()[0].condition))
        with pool, pytest.raises(BackendUnavailable):
            pool.models_sync()
        assert seen == ["down"]


PROGRAM = """
    import sys, threading
    import synaptic

    pool = synaptic.Pool([sys.argv[1]], model="m")
    {body}
"""
INTERRUPTED = """
    with pool:
        try:
            pool.chat_sync("x")
        except KeyboardInterrupt:
            print("interrupted")
    print(*[thread.name for thread in threading.enumerate() if thread.name == "synaptic-pool"], "closed")
"""
LEFT_OPEN = """
    print(pool.chat_sync("x").finish_reason)
"""


@pytest.mark.parametrize(
    ("body", "seconds", "number", "said"),
    [(INTERRUPTED, 600.0, signal.SIGINT, "interrupted\nclosed\n"), (LEFT_OPEN, 0.001, None, "stop\n")],
    ids=["interrupted", "left open"],
)
def test_a_program_ends_quietly(body, seconds, number, said):
    program = textwrap.dedent(PROGRAM).format(body=textwrap.dedent(body))
    with nodes_elsewhere(1, seconds_per_token=seconds) as (node,):
        process = subprocess.Popen(
            [sys.executable, "-W", "default", "-c", program, node.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if number is not None:
            while not node.asked:  # the main thread waits for the answer
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            process.send_signal(number)
        out, errors = process.communicate(timeout=100)
    assert (out, process.returncode) == (said, 0), errors
    assert errors == ""
