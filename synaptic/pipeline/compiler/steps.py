"""Second pass: the templates of every step, what each one waits for, and the graph that comes of it."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.agents import ListType
from synaptic.pipeline.checking import constant, listed_items
from synaptic.pipeline.compiler.draft import Draft
from synaptic.pipeline.compiler.edges import Edges
from synaptic.pipeline.compiler.outlines import types_of
from synaptic.pipeline.graph import CompiledStep, Feed, Graph
from synaptic.pipeline.kinds import CompiledRepeat
from synaptic.pipeline.templates import UNKNOWN, ListOf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.pipeline.checking import Checked, SourceFile, View
    from synaptic.pipeline.kinds import Outline
    from synaptic.pipeline.templates import Expression, Structure
    from synaptic.text import KeyPath


class Steps:
    """The steps of one scope.

    Args:
        file: The file.
        outlines: What is known of them from the first pass.
        path: Where they stand.
        view: What their templates see.
    """

    def __init__(self, file: SourceFile, outlines: Mapping[str, Outline], path: KeyPath, view: View) -> None:
        self.file = file
        self.outlines = outlines
        self.path = path
        self.view = view
        self.drafts = {name: self._read(outline) for name, outline in outlines.items()}
        self.gates = _gates(outlines)

    @property
    def outward(self) -> list[str]:
        """The steps around this scope that its steps refer to."""
        names = (name for draft in self.drafts.values() for name in draft.names)
        return list(dict.fromkeys(name for name in names if name not in self.outlines))

    @property
    def remembered(self) -> set[str]:
        """The steps of this scope whose outputs of the round before are referred to."""
        parts = (part for draft in self.drafts.values() for part in (draft.when, draft.foreach, *draft.checked) if part)
        return {
            reference.path[0]
            for part in parts
            for reference in part.references
            if reference.root == "previous" and reference.path
        }

    # -- reading -------------------------------------------------------------------------------------------

    def _read(self, outline: Outline) -> Draft:
        draft, spec, path = Draft(outline), outline.spec, outline.path
        texts, view = self.file.texts, self.view.of(outline.name)
        draft.needs = self._needs(outline)
        if spec.foreach is not None:
            draft.foreach = self._items(outline, view)
            listed = draft.foreach.type if draft.foreach else UNKNOWN
            item = listed.item if isinstance(listed, ListOf) else UNKNOWN
            view = view.with_item(spec.item_name, item, draft.foreach.references if draft.foreach else ())
        draft.when = texts.condition(spec.when, (*path, "when"), view)
        if draft.when is not None and _is_false(draft.when.code):
            advice = "remove the step, or the condition"
            self.file.report.in_text(
                "this step can never run: its condition is always false", (*path, "when"), 1, None, advice
            )
        if outline.kind is None:
            return draft
        if spec.repeat is not None:
            draft.bound = None
            if isinstance(spec.repeat.max, str):
                draft.bound = texts.number(spec.repeat.max, (*path, "repeat", "max"), view)
                draft.keep(draft.bound)
            if outline.itself:
                view = replace(view, roots={**view.roots, "previous": outline.single})
        if spec.repeat is not None and spec.repeat.steps is not None:
            self._body(draft, view)
        else:
            draft.built = outline.kind.compile(self.file, outline, view)
            draft.checked += draft.built.parts
        if spec.repeat is not None:
            self._ends(draft, view)
        return draft

    def _items(self, outline: Outline, view: View) -> Checked[Expression] | Checked[Structure] | None:
        """Return the list that the step maps over."""
        items, path = outline.spec.foreach, (*outline.path, "foreach")
        if isinstance(items, list):
            return listed_items(self.file, items, path, view)
        return self.file.texts.items(items, path, view)

    def _needs(self, outline: Outline) -> list[str]:
        """Return the steps that are waited for by name, after reporting those that are not there."""
        found: list[str] = []
        for index, need in enumerate(outline.spec.needs):
            if need in self.outlines and need != outline.name:
                found.append(need)
                continue
            path = (*outline.path, "needs", index)
            if need in self.view.outer:
                message = f"the step {need!r} is outside this loop"
                advice = f"let the loop {self.view.around[-1]!r} wait for it" if self.view.around else None
                self.file.report.at_value(message, path, advice)
            else:
                self.file.report.at_value(*self.view.no_need(need, outline.name, path))
        return found

    def _body(self, draft: Draft, view: View) -> None:
        """Read the steps of the loop."""
        outline = draft.outline
        inner = view.body(outline.name, types_of(outline.body))
        draft.body = Steps(self.file, outline.body, (*outline.path, "repeat", "steps"), inner)
        draft.inside = draft.body.outward

    def _ends(self, draft: Draft, view: View) -> None:
        """Read what ends the loop and rates its rounds; both see the outputs of the round."""
        outline, loop = draft.outline, draft.outline.spec.repeat
        if loop is None:
            return
        if outline.itself:
            seen = replace(view, own={outline.name: outline.single}, outer=ChainMap(*view.steps.maps), me=None)
        else:
            seen = view.body(outline.name, types_of(outline.body))
        path = (*outline.path, "repeat")
        draft.until = self.file.texts.condition(loop.until, (*path, "until"), seen)
        draft.score = self.file.texts.number(loop.score, (*path, "score"), seen)
        own = outline.body if draft.body is not None else {outline.name}
        for part in (draft.until, draft.score):
            if part is not None:
                draft.inside += [name for name in part.steps if name not in own]

    # -- the graph -----------------------------------------------------------------------------------------

    def finish(self, wanted: Iterable[str]) -> Graph | None:
        """Return the graph, or ``None`` where something is wrong; ``wanted`` steps are referred to from outside."""
        edges = Edges(self.file, self.path, self.view, self.drafts, wanted)
        compiled = {name: self._step(draft, edges) for name, draft in self.drafts.items()}
        steps = {name: step for name, step in compiled.items() if step is not None}
        if not edges.acyclic() or len(steps) < len(compiled):
            return None
        return Graph.of(steps)

    def _step(self, draft: Draft, edges: Edges) -> CompiledStep | None:
        outline, spec, name = draft.outline, draft.outline.spec, draft.outline.name
        work, samples = draft.built.work, draft.built.samples
        if spec.repeat is not None:
            work, samples = self._repeat(draft), None
        if work is None or outline.kind is None:
            return None
        total = spec.timeout.total
        if outline.kind.default_timeout and spec.repeat is None and total is None:
            total = self.file.defaults.timeout.total
        approve = spec.approve
        if outline.itself and approve in {"prompt", "both"}:
            approve = "output" if approve == "both" else ""
        return CompiledStep(
            id=name,
            work=work,
            samples=samples,
            description=" ".join(spec.description.split()),
            needs=edges.needs[name],
            foreach=draft.foreach.code if draft.foreach else None,
            item_name=(spec.item_name or "item") if spec.foreach is not None else None,
            concurrency=spec.concurrency,
            feed=self._feed(draft, edges),
            when=draft.when.code if draft.when and not draft.asks_items else None,
            item_when=draft.when.code if draft.when and draft.asks_items else None,
            gates=edges.gates.get(name, {}),
            join=spec.join,
            on_error=spec.on_error.action,
            fallback=edges.fallbacks.get(name),
            on_demand=name in edges.on_demand,
            approve=approve,
            timeout=None if outline.kind.calls_model else total,
            priority=spec.priority,
        )

    def _repeat(self, draft: Draft) -> CompiledRepeat | None:
        outline, loop = draft.outline, draft.outline.spec.repeat
        if loop is None:
            return None
        if draft.body is not None:
            ends = [part for part in (draft.until, draft.score) if part is not None]
            wanted = {name for part in ends for name in part.steps} | draft.body.remembered
            body = draft.body.finish(wanted | self.file.texts.fields_of(outline.name))
        else:
            body = self._round(draft)
        if body is None or (draft.bound is None and isinstance(loop.max, str)):
            return None
        return CompiledRepeat(
            body=body,
            until=draft.until.code if draft.until else None,
            score=draft.score.code if draft.score else None,
            max=draft.bound.code if draft.bound else int(loop.max),
            keep=loop.keep,
            plateau=loop.plateau,
            itself=outline.itself,
        )

    def _round(self, draft: Draft) -> Graph | None:
        """Return one round of a loop over itself: a graph of the step's own call."""
        outline = draft.outline
        work, samples = draft.built.work, draft.built.samples
        if work is None:
            return None
        asks = outline.spec.approve in {"prompt", "both"}
        step = CompiledStep(id=outline.name, work=work, samples=samples, approve="prompt" if asks else "")
        return Graph.of({outline.name: step})

    def _feed(self, draft: Draft, edges: Edges) -> Feed | None:
        """Return where a map's items come from while their list is still being written, if it may start then."""
        reference = draft.foreach.code.sole_reference if draft.foreach else None
        if reference is None or reference.root != "steps" or len(reference.path) != 2:
            return None
        name, key = reference.path
        source = self.outlines.get(name)
        elsewhere = [draft.when, *draft.checked]
        used = any(name in part.steps for part in elsewhere if part is not None)
        if source is None or used or name in draft.needs or name in draft.inside or draft.outline.spec.join != "all":
            return None
        spec, shape = source.spec, source.shape
        streams = source.kind is not None and source.kind.calls_model and not source.options
        plain = streams and not (spec.repeat or spec.foreach or spec.samples or spec.cache)
        if not plain or shape is None or spec.approve in {"output", "both"} or name in edges.fallbacks:
            return None
        writes = any(part.name == key and isinstance(part.type, ListType) for part in shape.root.fields)
        return Feed(name, key) if writes else None


def _gates(outlines: Mapping[str, Outline]) -> dict[str, dict[str, list[str]]]:
    """Return for each step that options list the choices, each with the labels that let it run."""
    found: dict[str, dict[str, list[str]]] = {}
    for gate, outline in outlines.items():
        for label, steps in outline.options.items():
            for step in steps:
                found.setdefault(step, {}).setdefault(gate, []).append(label)
    return found


def _is_false(code: Expression) -> bool:
    known, value = constant(code)
    return known and not value
