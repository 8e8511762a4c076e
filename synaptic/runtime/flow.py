"""Dataflow by counting: which steps may start now, which need not run any more. Pure; the executor does the work.

Every step of a scope is resolved exactly once: it succeeded, was skipped, or failed in a way that its scope survives.
A step starts the moment the last thing that it needs is resolved; there are no rounds in which steps are looked at.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from synaptic.pipeline import CompiledStep, Graph

Outcome: TypeAlias = Literal["succeeded", "skipped", "failed"]

NOT_NEEDED = "not needed"
LOST = "lost the race"
NO_NEED_SUCCEEDED = "nothing that it waits for succeeded"


@dataclass(slots=True)
class Moves:
    """What follows from something that happened.

    Attributes:
        start: Steps to start now, the ones with the longest way to the end first.
        cancel: Running steps to cancel; each is then reported as skipped.
        skipped: Steps that were resolved without running, with the reason.
        lost: Steps that fail without running: what they wait for failed, and nothing of it succeeded.
        adopted: Pairs of a failed step and the step whose output takes its place.
        fatal: A failed step that its scope cannot do without.
    """

    start: list[str] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    adopted: list[tuple[str, str]] = field(default_factory=list)
    fatal: str | None = None


@dataclass(slots=True)
class _Wave:
    """One event's consequences while they are being worked out: the moves, what is still to resolve, what is ready."""

    moves: Moves = field(default_factory=Moves)
    work: deque[tuple[str, Outcome]] = field(default_factory=deque)
    ready: list[str] = field(default_factory=list)


