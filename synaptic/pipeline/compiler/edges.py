"""What waits for what inside one scope: needs, options, fallbacks; and that nothing waits for itself."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

from synaptic.pipeline.graph_theory import circles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.pipeline.checking import SourceFile, View
    from synaptic.pipeline.compiler.draft import Draft
    from synaptic.text import KeyPath


class Edges:
    """The dependencies of one scope, each problem of them reported.

    Attributes:
        needs: For each step the steps of the scope that it waits for.
        gates: For each step that options list, the choices with the labels that let it run.
        fallbacks: For each step that has one, the step whose output takes the place of its own.
        on_demand: Fallbacks that nothing else refers to.
    """

    def __init__(
        self, file: SourceFile, path: KeyPath, view: View, drafts: Mapping[str, Draft], wanted: Iterable[str]
    ) -> None:
        self._file = file
        self._path = path
        self._view = view
        self._drafts = drafts
        self.gates: dict[str, dict[str, tuple[str, ...]]] = {}
        self.fallbacks: dict[str, str] = {}
        for name, draft in drafts.items():
            self._read_options(name, draft)
            self._read_fallback(name, draft)
        self.needs = {
            name: tuple(dict.fromkeys([*(need for need in draft.names if need in drafts), *self.gates.get(name, ())]))
            for name, draft in drafts.items()
        }
        referred = {need for needs in self.needs.values() for need in needs} | set(wanted) | self.gates.keys()
        self.on_demand = frozenset(self.fallbacks.values()) - referred
        for draft in drafts.values():
            self._check_join(draft)

    def acyclic(self) -> bool:
        """Return whether no step waits for itself, however far around; each set of steps that do is reported once."""
        edges = {
            name: (*needs, self.fallbacks[name]) if name in self.fallbacks else needs
            for name, needs in self.needs.items()
        }
        try:
            TopologicalSorter(edges).prepare()
        except CycleError:
            for circle in circles(edges):
                self._report_circle(circle)
            return False
        return True

    def _report_circle(self, circle: tuple[str, ...]) -> None:
        chain = " -> ".join(circle)
        for name, after in pairwise(circle):
            if self.fallbacks.get(name) == after and after not in self.needs[name]:
                message = f"the fallback {after!r} waits for the step that it should replace: {chain}"
                path = (*self._path, name, "on_error", "use")
                self._file.report.at_value(message, path, "use a step that does not need it")
                return
        self._file.report.at_key(f"these steps wait for each other: {chain}", (*self._path, circle[0]))

    def _read_options(self, name: str, draft: Draft) -> None:
        for label, steps in draft.outline.options.items():
            path = (*draft.outline.path, "choose", "options", label, "steps")
            for index, step in enumerate(steps):
                if step not in self._drafts or step == name:
                    self._file.report.at_value(*self._view.no_need(step, name, (*path, index)))
                elif step in steps[:index]:
                    self._file.report.at_value(f"the step {step!r} stands here twice", (*path, index), "keep one")
                else:
                    gate = self.gates.setdefault(step, {})
                    gate[name] = (*gate.get(name, ()), label)

    def _read_fallback(self, name: str, draft: Draft) -> None:
        fallback = draft.outline.spec.on_error.use
        if fallback is None:
            return
        path = (*draft.outline.path, "on_error", "use")
        if fallback == name:
            self._file.report.at_value(f"the step {name!r} cannot take its own place", path, "name another step")
        elif fallback not in self._drafts:
            self._file.report.at_value(*self._view.no_need(fallback, name, path))
        else:
            self.fallbacks[name] = fallback

    def _check_join(self, draft: Draft) -> None:
        outline = draft.outline
        join = outline.spec.join
        if join == "all" or outline.kind is None:
            return
        gates = self.gates.get(outline.name, {})
        path = (*outline.path, "join")
        if gates:
            message = f"'join: {join}' does not go with being an option of {next(iter(gates))!r}, which it waits for"
            self._file.report.at_key(message, path, "remove it, or list a step before this one as the option")
        elif len(self.needs[outline.name]) < 2:
            found = ", ".join(self.needs[outline.name]) or "none"
            message = f"'join: {join}' needs two steps or more to wait for, and has {found}"
            self._file.report.at_key(message, path, "name them with 'needs', or remove it")
