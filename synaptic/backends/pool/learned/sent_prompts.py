"""How much of a prompt a server has really read: what it kept of an earlier one costs it no time.

Ollama counts the tokens that it had in its cache (``prompt_eval_count``), but not the time that they did not take
(``prompt_eval_duration``), and does not say how many they were. Neither does anything tell which earlier prompts it
keeps: since 2026 more than it has slots. So a prompt that begins like one that was sent there at any time teaches
nothing of the node's speed, unless what they share is small.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.messages import Message

SHORTEST = 32
MOST_SHARED = 0.25
"""Part of a prompt that may have been in the cache for what remains to be measured all the same."""

MOST_REMEMBERED = 65_536
"""Beginnings over all nodes and models, about 8 MB."""

Beginnings: TypeAlias = "tuple[int, tuple[int, ...]]"


def beginnings(messages: Sequence[Message]) -> Beginnings:
    """Return the characters of a prompt, and the hashes of its first 32, 64, 128, ... of them."""
    text = "".join(f"{message.role}\0{message.content}\0" for message in messages)
    hashes = []
    length = SHORTEST
    while length <= len(text):
        hashes.append(hash(text[:length]))
        length *= 2
    return len(text), tuple(hashes)


class SentPrompts:
    """Remembers how the prompts began that were sent to each model on each node."""

    def __init__(self) -> None:
        self._sent: OrderedDict[tuple[int, str, int], None] = OrderedDict()

    def note(self, node_key: int, model: str, prompt: Beginnings) -> float | None:
        """Take note that a prompt is sent; return the part of it that has to be read, ``None`` where that is not known.

        What it shares with an earlier one is known within a factor of two.
        """
        characters, hashes = prompt
        shared = 0
        for number, begin in enumerate(hashes):
            key = (node_key, model, begin)
            if key in self._sent:
                shared = SHORTEST << number
            self._sent[key] = None
            self._sent.move_to_end(key)
        while len(self._sent) > MOST_REMEMBERED:
            self._sent.popitem(last=False)
        most = 2 * shared if shared else SHORTEST
        return None if most > MOST_SHARED * characters else 1.0 - shared / characters
