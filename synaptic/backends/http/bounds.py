"""How much a reply may be. A server may never come to an end: what it sends is counted, and given up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from synaptic.errors import ReplyTooLong

if TYPE_CHECKING:
    from synaptic.backends.http.origin import Origin

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Of a line, and of the data of an event. A reply that is not streamed is one line."""

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of a reply that is read whole: a listing of 40,000 models. Python needs 30 times as much for the worst of them."""

MAX_STREAM_BYTES: Final = 32 * 1024 * 1024
BYTES_A_TOKEN: Final = 1024
"""What a stream may take for a token that was asked for: a line of Ollama has 130 bytes, an event of OpenAI 300."""


def most_of_stream(max_tokens: int | None) -> int:
    """Return how many bytes the stream of an answer of so many tokens may have."""
    return max(MAX_STREAM_BYTES, (max_tokens or 0) * BYTES_A_TOKEN)


@dataclass(slots=True)
class Lines:
    """Lines while their packets come in. Bytes, since packets split characters.

    Args:
        origin: Who sends them.
        most: Bytes of all of them.
    """

    origin: Origin
    most: int = MAX_STREAM_BYTES
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _total: int = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take a packet; return the lines that it completes, without their ends.

        Raises:
            ReplyTooLong: If a line grows too long, or all of them together.
        """
        self._total += len(data)
        if self._total > self.most:
            raise endless("a stream", self.most, self.origin)
        *lines, rest = data.split(b"\n")
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts.clear()
            self._size = 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE_BYTES:
                raise too_long("a line", MAX_LINE_BYTES, self.origin)
        return lines

    def rest(self) -> bytes:
        """Return what has come of a line without its end."""
        return b"".join(self._parts)


_FRAMING: Final = frozenset({b"", b"event", b"id", b"retry", b"data"})
"""Before the colon of a line of server-sent events; nothing stands there in a comment."""


def without_framing(line: bytes) -> bytes:
    """Return the JSON of a line, also where it is framed as an event; "" for a line that holds none."""
    if line.startswith(b"{"):  # nearly every one
        return line
    field, colon, value = line.partition(b":")
    if not colon or field not in _FRAMING:
        return line.strip()
    value = value.strip()
    return value if field == b"data" and value != b"[DONE]" else b""


@dataclass(slots=True)
class Event:
    """One server-sent event while its lines come in."""

    origin: Origin
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0

    def feed(self, line: bytes) -> bytes | None:
        """Take one line without its end; return the event's data when the line completes it.

        llama.cpp has sent errors both as ``error: {...}``, a field the standard does not know, and inside ``data``.

        Raises:
            ReplyTooLong: If the event grows too long.
        """
        if not line:
            data = b"\n".join(self._parts) if self._parts else None
            self._parts, self._size = [], 0
            return data
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"error":
            value = b'{"error":' + value + b"}"
        elif field != b"data":
            return None
        self._parts.append(value)
        self._size += len(value) + 1
        if self._size > MAX_LINE_BYTES:
            raise too_long("an event", MAX_LINE_BYTES, self.origin)
        return None

    def rest(self, line: bytes) -> bytes | None:
        """Return the data of an event at whose end the body ends, ``line`` being the last of it."""
        if line:
            self.feed(line.removesuffix(b"\r"))
        return self.feed(b"")


def too_long(what: str, limit: int, origin: Origin) -> ReplyTooLong:
    """Return the error for something that is longer than anything of its kind."""
    return ReplyTooLong(
        f"{origin.node} sent {what} of more than {limit} bytes",
        hint="is another program listening there?",
        backend=origin.backend,
        node=origin.node,
    )


def endless(what: str, limit: int, origin: Origin) -> ReplyTooLong:
    """Return the error for a stream that goes on beyond what was asked for."""
    return ReplyTooLong(
        f"{origin.node} sent {what} of more than {limit} bytes and did not end it",
        hint=f"an answer may take {BYTES_A_TOKEN} bytes for each token: raise max_tokens if it is to be so long",
        backend=origin.backend,
        node=origin.node,
    )