class Flow:
    """The state of one scope's steps.

    Args:
        graph: The steps.
        needed: Steps that are wanted beside what depends on them: those of the pipeline's result.
    """

    def __init__(self, graph: Graph, needed: Collection[str] = ()) -> None:
        self._graph = graph
        self._steps = graph.steps
        self._needed = needed
        self._waiting = {name: len(step.needs) for name, step in graph.steps.items()}
        self._resolved: dict[str, Outcome] = {}
        self._running: set[str] = set()
        self._triggers: dict[str, set[str]] = {}
        self._borrowers: dict[str, list[str]] = {}
        self._fed: dict[str, list[str]] = {}
        self._begun: set[str] = set()
        self._plain = not any(step.join != "all" or step.feed or step.fallback for step in graph.steps.values())
        for name, step in graph.steps.items():
            if step.fallback is not None:
                self._triggers.setdefault(step.fallback, set()).add(name)
            if step.on_demand:
                self._waiting[name] += 1
            if step.feed is not None:
                self._fed.setdefault(step.feed.step, []).append(name)

    @property
    def has_races(self) -> bool:
        """Whether a running step may have to be cancelled."""
        return any(step.join == "first" for step in self._steps.values())

    def begin(self) -> Moves:
        """Return the steps that wait for nothing."""
        moves = Moves()
        self._start([name for name, count in self._waiting.items() if count == 0], moves)
        return moves

    def end(self, name: str, outcome: Outcome) -> Moves:
        """Return what follows from the end of a running step."""
        if self._plain and outcome != "failed":
            return self._count_down(name, outcome)
        wave = _Wave()
        wave.work.append((name, outcome))
        self._running.discard(name)
        self._resolve(wave)
        return wave.moves

    def _count_down(self, name: str, outcome: Outcome) -> Moves:
        """Do what :meth:`_resolve` does where every step waits for all that it needs, and nothing stands in for it."""
        moves, waiting = Moves(), self._waiting
        self._running.discard(name)
        self._resolved[name] = outcome
        ready = []
        for after in self._graph.dependents[name]:
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)
        if ready:
            self._start(ready, moves)
        return moves

    def is_pruned(self, name: str) -> bool:
        """Return whether the step lost a race and its cancellation is expected."""
        return self._resolved.get(name) == "skipped" and name in self._running

    # -- one thing after the other -------------------------------------------------------------------------

    def _resolve(self, wave: _Wave) -> None:
        """Resolve steps, and those that are resolved by it, until nothing follows any more."""
        moves, work = wave.moves, wave.work
        while work:
            name, outcome = work.popleft()
            if name in self._resolved:
                continue
            step = self._steps[name]
            if outcome == "failed" and step.fallback is not None and self._borrow(step, wave):
                continue
            if outcome == "failed" and moves.fatal is None and not self._survives(name):
                moves.fatal = name
            self._resolved[name] = outcome
            for after in self._graph.dependents[name]:
                self._count(after, name, outcome, wave)
            if self._triggers:
                self._settle(name, outcome, wave)
        self._start(wave.ready, moves)

    def _count(self, after: str, name: str, outcome: Outcome, wave: _Wave) -> None:
        """Note for ``after`` that one of its needs is resolved."""
        step = self._steps[after]
        if step.feed is not None and step.feed.step == name and name in self._begun:
            return  # it was counted when the list began to be written
        self._waiting[after] -= 1
        if after in self._resolved or after in self._running or after in wave.ready:
            return
        if step.join == "all":
            if self._waiting[after] == 0:
                wave.ready.append(after)
        elif outcome == "succeeded":
            wave.ready.append(after)
            if step.join == "first":
                self._prune(after, wave)
        elif self._waiting[after] == 0 and step.on_error != "skip" and self._has_failed(step):
            wave.moves.lost.append(after)
            wave.work.append((after, "failed"))
        elif self._waiting[after] == 0:
            wave.moves.skipped.append((after, NO_NEED_SUCCEEDED))
            wave.work.append((after, "skipped"))

    def _has_failed(self, step: CompiledStep) -> bool:
        """Return whether something failed that the step waits for, so that it was to make up for it."""
        return any(self._resolved.get(need) == "failed" for need in step.needs)

    def _start(self, names: list[str], moves: Moves) -> None:
        """Add the steps to the ones that start, and the maps whose list they begin to write."""
        if len(names) > 1:
            ranks = self._graph.ranks
            names.sort(key=lambda name: (self._steps[name].priority, ranks[name]), reverse=True)
        for name in names:
            if name in self._resolved:
                continue
            self._running.add(name)
            moves.start.append(name)
            if name in self._fed:
                self._begun.add(name)
                for fed in self._fed[name]:
                    self._waiting[fed] -= 1
                    if self._waiting[fed] == 0:
                        names.append(fed)

    # -- fallbacks -----------------------------------------------------------------------------------------

    def _borrow(self, step: CompiledStep, wave: _Wave) -> bool:
        """Return whether the failed step's fallback can still save it; its end then resolves the step."""
        fallback = step.fallback or ""
        found = self._resolved.get(fallback)
        if found == "succeeded":
            wave.moves.adopted.append((step.id, fallback))
            wave.work.append((step.id, "succeeded"))
            return True
        if found is not None:
            return False
        borrowers = self._borrowers.setdefault(fallback, [])
        borrowers.append(step.id)
        if self._steps[fallback].on_demand and len(borrowers) == 1:
            self._waiting[fallback] -= 1
            if self._waiting[fallback] == 0:
                wave.ready.append(fallback)
        return True

    def _settle(self, name: str, outcome: Outcome, wave: _Wave) -> None:
        """Resolve what borrowed the output of ``name``, and drop a fallback that no step can need any more."""
        for borrower in self._borrowers.pop(name, ()):
            if borrower in self._resolved:
                continue
            if outcome == "succeeded":
                wave.moves.adopted.append((borrower, name))
            wave.work.append((borrower, "succeeded" if outcome == "succeeded" else "failed"))
        fallback = self._steps[name].fallback
        if fallback is None or fallback in self._resolved or not self._steps[fallback].on_demand:
            return
        wanted = fallback in self._borrowers or fallback in self._running
        if not wanted and all(trigger in self._resolved for trigger in self._triggers[fallback]):
            wave.moves.skipped.append((fallback, NOT_NEEDED))
            wave.work.append((fallback, "skipped"))

    def _survives(self, name: str) -> bool:
        """Return whether the scope can go on: only races wait for the step, or a failed step that it would replace."""
        if name in self._borrowers:
            return True
        dependents = self._graph.dependents[name]
        races = all(self._steps[after].join != "all" for after in dependents)
        return bool(dependents) and races and name not in self._needed

    # -- races ---------------------------------------------------------------------------------------------

    def _prune(self, winner: str, wave: _Wave) -> None:
        """Resolve as skipped whatever only ``winner`` would still have waited for, and so on upward."""
        void = {winner}
        candidates = deque(self._steps[winner].needs)
        while candidates:
            name = candidates.popleft()
            if name in void or name in self._resolved or not self._is_void(name, void):
                continue
            void.add(name)
            candidates.extend(self._steps[name].needs)
            if name in self._running:
                wave.moves.cancel.append(name)
            else:
                wave.moves.skipped.append((name, LOST))
            wave.work.append((name, "skipped"))

    def _is_void(self, name: str, void: set[str]) -> bool:
        wanted: Iterable[str] = self._graph.dependents[name]
        return (
            name not in self._needed
            and name not in self._borrowers
            and name not in self._triggers
            and all(after in void or after in self._resolved for after in wanted)
        )
