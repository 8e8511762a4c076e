"""One scope of a run: each step is started the moment the flow says so, in the task of the one before or its own."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, PipelineError, RunError
from synaptic.pipeline import SKIPPED
from synaptic.runtime.failure import StepFailed, unwrapped
from synaptic.runtime.flow import LOST, NO_NEED_SUCCEEDED, Flow, Moves
from synaptic.runtime.kinds import run_map
from synaptic.runtime.list_feed import ListFeed
from synaptic.runtime.scope import StepContext
from synaptic.runtime.so_far import kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.pipeline import CompiledStep, Graph
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import Scope


TURNS = 16
"""Steps in a row after which other tasks get a turn, where no step had to wait for anything."""


class GraphRun:
    """Runs the steps of one scope, once; their outputs stand in the scope afterwards.

    Args:
        runner: Does the work of a step.
        graph: The steps.
        scope: What they see and write.
        needed: Steps that are wanted beside what depends on them.
    """

    def __init__(self, runner: StepRunner, graph: Graph, scope: Scope, needed: frozenset[str]) -> None:
        self._runner = runner
        self._graph = graph
        self._scope = scope
        self._flow = Flow(graph, needed)
        self._group = asyncio.TaskGroup()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lost: dict[str, StepFailed] = {}
        for step in graph.steps.values():
            if step.feed is not None:
                self._open_feed(step.feed.step, step.feed.field)

    async def run(self) -> None:
        """Run everything.

        Raises:
            StepFailed: If a step failed that the scope cannot do without; the others are cancelled and drained.
        """
        names = self._flow.begin().start
        async with unwrapped(), self._group:
            if self._flow.has_races:
                self._start(names)
            elif names:
                # The longest way goes first, and one turn of the loop earlier than what needs a task of its own.
                self._start(names[1:])
                await self._run_from(self._graph.steps[names[0]])

    async def _run_from(self, step: CompiledStep) -> None:
        """Run a step and then what follows from it: the chain that begins here needs no other task."""
        for turn in count(1):
            moves = await self._run_one(step)
            if moves is None:
                return
            self._apply(moves)
            if not moves.start:
                return
            self._start(moves.start[1:])
            following = moves.start[0]
            if step.id in self._tasks:
                self._tasks[following] = self._tasks.pop(step.id)
            step = self._graph.steps[following]
            if turn % TURNS == 0:
                await asyncio.sleep(0)

    async def _run_one(self, step: CompiledStep) -> Moves | None:
        """Run one step and return what follows; ``None`` if it lost a race and nothing follows from it."""
        name, flow = step.id, self._flow
        try:
            output = await self._step(step)
        except (asyncio.CancelledError, BudgetExceeded):
            if flow.is_pruned(name):
                return None
            found = kept(self._runner.ledger, step, self._scope.prefix + name)
            if found is not None:
                self._scope.outputs[name] = found
            raise
        except StepFailed as exc:
            if flow.is_pruned(name):
                return None
            # A map has left out the items that it may; that all of them failed is a failure.
            if step.on_error == "skip" and step.foreach is None:
                self._put(name, SKIPPED)
                return flow.end(name, "skipped")
            self._lost[name] = exc
            return flow.end(name, "failed")
        self._put(name, output)
        return flow.end(name, "skipped" if output is SKIPPED else "succeeded")

    def _apply(self, moves: Moves) -> None:
        """Do what the flow says, but for starting steps.

        Raises:
            StepFailed: If this is the end of the scope.
        """
        for name in moves.lost:
            self._lost[name] = self._nothing_succeeded(self._graph.steps[name])
        if moves.fatal is not None:
            failed = self._lost[moves.fatal]
            self._runner.ledger.cuts(self._scope.prefix, f"{failed.path} failed")
            raise failed
        for name, reason in moves.skipped:
            self._put(name, SKIPPED)
            self._skipped(self._graph.steps[name], reason)
        for name in moves.cancel:
            self._put(name, SKIPPED)
            self._runner.ledger.cuts(self._scope.prefix + name, LOST)
            self._tasks[name].cancel()
        for name, fallback in moves.adopted:
            self._put(name, self._scope.outputs[fallback])

    def _start(self, names: Sequence[str]) -> None:
        for name in names:
            self._tasks[name] = self._group.create_task(self._run_from(self._graph.steps[name]))

    async def _step(self, step: CompiledStep) -> Any:
        """Run one step to its end and return its output, ``SKIPPED`` where it was skipped."""
        scope = self._scope
        path = scope.prefix + step.id
        if step.join != "all":
            scope = scope.with_outputs({need: scope.outputs.get(need, SKIPPED) for need in step.needs})
        if step.gates or step.when is not None:
            try:
                reason = self._why_not(step, scope, path)
            except PipelineError as exc:
                self._runner.ledger.ended(path, step.kind, "failed", agent=step.agent_name, error=exc)
                raise StepFailed(path, exc) from exc
            if reason is not None:
                self._skipped(step, reason)
                return SKIPPED
        context = StepContext(path, scope, scope.after + self._graph.ranks[step.id])
        if self._runner.warm_ahead is not None:
            self._runner.warm_ahead.step_begins(self._graph, step)
        if step.foreach is not None:
            return await run_map(self._runner, step, context)
        return await self._runner.work(step, context)

    def _why_not(self, step: CompiledStep, scope: Scope, path: str) -> str | None:
        outputs = scope.outputs
        if step.gates and not any(outputs.get(name) in labels for name, labels in step.gates.items()):
            return "not chosen"
        if step.when is not None and not step.when.evaluate(scope.variables, where=f"{path}.when"):
            return "when"
        return None

    def _skipped(self, step: CompiledStep, reason: str) -> None:
        path = self._scope.prefix + step.id
        self._runner.ledger.ended(path, step.kind, "skipped", agent=step.agent_name, stop_reason=reason)

    def _nothing_succeeded(self, step: CompiledStep) -> StepFailed:
        """Return the failure of a step of which all that it waits for failed, after saying so."""
        path = self._scope.prefix + step.id
        causes = [f"{need}: {self._lost[need].cause.message}" for need in step.needs if need in self._lost]
        error = RunError(f"{NO_NEED_SUCCEEDED}; {'; '.join(causes)}")
        agent = step.agent_name
        self._runner.ledger.ended(path, step.kind, "failed", agent=agent, error=error, stop_reason=NO_NEED_SUCCEEDED)
        return StepFailed(path, error)

    def _open_feed(self, writer: str, field: str) -> None:
        """Make a list available while its step writes it."""
        call = self._graph.steps[writer].call
        if call is not None and call.shape is not None:
            self._scope.feeds.setdefault(writer, ListFeed(call.shape, field))

    def _put(self, name: str, output: Any) -> None:
        self._scope.outputs[name] = output
        feed = self._scope.feeds.get(name)
        if feed is not None:
            feed.finish(output[feed.field] if isinstance(output, dict) else ())
