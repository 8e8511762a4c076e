"""The meter of a gateway, with the ledger behind it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

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
    try:
        used, damaged = await asyncio.to_thread(_used_since, path, meter.day)
        meter.used_before(used)
        if damaged:
            said = f"damaged in the record, and not counted today: {plural(damaged, 'call')}"
            report(BackendNotice("usage", said, "warning"))
    except JournalError as error:
        report(BackendNotice("usage", f"what keys have used today is not known: {error.message}", "warning"))
    try:
        yield meter
    finally:
        await ledger.aclose()


def _used_since(path: Path, day: float) -> tuple[dict[str, int], int]:
    """Return what each key has used since then, and how many calls of that time are damaged."""
    with Journal(path) as journal:
        used = {name: used.tokens for used in journal.usage("key", after=day) if (name := used.group["key"])}
        return used, journal.damaged_calls(after=day)
