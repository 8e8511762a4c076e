"""The steps of a compiled pipeline as rows that people read: order, bounds, and for each call its model and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.messages import Route
    from synaptic.pipeline.graph import (
        CompiledCall,
        CompiledPipeline,
        CompiledStep,
        Graph,
        StepKind,
        WorkKind,
    )
    from synaptic.pipeline.spec import Join
    from synaptic.shared_bounds import Overflow

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
        times: How often it runs: "1", "×N" for a map, "≤ ×N" where its items have a condition, "× 5, best" for samples,
            "≤ 2" for a loop's rounds.
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
    overflow: Overflow | None = None
    cache_seconds: float | None = 0.0

    def data(self) -> dict[str, Any]:
        """Return the row as JSON data."""
        data = asdict(self)
        del data["depth"]
        return {"id": data.pop("path"), **data}


class _Level(NamedTuple):
    """Where a graph stands: its prefix, its depth, and the inputs that are known before the run."""

    prefix: str
    depth: int
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
    return list(_Rows(route, answer).graph(compiled.graph, _Level("", 0, inputs)))


class _Rows:
    def __init__(self, route: Route | None, answer: str | None) -> None:
        self._route = route
        self._answer = answer

    def graph(self, graph: Graph, scope: _Level) -> Iterator[PlannedStep]:
        """Yield the rows of one scope."""
        stages = graph.stages()
        critical = set(graph.critical_path())
        for name in sorted(graph.steps, key=stages.__getitem__):
            step = graph.steps[name]
            yield self._step(step, scope, stage=stages[name], critical=name in critical, rank=graph.ranks[name])
            inside = step.work.inside
            inputs = scope.inputs if inside is None or inside.inputs is None else inside.inputs
            inner = _Level(f"{scope.prefix}{name}.", scope.depth + 1, inputs)
            if inside is not None and inside.listed:
                yield from self.graph(inside.graph, inner)
            yield from self._judge(step, inner, stage=stages[name])

    def _step(self, step: CompiledStep, scope: _Level, *, stage: int, critical: bool, rank: int) -> PlannedStep:
        worker = step.worker
        call = worker.call
        path = scope.prefix + step.id
        return PlannedStep(
            path=path,
            depth=scope.depth,
            kind=event_kind(step),
            work=worker.kind,
            what=worker.work.name,
            agent=call.agent.name if call else None,
            description=step.description,
            needs=tuple(scope.prefix + need for need in step.needs),
            stage=stage,
            times=run_count(step, scope.inputs),
            critical=critical,
            priority=step.priority,
            rank=rank,
            conditional=step.when is not None or bool(step.gates),
            structured=worker.work.structured,
            streams_answer=path == self._answer,
            join=step.join,
            gates={scope.prefix + gate: labels for gate, labels in step.gates.items()},
            options=dict(worker.work.options),
            fallback=scope.prefix + step.fallback if step.fallback else None,
            on_error=step.on_error,
            on_demand=step.on_demand,
            approve=step.approve or worker.approve,
            **self._call(call),
        )

    def _judge(self, step: CompiledStep, scope: _Level, *, stage: int) -> Iterator[PlannedStep]:
        """Yield the row of the call that rates or merges the samples of a step."""
        samples = step.samples or step.worker.samples
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


def event_kind(step: CompiledStep) -> StepKind:
    """Return the kind that the step's own events have."""
    if step.foreach is not None:
        return "map"
    return "samples" if step.samples is not None else step.kind


def run_count(step: CompiledStep, inputs: Mapping[str, Any]) -> str:
    """Return how often a step runs, outermost first: ``×N, ≤ 2``; ``1`` where that is once."""
    parts = []
    if step.foreach is not None:
        items = step.foreach.known(inputs)
        most = "≤ " if step.item_when is not None else ""
        parts.append(f"{most}×{len(items) if isinstance(items, _LISTED) else 'N'}")
    parts.append(step.work.times(inputs))
    samples = step.samples or step.worker.samples
    if samples is not None:
        parts.append(f"× {samples.count}, {samples.select}")
    return ", ".join(part for part in parts if part) or "1"
