"""One good model asked several times, and one answer made of what it said.

Source: Li et al., "Rethinking Mixture-of-Agents" (2025, arXiv 2502.00674): samples of the single best model beat a
mixture of different ones. ``vote`` is self-consistency (Wang et al., 2022, arXiv 2203.11171).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, SynapticError
from synaptic.pipeline import present
from synaptic.runtime.failure import StepFailed, unwrapped, why_cut

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledCall, CompiledSamples, CompiledStep
    from synaptic.runtime.caller import Caller
    from synaptic.runtime.scope import StepContext

SAMPLING_TEMPERATURE = 0.8
"""Where neither step nor agent says one: at 0, every sample would be the same."""


async def run_samples(caller: Caller, step: CompiledStep, context: StepContext) -> Any:
    """Return the answer that comes of the step's samples; a sample that fails is left out.

    Raises:
        StepFailed: If no sample succeeded, or the selecting call failed.
    """
    samples, call = step.samples, step.call
    assert samples is not None, "the step has samples"
    assert call is not None, "samples are of a call"
    ledger, path = caller.ledger, context.path
    started = ledger.started(path, "samples", call.agent.name, width=samples.count)
    found: dict[int, Any] = {}
    failures: list[StepFailed] = []

    async def take(index: int) -> None:
        try:
            sampled = call if call.temperature is not None else replace(call, temperature=SAMPLING_TEMPERATURE)
            found[index] = await caller.make(one, sampled, context.at(f"{path}[{index}]"), seed=index + 1)
        except StepFailed as exc:
            failures.append(exc)

    # A person is asked about the one answer, not about every sample of it.
    one = replace(step, approve="", on_error="skip")
    try:
        async with unwrapped(), asyncio.TaskGroup() as group:
            for index in range(samples.count):
                group.create_task(take(index))
        if not found:
            raise failures[0]
        output, reason = await _select(caller, one, samples, context, found)
        output = await caller.approved_output(step, path, output, call.shape)
    except StepFailed as exc:
        ledger.ended(path, "samples", "failed", agent=call.agent.name, started=started, error=exc.cause)
        raise
    except (asyncio.CancelledError, BudgetExceeded):
        cut = why_cut(ledger, context)
        ledger.ended(path, "samples", "cancelled", agent=call.agent.name, started=started, stop_reason=cut)
        raise
    except SynapticError as exc:
        ledger.ended(path, "samples", "failed", agent=call.agent.name, started=started, error=exc)
        raise StepFailed(path, exc) from exc
    ledger.ended(path, "samples", "succeeded", output, agent=call.agent.name, started=started, stop_reason=reason)
    return output


async def _select(
    caller: Caller, step: CompiledStep, samples: CompiledSamples, context: StepContext, found: dict[int, Any]
) -> tuple[Any, str]:
    """Return the answer and, in a few words, how it was selected."""
    candidates = [found[index] for index in sorted(found)]
    if samples.select == "vote":
        return vote(candidates)
    assert samples.judge is not None, "best and merge have a judge"
    assert step.call is not None, "samples are of a call"
    path = context.path
    prompt, _ = step.call.message(context.scope.variables, where=path)
    if samples.select == "merge":
        texts = [present(candidate) for candidate in candidates]
        merging = context.scope.with_variables(prompt=prompt, candidates=texts)
        merged = await caller.make(replace(step, on_error="fail"), samples.judge, context.at(f"{path}.merge", merging))
        return merged, f"merged: {len(candidates)}"
    scores: dict[int, float] = {}

    async def rate(judge: CompiledCall, index: int) -> None:
        judging = context.scope.with_variables(prompt=prompt, candidate=present(found[index]))
        # A judge that fails rates nothing; the candidate may still be the only one.
        with suppress(StepFailed):
            scores[index] = (await caller.make(step, judge, context.at(f"{path}.judge[{index}]", judging)))["score"]

    async with unwrapped(), asyncio.TaskGroup() as group:
        for index in found:
            group.create_task(rate(samples.judge, index))
    if not scores:
        return candidates[0], "unrated"
    best = max(sorted(scores), key=lambda index: scores[index])
    return found[best], f"best: {scores[best]:g}"


def vote(candidates: list[Any]) -> tuple[Any, str]:
    """Return the most frequent candidate (of equal ones the first) and its share of the votes.

    Texts are the same if they differ in case, space and closing punctuation only.
    """
    ballots = [_ballot(candidate) for candidate in candidates]
    counts = Counter(ballots)
    winner = max(ballots, key=lambda ballot: counts[ballot])
    return candidates[ballots.index(winner)], f"vote: {counts[winner]} of {len(candidates)}"


def _ballot(candidate: Any) -> str:
    if isinstance(candidate, str):
        return " ".join(candidate.casefold().split()).rstrip(".!")
    return json.dumps(candidate, sort_keys=True)
