"""Steps that are not calls of a model: a Python function, or another pipeline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, OutputInvalid, SynapticError, ToolError
from synaptic.pipeline import bind_values
from synaptic.runtime.caller import values_of
from synaptic.runtime.failure import StepFailed, within
from synaptic.runtime.scope import bounds_of

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledPipeline, CompiledStep, CompiledTool, CompiledUse
    from synaptic.runtime.events import StepStatus
    from synaptic.runtime.executor import Executor
    from synaptic.runtime.scope import Place, Scope


async def run_inclusion(executor: Executor, step: CompiledStep, place: Place) -> Any:
    """Run the step's tool or pipeline within its timeout and return the output.

    Raises:
        StepFailed: If it failed; its event says so.
        BudgetExceeded: If a budget around the step was used up.

    """
    ledger, path = executor.ledger, place.path
    started = ledger.started(path, step.kind)
    try:
        async with within(step.timeout, path):
            if step.tool is not None:
                output = await _call_tool(step.tool, place)
            else:
                assert step.use is not None, "a step is a tool or a pipeline here"
                output = await _run_pipeline(executor, step.use, place)
        output = await executor.caller.approved_output(step, path, output)
    except asyncio.CancelledError:
        ledger.ended(path, step.kind, "cancelled", started=started)
        raise
    except BudgetExceeded as exc:
        if exc.meter in place.scope.bounds.meter.chain:
            ledger.ended(path, step.kind, "cancelled", started=started)
            raise
        failed = StepFailed(path, exc)
        failed.__cause__ = exc
    except StepFailed as exc:
        failed = StepFailed(path, exc.cause)
        failed.__cause__ = exc
    except SynapticError as exc:
        failed = StepFailed(path, exc)
        failed.__cause__ = exc
    else:
        ledger.ended(path, step.kind, "succeeded", output, started=started)
        return output
    status: StepStatus = "skipped" if step.on_error == "skip" else "failed"
    ledger.ended(path, step.kind, status, started=started, error=failed.cause)
    raise failed


async def _call_tool(tool: CompiledTool, place: Place) -> Any:
    output = await tool.tool.call(values_of(tool.arguments, place))
    if tool.shape is None:
        return output
    try:
        return tool.shape.validate(output)
    except OutputInvalid as exc:
        message = exc.message.replace("the reply", f"what the tool {tool.tool.name!r} returned")
        raise ToolError(message) from exc


async def _run_pipeline(executor: Executor, use: CompiledUse, place: Place) -> Any:
    compiled = use.pipeline
    inputs = bind_values(compiled.pipeline, values_of(use.inputs, place))
    bounds = bounds_of(compiled, place.scope.bounds)
    run = executor.run_variables(compiled.pipeline.name)
    inner = executor.scope(f"{place.path}.", inputs, run, bounds, max(0, place.rank - compiled.graph.length))
    await executor.bounded_graph(compiled, inner)
    return _result(compiled, inner, place.path)


def _result(compiled: CompiledPipeline, scope: Scope, path: str) -> Any:
    """Return the pipeline's result: the value itself where it is nothing but one reference, else its text."""
    reference = compiled.result.sole_reference
    if reference is None:
        return compiled.result.render(scope.variables, where=f"{path}.result")
    value: Any = scope.variables[reference.root]
    for part in reference.path:
        value = value[part]
    return value
