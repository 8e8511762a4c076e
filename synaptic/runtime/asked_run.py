"""A run from the moment that it is asked: recorded before anything that may take long, so that no kill loses it."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.backends import pool
from synaptic.runtime.journal import Recorder
from synaptic.runtime.ledger import Ledger
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from synaptic.messages import ChatRequest, Reporter
    from synaptic.pipeline import CompileContext, Plan
    from synaptic.runtime.approval import Approver
    from synaptic.runtime.events import Descent, EventHandler
    from synaptic.runtime.runs_before import GoingOn
    from synaptic.settings import Settings

_PATIENCE: Final = 1.0
"""Seconds that a turn waits until it is recorded: a file that hangs delays its answer no longer."""


@dataclass(frozen=True, slots=True)
class AskedRun:
    """What a run is, before the backend is ready.

    Attributes:
        context: What its pipeline may name.
        defaults: What holds for a call where nothing else says otherwise.
        comes_from: Its conversation is an estimate of what the prompts have room for.
        going: What it goes on with; ``None`` where that is nothing.
        approver: Asks a person; ``None`` where no person can be asked.
    """

    run_id: str
    plan: Plan
    context: CompileContext
    defaults: ChatRequest
    comes_from: Descent
    going: GoingOn | None = None
    approver: Approver | None = None

    @property
    def descent(self) -> Descent:
        """Where it comes from, as it is recorded."""
        return replace(self.comes_from, defaults=self.defaults)

    @property
    def is_recorded(self) -> bool:
        """Whether the run is in the journal already: it goes on."""
        return self.going is not None and self.going.run_id is not None

    @contextmanager
    def recorded(self, record: EventHandler, emit: EventHandler) -> Iterator[None]:
        """Record the run around what must be done before it begins.

        Args:
            record: Takes what is recorded, and nobody else hears.
            emit: Takes what all hear, and is recorded: that it ended, where it cannot begin.
        """
        ledger, now = Ledger(self.plan, self.run_id, record, self.descent), steady_time()
        ledger.run_started(now)
        try:
            yield
        except (Exception, asyncio.CancelledError) as exc:
            ledger.emit = emit
            ledger.run_started(now)
            if isinstance(exc, asyncio.CancelledError):
                ledger.finish("cancelled", "")
            else:
                ledger.finish("failed", "", exc)
            raise

    async def is_kept(self, settled: Callable[[], Awaitable[None]]) -> None:
        """Wait until the turn of a conversation is recorded, before a model is asked for its answer.

        Args:
            settled: Returns once all that was said is recorded.
        """
        if self.descent.session is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await settled()


def recorder_of(settings: Settings, report: Reporter) -> Recorder:
    """Return what records runs as the settings say, without the secrets that they and the environment have."""
    return Recorder(
        paths.journal_file(),
        settings.journal,
        max_bytes=settings.journal_max_bytes,
        secrets=pool.known_secrets(settings.nodes, os.environ),
        report=report,
    )
