"""A prompt taken apart into its step's own words, which stay, and the data in it, which may be shortened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synaptic.messages import ChatRequest, Message

PARAGRAPH_WINDOW = 2000
LINE_WINDOW = 400
WORD_WINDOW = 80
"""How many characters beyond a cut are searched for the end of a paragraph, a line, a word."""


@dataclass(slots=True)
class Value:
    """A piece of data in a prompt."""

    text: str


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A request whose messages are lists of fixed texts and values; values may be changed."""

    request: ChatRequest
    parts: tuple[tuple[str | Value, ...], ...]

    @classmethod
    def of(cls, request: ChatRequest) -> Self:
        """Take the request's messages apart at their spans."""
        return cls(request, tuple(tuple(_parts(message)) for message in request.messages))

    @property
    def values(self) -> list[Value]:
        """The data, in the order of the prompt."""
        return [part for parts in self.parts for part in parts if isinstance(part, Value)]

    def put_together(self, shown: Callable[[Value], str] = lambda value: value.text) -> ChatRequest:
        """Return the request with each value as ``shown`` gives it; it has no spans then."""
        messages = zip(self.request.messages, self.parts, strict=True)
        return replace(
            self.request,
            messages=tuple(
                replace(
                    message,
                    content="".join(part if isinstance(part, str) else shown(part) for part in parts),
                    values=(),
                )
                for message, parts in messages
            ),
        )


def _parts(message: Message) -> Iterator[str | Value]:
    done = 0
    for start, end in sorted(message.values):
        if done <= start < end <= len(message.content):
            yield message.content[done:start]
            yield Value(message.content[start:end])
            done = end
    yield message.content[done:]


def without_values(request: ChatRequest) -> ChatRequest:
    """Return the request with none of the data in it."""
    return TakenApart.of(request).put_together(lambda _: "")


def cut_after(text: str, position: int) -> int:
    """Return where to cut ``text`` at ``position`` or a little later: before a paragraph, else a line, else a word.

    A window is never more than a quarter of what is left, so that no boundary costs much of the text.
    """
    quarter = (len(text) - position) // 4
    for boundary, window in (("\n\n", PARAGRAPH_WINDOW), ("\n", LINE_WINDOW), (" ", WORD_WINDOW)):
        found = text.find(boundary, position, position + min(window, quarter))
        if found >= 0:
            return found + len(boundary)
    return position
