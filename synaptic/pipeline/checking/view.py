"""What a template may refer to at one place of a pipeline, and what is wrong with a reference that leads nowhere.

A loop's steps see each other and the steps around the loop, but not the loop itself; from outside, a loop is one step.
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from synaptic.pipeline.graph import QUESTION
from synaptic.pipeline.templates import OTHER_CONSTANTS, OTHER_ROOTS, TEXT, UNKNOWN, ListOf, Record, StaticType
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synaptic.pipeline.spec import StepKeys
    from synaptic.pipeline.templates import Reference
    from synaptic.text import KeyPath

RUN = Record({"id": TEXT, "pipeline": TEXT, "conversation": TEXT}, "'run' has no {name}")
RESERVED = frozenset({"inputs", "steps", "run", "item", "previous"})

_NO_STEP = "there is no step {name}"
_ALL_STEPS = "'steps' needs the name of one step, so that it is known what to wait for"
_HOW = {
    "loop": ("'loop' is only there inside a loop", "write it between {% for … %} and {% endfor %}"),
    **dict.fromkeys(("end", "endif", "endfor"), ("the end of a tag stands between {% and %}", "write {% endif %}")),
    "previous": ("'previous' is the round before, and there is no loop here", "move the step into a 'repeat'"),
    "item": ("'item' is one item of a map, and there is no map here", "give the step a 'foreach'"),
}


@dataclass(frozen=True, slots=True)
class View:
    """The names that templates see at one place.

    Attributes:
        own: The steps of this scope, with the types of their outputs.
        outer: Those around the loop that this scope is the body of.
        around: The loops that the scope is inside of, innermost last.
        roots: Everything beside ``steps``.
        me: The step whose template it is; it cannot refer to itself.
        items: The item of a map, by its names.
        asked: The names of items that are made of the person's question.
        inner: For each step that is inside a loop, the names of the loops that lead to it from the outermost scope.
    """

    own: dict[str, StaticType]
    outer: ChainMap[str, StaticType]
    roots: Mapping[str, StaticType]
    inner: Mapping[str, tuple[str, ...]]
    around: tuple[str, ...] = ()
    me: str | None = None
    items: Mapping[str, StaticType] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    scope: Mapping[str, StaticType] = field(init=False)

    def __post_init__(self) -> None:
        steps = Record(self.steps, _NO_STEP, _ALL_STEPS)
        object.__setattr__(self, "scope", {**self.roots, "steps": steps})

    @property
    def steps(self) -> ChainMap[str, StaticType]:
        """Every step that has a type here."""
        return ChainMap(self.own, *self.outer.maps)

    def of(self, me: str | None) -> View:
        """Return what the templates of the step ``me`` see."""
        return replace(self, me=me)

    def with_item(self, name: str | None, item: StaticType, listed: Iterable[Reference] = ()) -> View:
        """Return what an instance of a map sees; ``listed`` is what its list refers to."""
        names = {"item": item} if name is None else {"item": item, name: item}
        asked = self.asked.union(names) if self.asks(listed) else self.asked.difference(names)
        return replace(self, roots={**self.roots, **names}, items=names, asked=asked)

    def asks(self, references: Iterable[Reference]) -> bool:
        """Return whether a text with these references has the question in it: as input, or as an item made of it."""
        return any(each.names("inputs", QUESTION) or each.root in self.asked for each in references)

    def hears(self, references: Sequence[Reference]) -> bool:
        """Return whether earlier turns belong before a prompt: it asks the question, and does not place them itself."""
        return self.asks(references) and not any(each.is_conversation for each in references)

    def body(self, loop: str, own: dict[str, StaticType]) -> View:
        """Return what the steps of the loop called ``loop`` see."""
        roots = {**self.roots, "previous": Record(own, "the round before has no {name}")}
        return View(own, self.steps, roots, self.inner, (*self.around, loop), None, asked=self.asked)

    def dangling(self, reference: Reference) -> tuple[str, str | None] | None:
        """Return what is wrong with a reference's first names, and what to write; ``None`` if they are there.

        Fields of outputs and inputs are not looked at: the check of the template's types does that.
        """
        if reference.root == "steps":
            return self._no_step(reference.path[0]) if reference.path else None
        if reference.root in self.roots:
            return None
        if reference.root in _HOW:
            return _HOW[reference.root]
        message = f"{reference.root!r} is not defined here"
        if reference.root in self.steps and reference.root not in self.around:
            return message, f"write steps.{reference}"
        inputs = self.roots.get("inputs")
        if isinstance(inputs, Record) and reference.root in inputs.fields:
            return message, f"write inputs.{reference}"
        return message, self._meant(reference)

    def _meant(self, reference: Reference) -> str:
        """Return what may have been meant by a root that is not there."""
        constant = OTHER_CONSTANTS.get(reference.root)
        if constant is not None and not reference.path:
            return f"write {constant}"
        inputs = self.roots.get("inputs")
        fields = inputs.fields if isinstance(inputs, Record) else {}
        meant = OTHER_ROOTS.get(reference.root)
        name = reference.path[0] if reference.path else None
        if meant == "steps" and name in self.steps:
            return f"write steps.{name}"
        if meant == "inputs" or (meant == "steps" and name in fields):
            if name in fields:
                return f"write inputs.{name}"
            return f"values from outside are inputs: declare {name or 'one'!r} under 'inputs'"
        if meant is not None and meant in self.roots:
            return f"write {meant}"
        advice = did_you_mean(reference.root, {*self.roots, "steps"})
        if reference.path or not advice.startswith("known: "):
            return advice
        return f"{advice}; a text stands in quotes: '{reference.root}'"

    def _no_step(self, name: str) -> tuple[str, str | None] | None:
        if name == self.me:
            previous = self.roots.get("previous")
            in_round = isinstance(previous, Record) and name in previous.fields
            advice = f"write previous{f'.{name}' if in_round else ''} for the round before" if previous else None
            return f"the step {name!r} refers to itself", advice
        if name in self.around:
            return (
                f"the loop {name!r} is around this step, and has no output yet",
                "write previous for the round before",
            )
        if name in self.own or name in self.outer:
            return None
        return self._unknown_step(name)

    def no_need(self, name: str, me: str, path: KeyPath) -> tuple[str, KeyPath, str | None]:
        """Return what is wrong with a name that is not a step of this scope beside ``me``, where, and what to write."""
        message = f"there is no step {name!r} to name here"
        if name == me:
            message = f"the step {name!r} names itself"
        elif name in self.inner and name not in self.outer:
            return message, path, f"it is inside the loop {self.inner[name][-1]!r}, which is one step from outside"
        return message, path, did_you_mean(name, [step for step in self.own if step != me])

    def _unknown_step(self, name: str) -> tuple[str, str | None]:
        message = f"there is no step {name!r}"
        loops = self.inner.get(name)
        if loops:
            way = list(loops)
            while way and way[0] in self.around:
                way.pop(0)
            if way:
                path = ".".join(("steps", *way, name))
                return f"{message} here; it is inside the loop {way[-1]!r}", f"write {path}"
        known = [step for step in self.steps if step != self.me and step not in self.around]
        return message, did_you_mean(name, known)


def inner_steps(steps: Mapping[str, StepKeys], loops: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return for each step inside a loop the loops that lead to it."""
    found: dict[str, tuple[str, ...]] = {}
    for name, step in steps.items():
        if loops:
            found.setdefault(name, loops)
        if step.repeat is not None and step.repeat.steps:
            for inner, way in inner_steps(step.repeat.steps, (*loops, name)).items():
                found.setdefault(inner, way)
    return found


def same_type(one: StaticType, other: StaticType) -> bool:
    """Return whether two outputs look the same; what messages call them does not count."""
    if isinstance(one, Record) and isinstance(other, Record):
        names = one.fields.keys()
        return names == other.fields.keys() and all(same_type(one.fields[name], other.fields[name]) for name in names)
    if isinstance(one, ListOf) and isinstance(other, ListOf):
        return same_type(one.item, other.item)
    return one == other


def type_at(view: View, reference: Reference | None) -> StaticType:
    """Return the type of what a reference leads to, as far as that is known."""
    if reference is None:
        return TEXT
    here: StaticType = view.scope.get(reference.root, UNKNOWN)
    for part in reference.path:
        here = here.fields.get(part, UNKNOWN) if isinstance(here, Record) else UNKNOWN
    return here
