"""Tools: Python functions of the person's own that a pipeline may call, with typed arguments."""

from synaptic.pipeline.tools.functions import (
    LATER,
    TEXT_LATER,
    Complaint,
    Later,
    Parameter,
    Tool,
    discover_tools,
    named_tools,
    tool,
    tool_name,
)

__all__ = [
    "LATER",
    "TEXT_LATER",
    "Complaint",
    "Later",
    "Parameter",
    "Tool",
    "discover_tools",
    "named_tools",
    "tool",
    "tool_name",
]
