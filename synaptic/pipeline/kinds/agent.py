"""A step with ``agent``: one call of a model, whose output is text or a value of a shape; or several samples of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from synaptic.pipeline.checking import Answering, parse_shape
from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.calls import compile_call, compile_samples
from synaptic.pipeline.kinds.kind import CALL_KEYS, Built, KeyProblem, Kind, Picture, words
from synaptic.pipeline.spec import Strict
from synaptic.pipeline.templates import TEXT, of_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.pipeline.checking import SourceFile, View
    from synaptic.pipeline.graph import CompiledCall
    from synaptic.pipeline.kinds.kind import Outline


class AgentKeys(Strict):
    """The keys of a call.

    Attributes:
        agent: The agent that is called with ``prompt``.
        prompt: What the agent is asked; a template such as ``{{ steps.plan.questions }}``.
    """

    agent: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledAgent(Work):
    """A call of an agent."""

    kind: ClassVar[str] = "agent"
    call: CompiledCall

    @property
    def structured(self) -> bool:
        """Whether the output is a value of a shape."""
        return self.call.shape is not None

    @property
    def answer(self) -> str | None:
        """Text is the step's own output, piece by piece."""
        return None if self.structured else ""


class AgentKind(Kind):
    """The kind ``agent``."""

    name = "agent"
    key = "agent"
    keys = AgentKeys
    other_words = words(
        agent="role assistant actor",
        prompt="message messages template text question instruction instructions task",
    )
    takes = CALL_KEYS | {"prompt", "output", "samples"}
    needs = "prompt"
    elsewhere: ClassVar = {"inputs": "write the values into the prompt, as in {{ inputs.NAME }}"}
    calls_model = True
    picture = Picture(fill="#e3f0fb", radius=6.0)

    def problems(self, spec: AgentKeys) -> Iterator[KeyProblem]:
        """Return what is wrong with the prompt."""
        if spec.prompt is None and "prompt" in spec.model_fields_set:
            yield KeyProblem("the prompt is empty", ("prompt",), "write what the agent is asked")
        elif spec.prompt is None:
            yield KeyProblem("a step with an agent needs a 'prompt'", (), "add 'prompt: …'")
        elif not spec.prompt.strip():
            yield KeyProblem("the prompt is empty", ("prompt",), "write what the agent is asked", at_value=True)

    def outline(self, file: SourceFile, outline: Outline) -> None:
        """Look up the agent; the output has the step's shape, else the agent's, else it is text."""
        spec = outline.spec
        outline.agent_path = (*outline.path, "agent")
        outline.agent, known = file.find_agent(spec.agent or "", outline.agent_path)
        if spec.output is not None:
            outline.shape = parse_shape(spec.output, (*outline.path, "output"), file.report)
            known = outline.shape is not None
        elif outline.agent is not None:
            outline.shape = outline.agent.output
        if known:
            shape = outline.shape
            outline.single = of_field(shape.root, f"the output of {outline.name!r}") if shape else TEXT

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return the reply; of samples each one, and what selects among them."""
        known = outline.shape is not None or outline.single == TEXT
        reply = Answering("model" if known else "unknown", outline.shape)
        if outline.spec.samples is None:
            return {"": reply}
        if outline.spec.select == "vote":
            return {"[]": reply}
        judge = outline.found.judge if outline.found is not None else None
        selecting = Answering("unknown") if judge is None else Answering("model", judge.shape)
        return {"[]": reply, (".merge" if outline.spec.select == "merge" else ".judge[]"): selecting}

    def compile(self, file: SourceFile, outline: Outline, view: View) -> Built:
        """Return the call with its prompt, and how one answer comes of its samples."""
        prompt = None
        if outline.spec.prompt is not None:
            prompt = file.texts.template(outline.spec.prompt, (*outline.path, "prompt"), view)
        parts = () if prompt is None else (prompt,)
        call = None
        if outline.agent is not None and prompt is not None:
            call = compile_call(file, outline, outline.agent, prompt.code, outline.shape, view=view)
        samples = outline.found = compile_samples(file, outline, call)
        return Built(None if call is None else CompiledAgent(call=call), parts, samples)
