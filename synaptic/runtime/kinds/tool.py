"""How a step with ``tool`` runs: a Python function is called, and what it returns is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.errors import OutputInvalid, ToolError
from synaptic.pipeline.kinds.tool import CompiledTool
from synaptic.runtime.caller import values_of
from synaptic.runtime.kinds.whole_step import run_whole

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return what the function returns; raises as :func:`run_whole` does."""
    work = step.work
    assert isinstance(work, CompiledTool), "the compiler gives a tool step its tool"
    return await run_whole(runner, step, context, lambda: _call(work, context))


async def _call(tool: CompiledTool, context: StepContext) -> Any:
    output = await tool.tool.call(values_of(tool.arguments, context))
    if tool.shape is None:
        return output
    try:
        return tool.shape.validate(output)
    except OutputInvalid as exc:
        message = exc.message.replace("the reply", f"what the tool {tool.tool.name!r} returned")
        raise ToolError(message) from exc
