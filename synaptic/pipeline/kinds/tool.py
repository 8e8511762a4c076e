"""A step with ``tool``: a call of a Python function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from synaptic.pipeline.checking import Answering, bind_all, parse_shape, parts_of
from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.kind import Built, Json, KeyProblem, Kind, Picture, present, words
from synaptic.pipeline.spec import Strict
from synaptic.pipeline.templates import UNKNOWN, of_field
from synaptic.pipeline.tools import LATER
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.agents import Shape
    from synaptic.pipeline.checking import SourceFile, View
    from synaptic.pipeline.graph import Binding
    from synaptic.pipeline.kinds.kind import Outline
    from synaptic.pipeline.tools import Tool


class ToolKeys(Strict):
    """The keys of a tool.

    Attributes:
        tool: The Python function that is called, by its registered name, with the arguments in ``with``.
        idempotent: Whether calling it once more does no harm, where a run was cut off and it is not known how the last
            call ended; false asks a person first. As the function says, where this says nothing.
    """

    tool: str | None = None
    idempotent: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTool(Work):
    """A call of a Python function.

    Attributes:
        shape: What its output is checked against, where one is given.
        attempts: Most calls, the first one included: a function that raised is called again.
    """

    kind: ClassVar[str] = "tool"
    tool: Tool
    arguments: Mapping[str, Binding]
    shape: Shape | None = None
    attempts: int = 1

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name

    @property
    def demanded(self) -> Mapping[str, Binding]:
        """The arguments that the function does not take nothing for."""
        refusing = {name for name, parameter in self.tool.parameters.items() if not parameter.takes_nothing}
        return {name: binding for name, binding in self.arguments.items() if name in refusing}


class ToolKind(Kind):
    """The kind ``tool``."""

    name = "tool"
    key = "tool"
    keys = ToolKeys
    other_words = words(tool="function call run action")
    takes = frozenset({"inputs", "output", "retry", "idempotent"})
    advice = "a tool calls no model: remove it"
    elsewhere: ClassVar = {"prompt": "a tool gets its arguments with 'with'"}
    acts = True
    default_timeout = True
    picture = Picture(label="tool ", fill="#e2f3e3", outline="barred", mermaid=("[[", "]]"), dot="component")

    def problems(self, spec: Any) -> Iterator[KeyProblem]:
        """Return which parts of ``retry`` say nothing of a tool."""
        if spec.retry.on is not None:
            message = "a step with 'tool' has no causes to choose from: its function is called again whatever it raised"
            yield KeyProblem(message, ("retry", "on"), "remove it")
        if spec.retry.repairs is not None:
            message = "a step with 'tool' has no 'repairs': no model is there to be told what was wrong"
            yield KeyProblem(message, ("retry", "repairs"), "write 'attempts'")

    def outline(self, file: SourceFile, outline: Outline) -> None:
        """Look up the tool; the output has the step's shape, else what the function says that it returns."""
        spec, tools = outline.spec, file.context.tools
        tool = outline.found = tools.get(spec.tool)
        if tool is None:
            advice = did_you_mean(spec.tool, tools) if tools else "register one with --tools MODULE or an entry point"
            file.report.at_value(f"there is no tool {spec.tool!r}", (*outline.path, "tool"), advice)
        elif tool.installed and not file.trusted:
            what = f"the installed tool {spec.tool!r} may not be called from a folder that is not trusted"
            file.report.at_value(what, (*outline.path, "tool"), file.how_to_trust)
        if spec.output is not None:
            shape = outline.shape = parse_shape(spec.output, (*outline.path, "output"), file.report)
            outline.single = of_field(shape.root, f"the output of {outline.name!r}") if shape else UNKNOWN
        elif tool is not None:
            outline.single = tool.returns

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return what the function returns."""
        return {"": Answering("tool", outline.shape)}

    def compile(self, file: SourceFile, outline: Outline, view: View) -> Built:
        """Return the call, after reporting arguments that the function does not take."""
        bound = bind_all(file, outline.spec.inputs, (*outline.path, "with"), view)
        tool: Tool | None = outline.found
        if tool is None:
            return Built(None, parts_of(bound))

        known = {name: LATER if value is None else value.known for name, value in bound.items()}
        for argument, message, suggestion in tool.complaints(known):
            if argument is None:
                file.report.at_value(message, (*outline.path, "tool"), suggestion)
            elif argument in tool.parameters:
                file.report.at_value(message, (*outline.path, "with", argument), suggestion)
            else:
                file.report.at_key(message, (*outline.path, "with", argument), suggestion)
        arguments = {name: value.binding for name, value in bound.items() if value is not None}
        # The defaults of a pipeline are not asked: only who wrote the step knows whether calling twice does harm.
        attempts = outline.spec.retry.attempts or 1
        if outline.spec.idempotent is not None:
            tool = replace(tool, idempotent=outline.spec.idempotent)
        work = CompiledTool(tool=tool, arguments=arguments, shape=outline.shape, attempts=attempts)
        return Built(work, parts_of(bound))

    def rules(self) -> list[Json]:
        """Return that ``retry`` of a tool counts attempts, and nothing else."""
        attempts_only = {"properties": {"on": {"type": "null"}, "repairs": {"type": "null"}}}
        return [{"if": present("tool"), "then": {"properties": {"retry": attempts_only}}}]
