"""Labels of metrics: names that others choose, in a number that has a bound."""

from __future__ import annotations

from typing import Final

OTHER: Final = "other"
"""In the place of a name that is not known, or that is one too many."""

MOST_LABELS: Final = 500
"""Values of one label; more models, nodes or keys than that are ``other``."""


class BoundedNames:
    """The values of one label: those that came first, up to the most."""

    def __init__(self, most: int = MOST_LABELS) -> None:
        self._most = most
        self._taken: set[str] = set()

    def of(self, name: str | None) -> str:
        """Return the value for a name; "" for none."""
        if not name or name in self._taken:
            return name or ""
        if len(self._taken) >= self._most:
            return OTHER
        self._taken.add(name)
        return name
