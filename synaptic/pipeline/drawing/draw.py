"""The text of a drawing, in each of the formats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from synaptic.pipeline.drawing.diagram import diagram
from synaptic.pipeline.drawing.markup import dot, mermaid
from synaptic.pipeline.drawing.svg import svg
from synaptic.pipeline.drawing.text import text
from synaptic.pipeline.graph_theory import node_link, plan_graph
from synaptic.pipeline.plan import overview_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.pipeline.drawing.diagram import Diagram
    from synaptic.pipeline.graph import CompiledPipeline

Format: TypeAlias = Literal["text", "mermaid", "dot", "svg", "json"]
FORMATS: Final[tuple[Format, ...]] = ("text", "mermaid", "dot", "svg", "json")

_WITHOUT_WIDTH: Final[dict[str, Callable[[Diagram], str]]] = {"mermaid": mermaid, "dot": dot, "svg": svg}


def draw(compiled: CompiledPipeline, form: Format, *, width: int = 80) -> str:
    """Return the drawing of a pipeline, ending in a newline.

    Args:
        compiled: The pipeline.
        form: ``text`` for people at a terminal, ``svg`` for pages; ``mermaid`` and ``dot`` for other programs; ``json``
            is the graph as networkx's node-link data, which ``networkx.node_link_graph(data, edges="edges")`` reads.
        width: Cells a line, of ``text``.
    """
    if form == "json":
        return json.dumps(node_link(plan_graph(overview_rows(compiled))), indent=2, ensure_ascii=False) + "\n"
    picture = diagram(compiled)
    return text(picture, width) if form == "text" else _WITHOUT_WIDTH[form](picture)
