"""The executor: pure dataflow over a plan's graph. A step starts the moment all it needs is done or skipped.

One task group per scope (the run, each round of a loop, each map), one task per step. A step that fails and may
not be skipped ends the run: what runs beside it is cancelled and drained, what is finished is kept.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.errors import PipelineError, RunError, SynapticError
from synaptic.messages import Usage
from synaptic.pipeline.expressions import Expression, present
from synaptic.runtime.agent_call import CallRecord, build_request, call_agent
from synaptic.runtime.events import (
    Event,
    EventHandler,
    RunFinished,
    RunResult,
    RunStarted,
    RunStatus,
    StepFinished,
    StepResult,
    StepStarted,
    StepStatus,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from synaptic.backends.base import Backend
    from synaptic.messages import ChatRequest
    from synaptic.pipeline.graph import CompiledRepeat, CompiledStep, Graph
    from synaptic.pipeline.plan import Plan


class _StepFailed(Exception):
    """A step failed and its ``on_error`` does not allow going on."""

    def __init__(self, path: str, cause: SynapticError) -> None:
        super().__init__(path)
        self.path = path
        self.cause = cause


@dataclass(slots=True)
class _Scope:
    """The variables of one scope. A loop's round sees the outputs around the loop, and writes only its own."""

    prefix: str
    variables: dict[str, Any]
    outputs: dict[str, Any]

    def inner(self, prefix: str, **extra: Any) -> _Scope:
        outputs = dict(self.outputs)
        return _Scope(prefix, {**self.variables, "steps": outputs, **extra}, outputs)

    def with_item(self, step: CompiledStep, item: Any) -> dict[str, Any]:
        return {**self.variables, "item": item, step.item_name or "item": item}


