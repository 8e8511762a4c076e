"""Tests of pipelines as a person reads them, and as a program does. Pure: outcomes to lines and data."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, Final

from synaptic.pipeline import present
from synaptic.text import one_line
from synaptic.ui.screen.output import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.runtime import CaseOutcome, Mismatch

_INDENT: Final = " " * 10
_VALUE_CHARACTERS: Final = 200
_TEXT_LINES: Final = 40


def case_lines(outcome: CaseOutcome) -> list[str]:
    """Return a line for the test, and below it what differs."""
    lines = [f"  {'failed' if outcome.mismatches else 'ok':<8}{outcome.name}"]
    for mismatch in outcome.mismatches:
        lines += [f"{_INDENT}{line}".rstrip() for line in _differences(mismatch)]
    return lines


def case_document(source: str, pipeline: str, outcome: CaseOutcome) -> dict[str, Any]:
    """Return how a test ended as JSON data."""
    return {
        "file": source,
        "pipeline": pipeline,
        "test": outcome.name,
        "ok": not outcome.mismatches,
        "failures": [
            {"what": found.what, "expected": found.expected, "came": found.came} for found in outcome.mismatches
        ],
        "answer": None if outcome.result is None else outcome.result.answer,
        "seconds": round(outcome.seconds, 3),
    }


def _differences(mismatch: Mismatch) -> Iterator[str]:
    what, expected, came = mismatch.what, mismatch.expected, mismatch.came
    match what:
        case "result":
            yield from _unequal(as_text(expected), as_text(came))
        case "contains":
            yield "this is not in the result:"
            yield from _indented(str(expected))
            yield "the result:"
            yield from _indented(present(came))
        case "that":
            yield f"this does not hold: {one_line(str(expected), _VALUE_CHARACTERS)}"
            if isinstance(came, dict):
                yield from (
                    f"  {name} is {one_line(_compact(value), _VALUE_CHARACTERS)}" for name, value in came.items()
                )
            else:
                yield from _indented(str(came))
        case "fails":
            yield f"the error was to say  {expected}"
            yield f"it says               {came}"
        case _:
            yield from str(came).splitlines()


def _unequal(expected: str, came: str) -> Iterator[str]:
    """Yield both texts where each is a line, else what has to be taken away and added."""
    if "\n" not in expected.strip() + came.strip():
        yield f"expected  {expected.strip()}"
        yield f"came      {came.strip() or '(nothing)'}"
        return
    yield "the result differs (- expected, + came):"
    lines = list(difflib.unified_diff(expected.strip().splitlines(), came.strip().splitlines(), n=2, lineterm=""))[2:]
    yield from (f"  {line}" for line in lines[:_TEXT_LINES] if not line.startswith("@@"))
    if len(lines) > _TEXT_LINES:
        yield f"  … and {len(lines) - _TEXT_LINES} more lines"


def _indented(text: str) -> Iterator[str]:
    lines = text.strip().splitlines() or ["(nothing)"]
    yield from (f"  {line}" for line in lines[:_TEXT_LINES])
    if len(lines) > _TEXT_LINES:
        yield f"  … and {len(lines) - _TEXT_LINES} more lines"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
