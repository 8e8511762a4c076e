"""What carries the items of a batch out: a session of this program, or something that stands for several elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from synaptic.errors import JournalError, SynapticError
from synaptic.runtime.batches.results import DONE
from synaptic.runtime.journal import Journal
from synaptic.runtime.run_document import error_document, run_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline import Pipeline
    from synaptic.runtime.events import RunResult
    from synaptic.runtime.session import Session

Row: TypeAlias = dict[str, Any]
"""What a run came to, as the results have it: data of JSON."""


class ItemRuns(Protocol):
    """Carries out the runs of one pipeline."""

    async def check(self, inputs: Mapping[str, Any]) -> None:
        """See to it that a run could begin; no model is called.

        Raises:
            UsageError: If the pipeline or an agent is wrong.
            BackendError: If nothing can serve the calls.
        """

    async def row(self, inputs: Mapping[str, Any], run_id: str) -> Row | None:
        """Run it with such inputs; ``None`` if what carried it out was lost, and with that what came of it."""

    async def row_again(self, run_id: str) -> Row | None:
        """Go on with a run that was begun; ``None`` if it is not recorded, or not any more."""


class SessionRuns:
    """The runs of one session.

    Args:
        session: Carries them out.
        pipeline: What is run.
        model: Goes before the pipeline's own default.
    """

    def __init__(self, session: Session, pipeline: Pipeline, model: str | None = None) -> None:
        self._session = session
        self._pipeline = pipeline
        self._model = model

    async def check(self, inputs: Mapping[str, Any]) -> None:
        """See `ItemRuns`."""
        await self._session.plan(pipeline=self._pipeline, inputs=inputs, model=self._model)

    async def row(self, inputs: Mapping[str, Any], run_id: str) -> Row:
        """See `ItemRuns`."""
        try:
            return _row(
                await self._session.run(pipeline=self._pipeline, inputs=inputs, model=self._model, run_id=run_id)
            )
        except SynapticError as error:
            return failed_row(error)

    async def row_again(self, run_id: str) -> Row | None:
        """See `ItemRuns`; of a run that had succeeded, everything is taken as it was."""
        await self._session.recorded()
        try:
            if await asyncio.to_thread(_has_succeeded, run_id):
                return _row(await self._session.rerun(run_id))
            return _row(await self._session.resume(run_id))
        except JournalError:
            return None
        except SynapticError as error:
            return failed_row(error)


def failed_row(error: SynapticError) -> Row:
    """Return the row of a run that did not begin."""
    return {"run_id": None, "status": "failed", "answer": "", "error": error_document(error)}


def _row(result: RunResult) -> Row:
    document = run_document(result)
    names = ("run_id", "status", "answer", "usage", "stop_reason", "error")
    return {**{name: document[name] for name in names}, "seconds": round(result.ended_at - result.started_at, 3)}


def _has_succeeded(run_id: str) -> bool:
    with Journal() as journal:
        return journal.run(run_id).status in DONE