class Executor:
    """Runs one plan, once."""

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        defaults: ChatRequest,
        *,
        run_id: str,
        emit: EventHandler,
        conversation: str = "",
    ) -> None:
        """Prepare a run.

        Args:
            plan: What to do.
            backend: Where the calls go, with its policies around it.
            defaults: Model, sampling and timeouts of a call where neither step nor agent says otherwise.
            run_id: Names the run in events and in the result.
            emit: Gets every event, in order; must return at once.
            conversation: Earlier turns as text, for ``{{ run.conversation }}``.

        """
        self._plan = plan
        self._backend = backend
        self._defaults = defaults
        self._run_id = run_id
        self._emit_event = emit
        self._run_variables = {"id": run_id, "pipeline": plan.pipeline.name, "conversation": conversation}
        self._results: list[StepResult] = []

    async def run(self) -> RunResult:
        """Return how the run ended.

        Raises:
            asyncio.CancelledError: If the run was cancelled; the last event then holds what was produced.

        """
        started = time.time()
        outputs: dict[str, Any] = {}
        variables = {"inputs": self._plan.inputs, "run": self._run_variables, "steps": outputs}
        scope = _Scope("", variables, outputs)
        self._emit(RunStarted(self._run_id, self._plan, started))
        error: SynapticError | None = None
        answer = ""
        try:
            await self._graph(self._plan.graph, scope)
            answer = self._plan.compiled.result.render(scope.variables, where="result")
        except asyncio.CancelledError:
            self._finish(started, "cancelled", self._best_so_far(), None)
            raise
        except _StepFailed as exc:
            error = exc.cause
        except PipelineError as exc:
            error = exc
        except Exception as bug:
            self._finish(started, "failed", self._best_so_far(), bug)
            raise
        if error is None and not answer:
            error = RunError("the run ended, but its result is empty", hint=self._why_empty())
        if error is not None:
            return self._finish(started, "failed", self._best_so_far(), error)
        return self._finish(started, "succeeded", answer, None)

    # -- one scope -----------------------------------------------------------------------------------------

    async def _graph(self, graph: Graph, scope: _Scope) -> None:
        """Run every step of the graph; ``scope.outputs`` holds the outputs afterwards."""
        waiting = {name: len(step.needs) for name, step in graph.steps.items()}

        async def run_one(step: CompiledStep) -> None:
            scope.outputs[step.id] = await self._step(step, scope)
            for name in graph.dependents[step.id]:
                waiting[name] -= 1
                if waiting[name] == 0:
                    tasks.create_task(run_one(graph.steps[name]))

        async with _unwrapped(), asyncio.TaskGroup() as tasks:
            for name, count in waiting.items():
                if count == 0:
                    tasks.create_task(run_one(graph.steps[name]))

    async def _step(self, step: CompiledStep, scope: _Scope) -> Any:
        """Run one step to its end, whatever that is, and return its output (``None`` where it was skipped)."""
        path = scope.prefix + step.id
        try:
            if step.when is not None and not step.when.evaluate(scope.variables, where=f"{path}.when"):
                self._ended(step, path, "skipped", None, stop_reason="when")
                return None
            if step.foreach is not None:
                return await self._map(step, path, scope)
            if step.repeat is not None:
                return await self._repeat(step, step.repeat, path, scope)
            return await self._call(step, path, scope.variables)
        except PipelineError as exc:
            self._ended(step, path, "failed", None, error=exc)
            raise _StepFailed(path, exc) from exc
        except _StepFailed:
            if step.skip_on_error and step.kind != "map":
                return None
            raise

    async def _call(self, step: CompiledStep, path: str, variables: Mapping[str, Any]) -> Any:
        """Run one call of an agent."""
        call = step.call
        assert call is not None, "only agent steps and maps of them call"
        request = build_request(call, call.prompt.render(variables, where=path), path, self._defaults)
        started, record = time.time(), CallRecord()
        model = request.model or self._plan.route.model
        self._emit(StepStarted(path, "agent", call.agent.name, self._backend.name, model, started))
        try:
            output = await call_agent(self._backend, request, call.shape, record, self._emit)
        except asyncio.CancelledError:
            self._ended(step, path, "cancelled", record.partial, started=started, record=record)
            raise
        except SynapticError as exc:
            status: StepStatus = "skipped" if step.skip_on_error else "failed"
            self._ended(step, path, status, record.partial, started=started, record=record, error=exc)
            raise _StepFailed(path, exc) from exc
        self._ended(step, path, "succeeded", output, started=started, record=record, stop_reason=record.finish_reason)
        return output

    async def _map(self, step: CompiledStep, path: str, scope: _Scope) -> list[Any]:
        """Run the step once per item, in parallel; outputs stand in the order of the items."""
        assert step.foreach is not None, "a map has a list"
        items = step.foreach.evaluate(scope.variables, where=f"{path}.foreach")
        if not isinstance(items, (list, tuple)):
            raise PipelineError(f"{path}: 'foreach' needs a list, not {type(items).__name__}")
        started = time.time()
        self._emit(StepStarted(path, "map", step.agent_name, None, None, started, width=len(items)))
        outputs: list[Any] = [None] * len(items)
        failures: list[_StepFailed] = []

        async def run_item(index: int, item: Any) -> None:
            try:
                outputs[index] = await self._call(step, f"{path}[{index}]", scope.with_item(step, item))
            except _StepFailed as exc:
                if not step.skip_on_error:
                    raise
                failures.append(exc)

        try:
            async with _unwrapped(), asyncio.TaskGroup() as tasks:
                for index, item in enumerate(items):
                    tasks.create_task(run_item(index, item))
            if failures and len(failures) == len(items):
                raise failures[0]
        except _StepFailed as exc:
            self._ended(step, path, "failed", _kept(outputs), started=started, error=exc.cause)
            raise
        except asyncio.CancelledError:
            self._ended(step, path, "cancelled", _kept(outputs), started=started)
            raise
        kept = _kept(outputs)
        self._ended(step, path, "succeeded", kept, started=started)
        return kept

    async def _repeat(self, step: CompiledStep, repeat: CompiledRepeat, path: str, scope: _Scope) -> dict[str, Any]:
        """Run the loop and return the outputs of the round that is kept, with ``rounds`` and ``stop_reason``."""
        bound = repeat.max
        if isinstance(bound, Expression):
            bound = bound.evaluate(scope.variables, where=f"{path}.repeat.max")
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
            raise PipelineError(f"{path}: 'max' must be a whole number of at least 1, not {bound!r}")
        started = time.time()
        self._emit(StepStarted(path, "repeat", None, None, None, started, width=bound))
        rounds = _Rounds(repeat)
        stop_reason = "max"
        try:
            for number in range(1, bound + 1):
                inner = scope.inner(f"{path}[{number}].", previous=rounds.last)
                await self._graph(repeat.body, inner)
                rounds.add({name: inner.outputs[name] for name in repeat.body.steps}, inner, path)
                if repeat.until is not None and repeat.until.evaluate(inner.variables, where=f"{path}.until"):
                    stop_reason = "until"
                    break
        except asyncio.CancelledError:
            self._ended(step, path, "cancelled", rounds.kept, started=started)
            raise
        except _StepFailed as exc:
            if rounds.kept is None:
                self._ended(step, path, "failed", None, started=started, error=exc.cause)
                raise
            stop_reason = "error"
        output = {**(rounds.kept or {}), "rounds": rounds.count, "stop_reason": stop_reason}
        self._ended(step, path, "succeeded", output, started=started, stop_reason=stop_reason)
        return output

    # -- results -------------------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            self._results.append(event.result)
        self._emit_event(event)

    def _ended(
        self,
        step: CompiledStep,
        path: str,
        status: StepStatus,
        output: Any,
        *,
        started: float | None = None,
        record: CallRecord | None = None,
        error: SynapticError | None = None,
        stop_reason: str | None = None,
    ) -> None:
        """Emit how a step ended; ``record`` tells a call from a step that only holds others together."""
        called = record or CallRecord()
        route = self._plan.route
        result = StepResult(
            id=path,
            kind="agent" if record else step.kind,
            agent=step.agent_name,
            status=status,
            model=(called.model or (step.call and step.call.model) or route.model) if record else None,
            backend=self._backend.name if record else None,
            node=(called.node or route.node) if record else None,
            attempts=called.attempts,
            usage=called.usage,
            timings=called.timings,
            first_token_seconds=called.first_token_seconds,
            started_at=started,
            ended_at=time.time() if started is not None else None,
            output=output,
            error=error.message if error else None,
            stop_reason=stop_reason,
        )
        self._emit(StepFinished(result))

    def _finish(self, started: float, status: RunStatus, answer: str, error: Exception | None) -> RunResult:
        usage = sum((result.usage for result in self._results), start=Usage())
        result = RunResult(
            run_id=self._run_id,
            pipeline=self._plan.pipeline.name,
            status=status,
            answer=answer,
            steps=tuple(self._results),
            usage=usage,
            stop_reason=self._stop_reason(status),
            started_at=started,
            ended_at=time.time(),
            error=error,
        )
        self._emit(RunFinished(result))
        return result

    def _stop_reason(self, status: str) -> str:
        if status != "succeeded":
            return status
        answers = [result for result in self._results if result.id == self._plan.answer_step]
        return "length" if any(result.stop_reason == "length" for result in answers) else "completed"

    def _best_so_far(self) -> str:
        """Return the answer as far as it was written, else what the last finished steps found."""
        for result in self._results:
            if result.id == self._plan.answer_step and result.output:
                return str(result.output)
        graph = self._plan.graph
        useful = [result for result in self._results if result.status == "succeeded" and result.output]
        finished = {result.id: result.output for result in useful if result.id in graph.steps}
        frontier = [name for name in finished if not any(after in finished for after in graph.dependents[name])]
        parts = [(name, present(finished[name])) for name in frontier]
        return "\n\n".join(f"## {name}\n\n{text}" for name, text in parts)

    def _why_empty(self) -> str | None:
        skipped = [result.id for result in self._results if result.status == "skipped"]
        return f"skipped: {', '.join(skipped)}" if skipped else None


