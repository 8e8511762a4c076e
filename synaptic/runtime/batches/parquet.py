"""Parquet in the place of JSON lines: a table of inputs, a table of results. pyarrow is loaded for nothing else."""

from __future__ import annotations

import io
import json
import re
from datetime import date, time, timedelta
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import Problem, UsageError
from synaptic.text import did_you_mean, one_line, read_data, size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

SUFFIX: Final = ".parquet"
ROWS_AT_ONCE: Final = 256
MOST_ROWS: Final = 10_000_000
"""A table of a few hundred bytes may have any number of rows, of any length: what is repeated is in it once."""

_TEXT: Final = "string"
_INDEX: Final = re.compile(r"__index_level_[0-9]+__")
_COLUMNS: Final[Mapping[str, Any]] = {
    "key": _TEXT,
    "line": "int64",
    "run_id": _TEXT,
    "status": _TEXT,
    "stop_reason": _TEXT,
    "answer": _TEXT,
    "usage": dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens"), "int64"),
    "error": dict.fromkeys(("type", "message", "step"), _TEXT),
    "seconds": "float64",
    "made_by": _TEXT,
}
"""Those of a table of results, which are the same whatever the pipeline: what models say decides no type."""


def is_table(file: Path) -> bool:
    """Return whether a file is one by its name."""
    return file.suffix.lower() == SUFFIX


def check_tables() -> None:
    """See to it that tables can be read and written.

    Raises:
        UsageError: If pyarrow is not installed.
    """
    try:
        import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise UsageError("Parquet needs pyarrow", hint="pip install 'synapticllamas[parquet]'") from error


def input_lines(file: Path, inputs: Collection[str], *, limit: int) -> list[str]:
    """Return the rows of a table of inputs as lines of JSON: an object of what is not null each.

    Args:
        file: A column is an input; dates and times become ISO 8601, decimals numbers. pandas' index is none.
        inputs: The names of those that there are.
        limit: Bytes of the file.

    Raises:
        UsageError: If it cannot be read, is no table, has what is no JSON, or a column that is no input.
    """
    lines = []
    rows = [
        {name: value for name, value in row.items() if value is not None and not _INDEX.fullmatch(name)}
        for row in _rows(file, "batch", limit)
    ]
    if others := [name for name in dict.fromkeys(name for row in rows for name in row) if name not in inputs]:
        hint = f"leave it out; the inputs are: {', '.join(inputs) or 'none'}"
        raise UsageError.of([
            Problem(f"the column {name!r} is no input", str(file), suggestion=did_you_mean(name, inputs, listing=hint))
            for name in others
        ])  # fmt: skip
    for number, given in enumerate(rows, 1):
        try:
            lines.append(json.dumps(given, ensure_ascii=False, default=_plain))
        except TypeError as error:
            raise UsageError(f"{file}:{number}: {error}", hint="write such a column as text") from error
    return lines


def result_rows(file: Path, *, limit: int) -> list[dict[str, Any]]:
    """Return the rows of a table of results.

    Raises:
        UsageError: If it cannot be read, or is no table.
    """
    return _rows(file, "result", limit)


def result_table(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a table of results as a file; an answer that is no text is text of JSON there."""
    arrow = import_module("pyarrow")
    schema = arrow.schema([(name, _type(arrow, kind)) for name, kind in _COLUMNS.items()])
    plain = [{**row, "answer": _text(row["answer"])} for row in rows]
    file = io.BytesIO()
    import_module("pyarrow.parquet").write_table(arrow.Table.from_pylist(plain, schema), file, compression="zstd")
    return file.getvalue()


def _rows(file: Path, what: str, limit: int) -> list[dict[str, Any]]:
    check_tables()
    data = read_data(file, what, UsageError, limit=limit)
    arrow = import_module("pyarrow")
    try:
        table = import_module("pyarrow.parquet").ParquetFile(arrow.BufferReader(data))
        rows: list[dict[str, Any]] = []
        unpacked = 0
        for some in table.iter_batches(ROWS_AT_ONCE):
            unpacked += some.nbytes
            if unpacked > limit or len(rows) > MOST_ROWS:
                most = f"{size(limit)} or {MOST_ROWS} rows"
                raise UsageError(f"{file} is too long: unpacked, it has more than {most}", hint="divide it")
            rows += some.to_pylist()
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{file} is no Parquet file that can be read: {one_line(str(error))}") from error
    return rows


def _type(arrow: Any, kind: str | Mapping[str, str]) -> Any:
    if isinstance(kind, str):
        return arrow.type_for_alias(kind)
    return arrow.struct([(name, arrow.type_for_alias(inner)) for name, inner in kind.items()])


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _plain(value: object) -> Any:
    """Return what JSON has in the place of a value that it has not.

    Raises:
        TypeError: If it has nothing.
    """
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"JSON has nothing for {type(value).__name__}")
