"""A recorded run as another one begins with it: its pipeline as it was, its inputs, and what it has done."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths
from synaptic.agents import discover_agents
from synaptic.errors import JournalError, PipelineError, RunOwned, UsageError
from synaptic.pipeline import (
    Attached,
    CompileContext,
    Pipeline,
    Plan,
    attach,
    bind_inputs,
    compile_pipeline,
    discover_tools,
)
from synaptic.runtime.events import StepAsked, StepRepaired, StepRetried, StepStarted, StepThought, TokenDelta
from synaptic.runtime.journal import Journal
from synaptic.runtime.kept_sessions import conversation_of, run_if_kept, turns_to
from synaptic.runtime.recorded import Chain, Forked, Inherited, Recorded
from synaptic.text import did_you_mean, read_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from synaptic.messages import ChatRequest, Message
    from synaptic.pipeline import Tool
    from synaptic.runtime.events import Descent, Event
    from synaptic.runtime.journal import Beginning, KeptRun, PipelineText
    from synaptic.runtime.past import Past


SAMPLING: Final = ("temperature", "max_tokens", "seed", "num_ctx", "think", "repetition_guard")
"""What of a call's defaults decides its output; the model is the route's."""


GENERATIONS: Final = 100
"""Runs that are looked into behind one, each with what it has itself taken of those before: a run's beginning takes
the time of all of them."""


@dataclass(frozen=True)
class RunBefore:
    """A run that is recorded.

    Attributes:
        events: All that it said, in order, but for its beginning and the pieces of its texts.
        parent: The run that it goes back to, where that is still recorded.
        open_texts: What the calls had said that were open when its process ended, by the path of their step.
        pieces: In how many pieces the latest text of each step came.
        conversation: The turns before it, where it was asked and its program ended before there was a plan for it.
    """

    run: KeptRun
    beginning: Beginning
    events: Sequence[Event]
    parent: RunBefore | None = None
    open_texts: Mapping[str, str] = field(default_factory=dict)
    pieces: Mapping[str, int] = field(default_factory=dict)
    conversation: tuple[Message, ...] = ()

    @classmethod
    def read(cls, run_id: str, journal: Journal, *, to_go_on: bool = False) -> RunBefore:
        """Return a run by its id, or a part of that.

        Args:
            run_id: See ``Journal.run``.
            journal: Where it is recorded.
            to_go_on: Whether it is about to go on: no other process may be at work on it, and none may begin to.

        Raises:
            JournalError: If there is no such run, or its record cannot be read.
            RunOwned: If another process works on it.
        """
        if not to_go_on:
            return cls._of(journal.run(run_id), journal, GENERATIONS)
        run = journal.claim(run_id)
        try:
            return cls._of(run, journal, GENERATIONS)
        except BaseException:
            journal.give_back(run)
            raise

    @classmethod
    def _of(cls, run: KeptRun, journal: Journal, generations: int) -> RunBefore:
        beginning = journal.beginning(run)
        parent = beginning.descent.parent if generations else None
        try:
            before = None if parent is None else cls._of(journal.run(parent), journal, generations - 1)
        except JournalError:
            before = None  # it was pruned; what was taken of it is recorded here, too
        said: list[Event] = []
        pieces: dict[str, int] = {}
        ended = set[str]()
        for event in journal.events(run):
            if isinstance(event, TokenDelta):
                pieces[event.path] = 1 if event.path in ended else pieces.get(event.path, 0) + 1
                ended.discard(event.path)
            else:
                said.append(event)
                if isinstance(event, StepAsked | StepThought | StepRetried | StepRepaired):
                    ended.add(event.path)  # what is said next is another text
        pieces |= journal.open_pieces(run)
        after = None if beginning.is_planned else run_if_kept(journal, beginning.descent.after)
        turns = conversation_of(turns_to(journal, after))
        return cls(run, beginning, tuple(said), before, journal.open_texts(run), pieces, turns)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline as it was when the run began.

        Raises:
            PipelineError: If this version of the program does not understand it.
            JournalError: If there was no plan yet.
        """
        if not self.beginning.is_planned:
            hint = f"to ask it again: synaptic runs resume {self.run.id}"
            raise JournalError(f"the run {self.run.id} ended before it had a pipeline", hint=hint)
        kept = self.beginning.pipeline
        return Pipeline.parse(kept.text, kept.source, path=None if kept.path is None else Path(kept.path))

    @property
    def used_texts(self) -> dict[Path, str]:
        """The files of the pipelines that it uses, as they were."""
        return {
            paths.resolved(Path(kept.path)): kept.text for kept in self.beginning.used.values() if kept.path is not None
        }

    def asked(self, pipeline: str | Path | Pipeline | None) -> dict[str, Any]:
        """Return what ``Session.run`` takes to ask the same question again in the same run.

        Args:
            pipeline: ``None`` is the one that was asked.
        """
        return {
            "pipeline": pipeline or self.beginning.pipeline.name or None,
            "inputs": self.beginning.inputs,
            "documents": self.beginning.documents,
            "conversation": self.conversation,
            "run_id": self.run.id,
            **self.beginning.descent.of_turn(),
        }

    def plan(self, tools: Mapping[str, Tool], *, shown_only: bool = False) -> Plan:
        """Return the plan as it was, as far as today's agents and tools allow; nothing is contacted.

        Args:
            tools: Those that the caller gives.
            shown_only: Whether nothing of it is carried out.

        Raises:
            PipelineError: If they do not.
        """
        book, beginning = discover_agents(), self.beginning
        context = CompileContext(
            agents={name: book[name] for name in book},
            tools=discover_tools(given=tools),
            model=beginning.descent.model,
            kept=self.used_texts,
            shown_only=shown_only,
        )
        compiled = compile_pipeline(self.pipeline, context)
        return Plan(pipeline=self.pipeline, compiled=compiled, inputs=beginning.inputs, route=beginning.route)

    def file_now(self) -> Path:
        """Return the pipeline's file.

        Raises:
            UsageError: If it has none, or that is gone.
        """
        path = self.beginning.pipeline.path
        if path is None or not Path(path).is_file():
            what = "came from no file" if path is None else f"came from {path}, which is gone"
            hint = "without --force the run goes on with its pipeline as it was"
            raise UsageError(f"the pipeline of the run {self.run.id} {what}", hint=hint)
        return Path(path)

    def changed_files(self) -> list[str]:
        """Return what became of the pipeline's files since: ``flow.yaml was changed``."""
        kept = {each.path: each for each in (self.beginning.pipeline, *self.beginning.used.values()) if each.path}
        return [f"{path} {what}" for path, each in kept.items() if (what := _fate(each)) is not None]

    def resumed(self, *, keeps: bool = False) -> GoingOn:
        """Return what the run itself goes on with.

        Args:
            keeps: Whether it goes on only if nothing that has ended is done again.

        Raises:
            JournalError: If it succeeded.
        """
        if self.run.status == "succeeded":
            hint = f"'synaptic runs show {self.run.id}' shows it; 'runs fork' and 'runs rerun' begin another with it"
            raise JournalError(f"the run {self.run.id} has succeeded: there is nothing left to do", hint=hint)
        own = Recorded(self.events, self.open_texts, self.pieces)
        descent = self.beginning.descent
        past = own if self.parent is None else Chain(own, self.parent.inherited(descent.forked_at))
        return GoingOn(self, past, descent, run_id=self.run.id, keeps=keeps)

    def forked(self, at: str, changes: Changes) -> GoingOn:
        """Return what another run begins with that differs from this one from a step on.

        Raises:
            UsageError: If there is no such step.
        """
        known = list(dict.fromkeys(event.path for event in self.events if isinstance(event, StepStarted)))
        if at not in known:
            hint = did_you_mean(at, known) if known else None
            raise UsageError(f"the run {self.run.id} has come to no step {at!r}", hint=hint)
        descent = self._beside(at)
        return GoingOn(self, self.inherited(at), changes.of(descent), changes)

    def again(self, changes: Changes) -> GoingOn:
        """Return what another run begins with that differs from this one anywhere."""
        descent = self._beside(None)
        return GoingOn(self, self.inherited(None), changes.of(descent), changes)

    def _beside(self, forked_at: str | None) -> Descent:
        """Return where a run comes from that begins with this one: it knows the conversation, and is no turn of it."""
        came = replace(self.beginning.descent, session=None, after=None, instead=None, last=None, title="")
        return replace(came, parent=self.run.id, forked_at=forked_at)

    def inherited(self, forked_at: str | None) -> Past:
        """Return the past of a run that begins with this one, and differs from it from a step on, or anywhere."""
        own: Past = Inherited(self.events) if forked_at is None else Forked(self.events, forked_at)
        if self.parent is None:
            return own
        return Chain(own, self.parent.inherited(forked_at or self.beginning.descent.forked_at))


