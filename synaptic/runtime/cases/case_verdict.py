"""Whether a run is what its test expects. Pure: from what came to what differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from synaptic.errors import PipelineError
from synaptic.pipeline import Expression, settled
from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline import ExpectSpec
    from synaptic.runtime.events import RunResult


_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that is not as it should be.

    Attributes:
        what: Which part of the expectation; ``run`` where the run failed, or did not; ``replies`` where one is missing.
        expected: What should have been: text or data.
        came: What there was: text or data; of a condition the values that it speaks of.
    """

    what: Literal["result", "contains", "that", "fails", "run", "replies", "inputs"]
    expected: Any
    came: Any


def mismatches(expect: ExpectSpec, result: RunResult, variables: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Yield what differs."""
    failed = result.status == "failed"
    error = "" if result.error is None else getattr(result.error, "headline", str(result.error))
    if failed and expect.fails is None:
        yield Mismatch("run", "an answer", f"it failed: {error}")
        return
    if expect.fails is not None and not failed:
        yield Mismatch("run", "an error", f"it was to fail, and answered: {one_line(result.text, _SHOWN)}")
    elif expect.fails and expect.fails.casefold() not in error.casefold():
        yield Mismatch("fails", expect.fails, error)
    if expect.result is not None and _plain(expect.result) != _plain(result.answer):
        yield Mismatch("result", expect.result, result.answer)
    for text in expect.contains:
        if text.strip() not in result.text:
            yield Mismatch("contains", text, result.answer)
    for condition in expect.that:
        yield from _untrue(condition, variables)


def _plain(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _untrue(condition: str, variables: Mapping[str, Any]) -> Iterator[Mismatch]:
    expression = Expression.compile(condition)
    try:
        if expression.evaluate(variables, where="that"):
            return
    except PipelineError as exc:
        yield Mismatch("that", condition, exc.message.removeprefix("that: "))
        return
    names = dict.fromkeys(expression.references)
    yield Mismatch("that", condition, {str(name): _value(variables, (name.root, *name.path)) for name in names})


def _value(variables: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return what a reference leads to, as data."""
    here: Any = variables
    for part in path:
        here = here.get(part) if isinstance(here, Mapping) else None
    return settled(here)
