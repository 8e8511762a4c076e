"""How a step with ``agent`` runs: one call of a model, or several samples of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.runtime.kinds.samples import run_samples

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import Runner
    from synaptic.runtime.scope import Place


async def run(runner: Runner, step: CompiledStep, place: Place) -> Any:
    """Return the reply: text, or a value of the call's shape; raises as :meth:`Caller.make` does."""
    call = step.call
    assert call is not None, "the compiler gives an agent step its call"
    if step.samples is not None:
        return await run_samples(runner.caller, step, place)
    feeds = place.scope.feeds
    return await runner.caller.make(step, call, place, feed=feeds.get(step.id) if feeds else None)
