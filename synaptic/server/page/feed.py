"""Numbered messages for those who listen: one that was away gets what it missed, as long as that is still kept."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from synaptic.text import encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_BYTES: Final = 4_000_000
"""Of messages, for those that come back."""


class NewsFeed:
    """The messages of one process.

    A reader has a place, and asks for what is behind it; so a slow one costs nothing, and where what it missed is no
    longer kept, it is told to begin anew.

    Attributes:
        news: Is set by the next message; behind that there is another one.
        closed: Whether there will be no more.
    """

    def __init__(self) -> None:
        self._born = secrets.token_hex(4)
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._last = 0
        self.news = asyncio.Event()
        self.closed = False

    @property
    def place(self) -> int:
        """The number of the latest message."""
        return self._last

    def name(self, number: int) -> str:
        """Return the id of a message as readers get it; it means nothing to another process."""
        return f"{self._born}-{number}"

    def read_name(self, name: str) -> int | None:
        """Return the number of a message by its id; ``None`` for one of another process."""
        born, _, number = name.partition("-")
        return int(number) if born == self._born and number.isdecimal() and len(number) < len(str(2**63)) else None

    def say(self, message: Mapping[str, Any]) -> None:
        """Add a message."""
        data = encode_json(message)
        self._last += 1
        self._kept.append((self._last, data))
        self._bytes += len(data)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popleft()[1])
        self._wake()

    def since(self, number: int) -> list[tuple[int, bytes]] | None:
        """Return the messages behind a place; ``None`` where some of them are not kept, or it is no place."""
        missed = self._last - number
        if missed < 0 or missed > len(self._kept):
            return None
        return [self._kept[index] for index in range(len(self._kept) - missed, len(self._kept))]

    def close(self) -> None:
        """Tell all readers that this is the end."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        before, self.news = self.news, asyncio.Event()
        before.set()
