"""A pipeline and the agents it names to a graph: dependencies, references and types, checked before any call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from synaptic.errors import AgentError, PipelineError
from synaptic.pipeline.expressions import Expression, Reference, Template, TemplateProblem
from synaptic.pipeline.graph import CompiledCall, CompiledRepeat, CompiledStep, Graph, find_cycle
from synaptic.problems import Problem, did_you_mean
from synaptic.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.agents import Agent
    from synaptic.notation import Mistake
    from synaptic.pipeline.graph import StepKind
    from synaptic.pipeline.loader import Pipeline
    from synaptic.pipeline.spec import StepSpec
    from synaptic.yaml_source import KeyPath

Compiled = TypeVar("Compiled", Template, Expression)

RUN_FIELDS = ("id", "pipeline", "conversation")


@dataclass(frozen=True, slots=True)
class CompiledPipeline:
    """The graph and the result's template."""

    graph: Graph
    result: Template


def compile_pipeline(
    pipeline: Pipeline, agents: Mapping[str, Agent], agent_models: Mapping[str, str] | None = None
) -> CompiledPipeline:
    """Return what the executor runs.

    Args:
        pipeline: A pipeline of the right form.
        agents: Every agent that a step may name.
        agent_models: The person's own choice of model per agent (setting ``agent_models``).

    Raises:
        PipelineError: With every unknown agent, dangling reference, cycle and broken template, each located.

    """
    compiler = _Compiler(pipeline, agents, agent_models or {})
    graph = compiler.scope(pipeline.spec.steps, ("steps",), _Names())
    result = compiler.text(Template, pipeline.spec.result, ("result",))
    if result is not None:
        compiler.check(result.references, ("result",), compiler.visible(pipeline.spec.steps, _Names()))
    if compiler.problems or graph is None or result is None:
        raise PipelineError.of(sorted(compiler.problems, key=lambda p: (p.line or 0, p.column or 0)))
    return CompiledPipeline(graph, result)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a template may refer to at one place. A loop's body also sees the steps around the loop."""

    outer: Mapping[str, StepSpec] = field(default_factory=dict)
    own: Mapping[str, StepSpec] = field(default_factory=dict)
    in_loop: bool = False
    item: str | None = None

    @property
    def steps(self) -> dict[str, StepSpec]:
        return {**self.outer, **self.own}

    @property
    def roots(self) -> set[str]:
        items = {"item", self.item} if self.item else set()
        return {"inputs", "steps", "run"} | items | ({"previous"} if self.in_loop else set())


