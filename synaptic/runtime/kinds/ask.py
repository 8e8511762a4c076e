"""How a step with ``ask`` runs: the question is put to the person, and the answer is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.pipeline.kinds.ask import CompiledAsk
from synaptic.runtime.caller import values_of
from synaptic.runtime.kinds.whole_step import run_whole

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run(runner: StepRunner, step: CompiledStep, context: StepContext) -> Any:
    """Return the answer; raises as :func:`run_whole` does."""
    work = step.work
    assert isinstance(work, CompiledAsk), "the compiler gives a question to the step that asks"
    return await run_whole(runner, step, context, lambda: _ask(runner, work, context))


async def _ask(runner: StepRunner, work: CompiledAsk, context: StepContext) -> Any:
    question = work.question.render(context.scope.variables, where=f"{context.path}.ask")
    proposed = values_of({"default": work.default}, context)["default"]
    return await runner.caller.answer(context.path, question.strip(), proposed=proposed, shape=work.shape)
