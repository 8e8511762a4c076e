"""When a server that still accepts calls has stopped working on them: a pure decision over the progress it reports.

A worker that hangs (stopped, swapped out, behind a dead link) makes ``llama-server`` wait for ever; its ``/health``
goes on saying that all is well. What tells is that calls are in flight and none of them makes a step.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHORTEST: Final = 10.0
"""Seconds without a step that are never held against a server."""
TIMES_USUAL: Final = 20.0
TIMES_PREDICTED: Final = 4.0
KEPT: Final = 128


class Watchdog:
    """Watches the calls of one server. All of them together count: one that waits in the server's queue makes no step.

    Args:
        prompt_step: Predicted seconds between two steps of reading a prompt; what is learned replaces it.
        shortest: Never complain earlier than this many seconds after a step.
    """

    def __init__(self, prompt_step: float, *, shortest: float = SHORTEST) -> None:
        self._predicted = prompt_step
        self._shortest = shortest
        self._reading: set[object] = set()
        self._calls: set[object] = set()
        self._last = 0.0
        self._gaps: dict[bool, deque[float]] = {True: deque(maxlen=KEPT), False: deque(maxlen=KEPT)}

    @property
    def calls(self) -> int:
        """How many are in flight."""
        return len(self._calls)

    def begin(self, call: object, now: float) -> None:
        """Note that a call was sent; from now on it reads its prompt."""
        if not self._calls:
            self._last = now
        self._calls.add(call)
        self._reading.add(call)

    def beat(self, call: object, now: float, *, generates: bool) -> None:
        """Note that a call made a step: a part of its prompt was read, or (``generates``) a token came."""
        reading = bool(self._reading)
        self._gaps[reading].append(now - self._last)
        self._last = now
        if generates:
            self._reading.discard(call)

    def end(self, call: object, now: float) -> None:
        """Note that a call has ended, one way or the other."""
        self._calls.discard(call)
        self._reading.discard(call)
        self._last = now

    @property
    def longest(self) -> float:
        """How many seconds without a step are one too many, whatever is being done and nothing was learned."""
        return max(self._shortest, TIMES_PREDICTED * self._predicted)

    def limit(self) -> float:
        """Return how many seconds without a step are one too many, as things are now."""
        reading = bool(self._reading)
        gaps = self._gaps[reading]
        limit = max(self._shortest, TIMES_USUAL * statistics.median(gaps) if gaps else 0.0)
        # Before a prompt was ever read, and for one with larger steps than the ones so far, the prediction holds.
        return max(limit, TIMES_PREDICTED * self._predicted) if reading else limit

    def overdue(self, now: float) -> float | None:
        """Return for how many seconds nothing has moved, if that is too long."""
        if not self._calls:
            return None
        still = now - self._last
        return still if still > self.limit() else None


class SlotWatch:
    """Watches the calls that others make at a server of ours, by what its slots say of themselves.

    Args:
        limit: Seconds without a step that are one too many.

    Attributes:
        calls: How many there were at the last look.
    """

    def __init__(self, limit: float) -> None:
        self.calls = 0
        self._limit = limit
        self._seen: frozenset[tuple[object, ...]] = frozenset()
        self._since = 0.0

    def look(self, slots: Sequence[Mapping[str, Any]], now: float) -> float | None:
        """Return for how many seconds nothing has moved, if that is too long.

        Args:
            slots: What ``/slots`` answered; whatever cannot be read counts as standing still.
            now: By a steady clock.
        """
        working = frozenset(_progress(slot) for slot in slots if slot.get("is_processing"))
        self.calls = len(working)
        if not working or working != self._seen:
            self._seen, self._since = working, now
            return None
        still = now - self._since
        return still if still > self._limit else None


def _progress(slot: Mapping[str, Any]) -> tuple[object, ...]:
    following = slot.get("next_token")
    first = following[0] if isinstance(following, list) and following else following
    decoded = first.get("n_decoded") if isinstance(first, dict) else None
    told = slot.get("id"), slot.get("id_task"), slot.get("n_prompt_tokens_processed"), decoded
    return tuple(map(repr, told))  # whatever a server puts there can be compared so
