"""What every kind of step says of itself, and what the compiler tells it of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from synaptic.pipeline.checking import Answering
from synaptic.pipeline.templates import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from synaptic.agents import Agent, Shape
    from synaptic.pipeline.checking import Checked, SourceFile, View
    from synaptic.pipeline.graph import CompiledSamples, Work
    from synaptic.pipeline.spec import StepKeys, Strict
    from synaptic.pipeline.templates import StaticType
    from synaptic.text import KeyPath

Json: TypeAlias = dict[str, Any]

CALL_KEYS = frozenset(
    {"model", "backend", "fallback_models", "temperature", "max_tokens", "overflow", "cache", "retry"}
)
"""The keys of a step that say how a model is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How a step of one kind is drawn.

    Attributes:
        label: Stands before the name of what the step calls.
        outline: The form of the box: plain, with pointed ends, with a bar at each side, or with round ends.
        radius: Of the corners in SVG, in pixels.
        mermaid: What Mermaid writes before and after the label; steps with others inside are frames, and need none.
        dot: The shape of the node in DOT; the same.
    """

    label: str = ""
    fill: str
    outline: Literal["box", "hexagon", "barred", "round"] = "box"
    radius: float = 0.0
    mermaid: tuple[str, str] = ("(", ")")
    dot: str = "box"


class KeyProblem(NamedTuple):
    """A key that does not go with the others, or its value; ``path`` is inside the step."""

    message: str
    path: KeyPath
    suggestion: str | None = None
    at_value: bool = False


@dataclass(slots=True)
class Outline:
    """What is known of a step before its templates are read.

    Attributes:
        spec: The step as it is written; its kind finds its own keys there.
        kind: What the step does; of a loop over itself, what its rounds do. ``None`` if that is not clear.
        single: The type of one execution's output; ``output`` is that of the whole step.
        agent: Of a call; ``None`` also where it is unknown, which is reported.
        agent_path: Where the agent is named.
        shape: Of the output, where one is given.
        found: What else the kind has looked up: a tool, a used pipeline.
        options: Labels of a choice, each with the steps that run only if it is chosen.
        body: The steps of a loop.
    """

    name: str
    spec: Any
    path: KeyPath
    kind: Kind | None
    single: StaticType = UNKNOWN
    output: StaticType = UNKNOWN
    agent: Agent | None = None
    agent_path: KeyPath = ()
    shape: Shape | None = None
    found: Any = None
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: dict[str, Outline] = field(default_factory=dict)

    @property
    def itself(self) -> bool:
        """Whether the step is a loop over itself."""
        return self.spec.repeat is not None and self.spec.repeat.itself


class Built(NamedTuple):
    """A step whose templates were read.

    Attributes:
        work: What it does; ``None`` after reporting what is wrong with it.
        parts: Its templates and expressions: the step waits for the steps that they refer to.
    """

    work: Work | None
    parts: Sequence[Checked[Any]] = ()
    samples: CompiledSamples | None = None


class Kind:
    """One kind of step, as the language knows it. Methods that report get the file, which has the report.

    Attributes:
        name: What events, plans and drawings call it.
        key: The key of a step that makes it one of this kind.
        keys: The keys that only this kind has, as a part of ``StepSpec``; its docstring describes them.
        other_words: What other tools call these keys.
        takes: Of the keys that some kinds have and others have not, those that this one has; as fields are called.
        needs: A key that has to stand beside ``key``.
        models: The mappings that may stand below its keys, each with what other tools call the keys in it.
        advice: What to do with a key that it does not take, where ``elsewhere`` says nothing better.
        elsewhere: The same, by field.
        acts: Whether it does something beside giving its output, which then need not be read.
        calls_model: Whether it sends a prompt to a model. What does not is bounded as a whole by its timeout, and has
            no prompt to approve.
        default_timeout: Whether the pipeline's default timeout holds for the whole step.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    keys: ClassVar[type[Strict] | None] = None
    other_words: ClassVar[Mapping[str, str]] = {}
    takes: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[str | None] = None
    models: ClassVar[Mapping[type[Strict], Mapping[str, str]]] = {}
    advice: ClassVar[str] = "remove it"
    elsewhere: ClassVar[Mapping[str, str]] = {}
    acts: ClassVar[bool] = False
    calls_model: ClassVar[bool] = False
    default_timeout: ClassVar[bool] = False
    picture: ClassVar[Picture]

    def claims(self, spec: StepKeys) -> bool:
        """Return whether the step's work is of this kind."""
        return getattr(spec, self.key) is not None

    def problems(self, _spec: Any) -> Iterator[KeyProblem]:
        """Return what is wrong with the keys of a step of this kind, beyond keys that it does not take."""
        return iter(())

    def outline(self, file: SourceFile, outline: Outline) -> None:
        """Look up what the step names, and note what its output looks like."""
        raise NotImplementedError

    def compile(self, file: SourceFile, outline: Outline, view: View) -> Built:
        """Return the step's work, after checking its templates against what they see."""
        raise NotImplementedError

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return what a test may script, by its path below the step's: "" is the step, ``[]`` stands for a number."""
        raise NotImplementedError

    def present(self) -> Json:
        """Return the JSON Schema that holds where a step's work is of this kind."""
        return present(self.key)

    def rules(self) -> list[Json]:
        """Return what else holds for steps, as JSON Schema."""
        return []

    def refine(self, definitions: Mapping[str, Json]) -> None:
        """Say in the JSON Schema of its ``models`` what goes together in them."""


def answers_of(outlines: Mapping[str, Outline]) -> dict[str, Answering]:
    """Return what a test may script of the steps of one scope, by their paths; ``[]`` stands for a number."""
    found: dict[str, Answering] = {}
    for outline in outlines.values():
        path = outline.name if outline.spec.foreach is None else f"{outline.name}[]"
        if outline.kind is None:
            found[path] = Answering("unknown", open=True)
            continue
        approving = [path] if outline.spec.approve else []
        if outline.itself:
            path = f"{path}[]"
            approving += [path] if outline.spec.approve in {"prompt", "both"} else []
        found.update({f"{one}.approve": Answering("approval") for one in approving})
        found.update({f"{path}{below}": part for below, part in outline.kind.answers(outline).items()})
    return found


def present(key: str, kind: Mapping[str, Any] | None = None) -> Json:
    """Return the JSON Schema that holds where the key is there and not empty; or is what ``kind`` says."""
    return {"properties": {key: kind or {"not": {"type": "null"}}}, "required": [key]}


def words(**meanings: str) -> dict[str, str]:
    """Return word -> key from key -> words."""
    return {word: key for key, listed in meanings.items() for word in listed.split()}
