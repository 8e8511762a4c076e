"""Second pass: the templates of every step, what each one waits for, and the graph that comes of it."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from synaptic.agents import ListType
from synaptic.pipeline.compiler.calls import compile_call, compile_choose, compile_samples
from synaptic.pipeline.compiler.edges import Edges
from synaptic.pipeline.compiler.outlines import types_of
from synaptic.pipeline.compiler.texts import constant
from synaptic.pipeline.compiler.values import bind_all, compile_tool, compile_use
from synaptic.pipeline.graph import CompiledStep, Feed, Graph
from synaptic.pipeline.kinds import CompiledAgent, CompiledRepeat
from synaptic.pipeline.templates import UNKNOWN, ListOf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.pipeline.compiler.outlines import Outline
    from synaptic.pipeline.compiler.scope import View
    from synaptic.pipeline.compiler.source_file import Unit
    from synaptic.pipeline.compiler.texts import Checked
    from synaptic.pipeline.templates import Expression
    from synaptic.text import KeyPath


@dataclass(slots=True)
class Draft:
    """One step whose templates were read.

    Attributes:
        work: What it does, as fields of the compiled step; ``None`` where something is wrong with it.
        needs: Steps that it waits for by name.
        checked: Its templates and expressions, those of a loop's bounds included.
        inside: Names of steps that the steps inside its loop refer to.
        body: The steps of its loop.

    """

    outline: Outline
    work: dict[str, Any] | None = None
    needs: list[str] = field(default_factory=list)
    when: Checked[Expression] | None = None
    foreach: Checked[Expression] | None = None
    until: Checked[Expression] | None = None
    score: Checked[Expression] | None = None
    bound: Checked[Expression] | None = None
    checked: list[Checked[Any]] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    body: Steps | None = None

    def keep(self, part: Checked[Any] | None) -> None:
        """Remember a template or expression for what it refers to."""
        if part is not None:
            self.checked.append(part)

    @property
    def names(self) -> list[str]:
        """Every step that is referred to, in this scope or around it, each once."""
        parts = [self.when, self.foreach, *self.checked]
        found = [name for part in parts if part is not None for name in part.steps]
        return list(dict.fromkeys([*self.needs, *found, *self.inside]))


class Steps:
    """The steps of one scope.

    Args:
        unit: The file.
        outlines: What is known of them from the first pass.
        path: Where they stand.
        view: What their templates see.

    """

    def __init__(self, unit: Unit, outlines: Mapping[str, Outline], path: KeyPath, view: View) -> None:
        self.unit = unit
        self.outlines = outlines
        self.path = path
        self.view = view
        self.drafts = {name: self._read(outline) for name, outline in outlines.items()}

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
        texts, view = self.unit.texts, self.view.of(outline.name)
        draft.needs = self._needs(outline)
        draft.when = texts.condition(spec.when, (*path, "when"), view)
        if draft.when is not None and _is_false(draft.when.code):
            advice = "remove the step, or the condition"
            self.unit.report.in_text(
                "this step can never run: its condition is always false", (*path, "when"), 1, None, advice
            )
        if outline.kind is None:
            return draft
        draft.foreach = texts.items(spec.foreach, (*path, "foreach"), view)
        if spec.foreach is not None:
            listed = draft.foreach.type if draft.foreach else UNKNOWN
            item = listed.item if isinstance(listed, ListOf) else UNKNOWN
            view = view.with_item(spec.item_name, item)
        if spec.repeat is not None:
            draft.bound = None
            if isinstance(spec.repeat.max, str):
                draft.bound = texts.number(spec.repeat.max, (*path, "repeat", "max"), view)
                draft.keep(draft.bound)
            if outline.itself:
                view = replace(view, roots={**view.roots, "previous": outline.single})
        draft.work = self._work(draft, view)
        if spec.repeat is not None:
            self._ends(draft, view)
        return draft

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
                self.unit.report.at_value(message, path, advice)
            else:
                self.unit.report.at_value(*self.view.no_need(need, outline.name, path))
        return found

    def _work(self, draft: Draft, view: View) -> dict[str, Any] | None:
        """Return what the step does, as fields of the compiled step."""
        outline = draft.outline
        match outline.kind:
            case "agent":
                return self._call(draft, view)
            case "choose" if outline.spec.choose is not None:
                choose, prompt = compile_choose(self.unit, outline, outline.spec.choose, view)
                draft.keep(prompt)
                return None if choose is None else {"work": choose}
            case "tool" | "pipeline":
                bound = bind_all(self.unit, outline, view)
                for value in bound.values():
                    draft.checked += value.parts if value is not None else ()
                if outline.kind == "tool":
                    tool = compile_tool(self.unit, outline, bound)
                    return None if tool is None else {"work": tool}
                use = compile_use(self.unit, outline, bound)
                return None if use is None else {"work": use}
        return self._body(draft, view)

    def _call(self, draft: Draft, view: View) -> dict[str, Any] | None:
        outline, spec = draft.outline, draft.outline.spec
        prompt = None
        if spec.prompt is not None:
            prompt = self.unit.texts.template(spec.prompt, (*outline.path, "prompt"), view)
        draft.keep(prompt)
        call = None
        if outline.agent is not None and prompt is not None:
            call = compile_call(self.unit, outline, outline.agent, prompt.code, outline.shape)
        samples = compile_samples(self.unit, outline, call)
        return None if call is None else {"work": CompiledAgent(call=call), "samples": samples}

    def _body(self, draft: Draft, view: View) -> dict[str, Any]:
        outline = draft.outline
        inner = view.body(outline.name, types_of(outline.body))
        draft.body = Steps(self.unit, outline.body, (*outline.path, "repeat", "steps"), inner)
        draft.inside = draft.body.outward
        return {}

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
        draft.until = self.unit.texts.condition(loop.until, (*path, "until"), seen)
        draft.score = self.unit.texts.number(loop.score, (*path, "score"), seen)
        own = outline.body if draft.body is not None else {outline.name}
        for part in (draft.until, draft.score):
            if part is not None:
                draft.inside += [name for name in part.steps if name not in own]

    # -- the graph -----------------------------------------------------------------------------------------

    def finish(self, wanted: Iterable[str]) -> Graph | None:
        """Return the graph, or ``None`` where something is wrong; ``wanted`` steps are referred to from outside."""
        edges = Edges(self.unit, self.path, self.view, self.drafts, wanted)
        compiled = {name: self._step(draft, edges) for name, draft in self.drafts.items()}
        steps = {name: step for name, step in compiled.items() if step is not None}
        if not edges.acyclic() or len(steps) < len(compiled):
            return None
        return Graph.of(steps)

    def _step(self, draft: Draft, edges: Edges) -> CompiledStep | None:
        outline, spec, name = draft.outline, draft.outline.spec, draft.outline.name
        repeat = self._repeat(draft) if spec.repeat is not None else None
        if draft.work is None or outline.kind is None or (spec.repeat is not None and repeat is None):
            return None
        total = spec.timeout.total
        if outline.kind == "tool" and repeat is None and total is None:
            total = self.unit.pipeline.spec.defaults.timeout.total
        whole = outline.kind in {"tool", "pipeline", "repeat"}
        approve = spec.approve
        if outline.itself and approve in {"prompt", "both"}:
            approve = "output" if approve == "both" else ""
        return CompiledStep(
            id=name,
            description=" ".join(spec.description.split()),
            needs=edges.needs[name],
            foreach=draft.foreach.code if draft.foreach else None,
            item_name=(spec.item_name or "item") if spec.foreach is not None else None,
            concurrency=spec.concurrency,
            feed=self._feed(draft, edges),
            when=draft.when.code if draft.when else None,
            gates=edges.gates.get(name, {}),
            join=spec.join,
            on_error=spec.on_error.action,
            fallback=edges.fallbacks.get(name),
            on_demand=name in edges.on_demand,
            approve=approve,
            timeout=total if whole else None,
            priority=spec.priority,
            **({"work": repeat} if repeat is not None else draft.work),
        )

    def _repeat(self, draft: Draft) -> CompiledRepeat | None:
        outline, loop = draft.outline, draft.outline.spec.repeat
        if loop is None or draft.work is None:
            return None
        if draft.body is not None:
            ends = [part for part in (draft.until, draft.score) if part is not None]
            wanted = {name for part in ends for name in part.steps} | draft.body.remembered
            body = draft.body.finish(wanted | self.unit.texts.fields_of(outline.name))
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
        if draft.work is None or outline.kind is None:
            return None
        asks = outline.spec.approve in {"prompt", "both"}
        step = CompiledStep(id=outline.name, approve="prompt" if asks else "", **draft.work)
        return Graph.of({outline.name: step})

    def _feed(self, draft: Draft, edges: Edges) -> Feed | None:
        """Return where a map's items come from while their list is still being written, if it may start then."""
        reference = draft.foreach.code.sole_reference if draft.foreach else None
        if reference is None or reference.root != "steps" or len(reference.path) != 2:  # noqa: PLR2004  (step, field)
            return None
        name, key = reference.path
        source = self.outlines.get(name)
        elsewhere = [draft.when, *draft.checked]
        used = any(name in part.steps for part in elsewhere if part is not None)
        if source is None or used or name in draft.needs or name in draft.inside or draft.outline.spec.join != "all":
            return None
        spec, shape = source.spec, source.shape
        plain = source.kind == "agent" and not (spec.repeat or spec.foreach or spec.samples or spec.cache)
        if not plain or shape is None or spec.approve in {"output", "both"} or name in edges.fallbacks:
            return None
        writes = any(part.name == key and isinstance(part.type, ListType) for part in shape.root.fields)
        return Feed(name, key) if writes else None


def _is_false(code: Expression) -> bool:
    known, value = constant(code)
    return known and not value
