"""What a step runs in: the pipeline around it with its bounds, and the variables that its templates see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synaptic.quick_init import quick_init
from synaptic.runtime.policies import Bounds, BudgetMeter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline import CompiledPipeline, CompiledStep
    from synaptic.runtime.list_feed import ListFeed
    from synaptic.runtime.policies import KeptSummaries


@dataclass(slots=True)
class Scope:
    """The variables of one scope. A loop's round sees the outputs around the loop, and writes only its own.

    Attributes:
        prefix: Stands before the step's id in its path: "", ``refine[2].``, ``sections[0].``.
        variables: The roots of templates; ``steps`` is ``outputs``.
        bounds: Budget and limits of the pipeline that the scope belongs to.
        after: Calls on the longest way from the end of this scope to the end of the run.
        feeds: Lists that are being written, by the step that writes them.
    """

    prefix: str
    variables: dict[str, Any]
    outputs: dict[str, Any]
    bounds: Bounds
    after: int = 0
    feeds: dict[str, ListFeed] = field(default_factory=dict)

    def inner(self, prefix: str, after: int, **extra: Any) -> Scope:
        """Return the scope of a loop's round."""
        outputs = dict(self.outputs)
        return Scope(prefix, {**self.variables, "steps": outputs, **extra}, outputs, self.bounds, after)

    def with_item(self, step: CompiledStep, item: Any) -> Scope:
        """Return this scope as one instance of a map sees it."""
        variables = {**self.variables, "item": item, step.item_name or "item": item}
        return Scope(self.prefix, variables, self.outputs, self.bounds, self.after)

    def with_outputs(self, extra: Mapping[str, Any]) -> Scope:
        """Return this scope as it is now, with outputs that are not there yet; what ends later is not seen."""
        outputs = {**self.outputs, **extra}
        return Scope(self.prefix, {**self.variables, "steps": outputs}, outputs, self.bounds, self.after)

    def with_variables(self, **extra: Any) -> Scope:
        """Return this scope with further roots."""
        return Scope(self.prefix, {**self.variables, **extra}, self.outputs, self.bounds, self.after)


@quick_init
@dataclass(frozen=True, slots=True)
class StepContext:
    """One execution of a step: its path, what its templates see, and how much of the run waits for it.

    Attributes:
        rank: Calls on the longest way from here to the end of the run.
    """

    path: str
    scope: Scope
    rank: int

    def at(self, path: str, scope: Scope | None = None) -> StepContext:
        """Return the context of a part of the step."""
        return StepContext(path, scope or self.scope, self.rank)


def bounds_of(
    compiled: CompiledPipeline, around: Bounds | None = None, *, summaries: KeptSummaries | None = None
) -> Bounds:
    """Return the bounds of a pipeline that runs inside the bounds ``around``, or is the run itself."""
    limits = around.limits if around else ()
    if compiled.concurrency is not None:
        limits = (*limits, (f"pipeline:{compiled.pipeline.name}", compiled.concurrency))
    summaries = around.summaries if around else summaries
    return Bounds(BudgetMeter(compiled.budget, around.meter if around else None), limits, summaries)
