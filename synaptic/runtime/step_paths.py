"""Paths of steps: ``refine[2].critique`` is a step inside the second round of a loop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from synaptic.runtime.events import StepFinished

if TYPE_CHECKING:
    from synaptic.runtime.events import Event

_NUMBER: Final = re.compile(r"\[\d+\]")


def declared_path(path: str) -> str:
    """Return the path of a step as the pipeline declares it: without the numbers of rounds, items and samples."""
    return _NUMBER.sub("", path)


def is_at(path: str, around: str) -> bool:
    """Return whether a path is that of a step, or of something inside it; a scope's prefix ends with a dot."""
    return path.startswith(around) and (
        not around or around[-1] == "." or path[len(around) : len(around) + 1] in {"", "[", "."}
    )


def path_of(event: Event) -> str | None:
    """Return the path of the step that an event is about, ``None`` if it is about none."""
    return event.result.id if isinstance(event, StepFinished) else getattr(event, "path", None)
