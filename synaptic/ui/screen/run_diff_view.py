"""Two runs beside each other: which steps are the same, and how the others differ."""

from __future__ import annotations

from difflib import unified_diff
from typing import TYPE_CHECKING, Any, Final

from synaptic.pipeline import present
from synaptic.text import plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synaptic.runtime import StepDiff, StepResult

_WORDS: Final[Mapping[str, str]] = {
    "changed": "changed",
    "only first": "only in the first",
    "only second": "only in the second",
}


def diff_lines(steps: Sequence[StepDiff], names: tuple[str, str]) -> Iterator[str]:
    """Yield the lines that say how two runs differ."""
    same = [step.path for step in steps if step.verdict == "same"]
    if same:
        yield f"{plural(len(same), 'step')} the same: {', '.join(same)}"
    for step in steps:
        if step.verdict != "same":
            asked = f" (asked with another {', '.join(step.asked)})" if step.asked else ""
            yield f"{step.path}: {_WORDS[step.verdict]}{asked}"
        if step.verdict == "changed":
            before, after = (_text(result).splitlines() for result in (step.first, step.second))
            changes = unified_diff(before, after, *names, lineterm="", n=1)
            yield from (f"  {printable(line)}" for line in list(changes)[2:])


def diff_data(steps: Sequence[StepDiff]) -> list[dict[str, Any]]:
    """Return the same as JSON data."""
    return [
        {
            "id": step.path,
            "verdict": step.verdict,
            "asked": list(step.asked),
            "first": _data(step.first),
            "second": _data(step.second),
        }
        for step in steps
    ]


def _text(result: StepResult | None) -> str:
    if result is None:
        return ""
    return present(result.output) if result.error is None else f"{result.status}: {result.error}"


def _data(result: StepResult | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {"status": result.status, "output": result.output, "error": result.error}
