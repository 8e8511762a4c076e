"""The past of a run, made of the events of runs before it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synaptic.runtime.events import (
    ApprovalAsked,
    ApprovalGiven,
    StepAsked,
    StepFinished,
    StepRepaired,
    StepStarted,
    StepSummarised,
    UnusableReply,
)
from synaptic.runtime.past import NOTHING, Begun, Done, differ, differences
from synaptic.runtime.step_paths import is_at, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synaptic.runtime.events import Event, StepResult
    from synaptic.runtime.past import Past


class Leaf:
    """A leaf as the events tell of it; ``done`` is ``None`` while it is open.

    Attributes:
        asked: What was asked; ``None`` of a person's decision.
        unusable: Replies that had come, and that the model was asked again because of.
        said: What it had said when it was cancelled.
        in_doubt: Whether it is a tool that may have been called before, and was not called again.
    """

    __slots__ = ("asked", "done", "in_doubt", "key", "path", "said", "unusable", "used")

    def __init__(self, path: str, key: str, asked: StepAsked | None = None, done: Done | None = None) -> None:
        self.path = path
        self.key = key
        self.asked = asked
        self.done = done
        self.used = False
        self.unusable: list[UnusableReply] = []
        self.said = ""
        self.in_doubt = False

    def is_for(self, digest: str | None) -> bool:
        """Return whether its output may be taken; what is not known of a model is no difference."""
        return self.done is not None and not self.used and not self.is_of_another_model(digest)

    def could_not_use(self, reply: UnusableReply) -> None:
        """Note that the model is asked again."""
        self.unusable.append(reply)
        self.said = ""

    def is_of_another_model(self, digest: str | None) -> bool:
        """Return whether the model's content was another one."""
        return self.asked is not None and differ(self.asked.digest, digest)


