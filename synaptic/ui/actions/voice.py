"""Where an action speaks: the command line and the prompt print in their own ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Voice(Protocol):
    """Where an action speaks."""

    def say(self, text: str = "") -> None:
        """Print what was asked for."""
        ...

    def note(self, text: str) -> None:
        """Print what is good to know."""
        ...

    def warn(self, text: str) -> None:
        """Print what a person should know."""
        ...

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str] = ()) -> None:
        """Print aligned columns."""
        ...
