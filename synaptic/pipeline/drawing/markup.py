"""A diagram in the languages of other programs: Mermaid (https://mermaid.js.org) and DOT (https://graphviz.org/doc)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.drawing.diagram import Chart, Diagram, Edge, Node

_INDENT: Final = "  "

_MERMAID_CLASSES: Final = {"critical": "stroke-width:3px", "optional": "stroke-dasharray:5 3"}
# Anything else becomes a numeric entity: quotes and '#' would end a label, '1.' and '-' would begin a list in it,
# '`', '*' and '_' (but inside a word) are Markdown.
_MERMAID_PLAIN: Final = frozenset(" ,()/:×≤←…")


def mermaid(diagram: Diagram) -> str:
    """Return the diagram as a Mermaid flowchart. Names and descriptions can hold anything."""
    names = {path: f"n{index}" for index, path in enumerate(_paths(diagram.scope))}
    lines = ["flowchart TD", f"{_INDENT}accTitle: {_plain_words(diagram.name)}"]
    if diagram.description:
        lines.append(f"{_INDENT}accDescr: {_plain_words(diagram.description)}")
    lines += _mermaid_scope(diagram.scope, names, _INDENT)
    nodes = list(_walk(diagram.scope))
    for name, style in _MERMAID_CLASSES.items():
        members = [names[node.path] for node in nodes if getattr(node, name)]
        if members:
            lines += [f"{_INDENT}classDef {name} {style}", f"{_INDENT}class {','.join(members)} {name}"]
    thick = [str(index) for index, edge in enumerate(_all_edges(diagram.scope)) if edge.critical]
    if thick:
        lines.append(f"{_INDENT}linkStyle {','.join(thick)} stroke-width:3px")
    return "\n".join([*lines, ""])


def _mermaid_scope(scope: Chart, names: dict[str, str], indent: str) -> Iterator[str]:
    for node in scope.nodes:
        name, label = names[node.path], "<br/>".join(_entities(line) for line in (node.name, *node.lines))
        if node.inside is None:
            before, after = node.picture.mermaid
            yield f'{indent}{name}{before}"{label}"{after}'
        else:
            yield f'{indent}subgraph {name}["{label}"]'
            yield from _mermaid_scope(node.inside, names, indent + _INDENT)
            yield f"{indent}end"
    for edge in scope.edges:
        arrow = "-.->" if edge.fallback else "-->"
        label = f'|"{_entities(edge.label)}"|' if edge.label else ""
        yield f"{indent}{names[edge.source]} {arrow}{label} {names[edge.target]}"


def _entities(text: str) -> str:
    """Return the text as the inside of a quoted label; what could mean something becomes ``#35;``."""
    return "".join(
        character if _is_plain(text, index) else f"#{ord(character)};"
        for index, character in enumerate(text)
        if character.isprintable()
    )


def _is_plain(text: str, index: int) -> bool:
    character = text[index]
    inside_word = character == "_" and text[index - 1 : index].isalnum() and text[index + 1 : index + 2].isalnum()
    return character.isalnum() or character in _MERMAID_PLAIN or inside_word


def _plain_words(text: str) -> str:
    """Return the text as a line that has no quotes around it: letters, digits and harmless signs alone."""
    kept = "".join(character if character.isalnum() or character in " ,.()-_'" else " " for character in text)
    return " ".join(kept.split())


def dot(diagram: Diagram) -> str:
    """Return the diagram as a directed graph of Graphviz. Names and descriptions can hold anything."""
    lines = [
        f"digraph {_quoted(diagram.name)} {{",
        f"{_INDENT}graph [compound=true, rankdir=TB, tooltip={_quoted(diagram.description)}];",
        f'{_INDENT}node [fontname="sans-serif", fontsize=11];',
        f'{_INDENT}edge [fontname="sans-serif", fontsize=9];',
        *_dot_scope(diagram.scope, _INDENT),
        "}",
    ]
    return "\n".join([*lines, ""])


def _dot_scope(scope: Chart, indent: str) -> Iterator[str]:
    for node in scope.nodes:
        label = _quoted("\n".join((node.name, *node.lines)))
        looks = ["penwidth=2.5"] if node.critical else []
        if node.inside is None:
            looks += ["peripheries=2"] if node.many else []
            shape = node.picture.dot
            if node.optional and "style=" in shape:
                shape = shape.replace("rounded", "rounded,dashed")
            elif node.optional:
                shape = f"{shape}, style=dashed"
            yield f"{indent}{_quoted(node.path)} [{', '.join([f'label={label}', shape, *looks])}];"
        else:
            style = "dashed" if node.optional else "rounded"
            yield f"{indent}subgraph {_quoted('cluster_' + node.path)} {{"
            yield f"{indent}{_INDENT}graph [{', '.join([f'label={label}', f'style={style}', *looks])}];"
            yield from _dot_scope(node.inside, indent + _INDENT)
            yield f"{indent}}}"
    inner = {node.path: node.inside for node in scope.nodes if node.inside is not None}
    for edge in scope.edges:
        yield f"{indent}{_dot_edge(edge, inner)}"


def _dot_edge(edge: Edge, inner: dict[str, Chart]) -> str:
    """Return an arrow; one to or from a cluster is tied to a node in it and cut at its border."""
    looks = [f"label={_quoted(edge.label)}"] if edge.label else []
    looks += ["style=dashed"] if edge.fallback else []
    looks += ["penwidth=2.5"] if edge.critical else []
    tail, head = edge.source, edge.target
    if tail in inner:
        looks.append(f"ltail={_quoted('cluster_' + tail)}")
        tail = _leaf(inner[tail], -1)
    if head in inner:
        looks.append(f"lhead={_quoted('cluster_' + head)}")
        head = _leaf(inner[head], 0)
    attributes = f" [{', '.join(looks)}]" if looks else ""
    return f"{_quoted(tail)} -> {_quoted(head)}{attributes};"


def _leaf(scope: Chart, index: int) -> str:
    """Return the path of the first (0) or last (-1) node that is not a cluster."""
    node = scope.nodes[index]
    return node.path if node.inside is None else _leaf(node.inside, index)


def _quoted(text: str) -> str:
    """Return a quoted string of DOT; backslashes and quotes in it are text, line ends break the line."""
    clean = "".join(character for character in text if character.isprintable() or character == "\n")
    escaped = clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _walk(scope: Chart) -> Iterator[Node]:
    for node in scope.nodes:
        yield node
        if node.inside is not None:
            yield from _walk(node.inside)


def _paths(scope: Chart) -> Iterator[str]:
    return (node.path for node in _walk(scope))


def _all_edges(scope: Chart) -> Iterator[Edge]:
    """Yield the arrows in the order in which they are written: those of what is inside a node before its scope's."""
    for node in scope.nodes:
        if node.inside is not None:
            yield from _all_edges(node.inside)
    yield from scope.edges