@dataclass(slots=True)
class _Rounds:
    """The rounds of a loop, of which one is kept: the best by score, or the last."""

    repeat: CompiledRepeat
    count: int = 0
    last: dict[str, Any] | None = None
    kept: dict[str, Any] | None = None
    best: float | None = None

    def add(self, outputs: dict[str, Any], scope: _Scope, path: str) -> None:
        self.count += 1
        self.last = outputs
        if self.repeat.score is None or self.repeat.keep == "last":
            self.kept = outputs
            return
        score = self.repeat.score.evaluate(scope.variables, where=f"{path}.score")
        if isinstance(score, bool) or not isinstance(score, (int, float)):
            raise PipelineError(f"{path}: 'score' must be a number, not {score!r}")
        if self.best is None or score > self.best:
            self.best, self.kept = score, outputs


def _kept(outputs: list[Any]) -> list[Any]:
    return [output for output in outputs if output is not None]


@asynccontextmanager
async def _unwrapped() -> AsyncIterator[None]:
    """Raise what a task group was ended by, instead of a group of it; a bug goes before a failed step."""
    try:
        yield
    except ExceptionGroup as group:
        bugs = [error for error in group.exceptions if not isinstance(error, _StepFailed)]
        raise (bugs or group.exceptions)[0] from None
