"""What a run has produced so far: every event goes through here, and the result is made of what was noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.messages import Usage
from synaptic.runtime.events import (
    Answer,
    Descent,
    EndedSteps,
    EventHandler,
    RunFinished,
    RunResult,
    RunStarted,
    RunStatus,
    StepAsked,
    StepFinished,
    StepResult,
    StepRetried,
    StepStarted,
    StepStatus,
)
from synaptic.runtime.step_paths import is_at
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    import asyncio

    from synaptic.errors import SynapticError
    from synaptic.pipeline import Plan, StepKind
    from synaptic.runtime.agent_call import CallRecord


NO_DESCENT = Descent()


class Ledger:
    """Emits the events of one run and keeps how its steps ended.

    Args:
        plan: What is being run.
        run_id: Names the run in events and in the result.
        emit: Gets every event, in order; must return at once.
        descent: Where the run comes from.

    Attributes:
        clocks: What bounds a whole step, by its path.
    """

    def __init__(self, plan: Plan, run_id: str, emit: EventHandler, descent: Descent = NO_DESCENT) -> None:
        self.plan = plan
        self.run_id = run_id
        self.emit: EventHandler = emit
        self.results: list[StepResult] = []
        self._descent = descent
        self._started_at = 0.0
        self._attempts: dict[str, int] = {}
        self.clocks: dict[str, asyncio.Timeout] = {}
        self._keys: dict[str, str] = {}
        self._reused: set[str] = set()
        self._cuts: dict[str, str] = {}

    def run_started(self, at: float | None = None) -> None:
        """Say that the run begins; or that it began then, in seconds since the epoch."""
        self._started_at = steady_time() if at is None else at
        self.emit(RunStarted(self.run_id, self.plan, self._started_at, self._descent))

    def started(
        self,
        path: str,
        kind: StepKind,
        agent: str | None = None,
        *,
        backend: str | None = None,
        model: str | None = None,
        width: int | None = None,
    ) -> float:
        """Say that a step begins, and return when."""
        now = steady_time()
        self.emit(StepStarted(path, kind, agent, backend, model, now, width))
        return now

    def asked(self, asked: StepAsked) -> None:
        """Say what a leaf of a recorded run asks; its end will have the same key."""
        self._keys[asked.path] = asked.key
        self.emit(asked)

    def reuses(self, path: str) -> None:
        """Note that the output of a leaf is the one of an earlier run."""
        self._reused.add(path)

    def tried_again(self, path: str, attempt: int, error: SynapticError, delay: float) -> None:
        """Say that a step which calls no model itself failed, and tries for the ``attempt``-th time in ``delay`` s."""
        self._attempts[path] = attempt
        self.emit(StepRetried(path, attempt, error.message, delay))

    def ended(
        self,
        path: str,
        kind: StepKind,
        status: StepStatus,
        output: Any = None,
        *,
        agent: str | None = None,
        started: float | None = None,
        error: SynapticError | None = None,
        stop_reason: str | None = None,
    ) -> None:
        """Say how a step ended that calls no model itself."""
        self._note(
            StepResult(
                id=path,
                kind=kind,
                agent=agent,
                status=status,
                attempts=self._attempts.pop(path, 0),
                started_at=started,
                ended_at=None if started is None else steady_time(),
                output=output,
                error=error.message if error else None,
                stop_reason=stop_reason,
                key=self._keys.pop(path, None) if self._keys else None,
                reused=path in self._reused,
            )
        )

    def called(
        self,
        path: str,
        kind: StepKind,
        status: StepStatus,
        output: Any,
        record: CallRecord,
        *,
        error: SynapticError | None = None,
        stop_reason: str | None = None,
    ) -> None:
        """Say how the call of a model ended."""
        self._note(
            StepResult(
                id=path,
                kind=kind,
                agent=record.agent,
                status=status,
                model=record.model,
                backend=record.backend,
                node=record.node,
                attempts=record.attempts,
                usage=record.usage,
                timings=record.timings,
                first_token_seconds=record.first_token_seconds,
                started_at=record.started_at,
                ended_at=steady_time(),
                output=output,
                error=error.message if error else None,
                stop_reason=stop_reason
                or (record.finish_reason or record.stop_reason if status != "cancelled" else None),
                cached=record.cached,
                key=self._keys.pop(path, None) if self._keys else None,
                reused=path in self._reused,
            )
        )

    def cuts(self, path: str, reason: str) -> None:
        """Say why what runs at ``path`` and inside it is about to be cancelled; the first reason is the one."""
        self._cuts.setdefault(path, reason)

    def why_cut(self, path: str) -> str | None:
        """Return why a step is cancelled, where the run itself does it."""
        reasons = (reason for cut, reason in self._cuts.items() if is_at(path, cut))
        late = any(clock.expired() and is_at(path, step) for step, clock in self.clocks.items())
        return "timeout" if late else next(reasons, None)

    def last(self, path: str) -> StepResult | None:
        """Return how the step ended that had this path, the last time that it did."""
        return next((result for result in reversed(self.results) if result.id == path), None)

    def _note(self, result: StepResult) -> None:
        if result.reused:
            self._reused.discard(result.id)
        self.results.append(result)
        self.emit(StepFinished(result))

    def finish(
        self, status: RunStatus, answer: Answer, error: Exception | None = None, stop_reason: str | None = None
    ) -> RunResult:
        """Return the result of the run, after saying that it ended."""
        result = RunResult(
            run_id=self.run_id,
            pipeline=self.plan.pipeline.name,
            status=status,
            answer=answer,
            steps=EndedSteps(self.results),
            usage=_total(self.results),
            stop_reason=stop_reason or self._stop_reason(status),
            started_at=self._started_at,
            ended_at=steady_time(),
            error=error,
        )
        self.emit(RunFinished(result))
        return result

    def _stop_reason(self, status: RunStatus) -> str:
        if status != "succeeded":
            return status
        step = self.plan.answer_step
        cut = any(result.id == step and result.stop_reason == "length" for result in self.results)
        return "length" if cut else "completed"

    def why_empty(self) -> str | None:
        """Return which steps were skipped, as the reason of an empty result."""
        skipped = [result.id for result in self.results if result.status == "skipped"]
        return f"skipped: {', '.join(skipped)}" if skipped else None


def _total(results: list[StepResult]) -> Usage:
    """Return the sum; adding ten thousand frozen objects pairwise would take longer than the steps."""
    usages = [result.usage for result in results]
    return Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
