"""What a node can do wrong, one at a time and under load: no call is lost, none ends twice, no cut text passes."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
from fault_server import FaultServer, json_reply, ollama_lines, stream
from faulty_node import FaultyNode
from pool_support import ask, ask_many, pool_over, question, whole_text

from synaptic.errors import (
    BackendUnavailable,
    ContextOverflow,
    FirstTokenTimeout,
    IdleTimeout,
    ModelNotFound,
    ServerError,
    StreamTruncated,
)
from synaptic.messages import Timeouts
from synaptic.settings import NodeSettings, Settings

FAST = {"seconds_per_call": 0.001, "seconds_per_token": 0.001, "tokens": None}


@asynccontextmanager
async def nodes_of(count, **config):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FaultyNode(**{**FAST, **config})) for _ in range(count)]


BUSY_IN_MID_STREAM = {
    "/api/version": json_reply({"version": "0.12.6"}),
    "/api/tags": json_reply({"models": [{"name": "m:latest", "size": 1000}]}),
    "/api/ps": json_reply({"models": []}),
    "/api/show": json_reply({"capabilities": ["completion"]}),
    "/api/chat": stream(
        [*ollama_lines(["so", " far", " "], done=False), b'{"error": "server busy, please try again"}\n']
    ),
}

BEFORE_THE_FIRST_TOKEN = [
    {"kind": "error"},
    {"kind": "busy_503"},
    {"kind": "not_found"},
    {"kind": "hang_before_headers", "everything": True},
    {"kind": "blackhole"},
    {"kind": "refuse"},
    {"kind": "drop_after_n", "after": 0},
    {"kind": "error_line_after_n", "after": 0},
    {"kind": "malformed_json", "after": 0},
    {"kind": "slow_headers", "seconds": 1.0},
]
IN_MID_STREAM = [
    {"kind": "drop_after_n", "after": 3},
    {"kind": "drop_after_n", "after": 3, "reset": False},
    {"kind": "error_line_after_n", "after": 3},
    {"kind": "malformed_json", "after": 3},
    {"kind": "hang_after_n", "after": 3},
]


def named(fault):
    return fault["kind"] + ("" if fault.get("reset", True) else "_fin")


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_TOKEN, ids=named)
async def test_a_failure_before_the_first_token_goes_elsewhere(fault):
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        nodes[0].fail(**fault)
        trial.state(1).cap = 0  # the first call must meet the fault
        task = asyncio.create_task(ask(trial.pool, question(timeouts=Timeouts(first_token=6.0, idle=6.0))))
        await asyncio.sleep(0.05)
        trial.state(1).cap = 1
        trial.pool.dispatcher.touched(trial.state(1))
        answer = await asyncio.wait_for(task, 60)
        assert answer.error is None
        assert (answer.text, answer.node, answer.ends) == (whole_text(nodes[1], question()), "n1", 1)
        nodes[0].heal()


@pytest.mark.parametrize("fault", IN_MID_STREAM, ids=named)
async def test_a_text_that_breaks_off_is_continued_without_a_word_twice_or_missing(fault):
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        nodes[0].fail(**fault)
        trial.state(1).cap = 0
        request = question(timeouts=Timeouts(first_token=5.0, idle=0.5))
        task = asyncio.create_task(ask(trial.pool, request))
        await nodes[0].wait_for(lambda: nodes[0].asked)
        trial.state(1).cap = 1
        trial.pool.dispatcher.touched(trial.state(1))
        answer = await asyncio.wait_for(task, 60)
        assert answer.error is None
        assert answer.text == whole_text(nodes[1], question())
        assert (answer.ends, len(answer.continued), answer.restarts) == (1, 1, [])
        assert answer.continued[0].node == "n1"
        (second,) = nodes[1].asked
        assert second.messages[-1]["role"] == "assistant"
        nodes[0].heal()


async def test_an_answer_with_a_schema_begins_anew_and_says_so():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("drop_after_n", after=1)
        trial.state(1).cap = 0
        task = asyncio.create_task(ask(trial.pool, question(schema=schema, tokens=40)))
        await nodes[0].wait_for(lambda: nodes[0].asked)
        trial.state(1).cap = 1
        trial.pool.dispatcher.touched(trial.state(1))
        answer = await asyncio.wait_for(task, 60)
        assert answer.error is None
        assert (len(answer.restarts), answer.continued) == (1, [])
        assert "n1 takes over" in answer.restarts[0].reason
        assert nodes[1].asked[0].messages == nodes[0].asked[0].messages


async def test_after_two_failovers_the_error_is_told():
    async with nodes_of(4) as nodes, pool_over(nodes) as trial:
        for node in nodes:
            node.fail("error")
        answer = await ask(trial.pool, question())
        assert isinstance(answer.error, ServerError)
        assert sum(len(node.asked) for node in nodes) == 3
        assert max(len(node.asked) for node in nodes) == 1


async def test_a_wrong_request_is_not_sent_again():
    async with nodes_of(2) as nodes, pool_over(nodes, num_ctx=64) as trial:
        answer = await ask(trial.pool, question("word " * 500))
        assert isinstance(answer.error, ContextOverflow)
        assert sum(len(node.asked) for node in nodes) == 1
        assert all(member.errors == 0 for member in trial.pool.members.values())


async def test_a_node_that_answers_503_at_once_is_no_black_hole():
    async with nodes_of(2, seconds_per_call=0.02) as nodes, pool_over(nodes, parallel=4) as trial:
        nodes[0].fail("busy_503")
        answers = await ask_many(trial.pool, 200)
        assert [answer.error for answer in answers] == [None] * 200
        assert len(nodes[0].asked) < 20
        nodes[0].heal()


async def test_a_dead_node_costs_no_error_and_is_used_again_when_it_is_back():
    async with nodes_of(2, loaded=("m",)) as nodes, pool_over(nodes, parallel=2) as trial:
        nodes[0].fail("refuse")
        assert all(answer.error is None for answer in await ask_many(trial.pool, 50))
        assert trial.pool.statuses()[0].condition == "down"
        asked = len(nodes[0].asked)
        nodes[0].heal()
        async with asyncio.timeout(60):
            while len(nodes[0].asked) == asked:
                await ask_many(trial.pool, 8)
                await asyncio.sleep(0.05)
        said = " ".join(report.message for report in trial.reports)
        assert "n0" in said


async def test_a_model_that_is_missing_there_excludes_the_model_and_not_the_node():
    async with nodes_of(2, models=["m", "other"]) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("not_found", times=1)
        trial.state(1).cap = 0
        task = asyncio.create_task(ask(trial.pool, question()))
        await nodes[0].wait_for(lambda: nodes[0].asked)
        trial.state(1).cap = 1
        trial.pool.dispatcher.touched(trial.state(1))
        assert (await task).error is None
        assert trial.pool.statuses()[0].condition == "up"
        assert trial.state(0).models["m:latest"].refused_until > asyncio.get_running_loop().time()
        assert trial.state(0).models["other:latest"].refused_until == 0


async def test_a_model_that_no_node_has_is_an_error_at_once():
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        answer = await ask(trial.pool, question(model="llama9"))
        assert isinstance(answer.error, ModelNotFound)
        assert "ollama pull llama9" in str(answer.error)


async def test_timeouts_are_those_of_the_call_and_not_of_the_queue():
    async with nodes_of(1, seconds_per_token=0.05) as nodes, pool_over(nodes) as trial:
        patient = Timeouts(first_token=1.0, idle=1.0)
        answers = await asyncio.gather(*(ask(trial.pool, question(f"{n}", timeouts=patient)) for n in range(6)))
        assert [answer.error for answer in answers] == [None] * 6  # the last waited longer than a second


@pytest.mark.parametrize(
    ("fault", "error"), [("hang_before_headers", FirstTokenTimeout), ("hang_after_n", IdleTimeout)]
)
async def test_a_call_that_is_silent_for_too_long_is_given_up(fault, error):
    async with nodes_of(1) as nodes, pool_over(nodes, failovers=0) as trial:
        nodes[0].fail(fault)
        answer = await asyncio.wait_for(
            ask(trial.pool, question(timeouts=Timeouts(first_token=0.3, idle=0.3), schema={"type": "object"})), 10
        )
        assert isinstance(answer.error, error)
        nodes[0].heal()


async def test_a_loop_that_was_blocked_is_nobodys_silence():
    async with nodes_of(1, seconds_per_call=0.2) as nodes, pool_over(nodes, failovers=0) as trial:
        task = asyncio.create_task(ask(trial.pool, question(timeouts=Timeouts(first_token=0.8, idle=0.8))))
        await nodes[0].wait_for(lambda: nodes[0].asked)
        time.sleep(1.2)  # noqa: ASYNC251  (that is the point)
        answer = await asyncio.wait_for(task, 60)
        assert answer.error is None


async def test_all_down_and_one_back_loses_nothing():
    async with nodes_of(3) as nodes, pool_over(nodes) as trial:
        for node in nodes:
            node.fail("refuse")
        task = asyncio.create_task(ask_many(trial.pool, 20))
        await asyncio.sleep(0.5)
        nodes[1].heal()
        answers = await asyncio.wait_for(task, 60)
        assert [answer.error for answer in answers] == [None] * 20
        assert {answer.node for answer in answers} == {"n1"}
        for node in nodes:
            node.heal()


async def test_all_down_for_good_is_an_error_that_says_why_for_each():
    async with nodes_of(2) as nodes, pool_over(nodes, recovery=0.5) as trial:
        for node in nodes:
            node.fail("refuse")
        answer = await asyncio.wait_for(ask(trial.pool, question()), 60)
        assert isinstance(answer.error, BackendUnavailable)
        assert "n0: " in answer.error.message
        assert "n1: " in answer.error.message
        for node in nodes:
            node.heal()


async def test_a_name_that_does_not_resolve_is_a_node_that_is_down():
    async with nodes_of(1) as nodes:
        from synaptic.backends.pool.backend import PoolBackend

        chosen = [NodeSettings(url="http://no-such-host.invalid:11434"), NodeSettings(url=nodes[0].url)]
        async with PoolBackend(Settings(), chosen) as pool:
            assert all(answer.error is None for answer in await ask_many(pool, 10))
            status = pool.statuses()[0]
            assert status.condition == "down"
            assert "does not resolve" in status.reason


async def test_leaving_in_the_middle_ends_the_call_at_the_node():
    async with nodes_of(1, seconds_per_token=0.05) as nodes, pool_over(nodes) as trial:
        async with aclosing(trial.pool.stream(question(tokens=200))) as chunks:
            async for _ in chunks:
                break
        assert trial.state(0).in_flight == 0
        await nodes[0].wait_until_idle()
        assert nodes[0].asked[0].outcome == "abandoned"


async def test_ten_thousand_queued_calls_are_cancelled_at_once():
    async with nodes_of(1, seconds_per_token=0.05) as nodes, pool_over(nodes) as trial:
        tasks = [asyncio.create_task(ask(trial.pool, question(f"{n}", tokens=100))) for n in range(10_000)]
        await nodes[0].wait_for(lambda: nodes[0].asked)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert len(trial.pool.dispatcher.waiting) == 0
        await trial.settled()
        assert (await ask(trial.pool, question("still there?"))).error is None


@pytest.mark.parametrize("after", [0, 3])
async def test_a_reply_that_is_broken_once_is_asked_for_again_where_there_is_one_node(after):
    async with nodes_of(1) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("malformed_json", after=after, times=1)
        answer = await ask(trial.pool, question())
        assert (answer.error, answer.text) == (None, whole_text(nodes[0], question()))
        assert not any("takes over" in restart.reason for restart in answer.restarts), "it is the same node"
        assert len(answer.restarts) + len(answer.continued) == 1


async def test_num_ctx_is_always_sent_and_stays_the_same():
    async with nodes_of(1) as nodes, pool_over(nodes, num_ctx=None) as trial:
        for wanted in (None, 2048, None, 1024):
            assert (await ask(trial.pool, question(num_ctx=wanted))).error is None
        sent = [call.body["options"]["num_ctx"] for call in nodes[0].asked]
        assert sent == [8192] * 4


async def test_hedging_takes_the_tail_away_and_closes_the_slower_connection():
    async with nodes_of(2, seconds_per_call=0.01) as nodes, pool_over(nodes, parallel=8, hedge=True) as trial:
        await ask_many(trial.pool, 60)
        nodes[0].fail("hang_before_headers", times=3)
        answers = await asyncio.wait_for(ask_many(trial.pool, 40), 60)
        assert [answer.error for answer in answers] == [None] * 40
        assert all(answer.restarts == [] for answer in answers)
        await trial.settled()
        assert sum(call.outcome == "abandoned" for call in nodes[0].asked) >= 1


async def test_a_text_that_breaks_off_at_its_token_limit_is_complete():
    async with nodes_of(2) as nodes, pool_over(nodes) as trial:
        for node in nodes:
            node.fail("no_done")
        answer = await ask(trial.pool, question(tokens=5))
        assert (answer.text, answer.finish, answer.ends) == (whole_text(nodes[0], question(tokens=5)), "length", 1)
        assert sum(len(node.asked) for node in nodes) == 1


async def test_a_truncated_stream_is_never_a_success():
    async with nodes_of(1) as nodes, pool_over(nodes, failovers=0) as trial:
        nodes[0].fail("no_done")
        answer = await ask(trial.pool, question())
        assert isinstance(answer.error, StreamTruncated)
        assert answer.ends == 0
        nodes[0].heal()


async def test_a_model_that_the_only_node_cannot_load_is_an_error_at_once_and_for_a_while():
    async with nodes_of(1) as nodes, pool_over(nodes) as trial:
        nodes[0].fail("not_found")
        for _ in range(2):
            answer = await asyncio.wait_for(ask(trial.pool, question()), 60)
            assert isinstance(answer.error, ModelNotFound)
        assert len(nodes[0].asked) == 1  # the second call was told why without asking again
        nodes[0].heal()


async def test_a_node_that_says_it_is_busy_in_mid_stream_had_begun_all_the_same():
    async with nodes_of(1) as nodes, FaultServer(BUSY_IN_MID_STREAM) as busy, pool_over([busy, nodes[0]]) as trial:
        trial.state(1).cap = 0
        task = asyncio.create_task(ask(trial.pool, question()))
        await busy.wait_for(lambda: any(request.path == "/api/chat" for request in busy.requests))
        trial.state(1).cap = 1
        trial.pool.dispatcher.touched(trial.state(1))
        answer = await asyncio.wait_for(task, 60)
        assert answer.error is None
        assert answer.text.startswith("so far ")
        assert (len(answer.continued), answer.ends) == (1, 1)
        assert nodes[0].asked[0].messages[-1] == {"role": "assistant", "content": "so far"}
