"""Runs that go on from what earlier ones said: the executor with a past, on the scripted backend."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from run_support import AGENTS, SETTINGS

from synaptic.backends.scripted import ScriptedBackend
from synaptic.errors import UsageError
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime.events import Event, RunResult, StepAsked, StepFinished
from synaptic.runtime.executor import Executor
from synaptic.runtime.past import Past
from synaptic.runtime.recorded import FRESH, Recorded
from synaptic.runtime.rehearsal import rehearse
from synaptic.runtime.session import Session


class Goes:
    """One pipeline, run several times, each time from what was said before.

    Attributes:
        asked: The tags that the backend was asked with, of the latest go.
        events: What the latest go said.

    """

    def __init__(
        self,
        text: str | Path,
        script: object = None,
        *,
        tools: Mapping | None = None,
        approver: object = None,
        digest: str | None = None,
        context: int | None = None,
    ) -> None:
        self.pipeline = Pipeline.load(text) if isinstance(text, Path) else Pipeline.parse(text)
        self.script = script
        self.tools = tools
        self.approver = approver
        self.digest = digest
        self.context = context
        self.events: list[Event] = []
        self.asked: Counter[str] = Counter()

    async def __call__(self, past: Past | Iterable[Event] = FRESH, query: str = "why") -> RunResult:
        backend = Digested(self.script, self.digest, context=self.context)
        self.events = []
        async with Session(SETTINGS, backend=backend, agents=AGENTS, tools=self.tools) as session:
            plan = await session.plan(query, pipeline=self.pipeline)
            executor = Executor(
                plan,
                await session._opened.stacks(),
                session._planner.defaults(plan.route),
                run_id="r",
                emit=self.events.append,
                approver=self.approver,
                past=past if hasattr(past, "taken") else Recorded(past),
            )
            try:
                return await executor.run()
            finally:
                self.asked = Counter(request.tag for request in backend.requests)

    async def rehearsed(self, events: Iterable[Event], query: str = "why") -> str:
        """Go through a run with what was said before; return why it cannot go on without doing something again."""
        backend = Digested(self.script, self.digest, context=self.context)
        async with Session(SETTINGS, backend=backend, agents=AGENTS, tools=self.tools) as session:
            plan = await session.plan(query, pipeline=self.pipeline)
            stacks, defaults = await session._opened.stacks(), session._planner.defaults(plan.route)
            try:
                await rehearse(lambda hear: Executor(plan, stacks, defaults, run_id="r", emit=hear), Recorded(events))
            except UsageError as exc:
                return exc.message
            finally:
                assert not backend.requests
        return ""

    def ended(self) -> Counter[str]:
        """Return which leaves succeeded in the latest go, done there and not before."""
        return ended(self.events)

    def reused(self) -> list[str]:
        return [event.result.id for event in self.events if isinstance(event, StepFinished) and event.result.reused]


class Digested(ScriptedBackend):
    """A backend whose model has a digest."""

    def __init__(self, script: object, digest: str | None, context: int | None = None) -> None:
        super().__init__(script, context=context)
        if digest is not None:
            self.capabilities = replace(self.capabilities, digest=self.digest_of)
        self._digest = digest

    async def digest_of(self, _: str | None) -> str | None:
        return self._digest


def ended(events: Iterable[Event]) -> Counter[str]:
    """Return which leaves succeeded, by path; of what they asked a model."""
    events = list(events)
    calls = {event.path for event in events if isinstance(event, StepAsked) and event.request is not None}
    return Counter(
        event.result.id
        for event in events
        if isinstance(event, StepFinished)
        and event.result.status == "succeeded"
        and not event.result.reused
        and event.result.id in calls
    )
