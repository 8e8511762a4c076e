"""A step with ``repeat``: a bounded loop over steps of its own, or over the step's own work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from synaptic.pipeline.graph import Inside, Work
from synaptic.pipeline.kinds.kind import Kind, Picture
from synaptic.pipeline.templates import Expression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.graph import CompiledStep, Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRepeat(Work):
    """A bounded loop.

    Attributes:
        itself: Whether the body is the step's own work, so that the kept round's output is the step's output.

    """

    kind: ClassVar[str] = "repeat"
    body: Graph
    until: Expression | None
    score: Expression | None
    max: int | Expression
    keep: Literal["best", "last"]
    plateau: int | None = None
    itself: bool = False

    @property
    def length(self) -> int:
        """Calls in all rounds, as far as their number is known."""
        return (self.max if isinstance(self.max, int) else 1) * self.body.length

    @property
    def inside(self) -> Inside:
        """The steps of a round."""
        return Inside(self.body, listed=not self.itself)

    @property
    def repeated(self) -> CompiledStep | None:
        """The step whose work a round is, of a loop over itself."""
        return next(iter(self.body.steps.values())) if self.itself else None

    def times(self, inputs: Mapping[str, Any]) -> str:
        """Return the bound of the rounds, as a number where the known inputs decide it."""
        if not isinstance(self.max, Expression):
            return f"≤ {self.max}"
        value = self.max.known(inputs)
        return f"≤ {self.max.source if value is None else value}"


class RepeatKind(Kind):
    """The kind ``repeat``."""

    name = "repeat"
    picture = Picture(label="loop", fill="#f3e6ee", radius=10.0)