class Recorded:
    """The past of a run that goes on: a leaf is the one with the same path and key.

    Args:
        events: What was said, in order; of several goes at one run, one after the other.
        open_texts: What leaves had said, by their paths, that have not ended.
        pieces: In how many pieces the latest text of each path came, where that is known.

    Attributes:
        leaves: In the order in which they were begun.
    """

    def __init__(
        self,
        events: Iterable[Event] = (),
        open_texts: Mapping[str, str] | None = None,
        pieces: Mapping[str, int] | None = None,
    ) -> None:
        self._open_texts = open_texts or {}
        self._pieces = pieces or {}
        self.leaves: list[Leaf] = []
        self._at: dict[tuple[str, str], list[Leaf]] = defaultdict(list)
        self._asked: dict[str, StepAsked] = {}
        self._open: dict[str, Leaf] = {}
        self._summaries: dict[tuple[str, str], StepSummarised] = {}
        self._ended = 0
        for event in events:
            self._note(event)
        self._left = sum(leaf.done is not None and not leaf.used for leaf in self.leaves)

    @property
    def is_spent(self) -> bool:
        """Whether every output was taken."""
        return self._left == 0

    def taken(self, path: str, key: str, digest: str | None = None) -> Done | None:
        """Return what came of the leaf at this path."""
        return self.take(self._at.get((path, key), ()), digest)

    def take(self, leaves: Iterable[Leaf], digest: str | None = None) -> Done | None:
        """Return what came of the first of some leaves that may be taken."""
        for leaf in leaves:
            if leaf.is_for(digest):
                leaf.used = True
                self._left -= 1
                return leaf.done
        return None

    def forget(self, leaf: Leaf) -> None:
        """Give a leaf's output to nobody."""
        self._left -= leaf.done is not None and not leaf.used
        leaf.used = True

    def was_open(self, path: str, key: str) -> bool:
        """Return whether the leaf was begun, and it is not known how it ended."""
        leaf = self._open.get(path)
        return leaf is not None and leaf.key == key

    def has_ended(self, path: str, *, decided: bool) -> bool:
        """Return whether something is left that came of a leaf at a path."""
        ended = (leaf.done for leaf in self.leaves if leaf.path == path and not leaf.used and leaf.done is not None)
        return any((done.decision is not None) == decided for done in ended)

    def begun(self, path: str, key: str, digest: str | None = None) -> Begun:
        """Return what is known of a leaf that was begun, and whose end is not known."""
        if not self.was_open(path, key) or self._open[path].is_of_another_model(digest):
            return NOTHING
        leaf = self._open[path]
        return Begun(leaf.unusable, self._open_texts.get(path) or leaf.said, self._pieces.get(path, 0))

    def summary(self, path: str, key: str) -> StepSummarised | None:
        """Return the summary that was asked for with a key."""
        return self._summaries.get((path, key))

    def changes(self, asked: StepAsked) -> tuple[str, ...]:
        """Return in what a question differs from the last one at its path."""
        before = self._asked.get(asked.path)
        return () if before is None else differences(before, asked)

    def _note(self, event: Event) -> None:
        match event:
            case StepAsked():
                self._asked[event.path] = event
                self._begin(Leaf(event.path, event.key, event))
                if event.again:
                    self._spend_decisions(event.path)
            case StepRepaired(reply=UnusableReply() as reply) if event.path in self._open:
                self._open[event.path].could_not_use(reply)
            case StepSummarised():
                self._summaries[event.path, event.key] = event
            case StepFinished():
                self._end(event.result)
            case ApprovalAsked(what="output"):
                leaf = self._open.get(event.path)
                if leaf is not None:
                    leaf.done = Done(output=event.value, order=self._next())
            case ApprovalGiven(key=str(key), decision="accepted" | "edited" as decision):
                done = Done(output=event.value, order=self._next(), decision=decision)
                self._add(Leaf(event.path, key, done=done))

    def _begin(self, leaf: Leaf) -> None:
        """Note that a leaf is open; one that was open before goes on."""
        before, digest = self._open.get(leaf.path), None if leaf.asked is None else leaf.asked.digest
        if before is not None and before.key == leaf.key and not before.is_of_another_model(digest):
            leaf.unusable, leaf.said = before.unusable, before.said
            leaf.in_doubt = leaf.asked is not None and leaf.asked.tool is not None and not leaf.asked.again
        self._open[leaf.path] = self._add(leaf)

    def _spend_decisions(self, path: str) -> None:
        """Note that what a person decided at a path was done: it is asked anew should it have to be done once more."""
        for leaf in self.leaves:
            leaf.used |= leaf.path == path and leaf.done is not None and leaf.done.decision is not None

    def _add(self, leaf: Leaf) -> Leaf:
        self.leaves.append(leaf)
        self._at[leaf.path, leaf.key].append(leaf)
        return leaf

    def _next(self) -> int:
        self._ended += 1
        return self._ended

    def _end(self, result: StepResult) -> None:
        leaf = self._open.pop(result.id, None)
        if leaf is None or leaf.key != result.key:
            return
        if result.status == "succeeded":
            # What a person was to approve is asked about once more, with what the model said.
            output = result.output if leaf.done is None else leaf.done.output
            leaf.done = _done(result, output, self._next())
        elif result.status == "cancelled" or leaf.in_doubt:
            self._open[result.id] = leaf
            leaf.said = result.output if isinstance(result.output, str) else ""


