"""What a run has produced so far: every event goes through here, and the result is made of what was noted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from synaptic.messages import Usage
from synaptic.pipeline import Structure, present, settled
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

if TYPE_CHECKING:
    from synaptic.errors import SynapticError
    from synaptic.pipeline import Plan, StepKind
    from synaptic.runtime.agent_call import CallRecord
    from synaptic.runtime.scope import Scope


class Ledger:
    """Emits the events of one run and keeps how its steps ended.

    Args:
        plan: What is being run.
        run_id: Names the run in events and in the result.
        emit: Gets every event, in order; must return at once.

    """

    def __init__(self, plan: Plan, run_id: str, emit: EventHandler) -> None:
        self.plan = plan
        self.run_id = run_id
        self.emit: EventHandler = emit
        self.results: list[StepResult] = []
        self._started_at = 0.0
        self._attempts: dict[str, int] = {}

    def run_started(self) -> None:
        """Say that the run begins."""
        self._started_at = time.time()
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
        now = time.time()
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
                ended_at=None if started is None else time.time(),
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
                ended_at=time.time(),
                output=output,
                error=error.message if error else None,
                stop_reason=stop_reason or record.finish_reason,
                cached=record.cached,
            )
        )

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
            ended_at=time.time(),
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

    def best_so_far(self, scope: Scope) -> Answer:
        """Return the best there is of a run that did not come to its end.

        That is the answer as far as it was written, else the one output that the result would be, or the values of it
        that are there, else what the last finished steps found.
        """
        outputs, wanted = scope.outputs, self.plan.compiled.result
        if isinstance(wanted, Structure):
            values = settled(wanted.so_far(scope.variables))
            return values if any(present(value) for value in values.values()) else ""
        answer_step = self.plan.answer_step
        for result in reversed(self.results):
            if result.id == answer_step and result.output:
                return str(result.output)
        reference = wanted.sole_reference
        if reference is not None and reference.root == "steps":
            value: Any = outputs
            for part in reference.path:
                value = value.get(part) if isinstance(value, Mapping) else None
            if value:
                return present(value)
        graph = self.plan.compiled.graph
        finished = {name: output for name, output in outputs.items() if output and name in graph.steps}
        frontier = [name for name in finished if not any(after in finished for after in graph.dependents[name])]
        if len(frontier) == 1:
            return present(finished[frontier[0]])
        return "\n\n".join(f"## {name}\n\n{present(finished[name])}" for name in frontier)

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
