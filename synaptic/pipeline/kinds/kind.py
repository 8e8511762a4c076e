"""What every kind of step says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How a step of one kind is drawn.

    Attributes:
        label: Stands before the name of what the step calls.
        fill: Colour of its box in SVG.
        outline: The form of the box: plain, with pointed ends, with a bar at each side, or with round ends.
        radius: Of the corners in SVG, in pixels.
        mermaid: What Mermaid writes before and after the label; steps with others inside are frames, and need none.
        dot: Attributes of the node in DOT; the same.

    """

    label: str = ""
    fill: str
    outline: Literal["box", "hexagon", "barred", "round"] = "box"
    radius: float = 0.0
    mermaid: tuple[str, str] = ("(", ")")
    dot: str = 'shape=box, style="rounded"'


class Kind:
    """One kind of step, as the language knows it.

    Attributes:
        name: What events, plans and drawings call it.
        picture: How it is drawn.

    """

    name: ClassVar[str]
    picture: ClassVar[Picture]
