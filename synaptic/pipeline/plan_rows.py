"""The steps of a compiled pipeline as rows that people read: order, bounds, and for each call its model and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synaptic.errors import PipelineError
from synaptic.pipeline.templates import Expression, Template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.messages import Route
    from synaptic.pipeline.graph import (
        CompiledCall,
        CompiledPipeline,
        CompiledRepeat,
        CompiledStep,
        CompiledUse,
        Graph,
        StepKind,
        WorkKind,
    )
    from synaptic.pipeline.spec import Join, Overflow, StepSpec

MODEL_ORIGINS: Final = {
    "step": "the step says so",
    "agent_models": "setting agent_models",
    "agent": "the agent's own",
    "defaults": "the pipeline's defaults",
}
RUN_MODEL: Final = "the run's model"
BACKEND_MODEL: Final = "the backend's own choice"
NAMED_BACKEND: Final = "the step names it"

_LISTED: Final = (list, tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One row of the plan.

    Attributes:
        path: ``plan``; inside a loop or a sub-pipeline ``refine.judge``.
        kind: What an event will call it: a map or samples before the work that they repeat, which is ``work``.
        what: The agent, the tool or the sub-pipeline; "" for a loop over steps.
        description: What the file says that the step is for.
        stage: How many steps must end before this one, counted along the longest chain inside its scope.
        times: How often it runs: "1", "×N" for a map, "× 5, best" for samples, "≤ 2" for a loop's rounds.
        model: ``None`` where only the run or the backend decides; ``model_reason`` says which.
        backend: ``None`` for a step that calls no model itself, and where nothing was routed yet.
        rank: Calls on the longest way from here to the end of its scope; of equal priorities the greatest goes first.
        options: Of a choice: each label with the steps that run only then.
        gates: The choices that this step hangs on, with the labels that let it run.
        cache_seconds: How long an answer to the same request holds; ``None`` for ever, 0 is no cache.
        streams_answer: Whether its text is the answer, token by token.

    """

    path: str
    depth: int
    kind: StepKind
    work: WorkKind
    what: str
    agent: str | None
    description: str = ""
    needs: tuple[str, ...]
    stage: int
    times: str
    model: str | None = None
    model_reason: str = ""
    fallback_models: tuple[str, ...] = ()
    backend: str | None = None
    backend_reason: str = ""
    node: str | None = None
    critical: bool = False
    priority: int = 0
    rank: int = 0
    conditional: bool = False
    structured: bool = False
    streams_answer: bool = False
    join: Join = "all"
    gates: Mapping[str, tuple[str, ...]]
    options: Mapping[str, tuple[str, ...]]
    fallback: str | None = None
    on_error: str = "fail"
    on_demand: bool = False
    approve: str = ""
    overflow: Overflow = "error"
    cache_seconds: float | None = 0.0

    def data(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        data = asdict(self)
        del data["depth"]
        return {"id": data.pop("path"), **data}


class _Scope(NamedTuple):
    """Where a graph stands: its prefix, its depth, what its file says, and the inputs that are known before the run."""

    prefix: str
    depth: int
    specs: Mapping[str, StepSpec]
    inputs: Mapping[str, Any]


def planned_steps(
    compiled: CompiledPipeline, inputs: Mapping[str, Any], route: Route | None, answer: str | None
) -> list[PlannedStep]:
    """Return the steps in the order of their stages, what is inside a step after the step.

    Args:
        compiled: The pipeline.
        inputs: Those whose values are known; bounds that depend on others are shown as they are written.
        route: Where calls go; ``None`` where nothing was routed.
        answer: The path of the step that streams the answer.

    """
    return list(_Rows(route, answer).graph(compiled.graph, _Scope("", 0, compiled.pipeline.spec.steps, inputs)))


class _Rows:
    def __init__(self, route: Route | None, answer: str | None) -> None:
        self._route = route
        self._answer = answer

    def graph(self, graph: Graph, scope: _Scope) -> Iterator[PlannedStep]:
        """Yield the rows of one scope."""
        stages = graph.stages()
        critical = set(graph.critical_path())
        for name in sorted(graph.steps, key=stages.__getitem__):
            step = graph.steps[name]
            yield self._step(step, scope, stage=stages[name], critical=name in critical, rank=graph.ranks[name])
            inner = _Scope(f"{scope.prefix}{name}.", scope.depth + 1, {}, scope.inputs)
            if step.repeat is not None and not step.repeat.itself:
                loop = scope.specs[name].repeat if name in scope.specs else None
                yield from self.graph(step.repeat.body, inner._replace(specs=(loop and loop.steps) or {}))
            if step.use is not None:
                used = step.use.pipeline
                inputs = known_inputs(step.use)
                yield from self.graph(used.graph, inner._replace(specs=used.pipeline.spec.steps, inputs=inputs))
            yield from self._judge(step, inner, stage=stages[name])

    def _step(self, step: CompiledStep, scope: _Scope, *, stage: int, critical: bool, rank: int) -> PlannedStep:
        worker = inner_step(step)
        call = worker.call or (worker.choose.call if worker.choose else None)
        path = scope.prefix + step.id
        return PlannedStep(
            path=path,
            depth=scope.depth,
            kind=event_kind(step),
            work=worker.kind,
            what=work_name(step),
            agent=call.agent.name if call else None,
            description=" ".join(scope.specs[step.id].description.split()) if step.id in scope.specs else "",
            needs=tuple(scope.prefix + need for need in step.needs),
            stage=stage,
            times=run_count(step, scope.inputs),
            critical=critical,
            priority=step.priority,
            rank=rank,
            conditional=step.when is not None or bool(step.gates),
            structured=worker.call is not None and worker.call.shape is not None,
            streams_answer=path == self._answer,
            join=step.join,
            gates={scope.prefix + gate: labels for gate, labels in step.gates.items()},
            options={} if worker.choose is None else dict(worker.choose.options),
            fallback=scope.prefix + step.fallback if step.fallback else None,
            on_error=step.on_error,
            on_demand=step.on_demand,
            approve=step.approve or worker.approve,
            **self._call(call),
        )

    def _judge(self, step: CompiledStep, scope: _Scope, *, stage: int) -> Iterator[PlannedStep]:
        """Yield the row of the call that rates or merges the samples of a step."""
        samples = step.samples or inner_step(step).samples
        if samples is None or samples.judge is None:
            return
        best = samples.select == "best"
        yield PlannedStep(
            path=f"{scope.prefix}{'judge' if best else 'merge'}",
            depth=scope.depth,
            kind="agent",
            work="agent",
            what=samples.judge.agent.name,
            agent=samples.judge.agent.name,
            needs=(),
            stage=stage,
            times=f"× {samples.count}" if best else "1",
            structured=samples.judge.shape is not None,
            gates={},
            options={},
            **self._call(samples.judge),
        )

    def _call(self, call: CompiledCall | None) -> dict[str, Any]:
        """Return model and backend of a call, each with the reason."""
        if call is None:
            return {}
        policy, route = call.policy, self._route
        elsewhere = policy.backend is not None
        model = call.model or (route.model if route and not elsewhere else None)
        reason = MODEL_ORIGINS.get(call.model_origin, BACKEND_MODEL if elsewhere else RUN_MODEL)
        cache = policy.cache_seconds
        return {
            "model": model,
            "model_reason": reason,
            "fallback_models": policy.fallback_models,
            "backend": policy.backend or (route.backend if route else None),
            "backend_reason": NAMED_BACKEND if policy.backend else (route.reason if route else ""),
            "node": route.node if route and not elsewhere else None,
            "overflow": policy.overflow,
            "cache_seconds": None if cache == float("inf") else cache,
        }


def inner_step(step: CompiledStep) -> CompiledStep:
    """Return the step whose work is done: of a step that repeats itself, its body."""
    if step.repeat is not None and step.repeat.itself:
        return step.repeat.body.steps.get(step.id) or next(iter(step.repeat.body.steps.values()), step)
    return step


def event_kind(step: CompiledStep) -> StepKind:
    """Return the kind that the step's own events have."""
    if step.foreach is not None:
        return "map"
    if step.repeat is not None:
        return "repeat"
    return "samples" if step.samples is not None else step.kind


def work_name(step: CompiledStep) -> str:
    """Return the agent, the tool or the sub-pipeline that a step calls; "" for a loop over steps."""
    step = inner_step(step)
    if step.tool is not None:
        return step.tool.tool.name
    if step.use is not None:
        return step.use.pipeline.pipeline.name
    return step.agent_name or ""


def run_count(step: CompiledStep, inputs: Mapping[str, Any]) -> str:
    """Return how often a step runs, outermost first: ``×N, ≤ 2``; ``1`` where that is once."""
    parts = []
    if step.foreach is not None:
        items = _known(step.foreach, inputs)
        parts.append(f"×{len(items)}" if isinstance(items, _LISTED) else "×N")
    if step.repeat is not None:
        parts.append(_rounds(step.repeat, inputs))
    samples = step.samples or inner_step(step).samples
    if samples is not None:
        parts.append(f"× {samples.count}, {samples.select}")
    return ", ".join(parts) or "1"


def known_inputs(use: CompiledUse) -> dict[str, Any]:
    """Return those inputs of a sub-pipeline that do not depend on the run."""
    declared = use.pipeline.pipeline.spec.inputs
    values = {name: spec.default for name, spec in declared.items() if spec.default is not None}
    for name, binding in use.inputs.items():
        values.pop(name, None)
        if not isinstance(binding, (Expression, Template)) and binding is not None:
            values[name] = binding
    return values


def _rounds(repeat: CompiledRepeat, inputs: Mapping[str, Any]) -> str:
    bound = repeat.max
    if not isinstance(bound, Expression):
        return f"≤ {bound}"
    value = _known(bound, inputs)
    return f"≤ {bound.source if value is None else value}"


def _known(expression: Expression, inputs: Mapping[str, Any]) -> Any:
    """Return the value, if nothing but known inputs decides it; else ``None``."""
    for reference in expression.references:
        if reference.root != "inputs" or not reference.path or inputs.get(reference.path[0]) is None:
            return None
    try:
        return expression.evaluate({"inputs": inputs}, where="the plan")
    except PipelineError:
        return None  # the run will say it, at the step that it belongs to
