"""A text that breaks off is continued only where the model is known to go on with it; else it begins anew."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from faulty_node import FaultyNode
from pool_support import Answer, ask, ask_many, pool_over, question, whole_text

from synaptic.messages import Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chat_turns import Turn

TOKENS = 8
REQUEST = question(tokens=TOKENS, timeouts=Timeouts(first_token=20.0, idle=0.5))


@asynccontextmanager
async def nodes_with(*turns: Turn, **config: Any) -> AsyncIterator[list[FaultyNode]]:
    async with AsyncExitStack() as stack:
        nodes = [FaultyNode(turn=turn, tokens=None, seconds_per_token=0.001, **config) for turn in turns]
        yield [await stack.enter_async_context(node) for node in nodes]
        for node in nodes:
            node.heal()


async def broken_at_the_first(trial: Any, nodes: list[FaultyNode], **fault: Any) -> Answer:
    """Make a call that begins at the first node and breaks off there; then the others have a place."""
    nodes[0].fail(**fault)
    for index in range(1, len(nodes)):
        trial.state(index).cap = 0
    task = asyncio.create_task(ask(trial.pool, REQUEST))
    await nodes[0].wait_for(lambda: nodes[0].asked)
    for index in range(1, len(nodes)):
        trial.state(index).cap = 1
        trial.pool.dispatcher.touched(trial.state(index))
    return await asyncio.wait_for(task, 60)


def questions(node: FaultyNode) -> list[dict[str, Any]]:
    """Return the bodies that asked a node for its prompt."""
    return [call.body for call in node.asked if call.body.get("_debug_render_only")]


@pytest.mark.parametrize("after", range(1, TOKENS))
@pytest.mark.parametrize(
    ("turn", "renders", "continued", "asked"),
    [
        ("open", True, True, 0),
        ("open", False, True, 0),
        ("closed", True, False, 0),
        ("closed", False, False, 0),
        ("jinja", True, True, 1),
        ("jinja", False, False, 1),
    ],
    ids=["open", "open, old", "closed", "closed, old", "jinja", "jinja, old"],
)
async def test_every_text_is_whole_wherever_it_breaks(
    turn: Turn,
    renders: bool,  # noqa: FBT001 - a row of the table
    continued: bool,  # noqa: FBT001
    asked: int,
    after: int,
) -> None:
    async with nodes_with(turn, turn, renders=renders) as nodes, pool_over(nodes) as trial:
        answer = await broken_at_the_first(trial, nodes, kind="drop_after_n", after=after)
        assert answer.error is None
        assert answer.text == whole_text(nodes[1], REQUEST)
        assert (len(answer.continued), len(answer.restarts)) == ((1, 0) if continued else (0, 1))
        assert len(questions(nodes[1])) == asked
        assert answer.ends == 1


@pytest.mark.parametrize(("first", "second", "continued"), [("open", "closed", False), ("closed", "open", True)])
async def test_it_is_the_node_that_takes_over_that_must_go_on(
    first: Turn,
    second: Turn,
    continued: bool,  # noqa: FBT001 - a row of the table
) -> None:
    async with nodes_with(first, second) as nodes, pool_over(nodes) as trial:
        answer = await broken_at_the_first(trial, nodes, kind="drop_after_n", after=3)
        assert answer.text == whole_text(nodes[1], REQUEST)
        assert (len(answer.continued), len(answer.restarts)) == ((1, 0) if continued else (0, 1))
        if not continued:
            assert "n1 takes over, from the beginning: m:latest is not known to go on" in answer.restarts[0].reason


async def test_the_question_is_asked_as_the_call_will_be_sent() -> None:
    async with nodes_with("jinja", "jinja") as nodes, pool_over(nodes) as trial:
        answer = await broken_at_the_first(trial, nodes, kind="drop_after_n", after=3)
        (asked,) = questions(nodes[1])
        sent = nodes[1].asked[-1].body
        assert answer.text == whole_text(nodes[1], REQUEST)
        assert (asked["messages"], asked["model"]) == (sent["messages"], sent["model"])
        assert asked["options"]["num_ctx"] == sent["options"]["num_ctx"] == 4096
        assert asked["options"]["num_predict"] == 1


@pytest.mark.parametrize("fault", [{"kind": "refuse"}, {"kind": "hang_before_headers", "everything": True}])
async def test_a_node_that_is_lost_at_the_question_costs_no_word(fault: dict[str, Any]) -> None:
    async with nodes_with("jinja", "jinja", "jinja") as nodes, pool_over(nodes) as trial:
        nodes[1].gate.clear()
        trial.state(2).cap = 0
        task = asyncio.create_task(broken_at_the_first(trial, nodes[:2], kind="drop_after_n", after=3))
        await nodes[1].wait_for(lambda: questions(nodes[1]))
        nodes[1].fail(**fault)
        nodes[1].gate.set()
        trial.state(2).cap = 1
        trial.pool.dispatcher.touched(trial.state(2))
        answer = await asyncio.wait_for(task, 60)
        assert answer.error is None
        assert answer.text == whole_text(nodes[2], REQUEST)
        assert (len(answer.continued), answer.restarts) == (1, [])
        assert answer.continued[0].node == "n2"


async def test_a_node_that_cannot_answer_the_question_gets_the_whole_call() -> None:
    async with nodes_with("jinja", "jinja") as nodes, pool_over(nodes) as trial:
        nodes[1].fail("error", times=1)
        answer = await broken_at_the_first(trial, nodes, kind="drop_after_n", after=3)
        assert answer.error is None
        assert answer.text == whole_text(nodes[1], REQUEST)
        assert (answer.continued, len(answer.restarts)) == ([], 1)


async def test_a_text_that_is_continued_is_not_hedged() -> None:
    async with nodes_with("open", "open", "closed") as nodes, pool_over(nodes, hedge=True) as trial:
        assert all(answer.error is None for answer in await ask_many(trial.pool, 90))  # what is late is learned
        for node in nodes:
            node.asked.clear()
        nodes[1].gate.clear()
        trial.state(2).cap = 0
        task = asyncio.create_task(broken_at_the_first(trial, nodes[:2], kind="drop_after_n", after=3))
        await nodes[1].wait_for(lambda: nodes[1].asked)
        trial.state(2).cap = 1
        trial.pool.dispatcher.touched(trial.state(2))
        await asyncio.sleep(0.5)  # many times as long as is late
        nodes[1].gate.set()
        answer = await asyncio.wait_for(task, 60)
        assert answer.text == whole_text(nodes[1], REQUEST)
        assert (len(answer.continued), len(nodes[2].asked)) == (1, 0)


async def test_the_reader_is_told_what_broke_and_not_in_the_words_of_a_library() -> None:
    async with nodes_with("open", "open") as nodes, pool_over(nodes) as trial:
        answer = await broken_at_the_first(trial, nodes, kind="drop_after_n", after=3, reset=False)
        cut = f"the connection to {nodes[0].url} was cut before the reply was complete (the server closed it)"
        assert [continued.reason for continued in answer.continued] == [cut]
