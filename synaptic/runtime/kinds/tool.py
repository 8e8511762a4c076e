"""How a step with ``tool`` runs: a Python function is called, again where it raised, and what it returns is checked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import NotApproved, OutputInvalid, ToolError, ToolRaised
from synaptic.pipeline.kinds.tool import CompiledTool
from synaptic.runtime.caller import values_of
from synaptic.runtime.kinds.whole_step import run_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline import CompiledStep, Tool
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return what the function returns; raises as :func:`run_whole` does."""
    work = step.work
    assert isinstance(work, CompiledTool), "the compiler gives a tool step its tool"
    return await run_whole(runner, step, context, lambda: _call(runner, work, context))


async def _call(runner: StepRunner, tool: CompiledTool, context: StepContext) -> Any:
    arguments = values_of(tool.arguments, context)
    leaves = runner.caller.leaves
    if leaves is not None:
        done = await leaves.tool(context.path, tool.tool, arguments)
        if done is not None:
            return done.output
        if not tool.tool.idempotent and leaves.was_open(context.path, tool.tool, arguments):
            await _ask_again(runner, tool.tool, context.path)
            await leaves.tool_again(context.path, tool.tool, arguments)
    for attempt in range(1, tool.attempts):
        try:
            return await _once(runner, tool, arguments, context.path)
        except ToolRaised as exc:
            delay = runner.backoff.delay(attempt)
            runner.ledger.tried_again(context.path, attempt + 1, exc, delay)
        await asyncio.sleep(delay)
    return await _once(runner, tool, arguments, context.path)


async def _ask_again(runner: StepRunner, tool: Tool, path: str) -> None:
    """Have a person say that a tool may be called once more, although it may have done its work already.

    Raises:
        NotApproved: If it may not, or no person can be asked.
    """
    what = f"the tool {tool.name!r} was called before the run was cut off, and how that ended is not known"
    try:
        answer = await runner.caller.answer(path, f"{what}. Call it again (yes, no)?")
    except NotApproved as exc:
        hint = f"to have it called again: synaptic runs answer {runner.ledger.run_id} {path} yes"
        raise NotApproved(f"{what}; it is not called again", hint=hint) from exc
    if str(answer).strip().casefold() not in {"yes", "y"}:
        raise NotApproved(f"{what}; it is not called again")


async def _once(runner: StepRunner, tool: CompiledTool, arguments: Mapping[str, Any], path: str) -> Any:
    if runner.instead is None:
        output = await tool.tool.call(arguments)
    else:
        output = await runner.instead(path, lambda: tool.tool.call(arguments))
    if tool.shape is None:
        return output
    try:
        return tool.shape.validate(output)
    except OutputInvalid as exc:
        message = exc.message.replace("the reply", f"what the tool {tool.tool.name!r} returned")
        raise ToolError(message) from exc
