"""A step with ``use``: another pipeline, which gets inputs and gives its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from synaptic.errors import PipelineError
from synaptic.pipeline.checking import Answering, UnusablePath, bind_all, parts_of
from synaptic.pipeline.graph import Inside, Work
from synaptic.pipeline.inputs import convert, misnamed
from synaptic.pipeline.kinds.kind import Built, Kind, Picture, words
from synaptic.pipeline.spec import Strict
from synaptic.pipeline.templates import SKIPPED, Expression, ListOf, Record, Template, describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.checking import Bound, SourceFile, UsedPipeline, View
    from synaptic.pipeline.graph import Binding, CompiledPipeline
    from synaptic.pipeline.kinds.kind import Outline
    from synaptic.pipeline.spec import InputSpec
    from synaptic.pipeline.templates import StaticType


class UseKeys(Strict):
    """The key of another pipeline.

    Attributes:
        use: Another pipeline: a built-in one by name, or a file beside this one.
    """

    use: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledUse(Work):
    """Another pipeline with its inputs. The output is its result: a sole reference gives the value itself.

    Attributes:
        hears: Whether it gets the conversation: the pipeline around it does not keep it to itself.
    """

    kind: ClassVar[str] = "pipeline"
    pipeline: CompiledPipeline
    inputs: Mapping[str, Binding]
    hears: bool = True

    @property
    def name(self) -> str:
        """The name of the pipeline."""
        return self.pipeline.pipeline.name

    @property
    def length(self) -> int:
        """Calls in the longest chain of the pipeline."""
        return self.pipeline.graph.length

    @property
    def inside(self) -> Inside:
        """The steps of the pipeline."""
        return Inside(
            self.pipeline.graph,
            inputs=self.known_inputs(),
            concurrency=self.pipeline.concurrency,
            hear=self.hears,
        )

    def run_inside(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Return the root ``run`` of the pipeline, which runs in one that sees ``run``."""
        return {**run, "pipeline": self.name, "conversation": run["conversation"] if self.hears else ""}

    @property
    def answer(self) -> str | None:
        """Where the text of the pipeline's result is written."""
        return self.pipeline.answer

    @property
    def demanded(self) -> Mapping[str, Binding]:
        """What is given for inputs that are required."""
        required = {name for name, spec in self.pipeline.pipeline.spec.inputs.items() if spec.required}
        return {name: binding for name, binding in self.inputs.items() if name in required}

    def inputs_inside(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what every declared input is given; one that hangs on the run is a skipped value."""
        values = {**dict.fromkeys(self.pipeline.pipeline.spec.inputs), **self.known_inputs()}
        for name, binding in self.inputs.items():
            if isinstance(binding, (Expression, Template)):
                values[name] = _filled(binding, variables)
        return values

    def known_inputs(self) -> dict[str, Any]:
        """Return those inputs of the pipeline that do not depend on the run."""
        declared = self.pipeline.pipeline.spec.inputs
        values = {name: spec.default for name, spec in declared.items() if spec.default is not None}
        for name, binding in self.inputs.items():
            values.pop(name, None)
            if not isinstance(binding, (Expression, Template)) and binding is not None:
                values[name] = binding
        return values


def _filled(binding: Expression | Template, variables: Mapping[str, Any]) -> Any:
    try:
        if isinstance(binding, Expression):
            return binding.evaluate(variables, where="the plan")
        return binding.render(variables, where="the plan")
    except PipelineError:
        return SKIPPED


class UseKind(Kind):
    """The kind ``use``, which events call ``pipeline``."""

    name = "pipeline"
    key = "use"
    keys = UseKeys
    other_words = words(use="uses pipeline workflow include subgraph")
    takes = frozenset({"inputs"})
    advice = "write it into that pipeline"
    elsewhere: ClassVar = {
        "prompt": "a pipeline gets its inputs with 'with'",
        "output": "its output is the result of that pipeline",
    }
    picture = Picture(label="pipeline ", fill="#eee7fa")

    def outline(self, file: SourceFile, outline: Outline) -> None:
        """Compile the pipeline; the output is its result."""
        try:
            outline.found = file.use(outline.spec.use)
        except UnusablePath as exc:
            file.report.at_value(exc.message, (*outline.path, "use"), exc.suggestion)
        else:
            outline.single = outline.found.result

    def answers(self, outline: Outline) -> Mapping[str, Answering]:
        """Return the result as a whole, and what the steps inside answer."""
        used: UsedPipeline | None = outline.found
        if used is None or used.compiled is None:
            return {"": Answering("unknown", open=True)}
        inside = {f".{path}": part for path, part in used.answers.items()}
        return {"": Answering("pipeline", type=used.result), **inside}

    def compile(self, file: SourceFile, outline: Outline, view: View) -> Built:
        """Return the pipeline with its inputs, after reporting inputs that it does not take."""
        bound = bind_all(file, outline.spec.inputs, (*outline.path, "with"), view)
        used: UsedPipeline | None = outline.found
        if used is None or used.inputs is None:
            return Built(None, parts_of(bound))
        _check_inputs(file, outline, bound, used)
        if used.compiled is None:
            return Built(None, parts_of(bound))
        inputs = {name: value.binding for name, value in bound.items() if value is not None}
        return Built(CompiledUse(pipeline=used.compiled, inputs=inputs, hears=file.conversation), parts_of(bound))


def _check_inputs(file: SourceFile, outline: Outline, bound: dict[str, Bound | None], used: UsedPipeline) -> None:
    path = (*outline.path, "with")
    declared_inputs = used.inputs or {}
    unknown = misnamed(bound, declared_inputs)
    meant = {name for name, _ in unknown.values()}
    for name, value in bound.items():
        declared = declared_inputs.get(name)
        if declared is None:
            message = f"the pipeline {used.name!r} has no input {name!r}"
            file.report.at_key(message, (*path, name), unknown[name][1])
        elif value is not None and value.literal and value.binding is not None:
            wrong = _wrong_literal(value.binding, declared)
            if wrong is not None:
                what, _, suggestion = wrong.partition("; ")
                file.report.at_value(f"the input {name!r} {what}", (*path, name), suggestion or None)
        elif value is not None and not _fits(value.type, declared):
            message = f"the input {name!r} is a {declared.type}, and this is {describe(value.type)}"
            file.report.at_value(message, (*path, name))
    for name, declared in declared_inputs.items():
        given = bound.get(name)
        absent = name not in bound or (given is not None and given.literal and given.binding is None)
        if declared.required and absent and name not in meant:
            message = f"the pipeline {used.name!r} needs the input {name!r}"
            file.report.at_value(message, (*outline.path, "use"), f"write it under 'with', as in {name}: …")


def _wrong_literal(value: object, spec: InputSpec) -> str | None:
    """Return what is wrong with a literal value for an input, as a clause; ``None`` if it will do."""
    try:
        convert(value, spec)
    except ValueError as exc:
        return str(exc)
    return None


def _fits(kind: StaticType, spec: InputSpec) -> bool:
    """Return whether a value of this type may be given for an input; in doubt it may."""
    if isinstance(kind, Record):
        return spec.type in {"file", "files"}
    if isinstance(kind, ListOf):
        return spec.type in {"list", "files"}
    return True
