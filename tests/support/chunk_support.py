"""What the chunks of a call come to, for tests that look at a whole stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from synaptic.messages import Delta, Finished, Restarted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.messages import Chunk

Kind = TypeVar("Kind")


def of_kind(kind: type[Kind], chunks: Iterable[Chunk]) -> list[Kind]:
    """Return the chunks of one kind."""
    return [chunk for chunk in chunks if isinstance(chunk, kind)]


def deltas(chunks: Iterable[Chunk]) -> list[str]:
    """Return the text of every delta, void ones too."""
    return [chunk.text for chunk in chunks if isinstance(chunk, Delta)]


def collected(chunks: Iterable[Chunk]) -> str:
    """Return the text that is left at the end: a restart voids what came before it."""
    parts: list[str] = []
    for chunk in chunks:
        if isinstance(chunk, Restarted):
            parts.clear()
        elif isinstance(chunk, Delta):
            parts.append(chunk.text)
    return "".join(parts)


def finished(chunks: Iterable[Chunk]) -> Finished:
    """Return the end of a complete reply: exactly one chunk is, and it is the last one."""
    *before, last = chunks
    assert isinstance(last, Finished), last
    assert not of_kind(Finished, before)
    return last
