"""Runs of small pipelines on the scripted backend, with everything they said."""

from collections.abc import Mapping
from dataclasses import replace

from synaptic.agents.definition import Agent
from synaptic.backends.scripted import ScriptedBackend
from synaptic.pipeline.loader import Pipeline
from synaptic.runtime.events import (
    ApprovalAsked,
    ApprovalGiven,
    Event,
    RunFinished,
    RunResult,
    StepFinished,
    StepStarted,
)
from synaptic.runtime.session import Session
from synaptic.settings import Settings

AGENTS = {
    "writer": Agent(name="writer", prompt="Write."),
    "critic": Agent(name="critic", prompt="Judge.", output={"score": "number(0..1)", "issues": "list[string]"}),
    "classifier": Agent(name="classifier", prompt="Sort."),
    "lister": Agent(name="lister", prompt="List.", output={"items": "list[string]"}),
    "judge": Agent(name="judge", prompt="Judge.", output={"score": "number(0..1)"}),
}
SETTINGS = Settings(retries=0)


def pipeline(steps: str, result: str = "{{ steps.end }}", head: str = "") -> Pipeline:
    text = f"version: 1\nname: demo\n{head}\ninputs: {{query: {{}}}}\nsteps:\n{steps}\nresult: '{result}'\n"
    return Pipeline.parse(text)


class Run:
    """One run of a pipeline against a script, with its events."""

    def __init__(
        self,
        steps: str,
        script: object = None,
        result: str = "{{ steps.end }}",
        *,
        head: str = "",
        settings: Settings = SETTINGS,
        tools: Mapping | None = None,
        approver: object = None,
        **options,
    ) -> None:
        self.pipeline = pipeline(steps, result, head)
        self.settings = settings
        self.backend = ScriptedBackend(script, **options)
        self.session_options = {"tools": tools, "approver": approver}
        self.events: list[Event] = []

    async def __call__(self, query: str | None = "why") -> RunResult:
        async with Session(self.settings, backend=self.backend, agents=AGENTS, **self.session_options) as session:
            return await session.run(query, pipeline=self.pipeline, on_event=self.events.append)

    def statuses(self) -> dict[str, str]:
        return {event.result.id: event.result.status for event in self.events if isinstance(event, StepFinished)}

    def prompts(self) -> Mapping[str, str]:
        return {request.tag: request.messages[-1].content for request in self.backend.requests}

    def started(self) -> list[str]:
        return [event.path for event in self.events if isinstance(event, StepStarted)]

    def result_of(self, path: str):
        return next(
            event.result for event in self.events if isinstance(event, StepFinished) and event.result.id == path
        )

    def decisions(self) -> list[ApprovalAsked | ApprovalGiven]:
        """What a person was asked and said; keys are what the journal finds it by."""
        said = [event for event in self.events if isinstance(event, (ApprovalAsked, ApprovalGiven))]
        return [replace(event, key=None) for event in said]

    @property
    def finished(self) -> RunResult:
        assert isinstance(self.events[-1], RunFinished)
        return self.events[-1].result
