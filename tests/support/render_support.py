"""What the tests of the renderer share: events as a run has them, and the screen of a terminal emulator."""

import io
from collections.abc import Sequence

import pyte
from compiled_graphs import everything
from rich.console import Console

from synaptic.agents.definition import Agent
from synaptic.messages import Route, Usage
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.plan import Plan
from synaptic.runtime.events import (
    EndedSteps,
    Event,
    RunFinished,
    RunResult,
    RunStarted,
    StepFinished,
    StepResult,
    StepStarted,
)
from synaptic.ui.screen.render import Renderer, make_renderer

RESEARCH = """
version: 1
name: demo
inputs:
  query: {type: string, required: true}
steps:
  plan: {agent: thinker, prompt: "{{ inputs.query }}", output: {questions: "list[string]"}}
  research: {agent: thinker, foreach: steps.plan.questions, prompt: "{{ item }}"}
  refine:
    when: inputs.query == "hard"
    repeat:
      max: 2
      steps:
        judge: {agent: thinker, prompt: "{{ steps.research }}"}
  write: {agent: writer, prompt: "{{ steps.research }} {% if steps.refine %}{{ steps.refine.judge }}{% endif %}"}
result: "{{ steps.write }}"
"""

ANSWER = "Because of \x1b[31mphysics\x07."
START = 1_000_000.0
COLUMNS, ROWS = 100, 24


class Terminal(io.StringIO):
    """What a terminal is told; ``screen`` is what it then shows."""

    def isatty(self) -> bool:
        return True

    def screen(self, rows: int = ROWS) -> list[str]:
        screen = pyte.Screen(COLUMNS, rows)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(self.getvalue())
        return [line.rstrip() for line in screen.display]


def make_plan(text: str = RESEARCH) -> Plan:
    pipeline = Pipeline.parse(text)
    agents = {name: Agent(name=name, prompt="Think.") for name in ("thinker", "writer")}
    route = Route("ollama", "http://127.0.0.1:11434", "tiny:latest", "the only one")
    compiled = compile_pipeline(pipeline, CompileContext(agents=agents))
    return Plan(pipeline=pipeline, compiled=compiled, inputs={"query": "why?"}, route=route)


def started(path: str, kind: str = "agent", agent: str | None = "thinker", width: int | None = None) -> StepStarted:
    backend, model = ("ollama", "tiny:latest") if kind in {"agent", "choose"} else (None, None)
    return StepStarted(path, kind, agent, backend, model, START, width=width)


def finished(path: str, status: str = "succeeded", kind: str = "agent", **more: object) -> StepFinished:
    called = {"model": "tiny:latest", "backend": "ollama", "attempts": 1, "usage": Usage(100, 45)}
    values = {
        "agent": "thinker" if kind != "repeat" else None,
        "started_at": START,
        "ended_at": START + 2,
        **(called if kind in {"agent", "choose"} else {}),
        **more,
    }
    return StepFinished(StepResult(id=path, kind=kind, status=status, **values))


def run_finished(
    answer: str = "", status: str = "succeeded", steps: Sequence[StepFinished] = (), **more
) -> RunFinished:
    values = {"usage": Usage(300, 90), "stop_reason": "completed", **more}
    return RunFinished(
        RunResult(
            run_id="r1",
            pipeline="demo",
            status=status,
            answer=answer,
            steps=EndedSteps(step.result for step in steps),
            started_at=START,
            ended_at=START + 3,
            **values,
        )
    )


BEGIN = RunStarted("r1", make_plan(), START)


def on_terminal(events: Sequence[Event], **options: bool) -> Terminal:
    """Return a terminal that is both stdout and stderr, after the events."""
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=COLUMNS, height=ROWS, highlight=False)
    show(make_renderer(console=console, out=terminal, **options), events)
    return terminal


def in_pipes(events: Sequence[Event], **options: bool) -> tuple[str, list[str]]:
    """Return what is on stdout and the lines on stderr, neither of them a terminal."""
    out, err = io.StringIO(), io.StringIO()
    show(make_renderer(console=Console(file=err, width=200, highlight=False), out=out, **options), events)
    return out.getvalue(), err.getvalue().splitlines()


def show(renderer: Renderer, events: Sequence[Event]) -> None:
    for event in events:
        renderer.handle(event)
    renderer.close()


def everything_begins() -> RunStarted:
    pipeline = everything()
    route = Route("ollama", "http://127.0.0.1:11434", "tiny:latest", "the only one")
    plan = Plan(pipeline=pipeline.pipeline, compiled=pipeline, inputs={"query": "why?", "rounds": 4}, route=route)
    return RunStarted("r1", plan, START)
