"""Responses that clients of the gateway may ask for again, or go on from; they are in the journal's file."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import JournalError, RequestRejected
from synaptic.processes import SqliteFile, transaction
from synaptic.runtime.journal.row_seal import RESPONSE, is_whole, seal_of
from synaptic.runtime.journal.tables import migrate
from synaptic.text import reason_of, size, spelled, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

KEPT_SECONDS: Final = 30 * 86400.0
"""How long a response is kept: as long as OpenAI keeps one."""

MOST_KEPT: Final = 10_000
"""Responses that are kept; the oldest go first."""

WEIGHED_EACH: Final = 20
"""After how many further ones it is looked at how much they take."""

LONGEST_CHAIN: Final = 1000
"""Responses of one conversation that are read to go on with it."""

MOST_BYTES: Final = 64_000_000
"""What those may be together, unpacked: zlib makes one byte of a thousand, so that the file's size bounds nothing."""

LONGEST: Final = 256_000_000
"""Bytes of one, unpacked: more than becomes of a body that the gateway takes."""


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
        secrets: Texts that never enter the file, however they are spelled.
    """

    def __init__(self, path: Path, most_bytes: int | None = None, secrets: Iterable[str] = ()) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._secrets = spelled(secrets)

    def keep(self, response: KeptResponse, client: str) -> None:
        """Keep a response for a client; those that are too old, or too many, go.

        Raises:
            JournalError: If the file cannot be written.
        """
        kept = self._cleaned([response.given, response.told])
        body = zlib.compress(json.dumps(kept, separators=(",", ":")).encode())
        now = time.time()
        with self._opened() as connection, transaction(connection):
            row = (response.id, client, response.previous, now, body)
            insert = f"INSERT INTO responses ({RESPONSE}, seal) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608  (names)
            added = connection.execute(insert, (*row, seal_of(row)))
            connection.execute("DELETE FROM responses WHERE at < ?", (now - KEPT_SECONDS,))
            beyond = "SELECT n FROM responses ORDER BY n DESC LIMIT -1 OFFSET ?"
            connection.execute(f"DELETE FROM responses WHERE n IN ({beyond})", (MOST_KEPT,))  # noqa: S608  (a constant)
            if self._most_bytes is not None and (added.lastrowid or 0) % WEIGHED_EACH == 0:
                heavy = "SELECT n FROM (SELECT n, sum(length(body)) OVER (ORDER BY n DESC) AS so_far FROM responses)"
                too_much = f"DELETE FROM responses WHERE n IN ({heavy} WHERE so_far > ?)"  # noqa: S608  (a constant)
                connection.execute(too_much, (self._most_bytes,))

    def find(
        self, response_id: str, client: str, hold: Callable[[bytes], None] = lambda _: None
    ) -> KeptResponse | None:
        """Return a response of a client; ``None`` if there is none, or it is not whole any more.

        Args:
            response_id: Of it.
            client: Whose it is.
            hold: Is given its JSON before that is read, and may refuse it.

        Raises:
            JournalError: If the file cannot be read.
        """
        with self._opened() as connection:
            row = _row(connection, response_id, client)
        body = None if row is None else _unpacked(row[1], LONGEST)
        if row is None or body is None:
            return None
        hold(body)
        return _read(response_id, row[0], body)

    def chain(
        self, response_id: str, client: str, hold: Callable[[bytes], None] = lambda _: None
    ) -> list[KeptResponse] | None:
        """Return a response behind all those that it goes on from; ``None`` if one of them is not there.

        Args:
            response_id: Of the last one.
            client: Whose they are.
            hold: Is given the JSON of each before it is read, and may refuse it.

        Raises:
            JournalError: If the file cannot be read.
            RequestRejected: If together they are too long to go on from.
        """
        chain: list[KeptResponse] = []
        wanted: str | None = response_id
        room = MOST_BYTES
        with self._opened() as connection:
            while wanted is not None:
                row = _row(connection, wanted, client)
                body = None if row is None else _unpacked(row[1], room)
                if row is None or body is None:
                    return None
                room -= len(body)
                if room < 0 or len(chain) >= LONGEST_CHAIN:
                    most = f"{size(MOST_BYTES)} or {LONGEST_CHAIN} responses"
                    raise RequestRejected(f"the conversation is longer than {most}: begin a new one")
                hold(body)
                if (found := _read(wanted, row[0], body)) is None:
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

    def _cleaned(self, value: Any) -> Any:
        """Return JSON data without the secrets, in names and in values."""
        if isinstance(value, str):
            return without_secrets(value, self._secrets)
        if isinstance(value, list):
            return [self._cleaned(item) for item in value]
        if isinstance(value, dict):
            return {self._cleaned(name): self._cleaned(item) for name, item in value.items()}
        return value

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        file = SqliteFile(self._path, migrate)
        try:
            yield file.open()
        except (OSError, sqlite3.Error) as exc:
            raise JournalError(f"{self._path}: {reason_of(exc)}", hint="responses are kept there") from exc
        finally:
            file.close()


def _row(connection: sqlite3.Connection, response_id: str, client: str) -> tuple[str | None, bytes] | None:
    wanted = f"SELECT {RESPONSE}, seal FROM responses WHERE id = ? AND client = ?"  # noqa: S608  (names)
    found = connection.execute(wanted, (response_id, client)).fetchone()
    if found is None or not is_whole(found[:-1], found[-1]):
        return None
    *_, previous, _, body, _ = found
    return previous, body


def _unpacked(packed: bytes, most: int) -> bytes | None:
    """Return a body, or so much of it that it is seen to be too long; ``None`` where it is damaged."""
    reader = zlib.decompressobj()
    try:
        body = reader.decompress(packed, max(most, 0) + 1)
    except (TypeError, zlib.error):  # what zlib packed has a checksum
        return None
    return body if reader.eof or len(body) > most else None


def _read(response_id: str, previous: str | None, body: bytes) -> KeptResponse | None:
    try:
        given, told = json.loads(body)
    except (ValueError, TypeError):
        return None
    return KeptResponse(id=response_id, previous=previous, given=given, told=told)
