"""How each kind of step runs: its twin in ``synaptic.pipeline.kinds`` says what the language knows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from synaptic.runtime.kinds import agent, choose, repeat, tool, use

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from synaptic.pipeline import CompiledStep, WorkKind
    from synaptic.runtime.runner import Runner
    from synaptic.runtime.scope import Place


class Run(Protocol):
    """Does the work of a step."""

    def __call__(self, runner: Runner, step: CompiledStep, place: Place) -> Awaitable[Any]:
        """Return the step's output.

        Raises:
            StepFailed: If it failed; its event says so.
            BudgetExceeded: If a budget was used up meanwhile.

        """
        ...


RUNS: Final[Mapping[WorkKind, Run]] = {
    "agent": agent.run,
    "choose": choose.run,
    "tool": tool.run,
    "pipeline": use.run,
    "repeat": repeat.run,
}
