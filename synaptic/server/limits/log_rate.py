"""Log lines whose number per second is bounded, whatever clients do."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import HttpProcessingError

from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = 10
PERIOD = 10.0  # seconds
_QUOTES = re.compile(r"\n|:|\sb?['\"]")
"""Where a message begins to quote the request, in which a key may stand."""


class LogRate(logging.Filter):
    """Lets so many records pass in each period; the first of the next one tells how many it left out.

    A request that is no HTTP is its client's fault: it gets one line, without the stack of ours that found it out.
    """

    def __init__(self, lines: int = LINES, period: float = PERIOD, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines, self._period, self._clock = lines, period, clock
        self._began = clock()
        self._passed = self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record passes, and shorten it."""
        now = self._clock()
        if now - self._began >= self._period:
            before, self._left_out = self._left_out, 0
            self._began, self._passed = now, 0
        else:
            before = 0
        if self._passed >= self._lines:
            self._left_out += 1
            return False
        self._passed += 1
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = f"{record.getMessage()}: {one_line(_QUOTES.split(error.message)[0])}", ()
            record.exc_info = record.exc_text = None
        if before:
            record.msg, record.args = f"{record.getMessage()} (and {before} lines before it, left out)", ()
        return True
