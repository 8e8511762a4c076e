"""Thousands of runs of one pipeline: some at once, failures collected, none done twice after a kill."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.errors import BackendUnavailable
from synaptic.runtime.batches.item_runs import failed_row
from synaptic.runtime.batches.results import DONE
from synaptic.runtime.journal import new_run_id
from synaptic.waiting import all_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from synaptic.pipeline import Pipeline
    from synaptic.runtime.batches.item_runs import ItemRuns, Row
    from synaptic.runtime.batches.items import BatchItem
    from synaptic.runtime.batches.results import Results

HOPELESS: Final = 20
"""So many failed runs in a row end a batch: what is wrong is not the items."""
MOST_LOSSES: Final = 3
"""So often an item may cost what carries it out: it may be the item."""


@dataclass(slots=True)
class BatchCount:
    """How far a batch is.

    Attributes:
        total: Items.
        before: Those that had succeeded in an earlier call.
        succeeded: Those that did in this one.
        failed: Likewise.
        tokens: Of prompts and replies, in this call.
        hopeless: What the last run failed of, where so many failed in a row that the batch ended.
    """

    total: int
    before: int
    succeeded: int = 0
    failed: int = 0
    tokens: int = 0
    hopeless: str | None = None

    @property
    def ended(self) -> int:
        """Items that have an outcome."""
        return self.before + self.succeeded + self.failed


def made_by(pipeline: Pipeline, model: str | None) -> str:
    """Return what tells the results of a pipeline and a model from those of others."""
    text = hashlib.sha256(pipeline.document.text.encode()).hexdigest()[:12]
    return " ".join(filter(None, (pipeline.name, text, model)))


class Batch:
    """One call of a batch.

    Args:
        runs: Carries them out.
        items: With what.
        results: Where what comes is kept.
        told: Told of every run that ends.
    """

    def __init__(
        self,
        runs: ItemRuns,
        items: Sequence[BatchItem],
        results: Results,
        *,
        told: Callable[[BatchCount], None] = lambda _: None,
    ) -> None:
        self.count = BatchCount(len(items), sum(item.key in results.done for item in items))
        self._runs = runs
        self._items = items
        self._results = results
        self._told = told
        self._failed_in_a_row = 0

    async def check(self) -> None:
        """See to it that the first item could run; nothing is called.

        Raises:
            UsageError: If the pipeline or an agent is wrong.
            BackendError: If nothing can serve the calls.
        """
        await self._runs.check(self._items[0].inputs)

    async def run(self, at_once: int) -> BatchCount:
        """Run what has no result yet, and return how it went; a run that fails is a row like the others.

        Args:
            at_once: Runs that are made at the same time.

        Raises:
            UsageError: If the results cannot be written.
        """
        left = iter([item for item in self._items if item.key not in self._results.done])
        await all_of(self._work(left) for _ in range(min(at_once, self.count.total - self.count.before)))
        return self.count

    async def _work(self, left: Iterator[BatchItem]) -> None:
        for item in left:
            row = await self._row(item)
            self._results.add(item.key, {"line": item.line, **row})
            self._take_note(row)
            if self.count.hopeless is not None:
                return

    async def _row(self, item: BatchItem) -> Row:
        """Run an item, or go on with the run that worked on it before."""
        run_id = self._results.runs.get(item.key)
        for _ in range(MOST_LOSSES):
            row = None if run_id is None else await self._runs.row_again(run_id)
            if row is None:
                run_id = new_run_id()
                self._results.begin(item.key, run_id)
                row = await self._runs.row(item.inputs, run_id)
            if row is not None:
                return row
        return failed_row(BackendUnavailable(f"what carried the run out was lost, {MOST_LOSSES} times"))

    def _take_note(self, row: Row) -> None:
        count = self.count
        if row["status"] in DONE:
            count.succeeded += 1
            self._failed_in_a_row = 0
        else:
            count.failed += 1
            self._failed_in_a_row += 1
        count.tokens += (row.get("usage") or {}).get("total_tokens", 0)
        if self._failed_in_a_row >= HOPELESS and count.hopeless is None:
            count.hopeless = str(row["error"]["message"])
        self._told(count)
