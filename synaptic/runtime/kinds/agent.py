"""How a step with ``agent`` runs: one call of a model, or several samples of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.runtime.kinds.samples import run_samples

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return the reply: text, or a value of the call's shape; raises as :meth:`Caller.make` does."""
    call = step.call
    assert call is not None, "the compiler gives an agent step its call"
    if step.samples is not None:
        return await run_samples(runner.caller, step, context)
    feeds = context.scope.feeds
    return await runner.caller.make(step, call, context, feed=feeds.get(step.id) if feeds else None)
