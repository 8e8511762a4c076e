"""How a step with ``choose`` runs: a classifying call, whose output is the chosen label alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return the label; raises as :meth:`Caller.make` does."""
    assert step.call is not None, "the compiler gives a choosing step its call"
    return await runner.caller.make(step, step.call, context, kind="choose", read=_label)


def _label(output: Any) -> str:
    """Return the label of a reply; the output of a step that an earlier run made is its label already."""
    return str(output["choice"]) if isinstance(output, dict) else str(output)
