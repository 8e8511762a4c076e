"""A step with ``tool``: a call of a Python function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.kind import Kind, Picture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.agents import Shape
    from synaptic.pipeline.graph import Binding
    from synaptic.pipeline.tools import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTool(Work):
    """A call of a Python function; ``shape``, where given, is what its output is checked against."""

    kind: ClassVar[str] = "tool"
    tool: Tool
    arguments: Mapping[str, Binding]
    shape: Shape | None = None

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool.name


class ToolKind(Kind):
    """The kind ``tool``."""

    name = "tool"
    picture = Picture(label="tool ", fill="#e2f3e3", outline="barred", mermaid=("[[", "]]"), dot="shape=component")
