"""What a call has produced so far, and how it goes on from there at another node: pure decisions.

A text that broke off is continued by *prefill*: the conversation is sent again with what was produced as the
beginning of the assistant's turn, and the model goes on from there (Ollama continues a last message of the role
assistant). Nothing is said twice and nothing is left out, with one thing to mind: chat templates may trim the turn's
end, so that the model says the white space at the seam again. It is left out of the prefill, and taken off what
comes back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.messages import Message, Usage

if TYPE_CHECKING:
    from synaptic.messages import ChatRequest, Chunk


class Progress:
    """One call's text up to now.

    Attributes:
        tokens: How many tokens the text was when it last broke off; a chunk counts as one.

    """

    __slots__ = ("_chunks", "_request", "_seam", "_text", "broke_off", "tokens")

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._chunks = 0
        self._seam = ""
        self.tokens = 0
        self.broke_off = False

    @property
    def chunks(self) -> int:
        """Pieces that the current attempt has yielded."""
        return self._chunks

    @property
    def text(self) -> str:
        """What was yielded and still holds."""
        return "".join(self._text)

    @property
    def can_continue(self) -> bool:
        """Whether another node can go on from here: not in the middle of thinking, nor of what a schema constrains."""
        return self._request.schema is None and bool(self.text.strip())

    @property
    def is_exhausted(self) -> bool:
        """Whether the token limit was reached just where the call broke off."""
        limit = self._request.max_tokens
        return self.broke_off and limit is not None and self.tokens >= limit

    def take(self, chunk: Chunk) -> Chunk | None:
        """Note a chunk; return what of it is new to whoever reads the call."""
        self._chunks += 1
        if chunk.thinking and not chunk.text:
            if self.broke_off:
                return None  # a model that thinks again before it goes on: that was said
            return chunk
        text = chunk.text
        if self._seam and text:
            text = self._past_the_seam(text)
            if not text:
                return None
        if text:
            self._text.append(text)
        return chunk if text == chunk.text else replace(chunk, text=text)

    def break_off(self) -> bool:
        """Note that the attempt failed; return whether the text stays and is to be continued."""
        self.tokens += self._chunks
        self._chunks = 0
        self._seam = ""
        if self.can_continue:
            self.broke_off = True
            return True
        self._text.clear()
        self.broke_off = False
        self.tokens = 0
        return False

    def request(self) -> ChatRequest:
        """Return what to send to the next node."""
        request = self._request
        if not self.broke_off:
            return request
        text = self.text
        said = text.rstrip()
        self._seam = text[len(said) :]
        limit = request.max_tokens
        return replace(
            request,
            messages=(*request.messages, Message("assistant", said)),
            max_tokens=None if limit is None else max(1, limit - self.tokens),
        )

    def usage(self, last: Usage | None) -> Usage | None:
        """Return the whole call's usage from that of its last attempt."""
        if last is None or not self.broke_off:
            return last
        return Usage(last.prompt_tokens, last.completion_tokens + self.tokens, last.cached_tokens)

    def _past_the_seam(self, text: str) -> str:
        """Return ``text`` without the white space at its beginning that was there already."""
        while self._seam and text and text[0] == self._seam[0]:
            self._seam, text = self._seam[1:], text[1:]
        if text:
            self._seam = ""
        return text
