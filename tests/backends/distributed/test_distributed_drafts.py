"""Drafts over real workers: fewer passes for the same text, and left where they do not pay or would take something."""

import pytest
from real_distributed import (  # two are fixtures
    Local,
    ask,
    distributed,
    engine_in_home,  # noqa: F401
    local_answers,  # noqa: F401
    real_model,
    real_shape,
    spread,
)

from synaptic.backends.distributed.coordinator.drafting import OLD_ENGINE, SETTING, WANTS_LOGPROBS
from synaptic.backends.distributed.coordinator.states import CoordinatorState
from synaptic.backends.drafts import ENOUGH, DraftRecord, DraftTally
from synaptic.messages import ChatRequest, Delta, Finished

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

TEXT = (
    "The lighthouse on the northern cliff was built in 1871 by two brothers who had lost their father to the sea. "
    "For sixty years they kept its lamp burning, first with whale oil and later with kerosene."
)
PROMPT = f"Repeat the following text word for word.\n\n{TEXT}"


async def last_of(stream) -> Finished:
    return [chunk async for chunk in stream][-1]


async def test_a_text_that_repeats_another_takes_fewer_passes_and_stays_what_it_was(local: Local):
    async with distributed(**await spread(2)) as watched:
        answer = await watched.answer(PROMPT, tokens=60, guarded=False)

        timings = next(chunk for chunk in answer.chunks if isinstance(chunk, Finished)).timings
        standing = watched.status.drafts
        placement = watched.status.placement
    assert answer.text == local.says(PROMPT, tokens=60, guarded=False)
    assert timings.accepted_tokens, (standing, answer.text)
    assert timings.accepted_tokens >= 8
    assert timings.drafted_tokens >= timings.accepted_tokens
    assert standing.on
    assert standing.total.accepted == timings.accepted_tokens
    assert [kind for kind, _ in standing.by_kind] == ["text"]
    assert standing.total.tokens_a_pass > 1.2
    assert placement.drafted_tokens_per_second is None or placement.draft_cost > 0
    assert DraftRecord(f"distributed {(await real_shape()).name}").total == standing.total


async def test_a_call_that_wants_log_probabilities_has_the_server_started_without_drafts():
    """llama.cpp says 0 and names no alternatives for every drafted token."""
    async with distributed(**await spread(1)) as watched:
        await watched.answer(PROMPT, tokens=40)
        request = ChatRequest(messages=ask(PROMPT).messages, temperature=0.0, max_tokens=40, logprobs=2)
        chunks = [chunk async for chunk in watched.backend.stream(request)]
        told = [one for chunk in chunks if isinstance(chunk, Delta) for one in chunk.logprobs]
        assert len(told) >= 20
        assert all(len(one.top) == 2 and one.logprob < 0 for one in told)
        assert not watched.status.drafts.on
        assert watched.status.drafts.why_off == WANTS_LOGPROBS
        assert CoordinatorState.RESTARTING in watched.states
        assert WANTS_LOGPROBS in watched.said
        assert (await last_of(watched.backend.stream(ask(PROMPT, tokens=40)))).timings.drafted_tokens is None

        await watched.backend.unload(str(real_model()))
    assert CoordinatorState.FAILED not in watched.states


async def test_a_first_call_that_wants_them_starts_the_server_once():
    async with distributed(local_workers=1) as watched:
        request = ChatRequest(messages=ask("Hi").messages, temperature=0.0, max_tokens=2, logprobs=1)
        assert (await last_of(watched.backend.stream(request))).finish_reason in {"stop", "length"}
        assert CoordinatorState.RESTARTING not in watched.states
        assert not watched.status.drafts.on


async def test_drafts_that_were_wrong_are_left_by_the_next_start():
    record = DraftRecord(f"distributed {(await real_shape()).name}")
    record.take("text", DraftTally(tokens=900, drafted=ENOUGH, accepted=1))
    async with distributed(local_workers=1) as watched:
        last = await last_of(watched.backend.stream(ask(PROMPT, tokens=40)))
        drafts = watched.status.drafts
    assert last.timings.drafted_tokens is None
    assert not drafts.on
    assert drafts.why_off.startswith(f"1 of {ENOUGH} drafted tokens were right, and ")


async def test_nothing_is_drafted_against_the_setting_or_by_an_engine_that_cannot(monkeypatch: pytest.MonkeyPatch):
    async with distributed(local_workers=1, drafts=False) as watched:
        assert (await last_of(watched.backend.stream(ask(PROMPT, tokens=40)))).timings.drafted_tokens is None
        assert watched.status.drafts.why_off == SETTING
    monkeypatch.setattr(
        "synaptic.backends.distributed.coordinator.drafting.MATCH_OPTION", "--an-option-that-no-engine-has"
    )
    async with distributed(local_workers=1) as watched:
        assert (await last_of(watched.backend.stream(ask(PROMPT, tokens=40)))).timings.drafted_tokens is None
        assert watched.status.drafts.why_off == OLD_ENGINE
