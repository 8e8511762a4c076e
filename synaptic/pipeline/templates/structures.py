"""Data with templates in it: the values under ``with``, a list to map over, a mapping that is a result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.errors import PipelineError
from synaptic.pipeline.templates.expressions import Expression, Template

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.templates.references import Reference


def fill(binding: Any, variables: Mapping[str, Any], *, where: str) -> Any:
    """Return the data with every template in it filled in; ``where`` names the step in errors.

    Raises:
        PipelineError: If a template has no good value.
    """
    if isinstance(binding, Expression):
        return binding.evaluate(variables, where=where)
    if isinstance(binding, Template):
        return binding.render(variables, where=where)
    if isinstance(binding, dict):
        return {key: fill(value, variables, where=f"{where}.{key}") for key, value in binding.items()}
    if isinstance(binding, list):
        return [fill(value, variables, where=f"{where}[{index}]") for index, value in enumerate(binding)]
    return binding


@dataclass(slots=True, eq=False)
class Structure:
    """A list or a mapping whose values are data, templates and expressions; it is used as an expression is.

    Attributes:
        binding: The data: a ``Template`` or an ``Expression`` stands where something is filled in.
        references: Every reference in it to a name from outside, as often as it occurs.
        sole_reference: ``None``: it is more than one reference.
    """

    binding: Any
    references: tuple[Reference, ...]
    sole_reference: None = None

    @property
    def source(self) -> str:
        """The data on one line, as it is written."""
        return json.dumps(_written(self.binding), ensure_ascii=False)

    def evaluate(self, variables: Mapping[str, Any], *, where: str) -> Any:
        """Return the data, filled in; raises as :func:`fill` does."""
        return fill(self.binding, variables, where=where)

    def so_far(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return a mapping as far as it can be filled in; ``None`` stands where something is not there yet."""
        found = {}
        for key, value in self.binding.items():
            try:
                found[key] = fill(value, variables, where=key)
            except PipelineError:
                found[key] = None
        return found

    def known(self, inputs: Mapping[str, Any]) -> Any:
        """Return the value before a run; ``None`` stands for each part that these ``inputs`` do not decide."""
        return _known(self.binding, inputs)


def _known(binding: Any, inputs: Mapping[str, Any]) -> Any:
    if isinstance(binding, dict):
        return {key: _known(value, inputs) for key, value in binding.items()}
    if isinstance(binding, list):
        return [_known(value, inputs) for value in binding]
    if isinstance(binding, Template):
        return None
    return binding.known(inputs) if isinstance(binding, Expression) else binding


def _written(binding: Any) -> Any:
    if isinstance(binding, dict):
        return {key: _written(value) for key, value in binding.items()}
    if isinstance(binding, list):
        return [_written(value) for value in binding]
    if isinstance(binding, Expression):
        return f"{{{{ {binding.source} }}}}"
    return binding.source if isinstance(binding, Template) else binding
