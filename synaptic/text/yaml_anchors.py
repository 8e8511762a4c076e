"""What ``&name`` stands before and ``*name`` stands for: how large it is, how deep, and where it was written.

An alias is read as if its value were written out. Ten lines of aliases of aliases would be gigabytes then (the "billion
laughs"), so what all of them add to a text is bounded before any of it is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.text.problems import did_you_mean

if TYPE_CHECKING:
    from synaptic.text.problems import KeyPath

MOST_ADDED: Final = 1 << 20
"""Characters that the aliases of one text may add to it."""
_NODE: Final = 16
"""Characters that a key or value counts for beside its own: its indentation, and what it costs to keep it."""


@dataclass(slots=True)
class Anchor:
    """One value with a name.

    Attributes:
        path: Where the value stands.
        line: The line that its name is on.
        size: Characters of the value as it would be written out; ``None`` while its end has not come.
        height: Levels of mappings and lists in it; 0 of a scalar.
    """

    path: KeyPath
    line: int
    size: int | None = None
    height: int = 0


@dataclass(frozen=True, slots=True)
class AnchorFault:
    """Why an anchor or an alias is refused, and what to write instead."""

    message: str
    suggestion: str


class Anchors:
    """The anchors of one text so far."""

    def __init__(self) -> None:
        self._known: dict[str, Anchor] = {}
        self._refused: set[str] = set()
        self._added = 0
        self.size = 0

    def count(self, text: str = "") -> None:
        """Count a key or value of this text."""
        self.size += _NODE + len(text)

    def begin(self, name: str, path: KeyPath, line: int) -> AnchorFault | None:
        """Take the name of the value that begins at ``path``, or return why it may not have it."""
        before = self._known.get(name)
        self._known[name] = Anchor(path, line)
        if before is None:
            return None
        return AnchorFault(
            f"the anchor {name!r} stands twice", f"it is first on line {before.line}; give one of them another name"
        )

    def end(self, name: str, began: int, height: int) -> None:
        """Note that the value has come to its end; ``began`` is what ``size`` was before it."""
        anchor = self._known[name]
        anchor.size, anchor.height = self.size - began, height

    def refuse(self, name: str) -> None:
        """Note an anchor inside of something that is refused: its aliases are no further mistakes."""
        self._refused.add(name)

    def is_refused(self, name: str) -> bool:
        """Return whether the anchor is inside of something that was refused."""
        return name in self._refused and name not in self._known

    def use(self, name: str) -> Anchor | AnchorFault:
        """Return what an alias stands for, or why that cannot be."""
        anchor = self._known.get(name)
        if anchor is None:
            near = did_you_mean(name, self._known)
            advice = near if near.startswith("did you mean") else "put a text that begins with '*' in quotes"
            return AnchorFault(f"there is no anchor {name!r} above", advice)
        if anchor.size is None:
            return AnchorFault(f"'*{name}' stands inside of the value that it stands for", "write the value out")
        self._added += anchor.size
        if self._added > MOST_ADDED:
            message = f"the aliases stand for more than {MOST_ADDED:,} characters"
            return AnchorFault(message, "use fewer of them, or shorter values")
        self.size += anchor.size
        return anchor
