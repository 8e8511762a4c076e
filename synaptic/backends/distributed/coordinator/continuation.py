"""How a broken call goes on at a ``llama-server`` that was built again: pure decisions over the text so far.

*Prefill*: the text so far is given as the beginning of the assistant's turn. The server puts it behind the rendered
template as it is, goes on from there, and repeats it at the beginning of its reply, in one piece; that is taken off
here. It costs the reading of a prompt. Reading and generating round differently, so that a model which hesitates
between two words may now take the other: the text is as good, but not the one that would have come.

*Replay*: the call is sent again as it was, with the seed that it had, and what comes is swallowed as long as it is what
was delivered. It costs the generating anew, and gives exactly the text that would have come, also where a schema
constrains it. If it departs from what was delivered, the call goes on by prefill.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from synaptic.messages import Chunk, Message, Usage

if TYPE_CHECKING:
    from synaptic.messages import ChatRequest

REPLAY_SECONDS: Final = 5.0
"""What may be generated anew in about this time is; above, an answer soon is worth more than the very same one."""


class Way(Enum):
    """How a call goes on."""

    BEGIN = "begin"
    REPLAY = "replay"
    PREFILL = "prefill"


class Departed(Exception):
    """A replay does not repeat what was delivered."""


class Continuation:
    """One call's text up to now.

    Args:
        request: The call; with a seed, if it samples.

    Attributes:
        way: How the present attempt produces it.

    """

    def __init__(self, request: ChatRequest) -> None:
        self.way = Way.BEGIN
        self._request = request
        self._text = ""
        self._thinking = ""
        self._tokens = 0  # that the delivered text and thinking are; a chunk counts as one
        self._counted = 0  # of the present attempt
        self._replayed_text = self._replayed_thinking = ""
        self._echo = ""
        self._before = 0  # tokens that earlier attempts have produced, and this one has not to

    @property
    def text(self) -> str:
        """What was delivered and still holds."""
        return self._text

    @property
    def delivered(self) -> bool:
        """Whether anything was."""
        return bool(self._text or self._thinking)

    @property
    def is_exhausted(self) -> bool:
        """Whether the token limit was reached just where the call broke off."""
        limit = self._request.max_tokens
        return self.way is Way.PREFILL and limit is not None and self._before >= limit

    def break_off(self, token_seconds: float, *, replay: bool = True) -> Way:
        """Note that the attempt failed; return how the call goes on.

        Args:
            token_seconds: What generating a token takes.
            replay: Whether that may be a way.

        """
        self._replayed_text = self._replayed_thinking = self._echo = ""
        self._counted = 0
        constrained = self._request.schema is not None
        if not self.delivered:
            self.way = Way.BEGIN
        elif replay and (constrained or self._tokens * token_seconds <= REPLAY_SECONDS):
            self.way = Way.REPLAY
        elif not constrained and self._text.strip():
            self.way = Way.PREFILL
        else:
            self.forget()
        self._before = self._tokens if self.way is Way.PREFILL else 0
        return self.way

    def forget(self) -> None:
        """Begin anew: what was delivered is void."""
        self.way = Way.BEGIN
        self._text = self._thinking = self._echo = ""
        self._tokens = self._counted = self._before = 0

    def request(self) -> ChatRequest:
        """Return what to send next."""
        if self.way is not Way.PREFILL:
            return self._request
        self._echo = self._text
        limit = self._request.max_tokens
        return replace(
            self._request,
            messages=(*self._request.messages, Message("assistant", self._text)),
            max_tokens=None if limit is None else max(1, limit - self._before),
        )

    def take(self, chunk: Chunk) -> Chunk | None:
        """Note a chunk; return what of it is new to whoever reads the call.

        Raises:
            Departed: If a replay is not what was delivered.

        """
        if self.way is Way.PREFILL:
            return self._past_the_echo(chunk)
        self._counted += 1
        if self.way is Way.REPLAY:
            return self._past_the_replayed(chunk)
        return self._deliver(chunk)

    def usage(self, last: Usage | None) -> Usage | None:
        """Return the whole call's usage from that of its last attempt."""
        if last is None:
            return None
        return Usage(last.prompt_tokens, last.completion_tokens + self._before, last.cached_tokens)

    def _deliver(self, chunk: Chunk) -> Chunk:
        self._text += chunk.text
        self._thinking += chunk.thinking
        self._tokens = max(self._tokens, self._before + self._counted)
        return chunk

    def _past_the_echo(self, chunk: Chunk) -> Chunk | None:
        if chunk.thinking and not chunk.text:
            return None  # a model that thinks again before it goes on: that was said
        if self._echo and chunk.text:
            echo, self._echo = self._echo, ""
            if chunk.text.startswith(echo):
                chunk = replace(chunk, text=chunk.text[len(echo) :])
                if not chunk.text:
                    return None
        self._counted += 1
        return self._deliver(chunk)

    def _past_the_replayed(self, chunk: Chunk) -> Chunk | None:
        self._replayed_text, text = _beyond(self._text, self._replayed_text, chunk.text)
        self._replayed_thinking, thinking = _beyond(self._thinking, self._replayed_thinking, chunk.thinking)
        if not text and not thinking:
            return None
        return self._deliver(replace(chunk, text=text, thinking=thinking))


def _beyond(delivered: str, replayed: str, more: str) -> tuple[str, str]:
    """Return what is replayed now, and what of ``more`` goes beyond what was delivered."""
    now = replayed + more
    if len(now) <= len(delivered):
        if not delivered.startswith(now):
            raise Departed
        return now, ""
    if not now.startswith(delivered):
        raise Departed
    return now, now[len(delivered) :]
