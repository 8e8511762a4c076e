"""A step with ``repeat``: a bounded loop over steps of its own, or over the step's own work.

The compiler reads the steps of a loop, and what ends it: they make a scope of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from synaptic.pipeline.graph import Inside, Work
from synaptic.pipeline.kinds.kind import Built, Json, Kind, Picture, answers_of, present, words
from synaptic.pipeline.spec import RepeatSpec
from synaptic.pipeline.templates import TEXT, Expression, Number, Record, StaticType
from synaptic.text import one_line, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking import Answering, SourceFile, View
    from synaptic.pipeline.graph import CompiledStep, Graph
    from synaptic.pipeline.kinds.kind import Outline
    from synaptic.pipeline.spec import StepKeys

_MOST: Final = 400
"""Of a condition, in characters of a drawing."""
LOOP_FIELDS: dict[str, StaticType] = {"rounds": Number(whole=True), "stop_reason": TEXT}
"""What a loop's output has beside the outputs of its steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRepeat(Work):
    """A bounded loop.

    Attributes:
        itself: Whether the body is the step's own work, so that the kept round's output is the step's output.
    """

    kind: ClassVar[str] = "repeat"
    body: Graph
    until: Expression | None
    score: Expression | None
    max: int | Expression
    keep: Literal["best", "last"]
    plateau: int | None = None
    itself: bool = False

    @property
    def length(self) -> int:
        """Calls in all rounds, as far as their number is known."""
        return (self.max if isinstance(self.max, int) else 1) * self.body.length

    @property
    def inside(self) -> Inside:
        """The steps of a round."""
        return Inside(self.body, listed=not self.itself)

    @property
    def repeated(self) -> CompiledStep | None:
        """The step whose work a round is, of a loop over itself."""
        return next(iter(self.body.steps.values())) if self.itself else None

    @property
    def rounds(self) -> tuple[str, ...]:
        """What ends the rounds, and which of them is kept."""
        score = f" by {one_line(self.score.source, _MOST)}" if self.score is not None else ""
        ends = [f"until {one_line(self.until.source, _MOST)}"] if self.until is not None else []
        if self.plateau is not None:
            ends.append(f"{'or ' * len(ends)}until {plural(self.plateau, 'round')} without a better score")
        return (*ends, f"keep {self.keep}{score}")

    def times(self, inputs: Mapping[str, Any]) -> str:
        """Return the bound of the rounds, as a number where the known inputs decide it."""
        if not isinstance(self.max, Expression):
            return f"≤ {self.max}"
        value = self.max.known(inputs)
        return f"≤ {self.max.source if value is None else value}"


class RepeatKind(Kind):
    """The kind ``repeat``: a loop over steps of its own. One over itself is of the kind of its work."""

    name = "repeat"
    key = "repeat"
    other_words = words(repeat="while until repeat_until")
    models: ClassVar = {
        RepeatSpec: words(
            max="max_iterations max_rounds iterations rounds times limit max_attempts count",
            until="while stop_when condition break_when exit_when",
            steps="body nodes tasks do",
            plateau="patience",
        )
        | {"itself": "self"}
    }
    advice = "give it to a step inside the loop"
    elsewhere: ClassVar = {"output": "its output is that of its steps"}
    picture = Picture(label="loop", fill="#f3e6ee", radius=10.0)

    def claims(self, spec: StepKeys) -> bool:
        """Return whether the loop has steps of its own."""
        return spec.repeat is not None and not spec.repeat.itself

    def outline(self, _file: SourceFile, outline: Outline) -> None:
        """Note that the output has the outputs of the steps."""
        types = {name: step.output for name, step in outline.body.items()}
        outline.single = Record(types | LOOP_FIELDS, f"the output of {outline.name!r} has no {{name}}")

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return what the steps of a round answer."""
        return {f"[].{path}": part for path, part in answers_of(outline.body).items()}

    def compile(self, _file: SourceFile, _outline: Outline, _view: View) -> Built:
        """Return nothing: the compiler makes the loop once it knows the graph of its steps."""
        return Built(None)

    def present(self) -> Json:
        """Return what holds for a loop with steps; one without repeats the step's own work, and is none itself."""
        return present("repeat", {"type": "object", **present("steps")})

    def refine(self, definitions: Mapping[str, Json]) -> None:
        """Say that a loop goes over its own steps or over the step itself, and what needs a score."""
        repeat = definitions["RepeatSpec"]
        itself = {"properties": {"self": {"const": True}}, "required": ["self"]}
        alone = {"properties": {"self": {"const": False}}}
        repeat["oneOf"] = [{"allOf": [present("steps"), alone]}, {"allOf": [itself, {"not": present("steps")}]}]
        repeat["allOf"] = [
            {"if": present("plateau"), "then": present("score")},
            {"if": present("keep", {"const": "best"}), "then": present("score")},
            {"properties": {"max": {"minimum": 1}}},
        ]
