"""Responses that clients of the gateway may ask for again, or go on from; they are in the journal's file."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import JournalError
from synaptic.processes import SqliteFile, transaction
from synaptic.runtime.journal.tables import migrate
from synaptic.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT_SECONDS: Final = 30 * 86400.0
"""How long a response is kept: as long as OpenAI keeps one."""

MOST_KEPT: Final = 10_000
"""Responses that are kept; the oldest go first."""

WEIGHED_EACH: Final = 20
"""After how many further ones it is looked at how much they take."""

LONGEST_CHAIN: Final = 1000
"""Responses of one conversation that are read to go on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptResponse:
    """One response.

    Attributes:
        id: What clients call it.
        previous: The one that it goes on from.
        given: The items that the client sent, without those of earlier responses.
        told: The response as the client got it.
    """

    id: str
    previous: str | None
    given: list[dict[str, Any]]
    told: dict[str, Any]


class KeptResponses:
    """Keeps responses, each for the client that got it. Every call opens the file, and closes it: for any thread.

    Args:
        path: The journal's file.
        most_bytes: That they may take of it; ``None`` is without a bound.
    """

    def __init__(self, path: Path, most_bytes: int | None = None) -> None:
        self._path = path
        self._most_bytes = most_bytes

    def keep(self, response: KeptResponse, client: str) -> None:
        """Keep a response for a client; those that are too old, or too many, go.

        Raises:
            JournalError: If the file cannot be written.
        """
        body = zlib.compress(json.dumps([response.given, response.told], separators=(",", ":")).encode())
        now = time.time()
        with self._opened() as connection, transaction(connection):
            row = (response.id, client, response.previous, now, body)
            added = connection.execute(
                "INSERT INTO responses (id, client, previous, at, body) VALUES (?, ?, ?, ?, ?)", row
            )
            connection.execute("DELETE FROM responses WHERE at < ?", (now - KEPT_SECONDS,))
            beyond = "SELECT n FROM responses ORDER BY n DESC LIMIT -1 OFFSET ?"
            connection.execute(f"DELETE FROM responses WHERE n IN ({beyond})", (MOST_KEPT,))  # noqa: S608  (a constant)
            if self._most_bytes is not None and (added.lastrowid or 0) % WEIGHED_EACH == 0:
                heavy = "SELECT n FROM (SELECT n, sum(length(body)) OVER (ORDER BY n DESC) AS so_far FROM responses)"
                too_much = f"DELETE FROM responses WHERE n IN ({heavy} WHERE so_far > ?)"  # noqa: S608  (a constant)
                connection.execute(too_much, (self._most_bytes,))

    def find(self, response_id: str, client: str) -> KeptResponse | None:
        """Return a response of a client; ``None`` if there is none, or it is not whole any more.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            return _found(connection, response_id, client)

    def chain(self, response_id: str, client: str) -> list[KeptResponse] | None:
        """Return a response behind all those that it goes on from; ``None`` if one of them is not there.

        Raises:
            JournalError: If the file cannot be read.
        """
        chain: list[KeptResponse] = []
        wanted: str | None = response_id
        with self._opened() as connection:
            while wanted is not None:
                found = _found(connection, wanted, client)
                if found is None or len(chain) >= LONGEST_CHAIN:
                    return None
                chain.append(found)
                wanted = found.previous
        return chain[::-1]

    def forget(self, response_id: str, client: str) -> bool:
        """Remove a response of a client; return whether there was one.

        Raises:
            JournalError: If the file cannot be written.
        """
        with self._opened() as connection, transaction(connection):
            gone = connection.execute("DELETE FROM responses WHERE id = ? AND client = ?", (response_id, client))
            return gone.rowcount > 0

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        file = SqliteFile(self._path, migrate)
        try:
            yield file.open()
        except (OSError, sqlite3.Error) as exc:
            raise JournalError(f"{self._path}: {reason_of(exc)}", hint="responses are kept there") from exc
        finally:
            file.close()


def _found(connection: sqlite3.Connection, response_id: str, client: str) -> KeptResponse | None:
    wanted = "SELECT previous, body FROM responses WHERE id = ? AND client = ?"
    row = connection.execute(wanted, (response_id, client)).fetchone()
    if row is None:
        return None
    try:
        given, told = json.loads(zlib.decompress(row[1]))
    except (ValueError, TypeError, zlib.error):  # what zlib packed has a checksum: the row is damaged
        return None
    return KeptResponse(id=response_id, previous=row[0], given=given, told=told)
