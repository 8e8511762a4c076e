"""How each kind of step runs: its twin in ``synaptic.pipeline.kinds`` says what the language knows of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from synaptic.pipeline import KINDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from synaptic.pipeline import CompiledStep, WorkKind
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


class Run(Protocol):
    """Does the work of a step."""

    def __call__(self, runner: StepRunner, step: CompiledStep, context: StepContext) -> Awaitable[Any]:
        """Return the step's output.

        Raises:
            StepFailed: If it failed; its event says so.
            BudgetExceeded: If a budget was used up meanwhile.
        """
        ...


RUNS: Final[Mapping[WorkKind, Run]] = {
    kind.name: import_module(f"synaptic.runtime.kinds.{kind.key}").run for kind in KINDS.values()
}
"""By the kind's name; the file of a kind is called as its key in ``synaptic.pipeline.kinds`` is."""
