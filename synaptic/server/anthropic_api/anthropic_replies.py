"""The answers of Anthropic's dialect: blocks, and the events of a stream of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from synaptic.backends import CallsSoFar
from synaptic.messages import Usage
from synaptic.server.gateway import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.backends import WholeReply
    from synaptic.messages import Delta, Finished, FinishReason, ModelInfo, ToolCallDelta

Json: TypeAlias = dict[str, Any]

REASONS: dict[FinishReason, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def usage_json(usage: Usage) -> Json:
    """Return the counts; tokens that came from a cache are told apart."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def anthropic_models(models: list[ModelInfo], since: int) -> Json:
    """Return the list of models, which is all on one page."""
    made = datetime.fromtimestamp(since, UTC).isoformat().replace("+00:00", "Z")
    data = [{"type": "model", "id": model.name, "display_name": model.name, "created_at": made} for model in models]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"data": data, "has_more": False, **ends}


def message_json(model: str, identity: str, content: list[Json], reason: str | None, usage: Usage) -> Json:
    """Return a message."""
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": usage_json(usage),
    }


def new_identity() -> str:
    """Return the id of a message."""
    return f"msg_{secrets.token_hex(12)}"


def whole_message(model: str, reply: WholeReply) -> Json:
    """Return a reply that is not streamed."""
    content: list[Json] = []
    if reply.thinking:
        content.append({"type": "thinking", "thinking": reply.thinking, "signature": ""})
    if reply.text or not reply.tool_calls:
        content.append({"type": "text", "text": reply.text})
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.values or {}} for call in reply.tool_calls
    ]
    reason = REASONS[reply.end.finish_reason]
    return message_json(model, new_identity(), content, reason, reply.end.usage or Usage())


@dataclass(slots=True)
class BlockStream:
    """The events of one reply. One block is open at a time, and is closed before the next begins."""

    model: str
    identity: str = field(default_factory=new_identity)
    _index: int = -1
    _open: str | int | None = None
    _calls: CallsSoFar = field(default_factory=CallsSoFar)

    def begin(self) -> Iterator[bytes]:
        """Yield what comes before the first block; how many tokens the prompt is, is known at the end."""
        message = message_json(self.model, self.identity, [], None, Usage())
        yield event({"type": "message_start", "message": message}, "message_start")
        yield event({"type": "ping"}, "ping")

    def take(self, delta: Delta) -> Iterator[bytes]:
        """Yield the events of a delta."""
        if delta.thinking:
            yield from self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._piece({"type": "thinking_delta", "thinking": delta.thinking})
        if delta.text:
            yield from self._enter("text", {"type": "text", "text": ""})
            yield self._piece({"type": "text_delta", "text": delta.text})
        for call in delta.tool_calls:
            yield from self._call(call)

    def end(self, end: Finished) -> Iterator[bytes]:
        """Yield what comes behind the last block."""
        if self._index < 0:
            yield from self._enter("text", {"type": "text", "text": ""})
        yield from self._close()
        told = {"stop_reason": REASONS[end.finish_reason], "stop_sequence": None}
        usage = usage_json(end.usage or Usage())
        yield event({"type": "message_delta", "delta": told, "usage": usage}, "message_delta")
        yield event({"type": "message_stop"}, "message_stop")

    def _call(self, call: ToolCallDelta) -> Iterator[bytes]:
        if self._calls.add(call):
            identity = call.id or f"toolu_{self.identity[-8:]}_{call.index}"
            block = {"type": "tool_use", "id": identity, "name": call.name, "input": {}}
            yield from self._enter(call.index, block)
        if call.arguments:
            yield self._piece({"type": "input_json_delta", "partial_json": call.arguments})

    def _enter(self, kind: str | int, block: Json) -> Iterator[bytes]:
        if self._open == kind:
            return
        yield from self._close()
        self._index += 1
        self._open = kind
        yield event(
            {"type": "content_block_start", "index": self._index, "content_block": block}, "content_block_start"
        )

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            self._open = None
            yield event({"type": "content_block_stop", "index": self._index}, "content_block_stop")

    def _piece(self, delta: Json) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta")
