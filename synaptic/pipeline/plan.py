"""The plan: a compiled pipeline bound to its inputs and to the place where its calls go."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.expressions import Expression

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.messages import Route
    from synaptic.pipeline.compiler import CompiledPipeline
    from synaptic.pipeline.graph import CompiledStep, Graph, StepKind
    from synaptic.pipeline.loader import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One row of the plan, as people see it.

    Attributes:
        path: ``plan``; inside a loop ``refine.judge``.
        stage: How many steps must end before this one, counted along the longest chain inside its scope.
        times: How often it runs: "1", "×N" for a map, "≤ 2" for a loop's rounds.
        streams_answer: Whether its text is the answer, token by token.

    """

    path: str
    depth: int
    kind: StepKind
    agent: str | None
    needs: tuple[str, ...]
    stage: int
    times: str
    model: str | None
    backend: str | None
    node: str | None
    critical: bool
    conditional: bool
    structured: bool
    streams_answer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run is going to do."""

    pipeline: Pipeline
    compiled: CompiledPipeline
    inputs: Mapping[str, Any]
    route: Route

    @property
    def graph(self) -> Graph:
        """The steps, with their dependencies."""
        return self.compiled.graph

    @property
    def answer_step(self) -> str | None:
        """The step whose text is the answer as it stands, if the result is nothing but that text."""
        reference = self.compiled.result.sole_reference
        if reference is None or len(reference.path) != 1:
            return None
        step = self.graph.steps.get(reference.path[0])
        plain = step is not None and step.kind == "agent" and step.call is not None and step.call.shape is None
        return reference.path[0] if plain else None

    def rows(self) -> list[PlannedStep]:
        """Return the steps in the order of their stages, a loop's body after the loop."""
        return list(self._rows(self.graph, "", 0))

    def _rows(self, graph: Graph, prefix: str, depth: int) -> Iterator[PlannedStep]:
        stages = graph.stages()
        critical = set(graph.critical_path())
        for name in sorted(stages, key=lambda name: stages[name]):
            step = graph.steps[name]
            calls = step.call is not None
            yield PlannedStep(
                path=prefix + name,
                depth=depth,
                kind=step.kind,
                agent=step.agent_name,
                needs=tuple(prefix + need for need in step.needs),
                stage=stages[name],
                times=self._times(step),
                model=(step.call.model or self.route.model) if step.call else None,
                backend=self.route.backend if calls else None,
                node=self.route.node if calls else None,
                critical=name in critical,
                conditional=step.when is not None,
                structured=step.call is not None and step.call.shape is not None,
                streams_answer=not prefix and name == self.answer_step,
            )
            if step.repeat is not None:
                yield from self._rows(step.repeat.body, f"{prefix}{name}.", depth + 1)

    def _times(self, step: CompiledStep) -> str:
        if step.foreach is not None:
            return "×N"
        if step.repeat is None:
            return "1"
        bound = step.repeat.max
        if not isinstance(bound, Expression):
            return f"≤ {bound}"
        only_inputs = all(reference.root == "inputs" for reference in bound.references)
        return f"≤ {bound.evaluate({'inputs': self.inputs}, where=step.id)}" if only_inputs else f"≤ {bound.source}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data: pipeline, inputs, route, steps, critical path."""
        return {
            "pipeline": self.pipeline.name,
            "inputs": dict(self.inputs),
            "route": asdict(self.route),
            "steps": [_row_data(row) for row in self.rows()],
            "critical_path": list(self.graph.critical_path()),
        }


def _row_data(row: PlannedStep) -> dict[str, Any]:
    data = asdict(row)
    del data["depth"]
    return {"id": data.pop("path"), **data}
