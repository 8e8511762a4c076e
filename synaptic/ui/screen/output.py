"""What commands print on stdout: tables that people read and programs can cut, and JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from synaptic.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = "  "
_NARROWEST_LAST_COLUMN = 12
_LABEL = 10
_USUAL_WIDTH = 80


def write_json(document: Any, out: TextIO | None = None) -> None:
    """Print one JSON document."""
    print(json.dumps(document, ensure_ascii=False, indent=2, default=str), file=out or sys.stdout)


def write_text(text: str, out: TextIO | None = None) -> None:
    """Print a text with exactly one newline at its end; for a terminal without control characters."""
    out = out or sys.stdout
    clean = printable(text) if out.isatty() else text
    print(clean.rstrip("\n"), file=out)


def write_paragraph(label: str, text: str, out: TextIO | None = None) -> None:
    """Print a text behind its label, if it has one; on a terminal it is wrapped."""
    out = out or sys.stdout
    indent = " " * _LABEL if label else ""
    width = max(terminal_width(out) - len(indent), _NARROWEST_LAST_COLUMN) if out.isatty() else None
    first, *others = _wrapped(printable(text), width)
    print(f"{label:<{len(indent)}}{first}", file=out)
    for other in others:
        print(f"{indent}{other}", file=out)


def terminal_width(out: TextIO) -> int:
    """Return the width of a terminal in cells; 80 where it does not say."""
    try:
        return os.get_terminal_size(out.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):
        return _USUAL_WIDTH


def write_table(headers: Sequence[str], rows: Iterable[Sequence[str]], out: TextIO | None = None) -> None:
    """Print aligned columns; on a terminal the last one is wrapped, elsewhere every row is one line."""
    out = out or sys.stdout
    width = terminal_width(out) if out.isatty() else None
    for line in table_lines(headers, [[printable(cell) for cell in row] for row in rows], width):
        print(line, file=out)


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table; ``width`` is in cells, ``None`` does not wrap."""
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415 - the help prints no tables

    table = [[title.upper() for title in headers], *(["\n".join(cell.splitlines()) for cell in row] for row in rows)]
    sizes = [max(cell_len(row[index]) for row in table) for index in range(len(headers) - 1)]
    indent = sum(sizes) + len(_GAP) * len(sizes)
    lines: list[str] = []
    for row in table:
        start = "".join(set_cell_size(cell, cells) + _GAP for cell, cells in zip(row, sizes, strict=False))
        first, *others = _wrapped(row[-1], None if width is None else max(width - indent, _NARROWEST_LAST_COLUMN))
        lines.append((start + first).rstrip())
        lines += [" " * indent + other for other in others]
    return lines


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None:
        return [" ".join(text.split())]
    import textwrap  # noqa: PLC0415

    return textwrap.wrap(text, width) or [""]
