"""Compiled pipelines made by hand, with every kind of step: for what reads graphs and does not care how they came."""

from typing import Any

from synaptic.agents.definition import Agent
from synaptic.agents.shape import Shape
from synaptic.pipeline.graph import (
    CallPolicy,
    CompiledCall,
    CompiledPipeline,
    CompiledSamples,
    CompiledStep,
    Feed,
    Graph,
)
from synaptic.pipeline.kinds import CompiledAgent, CompiledChoose, CompiledRepeat, CompiledTool, CompiledUse
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.templates.expressions import Expression, Template
from synaptic.pipeline.tools import Tool

SCORE = Shape.parse({"score": "number(0..1)"})


def call(agent: str = "editor", prompt: str = "x", **more: Any) -> CompiledCall:
    return CompiledCall(agent=Agent(name=agent, prompt="Do it."), prompt=Template.compile(prompt), **more)


def step(name: str, *needs: str, agent: str = "editor", **more: Any) -> CompiledStep:
    """Return a step; without other work it calls ``agent``."""
    work = [more.pop(key) for key in ("choose", "tool", "use", "repeat") if key in more]
    work = work or [CompiledAgent(call=more.pop("call", None) or call(agent))]
    return CompiledStep(id=name, work=work[0], needs=needs, **more)


def graph(*steps: CompiledStep) -> Graph:
    return Graph.of({one.id: one for one in steps})


def compiled(*steps: CompiledStep, result: str = "", name: str = "demo", description: str = "") -> CompiledPipeline:
    """Return a pipeline of these steps; the result is the last one's output, unless given."""
    result = result or f"{{{{ steps.{steps[-1].id} }}}}"
    head = f"version: 1\nname: {name}\ninputs: {{query: {{}}, rounds: {{type: integer, default: 4}}}}\n"
    pipeline = Pipeline.parse(f"{head}steps: {{only_form: {{agent: editor, prompt: x}}}}\nresult: x\n")
    spec = pipeline.spec.model_copy(update={"description": description})
    template = Template.compile(result)
    needed = {reference.path[0] for reference in template.references if reference.root == "steps"}
    return CompiledPipeline(
        pipeline=Pipeline(spec, pipeline.document),
        graph=graph(*steps),
        result=template,
        needed=frozenset(needed),
        budget=spec.budget,
        concurrency=None,
    )


def loop(*body: CompiledStep, **more: Any) -> CompiledRepeat:
    values = {"until": None, "score": None, "max": 3, "keep": "last", **more}
    return CompiledRepeat(body=graph(*body), **values)


def fetch(url: str) -> str:
    """Fetch a page."""
    return url


def everything() -> CompiledPipeline:
    """Return a pipeline in which every kind of step, every modifier and every kind of arrow is there."""
    judged = loop(step("draft"), step("rate", "draft", agent="critic"), max=Expression.compile("inputs.rounds"))
    inner = compiled(step("look"), step("sum_up", "look"), name="inner")
    used = CompiledUse(pipeline=inner, inputs={"query": Template.compile("{{ steps.plan }}")})
    route = CompiledChoose(call=call("classifier"), options={"fact": ("look_up",), "story": ("tell",)})
    best = CompiledSamples(count=3, select="best", judge=call("judge", shape=SCORE))
    return compiled(
        step("plan", agent="planner"),
        step("route", choose=route),
        step("look_up", "route", gates={"route": ("fact",)}, tool=CompiledTool(tool=Tool.of(fetch), arguments={})),
        step("tell", "route", gates={"route": ("story",)}, samples=best),
        step(
            "research",
            "plan",
            agent="researcher",
            foreach=Expression.compile("steps.plan.questions"),
            feed=Feed("plan", "questions"),
            on_error="skip",
        ),
        step("refine", "research", repeat=judged, when=Expression.compile("inputs.rounds > 0")),
        step("again", "plan", repeat=loop(step("again"), itself=True, max=2)),
        step("reuse", "plan", use=used),
        step("race", "again", "reuse", join="first"),
        step("careful", "refine", "race", on_error="use", fallback="plain", approve="output"),
        step("plain", on_demand=True),
        step("write", "look_up", "tell", "careful", call=call("editor", policy=CallPolicy(cache_seconds=60.0))),
        description='Every kind of step: "quoted", <b>bold</b> & \\back\\ %percent; 1. list `code` #hash',
    )
