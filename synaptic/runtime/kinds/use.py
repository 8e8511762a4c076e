"""How a step with ``use`` runs: the steps of another pipeline in a scope of their own, within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.pipeline import bind_values
from synaptic.pipeline.kinds.use import CompiledUse
from synaptic.runtime.caller import values_of
from synaptic.runtime.kinds.whole_step import run_whole
from synaptic.runtime.scope import bounds_of
from synaptic.runtime.so_far import result_of, result_so_far

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import Scope, StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return the pipeline's result; raises as :func:`run_whole` does."""
    use = step.work
    assert isinstance(use, CompiledUse), "the compiler gives a step with another pipeline that pipeline"
    used = _Used(runner, use, context)
    return await run_whole(runner, step, context, used.run, so_far=used.so_far)


class _Used:
    """One run of a used pipeline."""

    def __init__(self, runner: StepRunner, use: CompiledUse, context: StepContext) -> None:
        self._runner = runner
        self._use = use
        self._context = context
        self._scope: Scope | None = None

    async def run(self) -> Any:
        """Return the result, or what a test says in its place."""
        if self._runner.instead is None:
            return await self._run()
        return await self._runner.instead(self._context.path, self._run)

    async def _run(self) -> Any:
        runner, context, compiled = self._runner, self._context, self._use.pipeline
        inputs = bind_values(compiled.pipeline, values_of(self._use.inputs, context))
        bounds = bounds_of(compiled, context.scope.bounds)
        run = self._use.run_inside(context.scope.variables["run"])
        after = max(0, context.rank - compiled.graph.length)
        scope = self._scope = runner.scope(f"{context.path}.", inputs, run, bounds, after)
        await runner.bounded_graph(compiled, scope)
        return result_of(compiled, scope.variables, where=f"{context.path}.result")

    def so_far(self) -> Any:
        """Return the result as it is now, ``None`` where it is not whole."""
        if self._scope is None:
            return None
        return result_so_far(self._use.pipeline, self._scope, where=f"{self._context.path}.result")
