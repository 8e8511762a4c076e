"""A step once per item of a list, in parallel; of a list that is still being written, from its first item on."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, PipelineError
from synaptic.pipeline import SKIPPED
from synaptic.runtime.failure import StepFailed, unwrapped, why_cut
from synaptic.runtime.so_far import kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.events import StepStatus
    from synaptic.runtime.list_feed import ListFeed
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import Scope, StepContext


async def run_map(runner: StepRunner, step: CompiledStep, context: StepContext) -> list[Any]:
    """Return the outputs in the order of the items; items that are skipped, or not wanted, are left out.

    Raises:
        StepFailed: If an item failed that may not be skipped, or all items did.
    """
    assert step.foreach is not None, "a map has a list"
    path, scope = context.path, context.scope
    feed = scope.feeds.get(step.feed.step) if step.feed else None
    items: Sequence[Any] | None = None
    ledger = runner.ledger
    started = None
    instances = _Instances(runner, step, context)
    try:
        if feed is None or feed.final is not None:
            items = _items(step, path, scope)
        started = ledger.started(path, "map", step.agent_name, width=None if items is None else len(items))
        async with unwrapped(), asyncio.TaskGroup() as group:
            if items is not None:
                instances.start(group, items)
            elif feed is not None:
                await instances.follow(group, feed)
        outputs = instances.outputs()
    except PipelineError as exc:
        ledger.ended(path, "map", "failed", agent=step.agent_name, started=started, error=exc)
        raise StepFailed(path, exc) from exc
    except StepFailed as exc:
        ledger.ended(path, "map", "failed", instances.made(), agent=step.agent_name, started=started, error=exc.cause)
        raise
    except (asyncio.CancelledError, BudgetExceeded):
        cut, made = why_cut(ledger, context), instances.made()
        ledger.ended(path, "map", "cancelled", made, agent=step.agent_name, started=started, stop_reason=cut)
        raise
    reason = instances.what_was_left_out()
    ledger.ended(path, "map", "succeeded", outputs, agent=step.agent_name, started=started, stop_reason=reason)
    return outputs


def _items(step: CompiledStep, path: str, scope: Scope) -> Sequence[Any]:
    assert step.foreach is not None, "a map has a list"
    items = step.foreach.evaluate(scope.variables, where=f"{path}.foreach")
    if items is SKIPPED:
        return ()
    if not isinstance(items, (list, tuple)):
        raise PipelineError(f"{path}: 'foreach' needs a list, not {type(items).__name__}")
    return items


class _Instances:
    """The instances of one map, by index."""

    def __init__(self, runner: StepRunner, step: CompiledStep, context: StepContext) -> None:
        self._runner = runner
        self._step = step
        self._context = context
        self._places = asyncio.Semaphore(step.concurrency) if step.concurrency else nullcontext()
        self._items: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._outputs: dict[int, Any] = {}
        self._failures: dict[int, StepFailed] = {}
        self._unwanted: set[int] = set()

    def start(self, group: asyncio.TaskGroup, items: Sequence[Any]) -> None:
        """Start an instance for each further item."""
        for item in items:
            self._tasks.append(group.create_task(self._run(len(self._items), item)))
            self._items.append(item)

    async def follow(self, group: asyncio.TaskGroup, feed: ListFeed) -> None:
        """Start an instance for each item as it is written, until the list is final."""
        generation = feed.generation
        while feed.final is None:
            if feed.generation != generation:
                generation = feed.generation
                await self._drop_from(0)
            self.start(group, feed.items[len(self._items) :])
            if feed.final is None:
                await feed.changed()
        final = list(feed.final)
        same = next(
            (index for index, (begun, item) in enumerate(zip(self._items, final, strict=False)) if begun != item),
            min(len(self._items), len(final)),
        )
        await self._drop_from(same)
        self.start(group, final[same:])

    async def _drop_from(self, index: int) -> None:
        """Cancel the instances from ``index`` on: their items turned out to be void."""
        dropped, self._tasks[index:], self._items[index:] = self._tasks[index:], [], []
        for task in dropped:
            task.cancel()
        if dropped:
            await asyncio.wait(dropped)
        for gone in range(index, index + len(dropped)):
            self._outputs.pop(gone, None)
            self._failures.pop(gone, None)
            self._unwanted.discard(gone)

    async def _run(self, index: int, item: Any) -> None:
        async with self._places:
            scope = self._context.scope.with_item(self._step, item)
            instance = self._context.at(f"{self._context.path}[{index}]", scope)
            try:
                if not self._is_wanted(instance):
                    self._unwanted.add(index)
                    return
                output = await self._runner.work(self._step, instance)
            except StepFailed as exc:
                if self._step.on_error != "skip":
                    self._runner.ledger.cuts(self._context.path, f"{exc.path} failed")
                    raise
                self._failures[index] = exc
            else:
                self._outputs[index] = output

    def _is_wanted(self, instance: StepContext) -> bool:
        """Return whether the condition holds for the item; where it does not, the item's event says so.

        Raises:
            StepFailed: If the condition has no value.
        """
        step, ledger = self._step, self._runner.ledger
        if step.item_when is None:
            return True
        try:
            wanted = bool(step.item_when.evaluate(instance.scope.variables, where=f"{instance.path}.when"))
        except PipelineError as exc:
            status: StepStatus = "skipped" if step.on_error == "skip" else "failed"
            ledger.ended(instance.path, step.kind, status, agent=step.agent_name, error=exc)
            raise StepFailed(instance.path, exc) from exc
        if not wanted:
            ledger.ended(instance.path, step.kind, "skipped", agent=step.agent_name, stop_reason="when")
        return wanted

    def what_was_left_out(self) -> str | None:
        """Return how many items the condition left out; ``None`` where that is none."""
        left_out = len(self._unwanted)
        return f"{left_out} of {len(self._items)} left out by 'when'" if left_out else None

    def made(self) -> list[Any]:
        """Return the outputs there are of a map that is cut, in the order of the items: of loops their best round."""
        ledger, path = self._runner.ledger, self._context.path
        cut = {index: kept(ledger, self._step, f"{path}[{index}]") for index in range(len(self._items))}
        found = {index: output for index, output in cut.items() if output is not None} | self._outputs
        return [found[index] for index in sorted(found)]

    def outputs(self) -> list[Any]:
        """Return the outputs of a map that came to its end.

        Raises:
            StepFailed: If items were wanted, and all of them failed.
        """
        if self._failures and len(self._failures) + len(self._unwanted) == len(self._items):
            raise self._failures[min(self._failures)]
        return [self._outputs[index] for index in sorted(self._outputs)]
