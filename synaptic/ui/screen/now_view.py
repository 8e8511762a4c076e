"""How everything stands now, for a terminal: nodes, coordinators with their layers, calls that wait and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from synaptic.text import one_line, plural, seconds, size
from synaptic.ui.screen.coordinator_view import Segment, layer_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from synaptic.ui.screen.coordinator_view import BarGlyphs

Json = dict[str, Any]
_STATES: Final = {"up": "green", "ready": "green", "down": "red", "failed": "red"}
_BARS: Final = "▁▂▃▄▅▆▇█"
_SHOWN_RATES: Final = 40
_SHOWN_CALLS: Final = 10
_NARROW: Final = 80
_NAME_CELLS: Final = 40
_WORDS_CELLS: Final = 300


def now_picture(
    now: Mapping[str, Any], rates: Sequence[float], glyphs: BarGlyphs, *, width: int, plain: bool = False
) -> Group:
    """Return the picture of what ``/ui/now`` tells.

    Args:
        now: What it told.
        rates: Tokens a second, the latest last; those before ``now`` included.
        glyphs: What bars of layers are drawn with.
        width: Of the terminal, in cells.
        plain: Whether to do with ASCII.

    Raises:
        LookupError, TypeError: If it told something else.
    """
    return Group(*_parts(now, rates, glyphs, width=width, plain=plain))


def _parts(
    now: Mapping[str, Any], rates: Sequence[float], glyphs: BarGlyphs, *, width: int, plain: bool
) -> Iterator[RenderableType]:
    yield _headline(now, rates, plain=plain)
    if now["backend"] is None:
        yield Text(f"nothing can serve calls now: {_line(now['error'])}", "red")
    if now["nodes"]:
        yield _nodes(now["nodes"], width, plain=plain)
    for node in now["nodes"]:
        if words := node["reason"] or node["last_error"]:
            name = node["name"].removeprefix("http://")
            yield Text(f"{_line(name)}: {_line(words, _WORDS_CELLS)}", "dim")
    for one in now["coordinators"]:
        yield from _coordinator(one, width, glyphs)
    if now["waiting"]:
        yield _waiting(now["waiting"], width)
    if now["calls"]:
        yield Text()
        for call in now["calls"][:_SHOWN_CALLS]:
            told = f"{_line(call['model'])}: {plural(call['pieces'], 'token')} in {seconds(call['seconds'])}"
            yield Text(f"call of {told}", no_wrap=True, overflow="ellipsis")


def _headline(now: Mapping[str, Any], rates: Sequence[float], *, plain: bool) -> Text:
    flight = sum(node["in_flight"] or 0 for node in now["nodes"]) + sum(one["calls"] for one in now["coordinators"])
    waiting = len(now["waiting"]) + sum(one["waiting"] for one in now["coordinators"])
    head = Text(no_wrap=True, overflow="ellipsis")
    if not plain and len(rates) > 1:
        top = max(*rates, 1.0)
        bars = "".join(_BARS[round(rate / top * (len(_BARS) - 1))] for rate in rates[-_SHOWN_RATES:])
        head.append(f"{bars} ", "cyan")
    if now["tokens_per_second"] is None:
        head.append(f"{plural(len(now['nodes']), 'node')}: what runs on them, a gateway tells (--url)", "dim")
        return head
    head.append(f"{now['tokens_per_second']:.1f} tok/s", "bold")
    head.append(f"  {flight} in flight  {waiting} waiting")
    if now.get("runs"):
        head.append(f"  {plural(len(now['runs']), 'run')}")
    return head


def _nodes(nodes: Sequence[Json], width: int, *, plain: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=False)
    wide = width >= _NARROW
    for name in ("node", "state", "busy", *(("queue", "version") if wide else ()), "in memory", "tok/s"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", justify="right" if name == "tok/s" else "left")
    for node in nodes:
        loaded = [model for model in node["models"] if model["loaded"]]
        first, *others = loaded or [{}]
        own: list[str | Text] = [
            _line(node["name"].removeprefix("http://")),
            Text(_line(node["condition"]), _STATES.get(node["condition"], "yellow")),
            _busy(node, plain=plain),
            *([str(node["queued"] or ""), _line(node["version"] or "")] if wide else []),
        ]
        table.add_row(*own, *_model(first))
        for model in others:
            table.add_row(*([""] * len(own)), *_model(model))
    return table


def _model(model: Mapping[str, Any]) -> tuple[str, str]:
    if not model:
        return "nothing", ""
    weight = f" ({size(model['bytes'])})" if model.get("bytes") else ""
    return f"{_line(model['name'])}{weight}", f"{model['rate']:.1f}" if model.get("rate") else ""


def _busy(node: Mapping[str, Any], *, plain: bool) -> str:
    flight, cap = node["in_flight"], node["cap"] or 0
    if flight is None:
        return ""
    places = min(max(cap, flight), 8)
    on, off = ("#", ".") if plain else ("■", "□")
    return f"{on * min(flight, places)}{off * (places - min(flight, places))} {flight}/{cap}".strip()


def _coordinator(one: Mapping[str, Any], width: int, glyphs: BarGlyphs) -> Iterator[Text]:
    yield Text()
    head = Text(_line(one["model"]), "bold", no_wrap=True, overflow="ellipsis")
    head.append(f"  {_line(one['state'])}", _STATES.get(one["state"], "yellow"))
    rate = f"  {one['rate']:.1f} tok/s" if one["rate"] else ""
    head.append(f"{rate}  {plural(one['calls'], 'call')}, {one['waiting']} waiting", "default not bold")
    yield head
    done = 1.0 if one["progress"] is None else one["progress"]["fraction"]
    parts = [
        Segment(max(1, share["count"]), done, share["lost"], (_line(share["worker"]), str(share["count"])))
        for share in one["layers"]
    ]
    if bar := layer_bar(parts, width, glyphs):
        yield Text(bar, no_wrap=True)
    if one["reason"]:
        yield Text(_line(one["reason"], _WORDS_CELLS), "dim")


def _waiting(calls: Sequence[Json], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", title=None)
    for name in ("waits", "model", *(("step",) if width >= _NARROW else ()), "why"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for call in calls[:_SHOWN_CALLS]:
        step = [_line(call["tag"])] if width >= _NARROW else []
        table.add_row(seconds(call["seconds"]), _line(call["model"]), *step, _line(call["why"], _WORDS_CELLS))
    if len(calls) > _SHOWN_CALLS:
        table.add_row("", f"and {len(calls) - _SHOWN_CALLS} more", *([""] if width >= _NARROW else []), "")
    return table


def _line(text: str, most: int = _NAME_CELLS) -> str:
    return one_line(text, most)