class _Compiler:
    def __init__(self, pipeline: Pipeline, agents: Mapping[str, Agent], agent_models: Mapping[str, str]) -> None:
        self.pipeline = pipeline
        self.agents = agents
        self.agent_models = agent_models
        self.problems: list[Problem] = []

    def scope(self, steps: Mapping[str, StepSpec], path: KeyPath, around: _Names) -> Graph | None:
        """Return the graph of one scope, or ``None`` after adding what is wrong with it."""
        names = self.visible(steps, around)
        before = len(self.problems)
        for name in steps:
            if name in around.steps:
                self.add(f"the step {name!r} exists outside the loop too", (*path, name), "give it another name")
        compiled = [self.step(name, step, (*path, name), names) for name, step in steps.items()]
        if len(self.problems) > before:
            return None
        graph_steps = {step.id: step for step in compiled if step is not None}
        cycle = find_cycle({name: step.needs for name, step in graph_steps.items()})
        if cycle is not None:
            self.add(f"these steps wait for each other: {' -> '.join(cycle)}", (*path, cycle[0]))
            return None
        return Graph.of(graph_steps)

    def visible(self, steps: Mapping[str, StepSpec], around: _Names) -> _Names:
        """Return the names that the steps of a scope may refer to."""
        return _Names(outer=around.steps, own=steps, in_loop=around.in_loop)

    def step(self, name: str, spec: StepSpec, path: KeyPath, names: _Names) -> CompiledStep | None:
        """Return one compiled step, or ``None`` after adding what is wrong with it."""
        if (spec.agent is None) == (spec.repeat is None):
            what = "both 'agent' and 'repeat'" if spec.agent else "neither 'agent' nor 'repeat'"
            self.add(f"the step {name!r} has {what}", path, "write exactly one of them")
            return None
        item = (spec.item_name or "item") if spec.foreach is not None else None
        inner = _Names(names.outer, names.own, names.in_loop, item)
        when = self.expression(spec.when, (*path, "when"), names)
        foreach = self.expression(spec.foreach, (*path, "foreach"), names)
        used = [*self.needs(spec, path, names, own=name)]
        for expression in (when, foreach):
            used.extend(self.own_steps(expression, names))
        call = repeat = None
        if spec.repeat is not None:
            repeat = self.repeat(spec, path, names)
            used.extend(self.loop_needs(repeat, names))
        else:
            call = self.call(spec, path, inner)
            used.extend(self.own_steps(call.prompt if call else None, names))
        if name in used:
            self.add(f"the step {name!r} refers to itself", path)
        kind: StepKind = "repeat" if repeat else "map" if foreach else "agent"
        return CompiledStep(
            id=name,
            kind=kind,
            needs=tuple(dict.fromkeys(used)),
            call=call,
            repeat=repeat,
            foreach=foreach,
            item_name=item,
            when=when,
            skip_on_error=spec.on_error == "skip",
        )

    def call(self, spec: StepSpec, path: KeyPath, names: _Names) -> CompiledCall | None:
        """Return the step's call of an agent."""
        name = spec.agent or ""
        agent = self.agents.get(name)
        if agent is None:
            self.add(f"there is no agent {name!r}", (*path, "agent"), did_you_mean(name, self.agents), value=True)
        if spec.prompt is None:
            self.add("a step with an agent needs a 'prompt'", path)
        prompt = self.text(Template, spec.prompt or "", (*path, "prompt"))
        if prompt is not None:
            self.check(prompt.references, (*path, "prompt"), names)
        shape = self.shape(spec, path) if spec.output is not None else agent.output if agent else None
        if agent is None or prompt is None:
            return None
        return CompiledCall(
            agent=agent,
            prompt=prompt,
            shape=shape,
            model=spec.model or self.agent_models.get(name) or agent.model,
            temperature=agent.temperature if spec.temperature is None else spec.temperature,
            max_tokens=spec.max_tokens or agent.max_tokens,
        )

    def shape(self, spec: StepSpec, path: KeyPath) -> Shape | None:
        """Return the step's own output shape."""

        def locate(mistake: Mistake) -> Problem:
            here = (*path, "output", *mistake.path)
            return self.pipeline.document.problem(mistake.message, here, suggestion=mistake.suggestion)

        try:
            return Shape.parse(spec.output or {}, locate=locate)
        except AgentError as exc:
            self.problems += exc.problems
            return None

    def repeat(self, spec: StepSpec, path: KeyPath, names: _Names) -> CompiledRepeat | None:
        """Return the step's loop."""
        loop = spec.repeat
        if loop is None:
            return None
        here = (*path, "repeat")
        for key in ("foreach", "prompt", "output"):
            if getattr(spec, key) is not None:
                self.add(f"a step with 'repeat' has no {key!r}", (*path, key), "give it to a step inside the loop")
        around = _Names(names.outer, names.own, in_loop=True)
        inside = self.visible(loop.steps, around)
        body = self.scope(loop.steps, (*here, "steps"), around)
        until = self.expression(loop.until, (*here, "until"), inside)
        score = self.expression(loop.score, (*here, "score"), inside)
        bound = loop.max if isinstance(loop.max, int) else self.expression(loop.max, (*here, "max"), names)
        if isinstance(bound, int) and bound < 1:
            self.add("'max' must be at least 1", (*here, "max"), value=True)
        if loop.keep == "best" and loop.score is None:
            self.add("'keep: best' needs a 'score' to tell which round is best", (*here, "keep"))
        if body is None or bound is None:
            return None
        return CompiledRepeat(body=body, until=until, score=score, max=bound, keep=loop.keep)

    def needs(self, spec: StepSpec, path: KeyPath, names: _Names, *, own: str) -> Iterable[str]:
        """Yield the steps that are waited for by name."""
        for index, need in enumerate(spec.needs):
            if need in names.own and need != own:
                yield need
            else:
                others = [name for name in names.own if name != own]
                self.add(f"there is no step {need!r} to wait for", (*path, "needs", index), did_you_mean(need, others))

    def own_steps(self, part: Template | Expression | None, names: _Names) -> Iterable[str]:
        """Yield the steps of this scope that the template refers to."""
        for reference in part.references if part else ():
            if reference.root == "steps" and reference.path and reference.path[0] in names.own:
                yield reference.path[0]

    def loop_needs(self, repeat: CompiledRepeat | None, names: _Names) -> Iterable[str]:
        """Yield the steps of this scope that anything inside the loop refers to."""
        if repeat is None:
            return
        for part in (repeat.until, repeat.score, repeat.max if isinstance(repeat.max, Expression) else None):
            yield from self.own_steps(part, names)
        for step in repeat.body.steps.values():
            for inner in (step.when, step.foreach, step.call.prompt if step.call else None):
                yield from self.own_steps(inner, names)
            yield from self.loop_needs(step.repeat, names)

    def expression(self, source: str | None, path: KeyPath, names: _Names) -> Expression | None:
        """Return the compiled and checked expression."""
        compiled = self.text(Expression, source, path) if source is not None else None
        if compiled is not None:
            self.check(compiled.references, path, names)
        return compiled

    def text(self, kind: type[Compiled], source: str, path: KeyPath) -> Compiled | None:
        """Return the compiled template or expression, or ``None`` after adding what is wrong with it."""
        try:
            return kind.compile(source)
        except TemplateProblem as exc:
            self.add(exc.message, path, value=True, line=exc.line)
            return None

    def check(self, references: Iterable[Reference], path: KeyPath, names: _Names) -> None:
        """Add a problem for each reference that leads nowhere."""
        for reference in dict.fromkeys(references):
            problem = self.dangling(reference, names)
            if problem is not None:
                message, suggestion = problem
                self.add(message, path, suggestion, value=True, line=reference.line)

    def dangling(self, reference: Reference, names: _Names) -> tuple[str, str] | None:
        """Return what is wrong with the reference and what to write, or ``None``."""
        root, rest = reference.root, reference.path
        if root == "steps":
            return self.dangling_step(reference, names)
        if root == "inputs" and rest and rest[0] not in self.pipeline.spec.inputs:
            return f"there is no input {rest[0]!r}", did_you_mean(rest[0], self.pipeline.spec.inputs)
        if root == "run" and rest and rest[0] not in RUN_FIELDS:
            return f"'run' has no {rest[0]!r}", did_you_mean(rest[0], RUN_FIELDS)
        if root == "previous" and not names.in_loop:
            return "'previous' is the round before, and there is no loop here", "move it into a 'repeat'"
        if root not in names.roots:
            return f"{root!r} is not defined here", did_you_mean(root, names.roots)
        return None

    def dangling_step(self, reference: Reference, names: _Names) -> tuple[str, str] | None:
        """Return what is wrong with ``steps.…``, as far as output shapes are known."""
        if not reference.path:
            return "'steps' needs the name of one step, so that it is known what to wait for", "write steps.NAME"
        name, *fields = reference.path
        spec = names.steps.get(name)
        if spec is None:
            return f"there is no step {name!r}", did_you_mean(name, names.steps)
        if not fields:
            return None
        if spec.repeat is not None:
            known: list[str] | None = [*spec.repeat.steps, "rounds", "stop_reason"]
        elif spec.foreach is not None:
            advice = f"loop over it: {{% for part in steps.{name} %}}"
            return f"'steps.{name}' is a list, one output per item", advice
        else:
            known = self.output_fields(spec)
        if known is None:
            return f"'steps.{name}' is text and has no {fields[0]!r}", f"write steps.{name}"
        if fields[0] not in known:
            return f"the output of {name!r} has no {fields[0]!r}", did_you_mean(fields[0], known)
        return None

    def output_fields(self, spec: StepSpec) -> list[str] | None:
        """Return the fields of a step's output; ``None`` if it is text."""
        if spec.output is not None:
            return [str(name).removesuffix("?") for name in spec.output]
        agent = self.agents.get(spec.agent or "")
        shape = agent.output if agent else None
        return list(shape.field_names()) if shape else None

    def add(
        self, message: str, path: KeyPath, suggestion: str | None = None, *, value: bool = False, line: int = 1
    ) -> None:
        """Add a problem at ``path``; ``line`` counts inside a block of text."""
        problem = self.pipeline.document.problem(message, path, at_key=not value, suggestion=suggestion)
        if line > 1 or path in self.pipeline.document.blocks:
            first = (problem.line or 1) + (1 if path in self.pipeline.document.blocks else 0)
            problem = Problem(message, problem.source, first + line - 1, None, suggestion)
        if problem not in self.problems:
            self.problems.append(problem)
