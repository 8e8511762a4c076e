"""How long a prompt is and how long it may be, in tokens; exact where the backend has the tokenizer."""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import TYPE_CHECKING, Final

from synaptic.errors import BackendError
from synaptic.pipeline import split_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends import Capabilities
    from synaptic.messages import ChatRequest, Message


DEFAULT_REPLY_TOKENS = 256
"""Kept for the reply of a request that names no limit."""

TEMPLATE_TOKENS = 64
"""Kept for what the chat template adds once (a date, a line on how to answer); less where the context is tiny."""

MESSAGE_TOKENS = 8
"""Kept for what the chat template puts around each message."""

CONTEXT_HOLDS_SECONDS = 60.0
"""How long a backend's answer about its context holds; a server may be restarted with another context."""

DIFFERENCE = 0.15
"""By how much a text may differ from others of its model in tokens a character, about."""

UNKNOWN: Final = -1
"""Stands for a context that the backend has not been asked for yet."""

_LETTERS = re.compile(r"[A-Za-z\s]+")


def reply_tokens(request: ChatRequest, context: int) -> int:
    """Return what is kept for the reply: its limit, but half the context at most.

    A limit is not what a reply takes. One that meets the end of the context is reported as cut, a prompt is not.
    """
    return min(request.max_tokens or DEFAULT_REPLY_TOKENS, context // 2)


def room_for_prompt(request: ChatRequest, context: int) -> int:
    """Return how many tokens the messages of ``request`` may have, the chat template's own taken off."""
    template = min(TEMPLATE_TOKENS, context // 32) + MESSAGE_TOKENS * len(request.messages)
    return context - reply_tokens(request, context) - template


def surely_fits(request: ChatRequest, context: int) -> bool:
    """Return whether the prompt fits whatever the tokenizer."""
    return most_tokens(request) <= room_for_prompt(request, context)


def most_tokens(request: ChatRequest) -> int:
    """Return how many tokens the messages have at the very most: no token is shorter than a byte."""
    size = 0
    for message in request.messages:
        text = message.content
        size += len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
    return size


def prompt_text(messages: Sequence[Message]) -> str:
    """Return all messages as one text, to be counted."""
    return "\n".join(message.content for message in messages)


def estimated_tokens(text: str) -> int:
    """Return about how many tokens ``text`` is, rather too many than too few.

    Three ASCII letters or blanks a token (English has more than four), and one for every digit, every sign and every
    character of another script, which is what tokenizers do that know them badly.
    """
    plain = sum(len(match) for match in _LETTERS.findall(text))
    return math.ceil(plain / 3) + len(text) - plain


def least_tokens(text: str) -> int:
    """Return how many tokens ``text`` has at the very least, blanks not counted.

    Large vocabularies reach five ASCII characters a token, and two of other scripts; here it is six and three.
    """
    squeezed = "".join(text.split())
    ascii_characters = len(squeezed.encode("ascii", "ignore"))
    return ascii_characters // 6 + (len(squeezed) - ascii_characters) // 3


class ContextLengths:
    """What a backend has said about its contexts."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._ask = capabilities.context_length
        self._known: dict[tuple[str | None, int | None], tuple[float, int | None]] = {}
        self._asking = asyncio.Lock()

    def known(self, request: ChatRequest) -> int | None:
        """Return the context without asking: ``UNKNOWN`` before it was asked, ``None`` if the backend cannot tell."""
        found = self._known.get((request.model, request.num_ctx))
        return UNKNOWN if found is None or found[0] < time.monotonic() else found[1]

    async def of(self, request: ChatRequest) -> int | None:
        """Return the context; asks the backend if need be. A backend that fails now is asked again next time."""
        async with self._asking:
            known = self.known(request)
            if known != UNKNOWN:
                return known
            try:
                length = None if self._ask is None else await self._ask(request)
            except BackendError:
                return None  # the call itself says what is wrong, and is tried again where that helps
            self._known[request.model, request.num_ctx] = (time.monotonic() + CONTEXT_HOLDS_SECONDS, length)
            return length

    def forget(self, request: ChatRequest) -> None:
        """Ask the backend again next time."""
        self._known.pop((request.model, request.num_ctx), None)


class TokenCounter:
    """Counts with the backend's tokenizer; where it has none, or fails, by what calls have shown, else by a guess.

    Args:
        capabilities: The backend's.
        request: Whose prompt is counted, or parts of it.
        asks: Whether the backend may be asked; counting may start it.

    Attributes:
        exact: Whether every count so far was the tokenizer's.
    """

    def __init__(self, capabilities: Capabilities, request: ChatRequest | None = None, *, asks: bool = True) -> None:
        self._tokenizer = capabilities.count_tokens if asks else None
        learned = capabilities.tokens_a_character
        self._ratio = None if learned is None or request is None else learned(request)
        self.exact = self._tokenizer is not None

    async def count(self, text: str) -> int:
        """Return how many tokens ``text`` is, rather too many than too few."""
        if self._tokenizer is not None and self.exact:
            try:
                return await self._tokenizer(text)
            except BackendError:
                self.exact = False
        return estimated_tokens(text) if self._ratio is None else math.ceil(len(text) * self._ratio * (1 + DIFFERENCE))

    async def least(self, text: str) -> tuple[int, str]:
        """Return how many tokens ``text`` is for certain, and what is said of that to people."""
        tokens = await self.count(text)
        if self.exact:
            return tokens, f"{tokens}"
        if self._ratio is None:
            least = least_tokens(text)
            return least, f"about {round(math.sqrt(least * estimated_tokens(text)))}"  # English: five in a hundred off
        likely = math.ceil(len(text) * self._ratio)
        return math.floor(likely * (1 - DIFFERENCE)), f"about {likely}"


_UNEVEN: Final = 1.1
"""Some stretches of a text have more tokens a character than others."""


async def divide(text: str, room: int, counter: TokenCounter, *, parts: int = 1) -> list[str]:
    """Return the text in parts of at most ``room`` tokens, cut where a paragraph, a sentence, a line or a word ends.

    There are at least ``parts``, where the text is long enough; white space around them is left out.
    """
    if parts == 1 and len(text.encode(errors="surrogatepass")) <= room:
        return [text]
    tokens = await counter.count(text)
    wanted = max(parts, 1 if tokens <= room else math.ceil(tokens / room * _UNEVEN))
    if wanted == 1 or len(text) < 2:
        return [text]
    found: list[str] = []
    for piece in split_text(text, math.ceil(len(text) / wanted)):
        found += await divide(piece, room, counter)
    return found
