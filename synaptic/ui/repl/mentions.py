"""Files that a question names: ``@notes.txt``, ``@"two words.md"``, ``@src/``, ``@*.py``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from synaptic import paths

MARK: Final = "@"
_MENTION: Final = re.compile(r'(?<!\S)@(?:"(?P<quoted>[^"\n]+)"|(?P<plain>[^\s@"][^\s"]*))')
_AFTER_WORDS: Final = ".,;:!?)]}'"
_BEING_TYPED: Final = re.compile(r'(?:^|\s)@(?:"(?P<quoted>[^"\n]*)|(?P<plain>[^\s"]*))$')


@dataclass(frozen=True, slots=True)
class Mentions:
    """A question as it is asked, and the files that it names.

    Attributes:
        text: Without the marks, so that a model reads the files' names.
        files: Paths and patterns as they were written, each once.
    """

    text: str
    files: tuple[str, ...]


def mentions(question: str) -> Mentions:
    """Return the files that a question names; ``@somebody``, where there is no such file, is a word like any other.

    A word that looks like a path, or a pattern, counts also where nothing is there: then reading it says what is wrong.
    """
    files: list[str] = []

    def named(match: re.Match[str]) -> str:
        if match["quoted"]:
            files.append(match["quoted"])
            return match["quoted"]
        word: str = match["plain"]
        bare = word.rstrip(_AFTER_WORDS)
        path = word if _is_there(word) else bare
        if _is_there(path) or _looks_like_path(bare):
            files.append(path)
            return word
        return match[0]

    text = _MENTION.sub(named, question)
    return Mentions(text, tuple(dict.fromkeys(files)))


def path_being_typed(text: str) -> str | None:
    """Return the path behind the mark that a text ends in; ``None`` where it ends in none."""
    match = _BEING_TYPED.search(text)
    if match is None:
        return None
    found: str = match["plain"] if match["quoted"] is None else match["quoted"]
    return found


def _is_there(path: str) -> bool:
    return bool(path) and os.path.lexists(paths.expanded(path))


def _looks_like_path(word: str) -> bool:
    return "/" in word or "*" in word or bool(re.search(r"\w\.[A-Za-z]\w{0,4}$", word))