@dataclass(frozen=True, slots=True)
class Changes:
    """In what a run differs from the one that it begins with.

    Attributes:
        inputs: Those that are others.
        model: Another one, for what names none.
        settings: Names of settings that hold as they are now, not as they were.
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    settings: frozenset[str] = frozenset()

    def of(self, descent: Descent) -> Descent:
        """Return where the run comes from that has these changes."""
        return descent if self.model is None else replace(descent, model=self.model)


NO_CHANGES: Final = Changes()


@dataclass(frozen=True, slots=True)
class GoingOn:
    """What a run goes on with.

    Attributes:
        run_id: ``None`` is a new one.
        keeps: Whether it goes on only if nothing that has ended is done again.
    """

    before: RunBefore
    past: Past
    descent: Descent
    changes: Changes = NO_CHANGES
    run_id: str | None = None
    keeps: bool = False

    @property
    def route_model(self) -> str | None:
        """The model for what names none: the one that it was."""
        return None if "model" in self.changes.settings else self.before.beginning.route.model

    def inputs(self, pipeline: Pipeline) -> tuple[dict[str, Any], Attached]:
        """Return the inputs of ``pipeline``.

        Raises:
            PipelineError: If one does not fit.
        """
        beginning, changed = self.before.beginning, self.changes.inputs
        documents = tuple(dict(document) for document in beginning.documents)
        if "query" in changed and documents:
            attached = attach(pipeline.spec, changed, documents)
        else:
            attached = Attached(changed, beginning.question, documents)
        return bind_inputs(pipeline, attached.inputs, beginning.inputs), attached

    def defaults(self, now: ChatRequest) -> ChatRequest:
        """Return what holds for a call where nothing else says otherwise: what did then, but for what was changed."""
        then = self.before.beginning.descent.defaults
        if then is None:
            return now
        kept = {name: getattr(then, name) for name in SAMPLING if name not in self.changes.settings}
        return replace(now, **kept)


def read_run_before(run_id: str, *, to_go_on: bool) -> RunBefore:
    """Return a run of the person's own journal; raises as :meth:`RunBefore.read` does."""
    with Journal() as journal:
        return RunBefore.read(run_id, journal, to_go_on=to_go_on)


