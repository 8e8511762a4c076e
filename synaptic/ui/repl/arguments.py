"""Words of a command line. An apostrophe in plain text is text: nothing that a person types is an error here."""

from __future__ import annotations

import re

_QUOTED = r""""(?:[^"\\]|\\.)*"(?!\S)|'[^']*'(?!\S)"""
_WORD = re.compile(rf"(?P<key>[\w.-]+=)?(?P<quoted>{_QUOTED})|(?P<plain>\S+)", re.DOTALL)


def take_word(text: str) -> tuple[str, str]:
    """Return the first word, its quotes taken off, and what follows it as it stands.

    ``"a b"`` and ``key="a b"`` are one word. A quote that is never closed is a character like any other.
    """
    text = text.lstrip()
    match = _WORD.match(text)
    if match is None:
        return "", ""
    word = match["plain"] or (match["key"] or "") + _unquoted(match["quoted"])
    return word, text[match.end() :].lstrip()


def split_words(text: str) -> list[str]:
    """Return all words, their quotes taken off."""
    words: list[str] = []
    rest = text.strip()
    while rest:
        word, rest = take_word(rest)
        words.append(word)
    return words


def word_at_end(text: str) -> tuple[list[str], str, int]:
    """Return the words before the one being typed, that one ("" after a space), and its length as it stands."""
    before: list[str] = []
    word, rest, typed = "", text.lstrip(), 0
    while rest:
        length = len(rest)
        word, rest = take_word(rest)
        typed = length - len(rest)
        before.append(word)
    if not before or text[-1].isspace():
        return before, "", 0
    return before[:-1], word, typed


def quoted(word: str) -> str:
    """Return ``word`` so that it is read back as one word."""
    if word and not re.search(r"""\s|^["']""", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def ends_with_continuation(text: str) -> bool:
    """Return whether the text ends with a backslash that continues it; two of them are a written one."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    return re.sub(r'\\(["\\])', r"\1", inner) if text.startswith('"') else inner
