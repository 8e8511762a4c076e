"""The calls of clients that are being answered: which model each asked, since when, and how much has come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class CallUnderWay:
    """One call.

    Attributes:
        began: In seconds since the epoch.
        pieces: Of the reply that have come: about a token each.
    """

    model: str
    own_pieces: bool = True
    began: float = field(default_factory=time.time)
    pieces: int = 0


class CallsUnderWay:
    """All of them."""

    def __init__(self) -> None:
        self._calls: set[CallUnderWay] = set()
        self._ended_pieces = 0

    def begin(self, model: str | None, *, own_pieces: bool = True) -> CallUnderWay:
        """Count a call until it has :meth:`ended`; ``own_pieces`` is false where others count the tokens of it."""
        call = CallUnderWay(model or "", own_pieces)
        self._calls.add(call)
        return call

    def ended(self, call: CallUnderWay) -> None:
        """Note that a call has ended."""
        self._calls.discard(call)
        self._ended_pieces += call.pieces * call.own_pieces

    def all(self) -> list[CallUnderWay]:
        """Return the calls, the oldest first."""
        return sorted(self._calls, key=lambda call: call.began)

    @property
    def pieces(self) -> int:
        """Pieces of replies that have come since the start."""
        return self._ended_pieces + sum(call.pieces for call in self._calls if call.own_pieces)
