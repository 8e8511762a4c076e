"""The meter of a gateway, with the ledger behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.errors import JournalError
from synaptic.messages import BackendNotice
from synaptic.runtime import Journal, UsageLedger
from synaptic.server.gateway import CallMeter
from synaptic.text import plural

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from synaptic.messages import Reporter
    from synaptic.settings import Settings


FOLLOWED_EACH: Final = 2.0
"""Seconds after which it is looked again at what other gateways have noted."""


@asynccontextmanager
async def metered(settings: Settings, report: Reporter) -> AsyncIterator[CallMeter]:
    """Give a meter that notes calls in the journal's file, and knows what is noted of today.

    Where the settings want no journal, it counts for itself alone.
    """
    if settings.journal == "off":
        yield CallMeter()
        return
    path = paths.journal_file()
    ledger = UsageLedger(path, report=report)
    meter = CallMeter(ledger.add)
    record = _Record(path, meter)
    try:
        damaged = await asyncio.to_thread(record.begin)
        meter.used_before(record.used)
        if damaged:
            said = f"damaged in the record, and not counted today: {plural(damaged, 'call')}"
            report(BackendNotice("usage", said, "warning"))
    except JournalError as error:
        report(BackendNotice("usage", f"what keys have used today is not known: {error.message}", "warning"))
    following = asyncio.create_task(record.follow())
    try:
        yield meter
    finally:
        following.cancel()
        await asyncio.wait([following])
        await ledger.aclose()


class _Record:
    """What keys have used today by the record, in which other gateways note their calls, too."""

    def __init__(self, path: Path, meter: CallMeter) -> None:
        self._path = path
        self._meter = meter
        self._day = 0.0
        self._last = 0
        self.used: Counter[str] = Counter()

    def begin(self) -> int:
        """Read it from the beginning of the day on; return how many calls of today are damaged.

        Raises:
            JournalError: If it cannot be read.
        """
        with Journal(self._path) as journal:
            self._read(journal)
            return journal.damaged_calls(after=self._day)

    async def follow(self) -> None:
        """Read what is new in it for as long as calls come whose keys have a bound for the day."""
        while True:
            await self._meter.bounded.wait()
            self._meter.bounded.clear()
            with contextlib.suppress(JournalError):  # who writes it says so
                await asyncio.to_thread(self._read_anew)
                self._meter.used_before(self.used)
            await asyncio.sleep(FOLLOWED_EACH)

    def _read_anew(self) -> None:
        with Journal(self._path) as journal:
            self._read(journal)

    def _read(self, journal: Journal) -> None:
        if (day := self._meter.day) != self._day:
            self._day, self._last, self.used = day, 0, Counter()
        last, used = journal.tokens_by_key(after=day, beyond=self._last)
        if last < self._last:  # it was damaged, and is another file now
            self.used.clear()
            last, used = journal.tokens_by_key(after=day)
        self._last = last
        self.used.update(used)
