"""In what two recorded runs differ, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from synaptic.runtime.events import StepAsked, StepFinished, StepResult
from synaptic.runtime.past import differences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synaptic.runtime.events import Event

Verdict: TypeAlias = Literal["same", "changed", "only first", "only second"]


@dataclass(frozen=True, slots=True)
class StepDiff:
    """How a step of two runs compares.

    Attributes:
        asked: In what the two asked differently, in words.
        first: How it ended in the first run; ``None`` where it did not.
        second: How it ended in the second.
    """

    path: str
    verdict: Verdict
    asked: tuple[str, ...]
    first: StepResult | None
    second: StepResult | None


def compare(first: Iterable[Event], second: Iterable[Event]) -> list[StepDiff]:
    """Return how the steps of two runs compare, in the order in which they ended."""
    one, other = _Steps(first), _Steps(second)
    return [_step(path, one, other) for path in dict.fromkeys((*one.ends, *other.ends))]


class _Steps:
    """What the steps of a run asked, and how they ended: each the last time."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.ends: dict[str, StepResult] = {}
        self.asked: dict[str, StepAsked] = {}
        for event in events:
            if isinstance(event, StepFinished):
                self.ends[event.result.id] = event.result
            elif isinstance(event, StepAsked):
                self.asked[event.path] = event


def _step(path: str, one: _Steps, other: _Steps) -> StepDiff:
    first, second = one.ends.get(path), other.ends.get(path)
    if first is None or second is None:
        return StepDiff(path, "only second" if first is None else "only first", (), first, second)
    before, after = one.asked.get(path), other.asked.get(path)
    asked = () if before is None or after is None else differences(before, after)
    same = not asked and _told(first) == _told(second)
    return StepDiff(path, "same" if same else "changed", asked, first, second)


def _told(result: StepResult) -> Sequence[Any]:
    return (result.status, result.output, result.error)
