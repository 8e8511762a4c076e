"""The JSON that OpenAI's dialect answers with, in its official form, nulls included."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends import WholeReply
    from synaptic.messages import Delta, FinishReason, TokenLogprob, ToolCallDelta, Usage

Json: TypeAlias = dict[str, Any]


def usage_json(usage: Usage) -> Json:
    """Return the counts of a call."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


@dataclass(slots=True)
class ChatForm:
    """The form of the answers to one call of ``/v1/chat/completions``; ``model`` is the one that answers."""

    model: str
    identity: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, replies: Sequence[WholeReply], usage: Usage) -> Json:
        """Return the answer that is not streamed."""
        self.model = replies[0].model
        choices = [self._choice(index, reply) for index, reply in enumerate(replies)]
        return {**self._head("chat.completion"), "choices": choices, "usage": usage_json(usage)}

    def first(self, index: int) -> list[Json]:
        """Return the chunk that says who speaks."""
        return [self._chunk(index, {"role": "assistant", "content": ""})]

    def delta(self, index: int, delta: Delta, calls: list[Json]) -> Json:
        """Return the chunk of a delta; ``calls`` are the calls of tools in it."""
        told: Json = {}
        if delta.thinking:
            told["reasoning_content"] = delta.thinking
        if delta.text or not (delta.thinking or calls):
            told["content"] = delta.text
        if calls:
            told["tool_calls"] = calls
        return self._chunk(index, told, delta.logprobs)

    def last(self, index: int, reason: FinishReason) -> Json:
        """Return the chunk that ends a choice."""
        return self._chunk(index, {}, reason=reason)

    def counted(self, usage: Usage) -> Json:
        """Return the chunk behind all choices, which has the counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage_json(usage)}

    def _choice(self, index: int, reply: WholeReply) -> Json:
        message: Json = {"role": "assistant", "content": reply.text or None if reply.tool_calls else reply.text}
        message |= {"refusal": None, "annotations": []}
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        if reply.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in reply.tool_calls
            ]
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs_json(reply.logprobs),
            "finish_reason": reply.end.finish_reason,
        }

    def _chunk(
        self, index: int, delta: Json, logprobs: Sequence[TokenLogprob] = (), reason: FinishReason | None = None
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs_json(logprobs), "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> Json:
        return {
            "id": self.identity,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


def call_json(delta: ToolCallDelta, identity: str, *, begins: bool) -> Json:
    """Return the piece of a call; its first one has the id and the name."""
    function: Json = {"arguments": delta.arguments}
    if not begins:
        return {"index": delta.index, "function": function}
    return {
        "index": delta.index,
        "id": identity,
        "type": "function",
        "function": {"name": delta.name, **function},
    }


def logprobs_json(entries: Sequence[TokenLogprob]) -> Json | None:
    """Return the log-probabilities of a choice."""
    if not entries:
        return None
    return {"content": logprob_entries(entries), "refusal": None}


def logprob_entries(entries: Sequence[TokenLogprob]) -> list[Json]:
    """Return log-probabilities, token by token."""
    return [{**_entry(entry), "top_logprobs": [_entry(other) for other in entry.top]} for entry in entries]


def _entry(entry: TokenLogprob) -> Json:
    octets = list(entry.bytes) if entry.bytes is not None else list(entry.token.encode("utf-8", "replace"))
    return {"token": entry.token, "logprob": entry.logprob, "bytes": octets}


@dataclass(slots=True)
class CompletionForm:
    """The form of the answers to one call of ``/v1/completions``."""

    model: str
    identity: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, replies: Sequence[WholeReply], usage: Usage) -> Json:
        """Return the answer that is not streamed."""
        self.model = replies[0].model
        choices = [
            self._choice(index, reply.text, reply.logprobs, _reason(reply.end.finish_reason))
            for index, reply in enumerate(replies)
        ]
        return {**self._head(), "choices": choices, "usage": usage_json(usage)}

    def first(self, index: int) -> list[Json]:
        """Return nothing: a text has no speaker."""
        del index
        return []

    def delta(self, index: int, delta: Delta, calls: list[Json]) -> Json:
        """Return the chunk of a delta; a completion calls no tools."""
        del calls
        return {**self._head(), "choices": [self._choice(index, delta.text, delta.logprobs, None)]}

    def last(self, index: int, reason: FinishReason) -> Json:
        """Return the chunk that ends a choice."""
        return {**self._head(), "choices": [self._choice(index, "", (), _reason(reason))]}

    def counted(self, usage: Usage) -> Json:
        """Return the chunk behind all choices, which has the counts."""
        return {**self._head(), "choices": [], "usage": usage_json(usage)}

    def _choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob], reason: str | None) -> Json:
        # Offsets are not told, since a text may come from several servers.
        told = None
        if logprobs:
            told = {
                "tokens": [entry.token for entry in logprobs],
                "token_logprobs": [entry.logprob for entry in logprobs],
                "top_logprobs": [
                    {other.token: other.logprob for other in (*entry.top, entry)} for entry in logprobs
                ],  # what was drawn is among them always, also where it is none of the likeliest
                "text_offset": [],
            }
        return {"index": index, "text": text, "logprobs": told, "finish_reason": reason}

    def _head(self) -> Json:
        return {"id": self.identity, "object": "text_completion", "created": self.created, "model": self.model}


def _reason(reason: FinishReason) -> str:
    return "length" if reason == "length" else "stop"
