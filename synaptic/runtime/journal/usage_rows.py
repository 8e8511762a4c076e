"""The calls of a gateway's clients as rows: one for each, and their sums by what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from synaptic.processes import transaction
from synaptic.quick_init import quick_init
from synaptic.runtime.journal.row_seal import CALL, seal_of, teach_seals

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

CallStatus: TypeAlias = Literal["succeeded", "failed", "cancelled"]
"""How a call ended; ``cancelled`` is one whose client left before its end."""

UsageColumn: TypeAlias = Literal["key", "model", "dialect", "node", "status", "day"]
USAGE_COLUMNS: Final[tuple[UsageColumn, ...]] = get_args(UsageColumn)
_IN_SQL: Final[dict[UsageColumn, str]] = {
    "key": "client",
    "model": "model",
    "dialect": "dialect",
    "node": "node",
    "status": "status",
    "day": "date(at, 'unixepoch')",
}

_WHOLE: Final = f"seal IS seal_of({CALL})"

KEPT_SECONDS: Final = 400 * 86400.0
"""How long a row is kept: a year, and what a person needs to look at it."""


class _CountsTokens:
    """What has tokens of prompts, of replies, and estimated ones."""

    __slots__ = ()
    prompt_tokens: int
    completion_tokens: int
    estimated_tokens: int

    @property
    def tokens(self) -> int:
        """All of them together, which is what a key's bound is on."""
        return self.prompt_tokens + self.completion_tokens + self.estimated_tokens


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class UsedCall(_CountsTokens):
    """One call of a gateway's client.

    Attributes:
        at: When it began, in seconds since the epoch.
        key: The name of the client's key; ``None`` where none was demanded.
        dialect: The API that was spoken: ``ollama``, ``openai``, ``anthropic``.
        model: The model or pipeline that was asked, as the client named it.
        node: That served it; ``None`` where that is not known.
        prompt_tokens: As the node counted them; 0 where it has not said.
        completion_tokens: As the node counted them; of a call that was cut, the pieces that it had sent.
        estimated_tokens: Of the prompt, where it was read and the node has not said how many they were.
        seconds: From its beginning to its end.
    """

    at: float
    key: str | None
    dialect: str
    model: str
    node: str | None
    status: CallStatus
    prompt_tokens: int
    completion_tokens: int
    estimated_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class UsageSum(_CountsTokens):
    """Several calls added up.

    Attributes:
        group: What they have in common, by column; what is not known is ``None``.
    """

    group: dict[UsageColumn, str | None]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    estimated_tokens: int
    seconds: float


def insert_calls(connection: sqlite3.Connection, calls: Sequence[UsedCall]) -> None:
    """Write calls, as one whole.

    Raises:
        sqlite3.Error: If that cannot be done; none was written.
    """
    insert = f"INSERT INTO calls ({CALL}, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  (names)
    with transaction(connection):
        connection.executemany(insert, [(*row, seal_of(row)) for row in map(_row, calls)])


def forget_old_calls(connection: sqlite3.Connection, now: float) -> None:
    """Remove the rows that are older than they are kept."""
    connection.execute("DELETE FROM calls WHERE at < ?", (now - KEPT_SECONDS,))


def sum_calls(
    connection: sqlite3.Connection, by: Sequence[UsageColumn], after: float, key: str | None
) -> list[UsageSum]:
    """Return the calls since ``after``, of one key or of all, added up by columns; those with most tokens first.

    Rows that are damaged are left out: :func:`damaged_calls` counts them.
    """
    teach_seals(connection)
    columns = "".join(f"{_IN_SQL[column]}, " for column in by)
    groups = ", ".join(str(place + 1) for place in range(len(by)))
    of_key = "" if key is None else " AND client = ?"
    query = (
        f"SELECT {columns}count(*), sum(prompt), sum(completion), sum(estimated), sum(seconds) FROM calls"  # noqa: S608
        f" WHERE at >= ? AND {_WHOLE}{of_key} {f'GROUP BY {groups}' if by else 'HAVING count(*)'}"
        " ORDER BY sum(prompt + completion + estimated) DESC"
    )
    rows = connection.execute(query, (after,) if key is None else (after, key))
    return [UsageSum(dict(zip(by, row, strict=False)), *row[len(by) :]) for row in rows]


def tokens_by_key(connection: sqlite3.Connection, after: float, beyond: int) -> tuple[int, dict[str, int]]:
    """Return the tokens of each key in the calls since ``after`` whose number is greater, and the last number."""
    teach_seals(connection)
    (last,) = connection.execute("SELECT coalesce(max(n), 0) FROM calls").fetchone()
    if last <= beyond:
        return last, {}
    # A sign in front of a column keeps its index out: few calls are new, and of many that are old, few are of the day.
    where = "n > ? AND +at >= ?" if beyond else "+n > ? AND at >= ?"
    query = f"SELECT client, sum(prompt + completion + estimated) FROM calls WHERE {where} AND n <= ? AND {_WHOLE}"  # noqa: S608  (constants)
    rows = connection.execute(f"{query} AND client IS NOT NULL GROUP BY client", (beyond, after, last))
    return last, dict(rows.fetchall())


def damaged_calls(connection: sqlite3.Connection, after: float) -> int:
    """Return how many rows since ``after`` are not what was written."""
    teach_seals(connection)
    query = f"SELECT count(*) FROM calls WHERE at >= ? AND NOT ({_WHOLE})"  # noqa: S608  (a constant)
    return int(connection.execute(query, (after,)).fetchone()[0])


def _row(call: UsedCall) -> tuple[float | str | int | None, ...]:
    counts = (call.prompt_tokens, call.completion_tokens, call.estimated_tokens)
    what = (call.key, call.dialect, call.model, call.node, call.status)
    return (float(call.at), *what, *counts, float(call.seconds))  # as they come back, for the seal
