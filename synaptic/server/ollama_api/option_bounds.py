"""Which values each of Ollama's ``options`` may have: those that were tried with the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from synaptic.server.ollama_api.refusals import BAD_REQUEST, Refusal, quoted
from synaptic.settings import MOST_THREADS
from synaptic.shared_bounds import LONGEST_CONTEXT
from synaptic.text import excerpt

_INT32: Final = 2**31 - 1
_EXACT: Final = 2**53 - 1  # whole numbers that every reader of JSON reads alike
MOST_STOPS: Final = 100
LONGEST_STOP: Final = 1000  # characters


@dataclass(frozen=True, slots=True)
class OptionRange:
    """From where to where a number may go, both included."""

    least: int | float
    most: int | float
    whole: bool = True

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.least} to {self.most}"

    def read(self, name: str, value: Any) -> int | float:
        """Return ``value``, whose whole numbers may be written as ``3.0``.

        Raises:
            Refusal: If it is no number, or lies outside.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(name, f"be of type {'integer' if self.whole else 'float32'}: {self}", value)
        if not self.least <= value <= self.most or (self.whole and value != int(value)):
            raise wrong(name, f"be {self}", value)
        return int(value) if self.whole else float(value)


BOUNDS: Final = {
    "num_predict": OptionRange(-2, _INT32),
    "num_keep": OptionRange(-1, _INT32),
    "seed": OptionRange(-_EXACT, _EXACT),
    "temperature": OptionRange(0, 100, whole=False),
    "top_k": OptionRange(-1, _INT32),
    "top_p": OptionRange(0, 1, whole=False),
    "min_p": OptionRange(0, 1, whole=False),
    "typical_p": OptionRange(0, 1, whole=False),
    "repeat_last_n": OptionRange(-1, _INT32),
    "repeat_penalty": OptionRange(0.01, 100, whole=False),
    "presence_penalty": OptionRange(-100, 100, whole=False),
    "frequency_penalty": OptionRange(-100, 100, whole=False),
    "num_ctx": OptionRange(1, LONGEST_CONTEXT),
    "num_batch": OptionRange(1, 1_000_000),
    "num_gpu": OptionRange(-1, 10_000),
    "main_gpu": OptionRange(0, 1000),
    "num_thread": OptionRange(0, MOST_THREADS),
}
"""Of those that are numbers."""


def read_option(name: str, value: Any) -> Any:
    """Return the value of one option that we know; not ``None``.

    Raises:
        Refusal: If it is not one that the option may have.
    """
    if (bound := BOUNDS.get(name)) is not None:
        return bound.read(name, value)
    if name == "use_mmap":
        if not isinstance(value, bool):
            raise wrong(name, "be of type boolean", value)
        return value
    return _stops(name, value)


def wrong(name: str, must: str, value: Any) -> Refusal:
    """Return the refusal of an option: what it must be, and what it is."""
    return Refusal(BAD_REQUEST, f"option {quoted(name)} must {must}, not {excerpt(_written(value))}")


def _stops(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise wrong(name, "be of type array", value)
    for item in value:
        if not isinstance(item, str):
            raise wrong(name, "be of an array of strings", item)
        if not 0 < len(item) <= LONGEST_STOP:
            raise wrong(name, f"hold texts of 1 to {LONGEST_STOP} characters", item)
    if len(value) > MOST_STOPS:
        raise wrong(name, f"hold at most {MOST_STOPS} texts", len(value))
    return tuple(value)


def _written(value: Any) -> str:
    """Return ``value`` as JSON; only as much of a long one as is shown."""
    if isinstance(value, str):
        return json.dumps(value[:100], ensure_ascii=False)
    if isinstance(value, (list, dict)):
        return "an array" if isinstance(value, list) else "an object"
    return json.dumps(value)
