"""One step between its outline and its compiled form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from synaptic.pipeline.kinds import Built

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.pipeline.checking import Checked
    from synaptic.pipeline.graph import Graph
    from synaptic.pipeline.kinds import Outline
    from synaptic.pipeline.templates import Expression, Structure


class LoopBody(Protocol):
    """The steps of a loop, once they were read."""

    drafts: dict[str, Draft]
    gates: dict[str, dict[str, list[str]]]

    @property
    def outward(self) -> list[str]:
        """The steps around the loop that its steps refer to."""
        ...

    @property
    def remembered(self) -> set[str]:
        """The steps of the loop whose outputs of the round before are referred to."""
        ...

    def finish(self, wanted: Iterable[str]) -> Graph | None:
        """Return the graph, or ``None`` where something is wrong; ``wanted`` steps are referred to from outside."""
        ...


@dataclass(slots=True)
class Draft:
    """One step whose templates were read.

    Attributes:
        built: What it does; of a loop over steps of its own, nothing yet.
        needs: Steps that it waits for by name.
        checked: Its templates and expressions, those of a loop's bounds included.
        inside: Names of steps that the steps inside its loop refer to.
        body: The steps of its loop.
    """

    outline: Outline
    built: Built = Built(None)
    needs: list[str] = field(default_factory=list)
    when: Checked[Expression] | None = None
    foreach: Checked[Expression] | Checked[Structure] | None = None
    until: Checked[Expression] | None = None
    score: Checked[Expression] | None = None
    bound: Checked[Expression] | None = None
    checked: list[Checked[Any]] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    body: LoopBody | None = None

    def keep(self, part: Checked[Any] | None) -> None:
        """Remember a template or expression for what it refers to."""
        if part is not None:
            self.checked.append(part)

    @property
    def asks_items(self) -> bool:
        """Whether ``when`` speaks of the item of the step's own map, so that it is asked for each one."""
        spec = self.outline.spec
        if self.when is None or spec.foreach is None:
            return False
        return any(reference.root in {"item", spec.item_name} for reference in self.when.references)

    @property
    def names(self) -> list[str]:
        """Every step that is referred to, in this scope or around it, each once."""
        parts = [self.when, self.foreach, *self.checked]
        found = [name for part in parts if part is not None for name in part.steps]
        return list(dict.fromkeys([*self.needs, *found, *self.inside]))
