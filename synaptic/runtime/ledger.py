"""What a run has produced so far: every event goes through here, and the result is made of what was noted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.messages import Usage
from synaptic.runtime.events import (
    Answer,
    EventHandler,
    RunFinished,
    RunResult,
    RunStarted,
    RunStatus,
    StepFinished,
    StepResult,
    StepRetried,
    StepStarted,
    StepStatus,
)
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    import asyncio

    from synaptic.errors import SynapticError
    from synaptic.pipeline import Plan, StepKind
    from synaptic.runtime.agent_call import CallRecord


class Ledger:
    """Emits the events of one run and keeps how its steps ended.

    Args:
        plan: What is being run.
        run_id: Names the run in events and in the result.
        emit: Gets every event, in order; must return at once.

    Attributes:
        clocks: What bounds a whole step, by its path.

    """

    def __init__(self, plan: Plan, run_id: str, emit: EventHandler) -> None:
        self.plan = plan
        self.run_id = run_id
        self.emit: EventHandler = emit
        self.results: list[StepResult] = []
        self._started_at = 0.0
        self._attempts: dict[str, int] = {}
        self.clocks: dict[str, asyncio.Timeout] = {}
        self._cuts: dict[str, str] = {}

    def run_started(self) -> None:
        """Say that the run begins."""
        self._started_at = steady_time()
        self.emit(RunStarted(self.run_id, self.plan, self._started_at))

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
                stop_reason=stop_reason or (record.finish_reason if status != "cancelled" else None),
                cached=record.cached,
            )
        )

    def cuts(self, path: str, reason: str) -> None:
        """Say why what runs at ``path`` and inside it is about to be cancelled; the first reason is the one."""
        self._cuts.setdefault(path, reason)

    def why_cut(self, path: str) -> str | None:
        """Return why a step is cancelled, where the run itself does it."""
        reasons = (reason for cut, reason in self._cuts.items() if _is_at(path, cut))
        late = any(clock.expired() and _is_at(path, step) for step, clock in self.clocks.items())
        return "timeout" if late else next(reasons, None)

    def last(self, path: str) -> StepResult | None:
        """Return how the step ended that had this path, the last time that it did."""
        return next((result for result in reversed(self.results) if result.id == path), None)

    def _note(self, result: StepResult) -> None:
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
            steps=tuple(self.results),
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


def _is_at(path: str, cut: str) -> bool:
    """Return whether a path is that of a step, or of something inside it; a scope's prefix ends with a dot."""
    return path.startswith(cut) and (not cut or cut[-1] == "." or path[len(cut) : len(cut) + 1] in {"", "[", "."})


def _total(results: list[StepResult]) -> Usage:
    """Return the sum; adding ten thousand frozen objects pairwise would take longer than the steps."""
    usages = [result.usage for result in results]
    return Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