class Inherited(Recorded):
    """The past of a run that begins with another one: a leaf is the one with the same path and key, else the same key.

    Args:
        events: Of the other run.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        super().__init__(events)
        self._by_key: dict[str, list[Leaf]] = defaultdict(list)
        for leaf in self.leaves:
            if leaf.done is not None and leaf.done.decision is None:  # a decision is about one place of the run
                self._by_key[leaf.key].append(leaf)

    def taken(self, path: str, key: str, digest: str | None = None) -> Done | None:
        """Return what came of a leaf."""
        return super().taken(path, key, digest) or self.take(self._by_key.get(key, ()), digest)


class Forked(Recorded):
    """What a run takes that differs from one before it from a step on.

    What had ended when that step began is kept as it is, whatever has changed; what ended later is as in
    :class:`Inherited`; the step itself, and what is inside it, is done again.

    Args:
        events: Of the run before.
        at: The path of the step.
    """

    def __init__(self, events: Sequence[Event], at: str) -> None:
        super().__init__(events)
        began = next(
            (number for number, event in enumerate(events) if isinstance(event, StepStarted) and is_at(event.path, at)),
            len(events),
        )
        self._kept = Recorded(_outside(events[:began], at))
        ended = {(leaf.path, leaf.key) for leaf in self._kept.leaves if leaf.done is not None}
        self._kept_at: dict[str, list[Leaf]] = defaultdict(list)
        for leaf in self._kept.leaves:
            if leaf.done is not None and leaf.done.decision is None:
                self._kept_at[leaf.path].append(leaf)
        self._later = Inherited(_outside(events, at))
        for leaf in self._later.leaves:
            if (leaf.path, leaf.key) in ended:
                self._later.forget(leaf)

    @property
    def is_spent(self) -> bool:
        """Whether every output was taken."""
        return self._kept.is_spent and self._later.is_spent

    def taken(self, path: str, key: str, digest: str | None = None) -> Done | None:
        """Return what came of a leaf."""
        kept = self._kept.taken(path, key) or self._kept.take(self._kept_at.get(path, ()))
        return kept or self._later.taken(path, key, digest)


class Chain:
    """Several pasts, the nearest first.

    Args:
        near: Of the run itself, say.
        far: Of the run that it goes back to.
    """

    def __init__(self, near: Past, far: Past) -> None:
        self._near = near
        self._far = far

    @property
    def is_spent(self) -> bool:
        """Whether every output was taken."""
        return self._near.is_spent and self._far.is_spent

    def taken(self, path: str, key: str, digest: str | None = None) -> Done | None:
        """Return what came of a leaf, from the nearest past that knows it; the nearer ones go first in order, too."""
        near = self._near.taken(path, key, digest)
        if near is not None:
            return near
        far = self._far.taken(path, key, digest)
        return None if far is None else replace(far, order=far.order + _BEHIND)

    def was_open(self, path: str, key: str) -> bool:
        """Return whether the leaf was begun, and it is not known how it ended."""
        return self._near.was_open(path, key) or self._far.was_open(path, key)

    def has_ended(self, path: str, *, decided: bool) -> bool:
        """Return whether something of the run itself is left that came of a leaf at a path."""
        return self._near.has_ended(path, decided=decided)

    def begun(self, path: str, key: str, digest: str | None = None) -> Begun:
        """Return what is known of a leaf that was begun, and whose end is not known."""
        near = self._near.begun(path, key, digest)
        return self._far.begun(path, key, digest) if near == NOTHING else near

    def summary(self, path: str, key: str) -> StepSummarised | None:
        """Return the summary that was asked for with a key."""
        return self._near.summary(path, key) or self._far.summary(path, key)

    def changes(self, asked: StepAsked) -> tuple[str, ...]:
        """Return in what a question differs from the last one at its path."""
        return self._near.changes(asked) or self._far.changes(asked)


_BEHIND = 1 << 32
"""More leaves than one run has."""

FRESH: Past = Recorded()
"""Of a run that is recorded, and has nothing before it."""


def _outside(events: Iterable[Event], at: str) -> list[Event]:
    """Return the events of all steps but one, and what is inside it."""
    paths = ((event, path_of(event)) for event in events)
    return [event for event, path in paths if path is None or not is_at(path, at)]


def _done(result: StepResult, output: Any, order: int) -> Done:
    return Done(
        output=output,
        order=order,
        model=result.model,
        backend=result.backend,
        node=result.node,
        stop_reason=result.stop_reason,
    )
