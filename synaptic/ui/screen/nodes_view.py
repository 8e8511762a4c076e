"""How nodes are shown: the table of how each stands, and what a look at them told. Pure functions over plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

from synaptic.text import latency, one_line, plural, printable, seconds, size, without_subject
from synaptic.ui.screen.output import table_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.backends.pool import Inspection, ModelStatus, NodeStatus

Rows = list[tuple[str, ...]]

NODE_HEADERS: Final = (
    "node",
    "state",
    "version",
    "busy",
    "queue",
    "errors",
    "model",
    "vram",
    "ttft",
    "tok/s",
    "about",
)
"""``busy`` is calls in flight of the most there may be, and those of other programs; ``ttft`` is the learned time to
the first token."""

_SACRIFICED: Final = ("version", "errors", "queue", "vram", "ttft", "tok/s")
"""What a narrow terminal does without, in this order."""

_ABOUT_CELLS: Final = 24
_NAME_CELLS: Final = 40
_REASON_CELLS: Final = 200
_NOTHING: Final = "–"


def status_table(statuses: Sequence[NodeStatus], width: int | None = None) -> tuple[tuple[str, ...], Rows]:
    """Return headers and rows of the table of nodes: one row a node, and one more for each further model.

    Args:
        statuses: The nodes.
        width: Of the terminal, in cells; what does not fit is left out. ``None`` leaves nothing out.
    """
    rows = [row for status in statuses for row in _rows(status)]
    headers = list(NODE_HEADERS)
    for name in _SACRIFICED:
        if width is None or _cells(headers, rows) + _ABOUT_CELLS <= width:
            break
        index = headers.index(name)
        del headers[index]
        rows = [row[:index] + row[index + 1 :] for row in rows]
    return tuple(headers), rows


def status_lines(statuses: Sequence[NodeStatus], width: int) -> list[str]:
    """Return the lines of the table of nodes on a terminal of this width, in cells."""
    headers, rows = status_table(statuses, width)
    return table_lines(headers, [[printable(cell) for cell in row] for row in rows], width)


def check_lines(inspection: Inspection) -> Iterator[str]:
    """Yield what a look at one node told: how it is, its models and where they are loaded, and what to do."""
    node = inspection.node
    word = "ok" if inspection.well else "down" if inspection.version is None else "problem"
    name = f"{node.name} ({node.url})" if node.name else node.url
    facts = [
        without_subject(inspection.reason, node.url),
        f"Ollama {inspection.version}" if inspection.version else "",
        plural(len(inspection.models), "model") if inspection.models else "",
        f"answers in {latency(inspection.seconds)}" if inspection.seconds is not None else "",
    ]
    yield f"{word:<8}{name}: {', '.join(fact for fact in facts if fact)}"
    for model in inspection.models:
        yield f"{'':8}  {model.name}{_model_facts(model)}"
    if inspection.hint:
        yield f"{'':8}fix: {inspection.hint}"


def models_word(inspection: Inspection) -> str:
    """Return what models a node has, in a few words."""
    names = [model.name for model in inspection.models]
    return ", ".join(names) if names else inspection.reason


def loaded_share(model: ModelStatus) -> str:
    """Return how much of a loaded model is in video memory: ``100 %``, ``62 %``, ``0 % (CPU)``."""
    if not model.loaded:
        return ""
    if model.vram_share is None:
        return "?"
    return f"{model.vram_share:.0%}".replace("%", " %") + ("" if model.vram_share else " (CPU)")


def _rows(status: NodeStatus) -> Rows:
    models = [model for model in status.models if model.loaded or model.samples or model.note]
    # Loaded ones first: they are what is looked for.
    models.sort(key=lambda model: (not model.loaded, model.name))
    rows = [_model_cells(model) for model in models] or [(_none_loaded(status), "", "", "", "")]
    own = (
        one_line(status.name.removeprefix("http://"), _NAME_CELLS),
        status.condition,
        status.version or _NOTHING,
        _busy(status),
        str(status.queued),
        str(status.errors),
    )
    blank = ("",) * len(own)
    first, *others = rows
    about = "; ".join(part for part in (_about(status), first[-1]) if part)
    return [(*own, *first[:-1], about), *((*blank, *row) for row in others)]


def _model_cells(model: ModelStatus) -> tuple[str, ...]:
    return (
        one_line(model.name, _NAME_CELLS) if model.loaded else f"({one_line(model.name, _NAME_CELLS)})",
        loaded_share(model),
        latency(model.first_token) if model.first_token is not None else "",
        f"{model.output_rate:.1f}" if model.output_rate is not None else "",
        f"{model.name}: {one_line(model.note)}" if model.note else "",
    )


def _none_loaded(status: NodeStatus) -> str:
    if not status.models:
        return _NOTHING
    return f"none of {len(status.models)} loaded"


def _busy(status: NodeStatus) -> str:
    if status.condition == "down":
        return f"{status.in_flight}/{status.limit}"
    lowered = f" ({status.limit})" if status.cap != status.limit else ""
    others = f" +{status.elsewhere}" if status.elsewhere else ""
    return f"{status.in_flight}/{status.cap}{lowered}{others}"


def _about(status: NodeStatus) -> str:
    """Return why the node is not up, else the latest failure."""
    if status.condition == "up" or not status.reason:
        last = f"last error: {one_line(status.last_error, _REASON_CELLS)}" if status.last_error else ""
        return last or one_line(status.reason, _REASON_CELLS)
    again = f" (next look in {seconds(status.probe_in)})" if status.probe_in is not None else ""
    return one_line(status.reason, _REASON_CELLS) + again


def _model_facts(model: ModelStatus) -> str:
    facts = [
        size(model.size_bytes) if model.size_bytes else "",
        f"loaded, {loaded_share(model)} in video memory" if model.vram_share is not None else "",
        "loaded" if model.loaded and model.vram_share is None else "",
        f"context {model.context_length}" if model.context_length else "",
        f"calls ask for {model.asked_context or 'no'} context ({model.asked_why})" if model.asked_why else "",
    ]
    text = ", ".join(fact for fact in facts if fact)
    return f": {text}" if text else ""


def _cells(headers: Sequence[str], rows: Rows) -> int:
    """Return the width of all columns but the last, with the gaps after them."""
    return sum(max(cell_len(row[index]) for row in (tuple(headers), *rows)) + 2 for index in range(len(headers) - 1))
