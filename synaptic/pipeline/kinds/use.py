"""A step with ``use``: another pipeline, which gets inputs and gives its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from synaptic.pipeline.graph import Inside, Work
from synaptic.pipeline.kinds.kind import Kind, Picture
from synaptic.pipeline.templates import Expression, Template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.graph import Binding, CompiledPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledUse(Work):
    """Another pipeline with its inputs. The output is its result: a sole reference gives the value itself."""

    kind: ClassVar[str] = "pipeline"
    pipeline: CompiledPipeline
    inputs: Mapping[str, Binding]

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
        return Inside(self.pipeline.graph, inputs=self.known_inputs(), concurrency=self.pipeline.concurrency)

    @property
    def answer(self) -> str | None:
        """Where the text of the pipeline's result is written."""
        return self.pipeline.answer

    def known_inputs(self) -> dict[str, Any]:
        """Return those inputs of the pipeline that do not depend on the run."""
        declared = self.pipeline.pipeline.spec.inputs
        values = {name: spec.default for name, spec in declared.items() if spec.default is not None}
        for name, binding in self.inputs.items():
            values.pop(name, None)
            if not isinstance(binding, (Expression, Template)) and binding is not None:
                values[name] = binding
        return values


class UseKind(Kind):
    """The kind ``use``, which events call ``pipeline``."""

    name = "pipeline"
    picture = Picture(label="pipeline ", fill="#eee7fa")
