"""A compiled pipeline as a drawing: for a terminal, for Markdown (Mermaid), for Graphviz, or as a picture (SVG)."""

from synaptic.pipeline.drawing.diagram import (
    FORMATS,
    RESULT,
    Diagram,
    Edge,
    Format,
    Node,
    Scope,
    Shape,
    diagram,
    draw,
    layered,
)

__all__ = ["FORMATS", "RESULT", "Diagram", "Edge", "Format", "Node", "Scope", "Shape", "diagram", "draw", "layered"]
