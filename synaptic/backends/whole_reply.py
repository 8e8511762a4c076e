"""What the chunks of a reply add up to."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from synaptic.errors import StreamTruncated
from synaptic.messages import Continued, Delta, Finished, Restarted, ThoughtSoFar, TokenLogprob, ToolCall, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.messages import Chunk


@dataclass(slots=True)
class WholeReply:
    """A reply, gathered.

    Attributes:
        model: The one that gave it, where that is known.
        nodes: How many gave a part of it, or began it.
    """

    end: Finished
    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    model: str = ""
    nodes: int = 1


@dataclass(slots=True)
class CallsSoFar:
    """Calls of tools, put together from their deltas."""

    _parts: dict[int, list[str]] = field(default_factory=dict)

    def add(self, delta: ToolCallDelta) -> bool:
        """Take a delta; return whether a call begins with it."""
        begins = delta.index not in self._parts
        parts = self._parts.setdefault(delta.index, ["", "", ""])
        for place, more in enumerate((delta.id, delta.name, delta.arguments)):
            parts[place] += more
        return begins

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls so far; one that the server gave no id gets one by its place."""
        return tuple(
            ToolCall(identity or f"call_{index}", name, arguments or "{}")
            for index, (identity, name, arguments) in sorted(self._parts.items())
        )


async def gathered(chunks: AsyncIterator[Chunk]) -> WholeReply:
    """Return the whole reply. One that begins anew is the later one.

    Raises:
        StreamTruncated: If it has no end.
    """
    texts: list[str] = []
    thoughts: list[str] = []
    logprobs: list[TokenLogprob] = []
    calls, nodes = CallsSoFar(), 1
    async with aclosing(cast("AsyncGenerator[Chunk, None]", chunks)) as coming:
        async for chunk in coming:
            if isinstance(chunk, Delta):
                texts.append(chunk.text)
                thoughts.append(chunk.thinking)
                logprobs += chunk.logprobs
                for delta in chunk.tool_calls:
                    calls.add(delta)
            elif isinstance(chunk, ThoughtSoFar):
                thoughts += texts
                texts.clear()
            elif isinstance(chunk, Restarted):
                texts.clear()
                thoughts.clear()
                logprobs.clear()
                calls, nodes = CallsSoFar(), nodes + 1
            elif isinstance(chunk, Continued):
                nodes += 1
            elif isinstance(chunk, Finished):
                return WholeReply(chunk, "".join(texts), "".join(thoughts), calls.calls(), tuple(logprobs), nodes=nodes)
    raise StreamTruncated("the reply ended before its end was announced")
