"""A pool under the policies of a run: attempts are counted once each, and what a failover says is what is told."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from faulty_node import FaultyNode
from faulty_node_script import as_models
from run_support import AGENTS, pipeline

from synaptic import Session, Settings
from synaptic.runtime.events import StepContinued, StepFinished, StepRetried, TokenDelta
from synaptic.runtime.run_document import run_document

STEP = "  end: {{agent: writer, prompt: x{more}}}"


class Trial:
    """A session over nodes, and what its runs said."""

    def __init__(self, session, nodes):
        self.session = session
        self.nodes = nodes
        self.events = []

    async def run(self, more="", *, head=""):
        self.events.clear()
        steps = STEP.format(more=more)
        return await self.session.run("why", pipeline=pipeline(steps, head=head), on_event=self.events.append)

    def told(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def step(self):
        (finished,) = self.told(StepFinished)
        return finished.result

    @property
    def asked(self):
        return sum(len(node.asked) for node in self.nodes)


@asynccontextmanager
async def session_over(count, *, config=(), **options):
    async with AsyncExitStack() as stack:
        usual = {"seconds_per_token": 0.001, "tokens": 8}
        nodes = [await stack.enter_async_context(FaultyNode(**{**usual, **dict(config)})) for _ in range(count)]
        listed = [{"url": node.url, "name": f"n{number}"} for number, node in enumerate(nodes)]
        settings = Settings(nodes=listed, **{"model": "m", "retries": 0, **options})
        session = await stack.enter_async_context(Session(settings, agents=AGENTS))
        yield Trial(session, nodes)


async def test_attempts_of_the_pool_and_of_the_retries_are_counted_once_each():
    async with session_over(2, failovers=1, retries=1) as trial:
        for node in trial.nodes:
            node.fail("error", times=1)
        result = await trial.run()
        assert result.status == "succeeded"
        assert [event.attempt for event in trial.told(StepRetried)] == [2, 3]
        assert trial.step.attempts == trial.asked == 3


async def test_a_node_has_one_name_in_the_row_of_the_step_in_the_document_and_in_the_explanation():
    async with session_over(1) as trial:
        result = await trial.run()
        (decision,) = trial.session.routed_backend.decisions()
        document = run_document(result)
        names = [trial.step.node, document["steps"][0]["node"], decision.node, decision.candidates[0].node]
        assert names == ["n0"] * 4


@pytest.mark.parametrize(("failovers", "retries", "sent"), [(0, 0, 1), (1, 0, 2), (0, 1, 2), (1, 1, 4)])
async def test_a_call_is_sent_again_as_often_as_the_two_settings_say(failovers, retries, sent):
    async with session_over(1, failovers=failovers, retries=retries) as trial:
        trial.nodes[0].fail("error")
        assert (await trial.run()).status == "failed"
        assert trial.asked == sent


async def test_what_is_continued_is_told_and_its_text_stays():
    async with session_over(2) as trial:
        for node in trial.nodes:
            node.fail("drop_after_n", after=3, times=1)
        result = await trial.run()
        assert result.status == "succeeded"
        assert "".join(event.text for event in trial.told(TokenDelta)) == result.answer
        assert len(trial.told(StepContinued)) == 2
        assert trial.told(StepRetried) == []
        assert trial.step.attempts == trial.asked == 3


async def test_a_failover_is_not_another_call_of_the_budget():
    async with session_over(2) as trial:
        for node in trial.nodes:
            node.fail("error", times=1)
        result = await trial.run(head="budget: {calls: 1}")
        assert result.status == "succeeded"
        assert trial.asked == 3


async def test_tokens_of_a_text_that_was_continued_count_once():
    async with session_over(2) as trial:
        plain = await trial.run()
        for node in trial.nodes:
            node.fail("drop_after_n", after=3, times=1)
        broken = await trial.run()
        assert (broken.status, broken.answer) == ("succeeded", plain.answer)
        assert len(trial.told(StepContinued)) >= 1
        assert trial.step.usage.completion_tokens == 8


@pytest.mark.parametrize("fault", ["drop_after_n", "error"])
async def test_an_answer_that_needed_two_nodes_is_cached_whole(fault):
    async with session_over(2) as trial:
        for node in trial.nodes:
            node.fail(fault, times=1, **({"after": 3} if fault == "drop_after_n" else {}))
        first = await trial.run(", cache: true")
        asked = trial.asked
        assert asked >= 2
        second = await trial.run(", cache: true")
        assert (second.status, second.answer) == ("succeeded", first.answer)
        assert trial.step.cached
        assert trial.asked == asked


async def test_a_model_that_was_removed_from_every_node_falls_back_to_one_that_is_there():
    async with session_over(2, config={"models": ["m", "spare"]}) as trial:
        assert (await trial.run(", model: spare, fallback_models: [m]")).status == "succeeded"
        assert trial.told(StepRetried) == []
        for node in trial.nodes:
            node.config.models = as_models(["m"])
        result = await trial.run(", model: spare, fallback_models: [m]")
        assert result.status == "succeeded"
        assert [event.model for event in trial.told(StepRetried)] == ["m"]
        assert trial.step.model == "m:latest"


async def test_a_model_that_fails_on_every_node_falls_back_after_its_failovers():
    async with session_over(2, config={"models": ["m", "spare"]}, failovers=1) as trial:
        for node in trial.nodes:
            node.fail("error", times=1)
        result = await trial.run(", fallback_models: [spare]")
        assert result.status == "succeeded"
        assert [event.attempt for event in trial.told(StepRetried)] == [2, 3]
        assert trial.told(StepRetried)[-1].model == "spare"
        assert sorted(call.model for node in trial.nodes for call in node.asked) == [
            "m:latest",
            "m:latest",
            "spare:latest",
        ]
