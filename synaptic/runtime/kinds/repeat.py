"""A bounded loop: rounds until it is good enough, gets no better, or the bound is reached; the best so far is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, PipelineError, StepTimeout, SynapticError
from synaptic.pipeline import SKIPPED, Expression
from synaptic.pipeline.kinds.repeat import CompiledRepeat
from synaptic.runtime.failure import StepFailed, why_cut, within
from synaptic.runtime.scope import StepContext

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import Scope


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return the kept round's outputs with ``rounds`` and ``stop_reason``; of ``self: true``, its output alone.

    Raises:
        StepFailed: If the first round failed. Where a later one does, the best so far is the output.
    """
    repeat = step.work
    assert isinstance(repeat, CompiledRepeat), "the compiler gives a loop its body"
    ledger, path, scope = runner.ledger, context.path, context.scope
    rounds = _Rounds(repeat, step.id)
    started, where = None, path
    error: SynapticError | None = None
    try:
        bound = _bound(repeat, path, scope)
        started = ledger.started(path, "repeat", step.agent_name, width=bound)
        async with within(step.timeout, path, ledger):
            reason = await _run_rounds(runner, step, context, rounds, bound)
    except (asyncio.CancelledError, BudgetExceeded):
        cut = why_cut(ledger, context)
        ledger.ended(path, "repeat", "cancelled", rounds.output(cut or "cancelled"), started=started, stop_reason=cut)
        raise
    except StepFailed as exc:
        reason, error, where = "error", exc.cause, exc.path
    except (PipelineError, StepTimeout) as exc:
        reason, error = ("timeout" if isinstance(exc, StepTimeout) else "error"), exc
    if error is not None and rounds.kept is None:
        ledger.ended(path, "repeat", "failed", started=started, error=error)
        raise StepFailed(where, error)
    output = await _approved(runner, step, context, rounds.output(reason), started)
    ledger.ended(path, "repeat", "succeeded", output, started=started, stop_reason=reason)
    return output


async def _approved(
    runner: StepRunner, step: CompiledStep, context: StepContext, output: Any, started: float | None
) -> Any:
    """Return the output as the person wants it, where the step asks for that.

    Raises:
        StepFailed: If the person refused it, or what the person made of it does not fit.
    """
    call, ledger, path = step.worker.call, runner.ledger, context.path
    try:
        return await runner.caller.approved_output(step, path, output, None if call is None else call.shape)
    except asyncio.CancelledError:
        ledger.ended(path, "repeat", "cancelled", output, started=started, stop_reason=why_cut(ledger, context))
        raise
    except SynapticError as exc:
        ledger.ended(path, "repeat", "failed", output, started=started, error=exc)
        raise StepFailed(path, exc) from exc


async def _run_rounds(runner: StepRunner, step: CompiledStep, context: StepContext, rounds: _Rounds, bound: int) -> str:
    """Run round after round and return why it was the last."""
    repeat, path = rounds.repeat, context.path
    after = max(0, context.rank - repeat.body.length)
    for number in range(1, bound + 1):
        inner = context.scope.inner(f"{path}[{number}].", after, previous=rounds.last)
        if repeat.itself:
            body = repeat.body.steps[step.id]
            inner.outputs[step.id] = await runner.work(body, StepContext(f"{path}[{number}]", inner, context.rank))
        else:
            await runner.graph(repeat.body, inner)
        rounds.add(inner, path)
        if repeat.until is not None and repeat.until.evaluate(inner.variables, where=f"{path}.until"):
            return "until"
        if repeat.plateau is not None and rounds.without_gain >= repeat.plateau:
            return "plateau"
    return "max"


def _bound(repeat: CompiledRepeat, path: str, scope: Scope) -> int:
    bound = repeat.max
    if isinstance(bound, Expression):
        bound = bound.evaluate(scope.variables, where=f"{path}.repeat.max")
    if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
        raise PipelineError(f"{path}: 'max' must be a whole number of at least 1, not {bound!r}")
    return bound


@dataclass(slots=True)
class _Rounds:
    """The rounds of a loop, of which one is kept: the best by score, or the last.

    Attributes:
        last: What ``previous`` is in the next round.
        without_gain: Rounds since the best score.
    """

    repeat: CompiledRepeat
    name: str
    count: int = 0
    last: Any = SKIPPED
    kept: Any = None
    best: float | None = None
    without_gain: int = 0

    def add(self, scope: Scope, path: str) -> None:
        """Take the outputs of a round that came to its end."""
        self.count += 1
        if self.repeat.itself:
            self.last = scope.outputs[self.name]
        else:
            self.last = {name: scope.outputs[name] for name in self.repeat.body.steps}
        score = self._score(scope, path)
        better = score is not None and (self.best is None or score > self.best)
        if better:
            self.best, self.without_gain = score, 0
        else:
            self.without_gain += 1
        if better or self.repeat.keep == "last" or self.count == 1:
            self.kept = self.last

    def _score(self, scope: Scope, path: str) -> float | None:
        """Return the round's score; ``None`` where nothing is scored, or what would be scored was skipped."""
        if self.repeat.score is None:
            return None
        score = self.repeat.score.evaluate(scope.variables, where=f"{path}.score")
        if score is SKIPPED:
            return None
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise PipelineError(f"{path}: 'score' must be a number, not {score!r}")
        return score

    def output(self, reason: str) -> Any:
        """Return the loop's output; ``None`` where no round came to its end."""
        return (
            self.kept
            if self.repeat.itself or self.kept is None
            else {**self.kept, "rounds": self.count, "stop_reason": reason}
        )
