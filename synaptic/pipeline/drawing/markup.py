"""A diagram in the languages of other programs: Mermaid (https://mermaid.js.org) and DOT (https://graphviz.org/doc)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.pipeline.drawing.diagram import AGAIN, CRITICAL, INK, LINE_COLOUR, Edge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synaptic.pipeline.drawing.diagram import Chart, Diagram, Node

_INDENT: Final = "  "

_MERMAID_CLASSES: Final = {"critical": "stroke-width:3px", "optional": "stroke-dasharray:5 3"}
_MERMAID_NOTE: Final = "fill:none,stroke:none"
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
    notes = [_note_name(names[node.path]) for node in nodes if _note(node)]
    if notes:
        lines += [f"{_INDENT}classDef note {_MERMAID_NOTE}", f"{_INDENT}class {','.join(notes)} note"]
    arrows = enumerate(_arrows(diagram.scope))
    thick = [str(index) for index, edge in arrows if edge is not None and edge.critical]
    if thick:
        lines.append(f"{_INDENT}linkStyle {','.join(thick)} stroke-width:3px")
    return "\n".join([*lines, ""])


def _mermaid_scope(scope: Chart, names: dict[str, str], indent: str) -> Iterator[str]:
    for node in scope.nodes:
        name = names[node.path]
        if node.inside is None:
            before, after = node.picture.mermaid
            yield f'{indent}{name}{before}"{_mermaid_label((node.name, *node.lines))}"{after}'
        else:
            yield from _mermaid_frame(node, node.inside, names, indent)
        if node.way_back is not None:
            end, begin = node.way_back
            yield f'{indent}{names[end]} -->|"{AGAIN}"| {names[begin]}'
    for edge in scope.edges:
        arrow = "-.->" if edge.fallback else "-->"
        label = f'|"{_entities(edge.label)}"|' if edge.label else ""
        yield f"{indent}{names[edge.source]} {arrow}{label} {names[edge.target]}"


def _mermaid_frame(node: Node, inside: Chart, names: dict[str, str], indent: str) -> Iterator[str]:
    """Yield a node with others inside: Mermaid has room for a title of one line, and the rest is a note below it."""
    name, note, deeper = names[node.path], _note(node), indent + _INDENT
    yield f'{indent}subgraph {name}["{_entities(": ".join((node.name, *node.lines[:1])))}"]'
    yield f"{deeper}direction TB"
    if note:
        yield f'{deeper}{_note_name(name)}["{_mermaid_label(note)}"]'
    yield from _mermaid_scope(inside, names, deeper)
    if note:
        yield f"{deeper}{_note_name(name)} ~~~ {names[inside.nodes[0].path]}"
    yield f"{indent}end"


def _note(node: Node) -> tuple[str, ...]:
    return node.lines[1:] if node.inside is not None and node.inside.nodes else ()


def _note_name(name: str) -> str:
    return f"{name}t"


def _mermaid_label(lines: Iterable[str]) -> str:
    """Return lines as the inside of a quoted label; Mermaid breaks long ones itself."""
    return "<br/>".join(map(_entities, lines))


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
    font = f'fontname="sans-serif", fontcolor="{INK}"'
    head = f"compound=true, rankdir=TB, fontsize=11, {font}, tooltip={_quoted(diagram.description)}"
    lines = [
        f"digraph {_quoted(diagram.name)} {{",
        f"{_INDENT}graph [{head}];",
        f'{_INDENT}node [{font}, fontsize=11, color="{LINE_COLOUR}", style=filled];',
        f'{_INDENT}edge [{font}, fontsize=9, color="{LINE_COLOUR}"];',
        *_dot_scope(diagram.scope, _INDENT),
        "}",
    ]
    return "\n".join([*lines, ""])


def _dot_scope(scope: Chart, indent: str) -> Iterator[str]:
    for node in scope.nodes:
        if node.inside is None:
            looks = [f"shape={node.picture.dot}", *_dot_looks(node), *(["peripheries=2"] if node.many else [])]
            yield f"{indent}{_quoted(node.path)} [{', '.join(looks)}];"
        else:
            yield f"{indent}subgraph {_quoted('cluster_' + node.path)} {{"
            yield f"{indent}{_INDENT}graph [{', '.join(_dot_looks(node))}];"
            yield from _dot_scope(node.inside, indent + _INDENT)
            yield f"{indent}}}"
        if node.way_back is not None:
            yield f"{indent}{_dot_way_back(scope, node)}"
    inner = _inner(scope)
    for edge in scope.edges:
        yield f"{indent}{_dot_edge(edge, inner)}"


def _dot_looks(node: Node) -> list[str]:
    """Return the attributes of a node or a cluster: what is written in it, and how its border and its ground look."""
    rounded = ["rounded"] if node.inside is not None or node.picture.dot == "box" else []
    style = ",".join(["filled", *rounded, *(["dashed"] if node.optional else [])])
    looks = [f"label={_quoted(chr(10).join(node.label))}", f'style="{style}"', f'fillcolor="{node.picture.fill}"']
    border = CRITICAL if node.critical else LINE_COLOUR
    return [*looks, f'color="{border}"', *(["penwidth=2.5"] if node.critical else [])]


def _dot_way_back(scope: Chart, node: Node) -> str:
    """Return the arrow of a loop to its next round, which moves nothing."""
    end, begin = node.way_back or ("", "")
    edge = Edge(source=end, target=begin, label=AGAIN)
    return _dot_edge(edge, _inner(node.inside or scope), "constraint=false", 'style="dotted"')


def _inner(scope: Chart) -> dict[str, Chart]:
    return {node.path: node.inside for node in scope.nodes if node.inside is not None}


def _dot_edge(edge: Edge, inner: dict[str, Chart], *more: str) -> str:
    """Return an arrow; one to or from a cluster is tied to a node in it and cut at its border."""
    looks = [f"label={_quoted(edge.label)}"] if edge.label else []
    looks += ["style=dashed"] if edge.fallback else []
    looks += [f'color="{CRITICAL}"', "penwidth=2.5"] if edge.critical else []
    looks += more
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


def _arrows(scope: Chart) -> Iterator[Edge | None]:
    """Yield the arrows in the order in which they are written, ``None`` for a loop's way back and what holds a note.

    Those of what is inside a node come before its scope's.
    """
    for node in scope.nodes:
        if node.inside is not None:
            yield from _arrows(node.inside)
        if _note(node):
            yield None
        if node.way_back is not None:
            yield None
    yield from scope.edges
