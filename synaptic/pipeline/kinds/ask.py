"""A step with ``ask``: a person is asked, and the answer is the output: text, or a value of a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from synaptic.errors import OutputInvalid
from synaptic.pipeline.checking import Answering, bind, parse_shape
from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.kind import Built, Json, KeyProblem, Kind, Picture, words
from synaptic.pipeline.spec import Strict
from synaptic.pipeline.templates import TEXT, UNKNOWN, of_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.agents import Shape
    from synaptic.pipeline.checking import SourceFile, View
    from synaptic.pipeline.graph import Binding
    from synaptic.pipeline.kinds.kind import Outline
    from synaptic.pipeline.templates import Template


class AskKeys(Strict):
    """The keys of a question.

    Attributes:
        ask: What a person is asked; a template such as ``Which city do you mean by {{ inputs.city }}?``. The answer is
            text, or has the shape of ``output``.
        default: The answer where a person gives none, and where no person can be asked: a value that fits, or a
            template.
    """

    ask: str | None = None
    default: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledAsk(Work):
    """A question to the person.

    Attributes:
        default: The proposed answer; ``None`` where there is none.
        shape: What the answer must fit; ``None`` is free text.
    """

    kind: ClassVar[str] = "ask"
    question: Template
    default: Binding = None
    shape: Shape | None = None

    @property
    def unanswered(self) -> bool:
        """Whether only a person can give the output."""
        return self.default is None


class AskKind(Kind):
    """The kind ``ask``."""

    name = "ask"
    key = "ask"
    keys = AskKeys
    other_words = words(ask="input_from_user ask_user ask_human human_input prompt_user")
    takes = frozenset({"output", "default"})
    advice = "a question calls no model: remove it"
    elsewhere: ClassVar = {
        "prompt": "write what the person is asked behind 'ask'",
        "inputs": "write the values into the question, as in {{ inputs.NAME }}",
    }
    picture = Picture(
        label="asks a person", fill="#fde2df", outline="hexagon", mermaid=("[/", "/]"), dot="parallelogram"
    )

    def problems(self, spec: AskKeys) -> Iterator[KeyProblem]:
        """Return that the question is empty."""
        if spec.ask is not None and not spec.ask.strip():
            yield KeyProblem("the question is empty", ("ask",), "write what the person is asked", at_value=True)

    def outline(self, file: SourceFile, outline: Outline) -> None:
        """Note the shape of the answer."""
        if outline.spec.output is None:
            outline.single = TEXT
            return
        shape = outline.shape = parse_shape(outline.spec.output, (*outline.path, "output"), file.report)
        outline.single = of_field(shape.root, f"the output of {outline.name!r}") if shape else UNKNOWN

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return the person's answer."""
        known = outline.shape is not None or outline.spec.output is None
        return {"": Answering("person" if known else "unknown", outline.shape)}

    def compile(self, file: SourceFile, outline: Outline, view: View) -> Built:
        """Return the question, after reporting a default that does not fit."""
        spec, path = outline.spec, (*outline.path, "default")
        question = file.texts.template(spec.ask, (*outline.path, "ask"), view)
        default = bind(file, spec.default, path, view)
        if default is not None and default.literal and default.binding is not None:
            wrong = _wrong(default.binding, outline)
            if wrong is not None:
                file.report.at_value(f"the default is not an answer: {wrong}", path, "write one that fits")
        parts = [*(() if question is None else (question,)), *(() if default is None else default.parts)]
        if question is None or default is None:
            return Built(None, parts)
        return Built(CompiledAsk(question=question.code, default=default.binding, shape=outline.shape), parts)

    def rules(self) -> list[Json]:
        """Return that a default goes with a question, which is not empty."""
        return [{"properties": {"ask": {"pattern": r"\S"}}}]


def _wrong(answer: object, outline: Outline) -> str | None:
    """Return what is wrong with a literal answer; ``None`` if it will do."""
    if outline.spec.output is None:
        if isinstance(answer, str):
            return None if answer.strip() else "it is empty"
        return f"it must be text, not {answer!r}"
    if outline.shape is None:  # which is reported already
        return None
    try:
        outline.shape.validate(answer)
    except OutputInvalid as exc:
        return exc.message.replace("the reply", "it")
    return None
