"""What of a run's prompts is known before it: all that inputs decide, with nothing for what steps will write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import PipelineError
from synaptic.pipeline.templates import SKIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.pipeline.graph import CompiledCall, CompiledStep, Graph
    from synaptic.pipeline.templates import Expression, Structure, Template

_BEFORE: Final = frozenset({"inputs", "run"})


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    """A prompt that a step will send, as far as it is known.

    Attributes:
        text: The prompt; what other steps write is left out.
        values: Spans (start, end) of it that are data.
        complete: Whether nothing is left out.
    """

    path: str
    call: CompiledCall
    text: str
    values: tuple[tuple[int, int], ...]
    complete: bool


def known_prompts(graph: Graph, inputs: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[KnownPrompt]:
    """Yield the prompts of every step that may run, those of loops, samples and used pipelines included.

    Of a map over a list that is known, it is the prompt of the longest item. A prompt that cannot be filled in yet is
    passed over. ``run`` is what templates see as ``run``.
    """
    yield from _of_graph(graph, _Scope("", {"inputs": inputs, "run": run, "steps": {}, "previous": SKIPPED}))


@dataclass(frozen=True, slots=True)
class _Scope:
    prefix: str
    variables: dict[str, Any]
    known: frozenset[str] = _BEFORE

    def within(self, graph: Graph, prefix: str) -> _Scope:
        """Return the scope of steps that stand below those of this one."""
        steps = {**self.variables["steps"], **dict.fromkeys(graph.steps, SKIPPED)}
        return replace(self, prefix=prefix, variables={**self.variables, "steps": steps})

    def with_values(self, *known: str, **values: Any) -> _Scope:
        """Return this scope with further roots, of which these are ``known``."""
        return replace(self, variables={**self.variables, **values}, known=self.known.union(known))

    def value(self, expression: Expression | Structure) -> Any:
        """Return the value if it is known, else ``SKIPPED``."""
        if not all(reference.root in self.known for reference in expression.references):
            return SKIPPED
        try:
            return expression.evaluate(self.variables, where="the plan")
        except PipelineError:
            return SKIPPED  # the run will say it, at the step that it belongs to


def _of_graph(graph: Graph, around: _Scope) -> Iterator[KnownPrompt]:
    scope = around.within(graph, around.prefix)
    for step in graph.steps.values():
        inner = _of_item(step, scope)
        if inner is None or (step.when is not None and not step.gates and _is_false(scope.value(step.when))):
            continue
        yield from _of_calls(step, inner)
        inside = step.work.inside
        if inside is None or not inside.listed:
            continue
        below = replace(inner, prefix=f"{scope.prefix}{step.id}.")
        if inside.inputs is not None:
            given = step.work.inputs_inside(inner.variables)
            known = _BEFORE if SKIPPED not in given.values() else frozenset({"run"})
            run = scope.variables["run"]
            run = {**run, "conversation": run["conversation"] if inside.hear else ""}
            values = {"inputs": given, "run": run, "steps": {}, "previous": SKIPPED}
            below = replace(below, variables=values, known=known)
        yield from _of_graph(inside.graph, below)


def _is_false(value: Any) -> bool:
    return value is not SKIPPED and not value


def _of_item(step: CompiledStep, scope: _Scope) -> _Scope | None:
    """Return the scope of the longest item of a map; ``None`` where the list is empty."""
    if step.foreach is None:
        return scope
    name = step.item_name or "item"
    items = scope.value(step.foreach)
    if not isinstance(items, (list, tuple)):
        return scope.with_values(**{"item": SKIPPED, name: SKIPPED})
    if not items:
        return None
    item = max(items, key=lambda item: len(str(item)))
    return scope.with_values("item", name, **{"item": item, name: item})


def _of_calls(step: CompiledStep, scope: _Scope) -> Iterator[KnownPrompt]:
    """Yield the prompt of the step's call, and that of the judge of its samples."""
    worker = step.worker
    if worker.call is None:
        return
    path = scope.prefix + step.id
    own = _filled(path, worker.call, scope)
    if own is None:
        return
    yield own
    samples = step.samples or worker.samples
    if samples is not None and samples.judge is not None:
        judging = scope.with_values("prompt", prompt=own.text, candidate=SKIPPED, candidates=SKIPPED)
        judged = _filled(path, samples.judge, judging)
        if judged is not None:
            yield judged


def _filled(path: str, call: CompiledCall, scope: _Scope) -> KnownPrompt | None:
    template: Template = call.prompt
    try:
        text, values = call.message(scope.variables, where=path)
    except PipelineError:
        return None
    return KnownPrompt(path, call, text, values, all(ref.root in scope.known for ref in template.references))
