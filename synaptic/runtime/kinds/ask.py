"""How a step with ``ask`` runs: the question is put to the person, and the answer is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.pipeline.kinds.ask import CompiledAsk
from synaptic.runtime.caller import values_of
from synaptic.runtime.kinds.whole_step import run_whole

if TYPE_CHECKING:
    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.runner import Runner
    from synaptic.runtime.scope import Place


async def run(runner: Runner, step: CompiledStep, place: Place) -> Any:
    """Return the answer; raises as :func:`run_whole` does."""
    work = step.work
    assert isinstance(work, CompiledAsk), "the compiler gives a question to the step that asks"
    return await run_whole(runner, step, place, lambda: _ask(runner, work, place))


async def _ask(runner: Runner, work: CompiledAsk, place: Place) -> Any:
    question = work.question.render(place.scope.variables, where=f"{place.path}.ask")
    proposed = values_of({"default": work.default}, place)["default"]
    return await runner.caller.answer(place.path, question.strip(), proposed=proposed, shape=work.shape)