_GOING_ON: Final[set[str]] = set()
"""Runs that this process works on: its claims do not tell two of its own sessions apart."""


@contextmanager
def at_work(run_id: str, *, claimed_before: bool = False) -> Iterator[None]:
    """Have a run be worked on by one task of this process during the block.

    Args:
        run_id: Its id.
        claimed_before: Whether this very task may have claimed it: a run with an id of its own cannot be another's.

    Raises:
        RunOwned: If another one works on it.
    """
    if run_id in _GOING_ON and claimed_before:
        yield
        return
    if run_id in _GOING_ON:
        raise RunOwned(f"the run {run_id} is at work in this very process")
    _GOING_ON.add(run_id)
    try:
        yield
    finally:
        _GOING_ON.discard(run_id)


@asynccontextmanager
async def claimed(run_id: str, settled: Callable[[], Awaitable[None]]) -> AsyncIterator[RunBefore]:
    """Give a run of the person's own journal that this process goes on with; where that fails, it is as it was.

    Args:
        run_id: Its id, or a part of that.
        settled: Returns once all that was said of it is recorded.

    Raises:
        JournalError: As :meth:`RunBefore.read` does.
        RunOwned: Also if this process goes on with it already.
    """
    await settled()
    before = await asyncio.to_thread(read_run_before, run_id, to_go_on=True)
    with at_work(before.run.id):
        try:
            yield before
        except BaseException:
            await settled()
            await asyncio.to_thread(give_back, before.run)
            raise


def give_back(run: KeptRun) -> None:
    """Make a run of the person's own journal what it was before it was claimed; raises as ``Journal.give_back``."""
    with Journal() as journal:
        journal.give_back(run)


def _fate(kept: PipelineText) -> str | None:
    """Return what became of a pipeline's file, ``None`` where it is as it was."""
    assert kept.path is not None, "asked of files alone"
    try:
        now = read_text(Path(kept.path), "pipeline", PipelineError)
    except PipelineError:
        return "is gone, or cannot be read any more"
    return None if now == kept.text else "was changed"
