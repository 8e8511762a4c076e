"""What commands print on stdout: tables that people read and programs can cut, and JSON."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from synaptic.text import printable, printable_json
from synaptic.ui.screen.wrap import for_person, in_words, width_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = 2
_NARROWEST = 12
_UNLIMITED = 1_000_000
_WORDS = re.compile(r"(?<=\S)\s+")  # the indent belongs to the first
_LABEL = 10
_USUAL_WIDTH = 80


def json_text(document: Any) -> str:
    """Return data as JSON that people read, too."""
    return json.dumps(document, ensure_ascii=False, indent=2, default=str)


def as_text(value: Any) -> str:
    """Return a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json_text(value)


def write_json(document: Any, out: TextIO | None = None) -> None:
    """Print one JSON document, in UTF-8 whatever the locale."""
    out = out or sys.stdout
    text = json_text(document)
    # A lone surrogate is written as JSON escapes it.
    _write_utf8(printable_json(text) if out.isatty() else text, out, "backslashreplace")


def write_document(text: str, out: TextIO | None = None) -> None:
    """Print what is a file somewhere, or will be one: in UTF-8 whatever the locale, with one newline at its end."""
    out = out or sys.stdout
    clean = printable(text) if out.isatty() else text
    _write_utf8(clean.rstrip("\n"), out, "replace")


def write_text(text: str, out: TextIO | None = None) -> None:
    """Print a text with exactly one newline at its end; for a terminal in words and without control characters."""
    out = out or sys.stdout
    shown = for_person(printable(text), out) if out.isatty() else text
    print(shown.rstrip("\n"), file=out)


def write_paragraph(label: str, text: str, out: TextIO | None = None) -> None:
    """Print a text behind its label, if it has one; on a terminal it is wrapped."""
    out = out or sys.stdout
    indent = " " * _LABEL if label else ""
    width = max(terminal_width(out) - len(indent), _NARROWEST) if out.isatty() else None
    first, *others = _wrapped(printable(text), width)
    print(f"{label:<{len(indent)}}{first}", file=out)
    for other in others:
        print(f"{indent}{other}", file=out)


def terminal_width(out: TextIO) -> int:
    """Return the width of a terminal in cells; 80 where it does not say."""
    return width_of(out) or _USUAL_WIDTH


def write_table(headers: Sequence[str], rows: Iterable[Sequence[str]], out: TextIO | None = None) -> None:
    """Print aligned columns, folded to the width of a terminal; elsewhere every row is one line."""
    out = out or sys.stdout
    width = terminal_width(out) if out.isatty() else None
    for line in table_lines(headers, [[printable(cell) for cell in row] for row in rows], width):
        print(line, file=out)


def table_lines(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Return the lines of a table, aligned in columns.

    Args:
        headers: One a column, or none at all.
        rows: Texts; markup in them is text.
        width: In cells: cells are wrapped to fit, the widest column first, and words broken in the last column only.
            Lines are longer where that is not enough. ``None`` keeps every row on one line.
    """
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=bool(headers))
    shown = [[cell if width else " ".join(cell.splitlines()) for cell in row] for row in rows]
    columns = list(zip(*([headers] if headers else []), *shown, strict=True))
    for cells, cells_wide in zip(columns, _widths(columns, width or _UNLIMITED), strict=True):
        table.add_column(Text(cells[0].upper() if headers else ""), overflow="fold", width=cells_wide)
    for row in shown:
        table.add_row(*map(Text, row))
    console = Console(width=_UNLIMITED, color_system=None)
    with console.capture() as captured:
        console.print(table, crop=False)
    return [line.rstrip() for line in captured.get().splitlines()]


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how wide each column is: what exceeds ``width`` is taken from the widest that has words to break.

    Rich's own way takes from columns that cannot give anything, and so gets lines that are longer than the terminal.
    """
    widths = [max((cell_len(line) for cell in cells for line in cell.splitlines()), default=0) for cells in columns]
    words = [max((cell_len(word) for cell in cells for word in _WORDS.split(cell)), default=0) for cells in columns]
    least = [*words[:-1], *(min(longest, _NARROWEST) for longest in words[-1:])]
    for _ in range(sum(widths) + _GAP * (len(widths) - 1) - width):
        wide = max(
            (number for number, cells in enumerate(widths) if cells > least[number]),
            key=widths.__getitem__,
            default=None,
        )
        if wide is None:
            break
        widths[wide] -= 1
    return widths


def _write_utf8(text: str, out: TextIO, errors: str) -> None:
    if isinstance(out, io.TextIOWrapper):
        out.flush()
        out.buffer.write(f"{text}\n".encode(errors=errors))
        out.buffer.flush()
    else:
        print(text, file=out)


def _wrapped(text: str, width: int | None) -> list[str]:
    line = " ".join(text.split())
    return [line] if width is None else in_words(line, width).split("\n")
