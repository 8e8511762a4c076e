"""A step with ``choose``: a classifying call, whose output is the label of one of its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from synaptic.agents import ENUM_LIMIT, Shape
from synaptic.pipeline.checking import Answering
from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.calls import compile_call
from synaptic.pipeline.kinds.kind import CALL_KEYS, Built, Json, Kind, Picture, present, words
from synaptic.pipeline.spec import Identifier, Option, OptionSpec, Strict
from synaptic.pipeline.templates import Template, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking import SourceFile, View
    from synaptic.pipeline.graph import CompiledCall
    from synaptic.pipeline.kinds.kind import Outline


class ChooseSpec(Strict):
    """A classifying call: the output is one of the options, and steps of the others are skipped."""

    prompt: str
    options: dict[Identifier, Option] = Field(min_length=2, max_length=ENUM_LIMIT)
    agent: str = "classifier"


class ChooseKeys(Strict):
    """The key of a choice.

    Attributes:
        choose: A classifying call: its output is one option's label, and steps of the others are skipped.
    """

    choose: ChooseSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledChoose(Work):
    """A classifying call. Its shape is one enum, ``choice``; the step's output is the chosen label.

    Attributes:
        options: Each label with the steps that run only if it (or another that lists them) is chosen.
    """

    kind: ClassVar[str] = "choose"
    call: CompiledCall
    options: Mapping[str, tuple[str, ...]]


class ChooseKind(Kind):
    """The kind ``choose``."""

    name = "choose"
    key = "choose"
    keys = ChooseKeys
    other_words = words(choose="branch switch router route classify")
    takes = CALL_KEYS
    models: ClassVar = {
        ChooseSpec: words(options="choices branches cases routes labels", prompt="question instructions message"),
        OptionSpec: words(steps="then goto next run step", description="when text label help"),
    }
    elsewhere: ClassVar = {
        "prompt": "write it inside 'choose'",
        "output": "its output is the chosen option",
        "inputs": "write the values into the prompt, as in {{ inputs.NAME }}",
    }
    calls_model = True
    picture = Picture(label="choose: ", fill="#fdf0c8", outline="hexagon", mermaid=("{{", "}}"), dot="hexagon")

    def outline(self, file: SourceFile, outline: Outline) -> None:
        """Look up the agent; the output is one of the labels."""
        choose: ChooseSpec = outline.spec.choose
        outline.agent_path = (*outline.path, "choose", "agent")
        outline.agent, _ = file.find_agent(choose.agent, outline.agent_path)
        outline.options = {label: option.steps for label, option in choose.options.items()}
        outline.single = Text(tuple(choose.options))

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return the label."""
        return {"": Answering("choice", options=tuple(outline.options))}

    def compile(self, file: SourceFile, outline: Outline, view: View) -> Built:
        """Return the call with the options below its prompt."""
        choose: ChooseSpec = outline.spec.choose
        path = (*outline.path, "choose")
        if not choose.prompt.strip():
            file.report.at_value("the prompt is empty", (*path, "prompt"), "write what the choice depends on")
        written = file.texts.template(choose.prompt, (*path, "prompt"), view)
        plain = True
        for label, option in choose.options.items():
            sign = next((sign for sign in ("{{", "{%", "{#") if sign in option.description), None)
            if sign is not None:
                plain = False
                place = (*path, "options", label)
                inside = (*place, "description") if (*place, "description") in file.report.document.values else place
                message = "the description of an option is plain text, and no template"
                file.report.in_text(message, inside, token=sign, suggestion="write what changes into 'prompt'")
        parts = () if written is None else (written,)
        if written is None or outline.agent is None or not plain:
            return Built(None, parts)
        listed = "\n".join(f"- {label}: {' '.join(option.description.split())}".rstrip(" :")
                           for label, option in choose.options.items())  # fmt: skip
        prompt = Template.compile(f"{choose.prompt.rstrip()}\n\nChoose one of these:\n{listed}\n")
        shape = Shape.parse({"choice": f"enum({', '.join(choose.options)})"})
        call = compile_call(file, outline, outline.agent, prompt, shape, view=view)
        options = {label: tuple(dict.fromkeys(steps)) for label, steps in outline.options.items()}
        return Built(CompiledChoose(call=call, options=options), parts)

    def rules(self) -> list[Json]:
        """Return that a choice does not repeat itself."""
        return [{"if": present("choose"), "then": {"not": present("repeat")}}]
