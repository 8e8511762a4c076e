"""How many tokens a character of a model's prompts is: learned from what servers counted, for want of a tokenizer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synaptic.messages import ChatRequest

LEAST_CHARACTERS = 400
"""Of a prompt that teaches something: in a shorter one the chat template weighs too much."""

KEPT = 8


class TokenRatios:
    """Learns tokens a character, for each model; rather too many than too few: the most of the latest calls counts.

    Code takes more tokens than prose, and old servers do not count the tokens that they had in their cache.
    """

    def __init__(self) -> None:
        self._latest: dict[str, deque[float]] = {}

    def learn(self, model: str, request: ChatRequest, tokens: int) -> None:
        """Take note of what a server counted for the prompt of a request; 0 where it did not."""
        characters = sum(len(message.content) for message in request.messages)
        if tokens > 0 and characters >= LEAST_CHARACTERS:
            self._latest.setdefault(model, deque(maxlen=KEPT)).append(tokens / characters)

    def of(self, model: str) -> float | None:
        """Return the tokens a character is; ``None`` before anything was learned."""
        latest = self._latest.get(model)
        return max(latest) if latest else None
