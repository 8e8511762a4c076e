"""Long texts in parts that fit a small model's context, cut where a reader would cut them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_CHARACTERS = 2000

# From the best place to cut to the worst: between paragraphs, sentences, lines, words. Group 1 stays with the part
# before; what follows it is white space.
_PARAGRAPH = re.compile(r"()\n[ \t]*\n\s*")
_SENTENCE = re.compile("([.!?\u2026][\"'\u201d\u2019)\\]]*)\\s+|([\u3002\uff01\uff1f])")
_LINE = re.compile(r"()\n\s*")
_GOOD = (_PARAGRAPH, _SENTENCE, _LINE)
_WORD = re.compile(r"()\s+")


def chunks(value: Any, characters: Any = CHUNK_CHARACTERS) -> list[dict[str, Any]]:
    """Return a text, a file or a list of them in parts: mappings of ``name``, ``part`` (from 1) and ``text``.

    Args:
        value: Text, a mapping with ``text`` and perhaps ``name`` (an input of type ``file``), or a list of these.
        characters: Most characters of one part.

    Raises:
        TypeError: If the value is none of these.
        ValueError: If ``characters`` is not a positive whole number.
    """
    if isinstance(characters, bool) or not isinstance(characters, int) or characters < 1:
        raise ValueError(f"'chunks' needs a positive whole number of characters, not {characters!r}")
    several = isinstance(value, (list, tuple))
    parts = []
    for number, source in enumerate(value if several else [value], 1):
        name, text = _named_text(source, f"text {number}" if several else "text")
        for part, piece in enumerate(split_text(text, characters), 1):
            parts.append({"name": name, "part": part, "text": piece})
    return parts


def _named_text(source: Any, name: str) -> tuple[str, str]:
    if isinstance(source, str):
        return name, source
    if isinstance(source, Mapping) and isinstance(source.get("text"), str):
        return str(source.get("name") or name), source["text"]
    raise TypeError(f"'chunks' needs text, a file or a list of them, not {type(source).__name__}")


def split_text(text: str, characters: int) -> Iterator[str]:
    """Yield the text in parts of at most ``characters``, without the white space around them."""
    start, end = 0, len(text.rstrip())
    while start < end:
        if text[start].isspace():
            start += 1
            continue
        if end - start <= characters:
            yield text[start:end]
            return
        cut = _cut(text, start, start + characters)
        yield text[start:cut].rstrip()
        start = cut


def _cut(text: str, start: int, limit: int) -> int:
    """Return where to end the part that begins at ``start``: after the best boundary that leaves it well filled."""
    room = limit - start
    # One character more, so that white space after the last word counts as a boundary.
    window = text[start : limit + 1]
    for least, boundaries in ((room // 2, _GOOD), (room // 4, _GOOD), (0, (_WORD,))):
        for boundary in boundaries:
            cut = _last_end(boundary, window, least, room)
            if cut is not None:
                return start + cut
    return limit


def _last_end(boundary: re.Pattern[str], window: str, least: int, most: int) -> int | None:
    """Return where the last part that ends at such a boundary ends, between the bounds on its length."""
    last = None
    for match in boundary.finditer(window, least):
        kept = match.end(match.lastindex or 0)
        if kept > most:
            break
        if kept > least:
            last = kept
    return last
