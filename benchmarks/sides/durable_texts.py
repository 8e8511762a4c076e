"""The texts that both sides of ``durable.py`` are given, and what they leave on the disk."""

from __future__ import annotations

import os
import random
from pathlib import Path

WORDS = 4000
"""Different words in the texts: about as many as in a long report."""


class Texts:
    """Answers of one length, made beforehand; the same ones in each process.

    Args:
        kind: ``words``, drawn as in natural language (a few often, most seldom); ``random``, letters and digits that
            no packing makes much shorter.
        length: Of each, in characters.
        count: How many.

    """

    def __init__(self, kind: str, length: int, count: int) -> None:
        """Make them."""
        chance = random.Random(length)
        if kind == "random":
            made = [chance.randbytes(length).hex()[:length] for _ in range(count)]
        else:
            syllables = [
                a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "ul")
            ]
            words = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(WORDS)]
            weights = [1 / (rank + 1) for rank in range(WORDS)]
            made = [" ".join(chance.choices(words, weights, k=length // 2 + 1))[:length].strip() for _ in range(count)]
        self.bytes = sum(len(text) for text in made)
        self._left = iter(made)

    def next(self) -> str:
        """Return the next one."""
        return next(self._left)


def home() -> str:
    """Return the empty folder in which a side keeps everything."""
    return os.environ["XDG_STATE_HOME"]


def bytes_under(folder: str) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
