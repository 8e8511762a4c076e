"""How far a build is, from what the build tool prints. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

_NINJA = re.compile(r"\[(\d+)/(\d+)\]")
_MAKE = re.compile(r"\[\s*(\d+)%\]")
_ENOUGH_TO_GUESS = 0.02
"""Share of the work after which the rest is guessed: the first steps are not like the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgress:
    """How far the installation of an engine is.

    Attributes:
        stage: What is being done, as a verb: ``building``.
        share: How much of this stage is done, 0 to 1; ``None`` where that is not known.
        detail: ``193 of 459 files``; "" where there is nothing to count.
        elapsed: Seconds since the stage began.
        remaining: Seconds that it will still take, guessed; ``None`` while there is too little to guess from.
        process: The process that builds, where it is not this one.
    """

    stage: str
    share: float | None = None
    detail: str = ""
    elapsed: float = 0.0
    remaining: float | None = None
    process: int | None = None


EngineReporter: TypeAlias = Callable[[EngineProgress], None]


def ignore_progress(progress: EngineProgress) -> None:
    """Take a report and do nothing."""


@dataclass(slots=True)
class BuildMeter:
    """Reads the lines of ninja (``[193/459] Building``) and of make (``[ 42%] Building``).

    make counts what an interrupted build has done already, so the rate is that of what came since the first line.
    """

    stage: str = "building"
    share: float = 0.0
    detail: str = ""
    _first: float | None = field(default=None, repr=False)

    def read(self, line: str) -> bool:
        """Take a line; return whether it told how far the build is."""
        if match := _NINJA.match(line):
            done, total = int(match[1]), int(match[2])
            self.detail = f"{done} of {total} steps"
            share = done / total if total else 0.0
        elif match := _MAKE.match(line):
            share = int(match[1]) / 100
        else:
            return False
        if self._first is None:
            self._first = share
        self.share = min(max(self.share, share), 1.0)
        return True

    def progress(self, elapsed: float) -> EngineProgress:
        """Return how far the build is, ``elapsed`` seconds after it began."""
        worked = self.share - (self._first or 0.0)
        remaining = elapsed * (1 - self.share) / worked if worked >= _ENOUGH_TO_GUESS and self.share < 1 else None
        return EngineProgress(
            stage=self.stage, share=self.share, detail=self.detail, elapsed=elapsed, remaining=remaining
        )
