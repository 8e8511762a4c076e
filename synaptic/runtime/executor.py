"""The executor: pure dataflow over a plan's graph. A step starts the moment all it needs is done or skipped.

One task group per scope (the run, each round of a loop, each map), one task per step, which is its cancel scope. A step
that fails and may not be skipped ends the run: what runs beside it is cancelled and drained, what is finished is kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, PipelineError, RunError
from synaptic.pipeline import Structure, present, settled
from synaptic.runtime.caller import Caller
from synaptic.runtime.failure import StepFailed
from synaptic.runtime.graph_run import GraphRun
from synaptic.runtime.kinds import RUNS
from synaptic.runtime.leaves import Leaves
from synaptic.runtime.ledger import NO_DESCENT, Ledger
from synaptic.runtime.scope import Scope, StepContext, bounds_of
from synaptic.runtime.so_far import answer_so_far
from synaptic.runtime.warm_ahead import WarmAhead
from synaptic.waiting import Backoff, Rules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from synaptic.messages import ChatRequest
    from synaptic.pipeline import CompiledPipeline, CompiledStep, Graph, Plan
    from synaptic.runtime.approval import Approver
    from synaptic.runtime.caller import Backends
    from synaptic.runtime.events import Answer, ConversationShortened, Descent, EventHandler, RunResult
    from synaptic.runtime.long_input import Reading
    from synaptic.runtime.past import Past
    from synaptic.runtime.policies import Bounds
    from synaptic.runtime.runner import Instead


class Executor:
    """Runs one plan, once.

    Args:
        plan: What to do.
        backends: Where the calls go, with their policies around them.
        defaults: Model, sampling and timeouts of a call where neither step nor agent nor pipeline says otherwise.
        run_id: Names the run in events and in the result.
        emit: Gets every event, in order; must return at once.
        descent: Where the run comes from; its conversation is what prompts get, and what ``{{ run.conversation }}`` is.
        shortened: Said at the beginning, where the conversation was longer than that.
        approver: Asks a person to approve or to answer; ``None`` where no person can be asked.
        prepare: Begins to load the model of a request that will follow, where the backend can do that.
        reading: Reads the inputs that are too long, before the first step; ``None`` where none is.
        instead: Answers in the place of tools and used pipelines; ``None`` lets them work.
        backoff: The waits before a tool is called again.
        past: What may be taken instead of being done, of a run that is recorded; ``None`` gives no step a key.
        settled: Returns once all that was said is recorded; ``None`` where nothing is.
        full: Whether the end of each step waits for that, before anything follows from it.

    Attributes:
        variables: What the pipeline's result sees, as far as the run has come.
    """

    def __init__(
        self,
        plan: Plan,
        backends: Backends,
        defaults: ChatRequest,
        *,
        run_id: str,
        emit: EventHandler,
        descent: Descent = NO_DESCENT,
        shortened: ConversationShortened | None = None,
        approver: Approver | None = None,
        prepare: Callable[[ChatRequest], None] | None = None,
        reading: Reading | None = None,
        instead: Instead | None = None,
        backoff: Backoff = Rules.RETRY,
        past: Past | None = None,
        settled: Callable[[], Awaitable[None]] | None = None,
        full: bool = False,
    ) -> None:
        self.plan = plan
        self.ledger = Ledger(plan, run_id, emit, descent)
        leaves = None if past is None else Leaves(past, self.ledger, settled)
        self.caller = Caller(self.ledger, backends, defaults, plan.route, approver, leaves=leaves)
        self.warm_ahead = None if prepare is None else WarmAhead(prepare, defaults)
        self.instead = instead
        self.backoff = backoff
        self._settled = settled if full else None
        self.variables: Mapping[str, Any] = {}
        self._reading = reading
        self._run_variables = {"id": run_id, "pipeline": plan.pipeline.name, "conversation": descent.conversation}
        self._shortened = shortened

    async def run(self) -> RunResult:
        """Return how the run ended.

        Raises:
            asyncio.CancelledError: If the run was cancelled; the last event then holds what was produced.
        """
        ledger, compiled = self.ledger, self.plan.compiled
        bounds = bounds_of(compiled, summaries=self.caller.leaves)
        scope = self.scope("", self.plan.inputs, self._run_variables, bounds)
        self.variables = scope.variables
        ledger.run_started()
        if self._shortened is not None:
            ledger.emit(self._shortened)
        try:
            await self._within_seconds(compiled, scope, self._steps(compiled, scope))
            answer = self._answer(scope)
        except asyncio.CancelledError:
            ledger.finish("cancelled", answer_so_far(compiled, scope, ledger))
            raise
        except BudgetExceeded as exc:
            return self._stopped(exc, scope)
        except StepFailed as exc:
            exc.cause.step = exc.path
            return ledger.finish("failed", answer_so_far(compiled, scope, ledger), exc.cause)
        except PipelineError as exc:
            return ledger.finish("failed", answer_so_far(compiled, scope, ledger), exc)
        except Exception as bug:
            ledger.finish("failed", answer_so_far(compiled, scope, ledger), bug)
            raise
        if not present(answer):
            error = RunError("the run ended, but its result is empty", hint=ledger.why_empty())
            return ledger.finish("failed", "", error)
        return ledger.finish("succeeded", answer)

    def _answer(self, scope: Scope) -> Answer:
        """Return what the pipeline's result is: text, or a mapping of values."""
        result = self.plan.compiled.result
        if isinstance(result, Structure):
            values: dict[str, Any] = settled(result.evaluate(scope.variables, where="result"))
            return values
        return result.render(scope.variables, where="result")

    async def _steps(self, compiled: CompiledPipeline, scope: Scope) -> None:
        """Read what is too long, then run the steps."""
        if self._reading is not None:
            scope.variables["inputs"] = await self._reading.read(self, self.plan.inputs, scope.bounds)
        await self.graph(compiled.graph, scope, compiled.needed)

    def _stopped(self, error: BudgetExceeded, scope: Scope) -> RunResult:
        """Return the partial result of a run that has used up its budget; without any answer it is a failure."""
        answer = answer_so_far(self.plan.compiled, scope, self.ledger)
        reason = f"budget: {error.what}"
        if not present(answer):
            return self.ledger.finish("failed", "", error, reason)
        return self.ledger.finish("stopped", answer, None, reason)

    # -- one scope -----------------------------------------------------------------------------------------

    def scope(
        self, prefix: str, inputs: Mapping[str, Any], run: Mapping[str, Any], bounds: Bounds, after: int = 0
    ) -> Scope:
        """Return the outermost scope of a pipeline."""
        outputs: dict[str, Any] = {}
        return Scope(prefix, {"inputs": inputs, "run": run, "steps": outputs}, outputs, bounds, after)

    def run_variables(self, pipeline: str) -> dict[str, Any]:
        """Return the root ``run`` as a sub-pipeline sees it."""
        return {**self._run_variables, "pipeline": pipeline}

    async def bounded_graph(self, compiled: CompiledPipeline, scope: Scope) -> None:
        """Run a pipeline's steps within its budget of seconds.

        Raises:
            BudgetExceeded: If the time is up; the steps are cancelled and drained then.
        """
        await self._within_seconds(compiled, scope, self.graph(compiled.graph, scope, compiled.needed))

    async def _within_seconds(self, compiled: CompiledPipeline, scope: Scope, work: Awaitable[None]) -> None:
        seconds = compiled.budget.seconds
        if seconds is None:
            await work
            return
        clock = scope.bounds.meter.clock = asyncio.timeout(seconds)
        try:
            async with clock:
                await work
        except TimeoutError as exc:
            if not clock.expired():
                raise
            raise scope.bounds.meter.time_is_up() from exc

    async def graph(self, graph: Graph, scope: Scope, needed: frozenset[str] = frozenset()) -> None:
        """Run every step of the graph; ``scope.outputs`` holds the outputs afterwards.

        Raises:
            StepFailed: If a step failed that the scope cannot do without; the others are cancelled and drained.
        """
        await GraphRun(self, graph, scope, needed).run()

    # -- one step ------------------------------------------------------------------------------------------

    def work(self, step: CompiledStep, context: StepContext) -> Awaitable[Any]:
        """Do what the step does, once, and return the output.

        Raises:
            StepFailed: If it failed; its event says so.
            BudgetExceeded: If a budget was used up meanwhile.
        """
        if self._settled is not None:
            return self._settled_work(self._settled, step, context)
        return RUNS[step.kind](self, step, context)

    async def _settled_work(
        self, settled: Callable[[], Awaitable[None]], step: CompiledStep, context: StepContext
    ) -> Any:
        output = await RUNS[step.kind](self, step, context)
        await settled()
        return output
