"""Where a text is, among all that runs were asked and said. The index leads to texts that have all its words."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.errors import JournalError, UsageError
from synaptic.runtime.journal.kept_texts import name_spelled, spelled_name
from synaptic.runtime.journal.reader import Reader, all_runs
from synaptic.runtime.journal.tables import has_words
from synaptic.runtime.journal.writing import INDEXED_CHARACTERS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

from synaptic.runtime.journal.reader import KeptRun

AROUND: Final = 60
"""Characters of a text that are shown on each side of what was found."""

_REST: Final = '"rest":"'
_NAME_CHARACTERS: Final = 22
"""What stands before the name of what a request has beside its words, and how long that is."""

_WORD: Final = re.compile(r"[^\W_]+")
# Scripts that write no blanks between words: the index has whole sentences of them as words.
_NO_BLANKS: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class FoundText:
    """A run in which a text is.

    Attributes:
        run: Which.
        path: The step that was asked it or said it; ``None`` for an input, the pipeline's text and the like.
        before: Some of what stands before it.
        text: It, as it is written there.
        after: Some of what follows.
    """

    run: KeptRun
    path: str | None
    before: str
    text: str
    after: str


def search(connection: sqlite3.Connection, wanted: str, below: int | None = None) -> Iterator[FoundText]:
    """Yield the runs in which a text is, the latest first, each once; only those whose number is less than ``below``.

    Case, accents and the kind of white space do not count. The text begins with the beginning of a word.

    Raises:
        UsageError: If there is nothing to look for.
    """
    needle = _plain(wanted)
    if not needle.strip():
        raise UsageError("the text to look for is empty", hint="as in: synaptic runs grep 'heat pump'")
    reader = Reader(connection)
    verdicts: dict[int, str | None] = {}
    found: set[int] = set()
    for run, number, name in _candidates(connection, wanted):
        if run in found or (below is not None and run >= below):
            continue
        if number not in verdicts:
            text = _holding(reader, name, needle)
            verdicts[number] = None if text is None or _is_beside(reader, connection, run, name) else text
        text = verdicts[number]
        if text is not None and (told := _found(connection, run, name, text, needle)) is not None:
            found.add(run)
            yield told


def _candidates(connection: sqlite3.Connection, wanted: str) -> Iterable[tuple[int, int, bytes]]:
    """Return number of run, number of text and name of text, the latest runs first."""
    words = _WORD.findall(wanted)
    if words and not _NO_BLANKS.search(wanted) and has_words(connection):
        match = " AND ".join(f'"{word}"' for word in words[:-1])
        match += f'{" AND " if match else ""}"{words[-1]}"*'
        query = (
            "SELECT uses.run, blobs.n, blobs.hash FROM words JOIN uses ON uses.blob = words.rowid"
            " JOIN blobs ON blobs.n = words.rowid WHERE words MATCH ? ORDER BY uses.run DESC, blobs.n DESC"
        )
        return connection.execute(query, (match,))
    query = (
        "SELECT uses.run, blobs.n, blobs.hash FROM uses JOIN blobs ON blobs.n = uses.blob"
        " ORDER BY uses.run DESC, blobs.n DESC"
    )
    return connection.execute(query)


def _holding(reader: Reader, name: bytes, needle: str) -> str | None:
    """Return a text if the needle is in it; a damaged one holds nothing."""
    try:
        text = reader.text(name)
    except JournalError:
        return None
    return text if needle in _plain(text) else None


def _is_beside(reader: Reader, connection: sqlite3.Connection, run: int, name: bytes) -> bool:
    """Return whether a text is what a request has beside its words: its options, or the schema of its reply."""
    query = "SELECT DISTINCT substr(body, instr(body, ?) + ?, ?) FROM events WHERE run = ? AND instr(body, ?)"
    rests = connection.execute(query, (_REST, len(_REST), _NAME_CHARACTERS, run, _REST)).fetchall()
    spelled = spelled_name(name)
    try:
        return any(rest == spelled or spelled in reader.text(name_spelled(rest)) for (rest,) in rests)
    except (JournalError, ValueError):
        return False  # it is damaged


def _found(connection: sqlite3.Connection, number: int, name: bytes, text: str, needle: str) -> FoundText | None:
    """Return what is told of a run that has a text; ``None`` where another process has removed it meanwhile."""
    run = next(all_runs(connection, "n = ?", (number,)), None)
    if run is None:
        return None
    query = "SELECT path FROM events WHERE run = ? AND path IS NOT NULL AND instr(body, ?) ORDER BY seq LIMIT 1"
    row = connection.execute(query, (number, spelled_name(name))).fetchone()
    flat = " ".join(text.split())
    start, end = _place(flat, needle)
    return FoundText(
        run,
        None if row is None else row[0],
        flat[max(0, start - AROUND) : start],
        flat[start:end],
        flat[end : end + AROUND],
    )


def _place(flat: str, needle: str) -> tuple[int, int]:
    """Return where the needle is in a text: characters may be more or fewer once their accents are off."""
    at = _bare(flat).find(needle)
    start, length = 0, 0
    for index, char in enumerate(flat):
        if length <= at:
            start = index
        length += len(_bare(char))
        if length >= at + len(needle):
            return start, index + 1
    return start, len(flat)


def _plain(text: str) -> str:
    """Return a text without case, accents and differences of white space."""
    return _bare(" ".join(text[:INDEXED_CHARACTERS].split()))


def _bare(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)).casefold()
