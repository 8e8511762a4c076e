"""A step with ``agent``: one call of a model, whose output is text or a value of a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.kind import Kind, Picture

if TYPE_CHECKING:
    from synaptic.pipeline.graph import CompiledCall


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledAgent(Work):
    """A call of an agent."""

    kind: ClassVar[str] = "agent"
    call: CompiledCall

    @property
    def structured(self) -> bool:
        """Whether the output is a value of a shape."""
        return self.call.shape is not None

    @property
    def answer(self) -> str | None:
        """Text is the step's own output, piece by piece."""
        return None if self.structured else ""


class AgentKind(Kind):
    """The kind ``agent``."""

    name = "agent"
    picture = Picture(fill="#e3f0fb", radius=6.0)
