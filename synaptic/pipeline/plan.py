"""The plan: a compiled pipeline bound to its inputs and to the place where its calls go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from synaptic.pipeline.graph_theory import plan_graph
from synaptic.pipeline.plan_rows import PlannedStep, planned_steps

if TYPE_CHECKING:
    import networkx as nx

    from synaptic.messages import Route
    from synaptic.pipeline.attaching import Attached
    from synaptic.pipeline.graph import CompiledPipeline
    from synaptic.pipeline.loader import Pipeline

__all__ = ["LongInput", "Plan", "PlannedStep", "answer_path", "default_inputs", "limits", "overview"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LongInput:
    """An input that is too long for the prompts that it goes into: it is read in parts, and they get notes of it.

    Attributes:
        tokens: How long it is.
        exact: Whether the model's own tokenizer counted.
        context: The model's, in tokens.
        parts: How many there are.
        longer: What a person does to have longer texts read as a whole.
    """

    name: str
    tokens: int
    exact: bool
    context: int
    parts: int
    longer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run is going to do.

    Attributes:
        attached: The documents that stand behind the question, if there are any.
        long_inputs: What is read in parts before the first step.
        reading: The rows of that.
    """

    pipeline: Pipeline
    compiled: CompiledPipeline
    inputs: Mapping[str, Any]
    route: Route
    attached: Attached | None = None
    long_inputs: tuple[LongInput, ...] = ()
    reading: tuple[PlannedStep, ...] = ()

    @property
    def answer_step(self) -> str | None:
        """The path of the step whose text is the answer, token by token, if there is one."""
        return answer_path(self.compiled)

    def rows(self) -> list[PlannedStep]:
        """Return the steps in the order of their stages, what is inside a step after the step."""
        rows = planned_steps(self.compiled, self.inputs, self.route, self.answer_step)
        if self.reading:
            return [*self.reading, *(replace(row, stage=row.stage + 1) for row in rows)]
        return rows

    def graph(self) -> nx.DiGraph[str]:
        """Return the steps as a networkx graph, for questions of your own; edges lead from a step to who needs it.

        Nodes are paths (``refine.judge``), with the attributes of the rows and ``inside``, the path of the loop or used
        pipeline around a step. Edges have a ``kind``, ``need`` or ``fallback``, and at a choice ``options``.
        """
        return plan_graph(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data: pipeline, inputs, route, limits, long inputs, steps, critical path, answer.

        The text of a file among the inputs is left out; ``characters`` says how long it is.
        """
        return {
            "pipeline": self.pipeline.name,
            "inputs": {name: _without_text(value) for name, value in self.inputs.items()},
            "route": asdict(self.route),
            "limits": limits(self.compiled),
            "long_inputs": [asdict(long) for long in self.long_inputs],
            "steps": [row.data() for row in self.rows()],
            "critical_path": list(self.compiled.graph.critical_path()),
            "answer_step": self.answer_step,
        }


def overview(compiled: CompiledPipeline) -> dict[str, Any]:
    """Return what is known of a pipeline without inputs and without a backend, as JSON data."""
    rows = overview_rows(compiled)
    return {
        "pipeline": compiled.pipeline.name,
        "limits": limits(compiled),
        "steps": [row.data() for row in rows],
        "critical_path": list(compiled.graph.critical_path()),
        "answer_step": answer_path(compiled),
    }


def overview_rows(compiled: CompiledPipeline) -> list[PlannedStep]:
    """Return the plan's rows, as far as they are known without inputs and without a backend."""
    return planned_steps(compiled, default_inputs(compiled), None, answer_path(compiled))


def default_inputs(compiled: CompiledPipeline) -> dict[str, Any]:
    """Return the inputs that have a default."""
    inputs = compiled.pipeline.spec.inputs
    return {name: spec.default for name, spec in inputs.items() if spec.default is not None}


def limits(compiled: CompiledPipeline) -> dict[str, float]:
    """Return the bounds that are set: ``tokens``, ``calls``, ``seconds`` of a run, and ``concurrency``."""
    bounds = {**compiled.budget.model_dump(), "concurrency": compiled.concurrency}
    return {name: value for name, value in bounds.items() if value is not None}


def answer_path(compiled: CompiledPipeline) -> str | None:
    """Return the path of the step whose text is the pipeline's result, and stays so once it is written.

    ``None`` where anything may still change or replace that text.
    """
    return compiled.answer


def _without_text(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("text"), str):
        shown = {key: part for key, part in value.items() if key != "text"}
        return {**shown, "characters": len(value["text"])}
    return [_without_text(item) for item in value] if isinstance(value, (list, tuple)) else value
