"""Files in a project's ``agents`` that were written for other programs, which keep theirs in folders of that name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.text import legible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FENCE: Final = "---"
NO_MATTER: Final = "there is no front matter"
MATTER: Final = "begin with a line '---', then for example 'description: Checks facts', then a line '---'"
_MOST_NAMED: Final = 3
_KEY: Final = re.compile(r"([A-Za-z][\w-]*) *:")
_KEYS_OF_OTHERS: Final = frozenset({
    "allowed-tools", "alwaysApply", "applyTo", "argument-hint", "background", "color", "disallowedTools", "emoji",
    "globs", "handoffs", "hidden", "hooks", "infer", "isolation", "maxTurns", "mcp-servers", "mcpServers", "memory",
    "mode", "permission", "permissionMode", "readonly", "skills", "target", "tools",
})  # fmt: skip
"""What coding assistants have in the front matter of their agents, and no agent here has."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A file that is no agent of ours.

    Attributes:
        why: Why it is none.
        cure: What to write where it was meant as one.
    """

    path: Path
    why: str
    cure: str


def stranger_of(path: Path, text: str) -> Stranger | None:
    """Return what a file of a project is if it is no agent; ``None`` for one, also for one with mistakes."""
    first, *lines = text.removeprefix("\ufeff").lstrip().splitlines() or [""]
    if first.rstrip() != FENCE:
        return Stranger(path, NO_MATTER, MATTER)
    for line in lines:
        if line.rstrip() == FENCE:
            break
        key = _KEY.match(line)
        if key is not None and key[1] in _KEYS_OF_OTHERS:
            return Stranger(path, f"{key[1]!r} is a key of other programs' agents", f"remove {key[1]!r}")
    return None


def strangers_line(strangers: Sequence[Stranger]) -> str:
    """Return what is left out and why, on one line; "" where nothing is."""
    said = []
    for why in dict.fromkeys(stranger.why for stranger in strangers):
        names = [legible(str(stranger.path)) for stranger in strangers if stranger.why == why]
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        said.append(f"{why}, in {', '.join(names[:_MOST_NAMED])}{more}: left out, as no agents")
    return "; ".join(said)
