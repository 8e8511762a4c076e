"""How a text that broke off goes on, at another server or at the same one: pure decisions over the text so far.

*Prefill*: the text so far is given as the beginning of the assistant's turn, and the model goes on from there. It costs
the reading of a prompt. Whether the model does go on, or begins another answer, depends on its chat template and on the
server: the caller must know, or :meth:`Continuation.forget` the text. Reading and generating round differently, so that
a model which hesitates between two words may now take the other: the text is as good, but not the one that would have
come. Two things are taken off what comes back:

- the *echo*: a ``llama-server``, also one behind an Ollama, may repeat the given text at the beginning of its reply;
- the white space at the *seam*: chat templates may trim the end of the turn, and then the model says it again. So it is
  left out of the prefill, and what was delivered of it already is not delivered twice.

*Replay*: the call is sent again as it was, with the seed that it had, and what comes is swallowed as long as it is what
was delivered. It costs the generating of all that again, and gives exactly the text that would have come, also where a
schema constrains it; but only on the same machines. If it departs from what was delivered, the call goes on by prefill.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from synaptic.messages import Delta, Message, Usage
from synaptic.text import GrowingText

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.messages import ChatRequest

REPLAY_SECONDS: Final = 5.0
"""What can be generated again in about this time is; above it, an answer soon is worth more than the very same one."""


CHARACTERS_A_TOKEN: Final = 4
"""Of English text and the usual tokenizers, where nobody has counted: for estimates and comparisons alone."""

SURE_ECHO: Final = 32
"""A text of so many characters that comes once more, from its first to its last, is an echo of any server's."""


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
        request: The call; with a seed, if it samples and is to be replayed.
        echoes: See the attribute.

    Attributes:
        echoes: Whether the server that goes on may repeat the prefilled text at the beginning of its reply, however
            short that is. May be set before each :meth:`request`.
        way: How the present attempt produces the text.
        before: Tokens of the text that the present attempt continues; a chunk counts as one where no server counted.
        chunks: Deltas that the present attempt has generated.
    """

    __slots__ = (
        "_calls",
        "_echo",
        "_held",
        "_is_counted",
        "_replayed_text",
        "_replayed_thinking",
        "_request",
        "_seam",
        "_text",
        "_thinking",
        "_tokens",
        "before",
        "chunks",
        "echoes",
        "way",
    )

    def __init__(self, request: ChatRequest, *, echoes: bool = False) -> None:
        self.way = Way.BEGIN
        self.echoes = echoes
        self.before = 0
        self.chunks = 0
        self._request = request
        self._text = GrowingText()
        self._thinking = GrowingText()
        self._calls = False  # whether calls of tools were delivered, which cannot be cut anywhere
        self._is_counted = request.logprobs is not None or bool(request.stop)  # each token, or a text over its seam
        self._tokens = 0
        self._replayed_text = self._replayed_thinking = 0  # characters
        self._echo = self._held = self._seam = ""

    @property
    def text(self) -> str:
        """What was delivered that still holds, without what was thought."""
        return str(self._text)

    @property
    def delivered(self) -> bool:
        """Whether anything was delivered that still holds."""
        return bool(self._text or self._thinking or self._calls)

    @property
    def is_exhausted(self) -> bool:
        """Whether the token limit was reached just where the call broke off."""
        limit = self._request.max_tokens
        return self.way is Way.PREFILL and limit is not None and self.before >= limit

    def go_on_with(self, text: str, pieces: int = 0) -> Way:
        """Begin with a text that an earlier process got; return how the call goes on, as :meth:`break_off` does.

        Args:
            text: What came.
            pieces: In how many pieces that came; 0 where nobody knows.
        """
        self._text = GrowingText(text)
        self._tokens = pieces or max(1, len(text) // CHARACTERS_A_TOKEN)
        return self.break_off()

    async def count(self, count_tokens: Callable[[str], Awaitable[int]]) -> None:
        """Let a server count what it is to go on with; it is asked only where there is a limit."""
        if self._request.max_tokens is not None:
            self._tokens = self.before = await count_tokens(self.text)

    def break_off(self, token_seconds: float | None = None) -> Way:
        """Note that the attempt failed; return how the call goes on. With ``BEGIN``, what was delivered is void.

        Args:
            token_seconds: What generating a token takes; ``None`` where a replay would not give the same text.
        """
        self._replayed_text = self._replayed_thinking = 0
        self._echo = self._held = self._seam = ""
        self.chunks = 0
        constrained = self._request.schema is not None
        whole = self._calls or self._is_counted  # cannot be cut, or not without a trace
        soon = token_seconds is not None and (constrained or self._tokens * token_seconds <= REPLAY_SECONDS)
        replay = soon and not whole
        if self.delivered and replay:
            self.way = Way.REPLAY
        elif self.text.strip() and not constrained and not whole:
            self.way = Way.PREFILL
        else:
            self.forget()
        self.before = self._tokens if self.way is Way.PREFILL else 0
        return self.way

    def forget(self) -> None:
        """Start over: what was delivered is void."""
        self.way = Way.BEGIN
        self._calls = False
        self._text, self._thinking = GrowingText(), GrowingText()
        self._echo = self._held = self._seam = ""
        self._tokens = self.chunks = self.before = 0

    def thought_so_far(self) -> None:
        """Note that the text so far was thinking."""
        self._thinking.add(self.text)
        self._text = GrowingText()

    def request(self) -> ChatRequest:
        """Return what to send next."""
        if self.way is not Way.PREFILL:
            return self._request
        text = self.text
        prefill = text.rstrip()
        self._seam = text[len(prefill) :]
        *before, last = self._request.messages
        if last.role == "assistant":  # the caller had begun the answer; two such messages would become two paragraphs
            prefill = prefill if prefill.startswith(last.content) else last.content + prefill
        else:
            before.append(last)
        self._echo = prefill.lstrip() if self.echoes or len(prefill) >= SURE_ECHO else ""
        limit = self._request.max_tokens
        return replace(
            self._request,
            messages=(*before, Message("assistant", prefill)),
            max_tokens=None if limit is None else max(1, limit - self.before),
        )

    def take(self, chunk: Delta) -> Delta | None:
        """Note a chunk; return what of it is new to the reader of the call.

        Raises:
            Departed: If a replay is not what was delivered.
        """
        self.chunks += 1
        if self.way is Way.PREFILL:
            return self._past_the_seam(chunk)
        if self.way is Way.REPLAY:
            return self._past_the_replayed(chunk)
        return self._deliver(chunk)

    def rest(self) -> Delta | None:
        """Return what was held back, as it might have become an echo, once the reply has ended."""
        held, self._held, self._echo = self._held, "", ""
        return self._past_the_seam(Delta(held)) if held else None

    def usage(self, last: Usage | None) -> Usage | None:
        """Return the whole call's usage from that of its last attempt."""
        if last is None or not self.before:
            return last
        return Usage(last.prompt_tokens, last.completion_tokens + self.before, last.cached_tokens)

    def _deliver(self, chunk: Delta) -> Delta:
        self._text.add(chunk.text)
        self._thinking.add(chunk.thinking)
        self._calls = self._calls or bool(chunk.tool_calls)
        self._tokens = max(self._tokens, self.before + self.chunks)
        return chunk

    def _past_the_seam(self, chunk: Delta) -> Delta | None:
        """Take the echo and the white space that was delivered off the beginning of a continued text."""
        text = chunk.text
        if chunk.thinking and not text:
            return None  # a model that thinks again before it goes on: that was said
        if self._echo and text:
            text = self._past_the_echo(text)
        if not text and not chunk.thinking:
            return None
        if self._seam and text:
            while self._seam and text and text[0] == self._seam[0]:
                self._seam, text = self._seam[1:], text[1:]
            if not text:
                return None
            self._seam = ""
        return self._deliver(chunk if text == chunk.text else replace(chunk, text=text))

    def _past_the_echo(self, more: str) -> str:
        """Return what is not the echo of the prefilled text, which may come in several pieces."""
        text = self._held + more
        begun = text.lstrip()  # white space before it may be lost on the way
        if self._echo.startswith(begun) and begun != self._echo:
            self._held = text
            return ""
        if begun.startswith(self._echo):
            text = begun[len(self._echo) :]
            self.chunks = 1 if text else 0  # what was repeated was not generated
        self._echo = self._held = ""
        return text

    def _past_the_replayed(self, chunk: Delta) -> Delta | None:
        self._replayed_text, text = _beyond(self._text, self._replayed_text, chunk.text)
        self._replayed_thinking, thinking = _beyond(self._thinking, self._replayed_thinking, chunk.thinking)
        if not text and not thinking:
            return None
        return self._deliver(replace(chunk, text=text, thinking=thinking))


def _beyond(delivered: GrowingText, replayed: int, more: str) -> tuple[int, str]:
    """Return how many characters are replayed now, and what of ``more`` goes beyond what was delivered."""
    if replayed >= len(delivered):
        return replayed + len(more), more
    known = str(delivered)[replayed : replayed + len(more)]
    if not more.startswith(known):
        raise Departed
    return replayed + len(more), more[len(known) :]
