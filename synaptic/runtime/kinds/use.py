"""How a step with ``use`` runs: the steps of another pipeline in a scope of their own, within its bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.pipeline import Structure, bind_values
from synaptic.pipeline.kinds.use import CompiledUse
from synaptic.runtime.caller import values_of
from synaptic.runtime.kinds.whole_step import run_whole
from synaptic.runtime.scope import bounds_of

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledPipeline, CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import Scope, StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return the pipeline's result; raises as :func:`run_whole` does."""
    use = step.work
    assert isinstance(use, CompiledUse), "the compiler gives a step with another pipeline that pipeline"
    return await run_whole(runner, step, context, lambda: _result_of(runner, use, context))


async def _result_of(runner: StepRunner, use: CompiledUse, context: StepContext) -> Any:
    if runner.instead is None:
        return await _run(runner, use, context)
    return await runner.instead(context.path, lambda: _run(runner, use, context))


async def _run(runner: StepRunner, use: CompiledUse, context: StepContext) -> Any:
    compiled = use.pipeline
    inputs = bind_values(compiled.pipeline, values_of(use.inputs, context))
    bounds = bounds_of(compiled, context.scope.bounds)
    run = runner.run_variables(compiled.pipeline.name)
    inner = runner.scope(f"{context.path}.", inputs, run, bounds, max(0, context.rank - compiled.graph.length))
    await runner.bounded_graph(compiled, inner)
    return _result(compiled, inner, context.path)


def _result(compiled: CompiledPipeline, scope: Scope, path: str) -> Any:
    """Return the pipeline's result: the value itself where it is one reference or a mapping, else its text."""
    if isinstance(compiled.result, Structure):
        return compiled.result.evaluate(scope.variables, where=f"{path}.result")
    reference = compiled.result.sole_reference
    if reference is None:
        return compiled.result.render(scope.variables, where=f"{path}.result")
    value: Any = scope.variables[reference.root]
    for part in reference.path:
        value = value[part]
    return value
