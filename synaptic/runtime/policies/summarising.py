"""Having the model summarise the longest values of a prompt, until it fits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from synaptic.backends import gathered
from synaptic.messages import Message, Usage
from synaptic.runtime.policies.prompt_size import divide, prompt_text, room_for_prompt
from synaptic.runtime.policies.prompt_values import TakenApart, Value
from synaptic.waiting import all_of

if TYPE_CHECKING:
    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest
    from synaptic.runtime.policies.prompt_size import TokenCounter

MARK = "[... {} tokens summarised ...]\n"
MARK_TOKENS = 16
MAX_ROUNDS = 6
LEAST_SUMMARY_TOKENS = 48
MOST_SUMMARY_TOKENS = 512
WORDS_PER_TOKEN = 0.6

SYSTEM = "You shorten texts. Reply with the summary alone, without an introduction or a comment."
PROMPT = "Summarise this text in at most {} words. Keep names, numbers, dates and results.\n\n{}"


class KeptSummaries(Protocol):
    """The summaries of a run, which one that goes on does not have made again."""

    def summary(self, request: ChatRequest) -> tuple[str, Usage] | None:
        """Return the reply to a request for a summary, and what it took; ``None`` where none is known."""
        ...

    def summarised(self, request: ChatRequest, summary: str, usage: Usage) -> None:
        """Keep a reply."""
        ...


@dataclass(slots=True)
class Summariser:
    """Makes room in one request's prompt.

    Attributes:
        inner: Asked for the summaries, with the policies that hold for every call.
        context: The model's, in tokens.
        kept: Summaries that were made before.
        usage: What the summaries have used so far.
    """

    inner: Backend
    request: ChatRequest
    context: int
    counter: TokenCounter
    kept: KeptSummaries | None = None
    usage: Usage = field(default_factory=Usage)

    async def fit(self, room: int) -> ChatRequest | None:
        """Return the request with its longest values summarised so that it fits ``room`` tokens.

        In each round the longest value is split into pieces that fit, and every piece is summarised.

        Returns:
            The request, or ``None`` if a few rounds were not enough.

        Raises:
            BackendError: If a summary failed.
            BudgetExceeded: If the summaries used up what the run may use.
        """
        apart = TakenApart.of(self.request)
        for _ in range(MAX_ROUNDS):
            shorter = apart.put_together()
            tokens = await self.counter.count(prompt_text(shorter.messages))
            if tokens <= room:
                return shorter
            longest = max(apart.values, key=lambda value: len(value.text), default=None)
            if longest is None or not await self._shorten(longest, tokens - room):
                return None
        return None

    async def _shorten(self, value: Value, excess: int) -> bool:
        """Summarise the value so that ``excess`` tokens are saved, if it can; return whether it is shorter now."""
        size = await self.counter.count(value.text)
        target = max(LEAST_SUMMARY_TOKENS, size - excess - MARK_TOKENS)
        limit = max(LEAST_SUMMARY_TOKENS, min(target, MOST_SUMMARY_TOKENS))
        pieces = await divide(value.text, self._room_for_piece(limit), self.counter)
        limit = max(LEAST_SUMMARY_TOKENS, min(limit, target // max(1, len(pieces))))
        summaries = await all_of(self._reply(self._asking(piece, limit)) for piece in pieces)
        shorter = MARK.format(size) + "\n".join(summaries)
        if not all(summaries) or len(shorter) >= len(value.text):
            return False
        value.text = shorter
        return True

    def _asking(self, piece: str, limit: int) -> ChatRequest:
        words = max(10, int(limit * WORDS_PER_TOKEN))
        messages = (Message("system", SYSTEM), Message("user", PROMPT.format(words, piece)))
        think = self.request.think or False  # thinking would take the room of a short summary
        return replace(self.request, messages=messages, schema=None, max_tokens=limit, think=think, begun="")

    def _room_for_piece(self, limit: int) -> int:
        asking = self._asking("", limit)
        # Bytes are more than tokens: the instructions are counted rather too long.
        return max(16, room_for_prompt(asking, self.context) - len(prompt_text(asking.messages)) // 2)

    async def _reply(self, request: ChatRequest) -> str:
        known = None if self.kept is None else self.kept.summary(request)
        if known is None:
            known = await self._asked(request)
            if self.kept is not None:
                self.kept.summarised(request, *known)
        self.usage += known[1]
        return known[0]

    async def _asked(self, request: ChatRequest) -> tuple[str, Usage]:
        """Return what the model replies, and what it took."""
        reply = await gathered(self.inner.stream(request))
        text = f"{reply.text} …" if reply.end.finish_reason == "length" else reply.text
        return text.strip(), reply.end.usage or Usage()
