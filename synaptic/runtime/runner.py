"""What the parts of a run ask of the executor that drives them; with it they need not know the executor itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline import CompiledPipeline, CompiledStep, Graph
    from synaptic.runtime.caller import Caller
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.policies import Bounds
    from synaptic.runtime.scope import Scope, StepContext
    from synaptic.runtime.warm_ahead import WarmAhead
    from synaptic.waiting import Backoff

Instead: TypeAlias = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


class StepRunner(Protocol):
    """Runs steps and graphs of one run.

    Attributes:
        caller: Makes calls of models, and asks the person.
        warm_ahead: Loads the models of the steps that follow, where the backend can do that.
        instead: Is given the path and the work of a tool or a used pipeline, and returns what comes of it.
        backoff: The waits before a tool is called again.
    """

    ledger: Ledger
    caller: Caller
    warm_ahead: WarmAhead | None
    instead: Instead | None
    backoff: Backoff

    def work(self, step: CompiledStep, context: StepContext) -> Awaitable[Any]:
        """Do what the step does, once, and return the output.

        Raises:
            StepFailed: If it failed; its event says so.
            BudgetExceeded: If a budget was used up meanwhile.
        """
        ...

    async def graph(self, graph: Graph, scope: Scope) -> None:
        """Run every step of the graph; ``scope.outputs`` holds the outputs afterwards.

        Raises:
            StepFailed: If a step failed that the scope cannot do without; the others are cancelled and drained.
        """
        ...

    async def bounded_graph(self, compiled: CompiledPipeline, scope: Scope) -> None:
        """Run a pipeline's steps within its budget of seconds.

        Raises:
            BudgetExceeded: If the time is up; the steps are cancelled and drained then.
        """
        ...

    def scope(
        self, prefix: str, inputs: Mapping[str, Any], run: Mapping[str, Any], bounds: Bounds, after: int = 0
    ) -> Scope:
        """Return the outermost scope of a pipeline."""
        ...

    def run_variables(self, pipeline: str) -> dict[str, Any]:
        """Return the root ``run`` as a sub-pipeline sees it."""
        ...
