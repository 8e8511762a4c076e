"""First pass over a pipeline's steps: what each one does and what its output looks like.

Templates refer to steps in any order, so the types of all outputs are known before the first template is checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from synaptic.pipeline.compiler.inputs import parse_shape
from synaptic.pipeline.compiler.scope import same_type
from synaptic.pipeline.compiler.step_kind import kind_of, misfits
from synaptic.pipeline.compiler.used_pipelines import UnusablePath, Used
from synaptic.pipeline.spec import StepSpec
from synaptic.pipeline.templates import TEXT, UNKNOWN, ListOf, Number, Record, StaticType, Text, of_field
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from synaptic.agents import Agent, Shape
    from synaptic.pipeline.compiler.source_file import Unit
    from synaptic.pipeline.graph import WorkKind
    from synaptic.pipeline.tools import Tool
    from synaptic.text import KeyPath

Scopes: TypeAlias = "tuple[Collection[str], ...]"
"""The names of the steps of each scope around a step."""

LOOP_FIELDS: dict[str, StaticType] = {"rounds": Number(whole=True), "stop_reason": TEXT}


@dataclass(slots=True)
class Outline:
    """What is known of a step before its templates are read.

    Attributes:
        kind: What the step does; of a loop over itself, what its rounds do. ``None`` if that is not clear.
        single: The type of one execution's output; ``output`` is that of the whole step.
        agent: Of a call; ``None`` also where it is unknown, which is reported.
        shape: Of a call's or a tool's output.
        body: The steps of a loop.

    """

    name: str
    spec: StepSpec
    path: KeyPath
    kind: WorkKind | None
    single: StaticType = UNKNOWN
    output: StaticType = UNKNOWN
    agent: Agent | None = None
    shape: Shape | None = None
    tool: Tool | None = None
    used: Used | None = None
    body: dict[str, Outline] = field(default_factory=dict)

    @property
    def itself(self) -> bool:
        """Whether the step is a loop over itself."""
        return self.spec.repeat is not None and self.spec.repeat.itself


def types_of(outlines: Mapping[str, Outline]) -> dict[str, StaticType]:
    """Return the types of the outputs of one scope."""
    return {name: outline.output for name, outline in outlines.items()}


def outline_scope(unit: Unit, steps: Mapping[str, StepSpec], path: KeyPath, around: Scopes = ()) -> dict[str, Outline]:
    """Return the outlines of the steps of one scope, after reporting what is wrong with their form."""
    outlines: dict[str, Outline] = {}
    taken = (*around, steps)
    for name, spec in steps.items():
        if any(name in scope for scope in around):
            unit.report.at_key(f"the step {name!r} exists outside the loop too", (*path, name), "give it another name")
        outlines[name] = _outline(unit, name, spec, (*path, name), taken)
    for name in unit.broken.get(path, ()):
        outlines[name] = Outline(name, StepSpec(), (*path, name), None)
    for outline in outlines.values():
        fallback = outlines.get(outline.spec.on_error.use or "")
        if fallback is not None and not same_type(fallback.output, outline.output):
            outline.output = UNKNOWN
    return outlines


def _outline(unit: Unit, name: str, spec: StepSpec, path: KeyPath, taken: Scopes) -> Outline:
    kind, wrong = kind_of(name, spec)
    outline = Outline(name, spec, path, kind)
    if kind is not None:
        wrong += misfits(spec, kind)
    for misfit in wrong:
        report = unit.report.at_value if misfit.at_value else unit.report.at_key
        report(misfit.message, (*path, *misfit.path), misfit.suggestion)
    _READERS.get(kind or "", _nothing)(unit, outline)
    if spec.repeat is not None and spec.repeat.steps:
        _loop(unit, outline, taken)
    outline.output = outline.single if spec.foreach is None else ListOf(outline.single)
    return outline


def _nothing(unit: Unit, outline: Outline) -> None:
    """Know nothing of a step that is not clear, or that is a loop."""


def _call(unit: Unit, outline: Outline) -> None:
    spec = outline.spec
    outline.agent, known = unit.find_agent(spec.agent or "", (*outline.path, "agent"))
    if spec.output is not None:
        outline.shape = parse_shape(spec.output, (*outline.path, "output"), unit.report)
        known = outline.shape is not None
    elif outline.agent is not None:
        outline.shape = outline.agent.output
    if known:
        outline.single = _of_shape(outline.shape, outline.name) if outline.shape else TEXT


def _choose(unit: Unit, outline: Outline) -> None:
    choose = outline.spec.choose
    if choose is None:
        return
    path = (*outline.path, "choose")
    outline.agent, _ = unit.find_agent(choose.agent, (*path, "agent"))
    outline.single = Text(tuple(choose.options))


def _tool(unit: Unit, outline: Outline) -> None:
    spec = outline.spec
    name = spec.tool or ""
    outline.tool = unit.context.tools.get(name)
    if outline.tool is None:
        tools = unit.context.tools
        advice = did_you_mean(name, tools) if tools else "register one with --tools MODULE or an entry point"
        unit.report.at_value(f"there is no tool {name!r}", (*outline.path, "tool"), advice)
    if spec.output is not None:
        outline.shape = parse_shape(spec.output, (*outline.path, "output"), unit.report)
        outline.single = _of_shape(outline.shape, outline.name) if outline.shape else UNKNOWN
    elif outline.tool is not None:
        outline.single = outline.tool.returns


def _use(unit: Unit, outline: Outline) -> None:
    name = outline.spec.use or ""
    try:
        outline.used = unit.library.use(name, unit.pipeline)
    except UnusablePath as exc:
        unit.report.at_value(exc.message, (*outline.path, "use"), exc.suggestion)
    else:
        outline.single = outline.used.result


def _loop(unit: Unit, outline: Outline, taken: Scopes) -> None:
    loop = outline.spec.repeat
    if loop is None or loop.steps is None:
        return
    path = (*outline.path, "repeat", "steps")
    outline.body = outline_scope(unit, loop.steps, path, taken)
    for name in LOOP_FIELDS.keys() & outline.body.keys():
        message = f"a loop's output has a field {name!r} already"
        unit.report.at_key(message, (*path, name), "give the step another name")
    if outline.kind == "repeat":
        outline.single = Record(types_of(outline.body) | LOOP_FIELDS, f"the output of {outline.name!r} has no {{name}}")


def _of_shape(shape: Shape, name: str) -> StaticType:
    return of_field(shape.root, f"the output of {name!r}")


_READERS = {"agent": _call, "choose": _choose, "tool": _tool, "pipeline": _use}
