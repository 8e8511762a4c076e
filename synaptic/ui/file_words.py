"""Names of files that stand where a question is read: an unquoted pattern, or a pipeline without its ``-p``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from synaptic.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIPELINES = (".yaml", ".yml")


def refuse_spilled(behind: Iterable[tuple[str, str]]) -> None:
    """Refuse a file that follows the one of ``-f``: the shell has written out a pattern, and ``-f`` takes one word.

    A question that speaks of a file begins with another word, or is one word of its own in quotes.

    Args:
        behind: The file of each ``-f``, with the word behind it.

    Raises:
        UsageError: Saying what to write.
    """
    for file, word in behind:
        if is_file(file) and is_file(word):
            message = f"-f takes one file, {file}, and {word} behind it is a file, too"
            hint = "put the pattern in quotes, as in -f 'notes/*.txt', or write -f before each file"
            raise UsageError(message, hint=f"{hint}; a question that begins with a file's name goes in quotes")


def refuse_pipeline(word: str, command: str) -> None:
    """Refuse a question that begins with a pipeline's file.

    Raises:
        UsageError: Saying what to write.
    """
    if word.endswith(_PIPELINES) and is_file(word):
        message = f"{word} is a file, and no question begins with it; did you mean -p {word}?"
        raise UsageError(message, hint=f"to ask about it: {command} -f {word} …; to ask it: {command} -- {word} …")


def is_file(name: str) -> bool:
    """Return whether there is a file of that name; the slash finds folders alone, and pathlib is not loaded here."""
    return os.access(name, os.F_OK) and not os.access(f"{name}/", os.F_OK)
