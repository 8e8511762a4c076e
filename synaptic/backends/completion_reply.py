"""What the events of a streamed chat completion add up to, as OpenAI's form has it and many servers bend it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from synaptic.backends.http import (
    JsonObject,
    count_in,
    ending,
    error_text,
    gave_up,
    name_in,
    seconds_in,
    stream_failed,
    text_in,
)
from synaptic.backends.openai_form import read_logprobs
from synaptic.errors import ProtocolError, StreamFailed
from synaptic.messages import Delta, Finished, FinishReason, Timings, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

END_SECONDS = 2.0  # for what a server sends behind the reason of the end: its counts, "[DONE]", or nothing at all


class CompletionReply:
    """What a stream of events adds up to.

    Servers end a complete reply in several ways: with ``[DONE]``; with the reason of its end and nothing behind it
    (ik_llama.cpp, llama.cpp before September 2024, text-generation-inference before July 2024), the connection then
    closed or left open; with their counts alone. ``[DONE]`` without any of these is no sign: proxies write it below
    streams that broke.
    """

    def __init__(self, backend: str, node: str, *, offered: bool = False) -> None:
        self._backend = backend
        self._node = node
        self._offered = offered
        self._model: str | None = None
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._tool: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the server has said why the reply ends."""
        return self._finish_reason is not None

    async def next_of(self, events: AsyncGenerator[JsonObject, None]) -> JsonObject | None:
        """Return the next event, ``None`` behind the last. Once the reply has ended, none is waited for in vain."""
        if not self.has_ended:
            return await anext(events, None)
        try:
            async with asyncio.timeout(END_SECONDS):
                return await anext(events, None)
        except TimeoutError:
            return None

    def take(self, event: JsonObject) -> Delta | None:
        """Note what ``event`` says; return its text, if it has some."""
        try:
            return self._take(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProtocolError(
                f"{self._node} sent an event that is not a chat completion: {json.dumps(event)[:80]}",
                backend=self._backend,
                node=self._node,
            ) from error

    def _take(self, event: JsonObject) -> Delta | None:
        self._model = name_in(event.get("model")) or self._model
        if usage := event.get("usage"):
            self._usage = read_usage(usage)
        if timings := event.get("timings"):
            self._timings = read_timings(timings)
        if "choices" not in event and isinstance(event.get("message"), str):  # vLLM, and "event: error" of others
            text = stream_failed(error_text(json.dumps(event).encode()), self._node, begun=True)
            raise StreamFailed(text, backend=self._backend, node=self._node)
        choice = next((choice for choice in event["choices"] or () if not choice.get("index")), None)
        if choice is None:
            return None
        if reason := choice.get("finish_reason"):
            self._end(reason)
        delta = choice.get("delta") or {}
        calls = tuple(read_call(call) for call in delta.get("tool_calls") or ())
        if calls and not self._offered:
            self._tool, calls = calls[0].name or self._tool or "?", ()
        logprobs = read_logprobs((choice.get("logprobs") or {}).get("content"))
        text, thinking = text_and_thinking(delta.get("content"))
        text += _written(delta.get("refusal"))  # OpenAI's field for what a model says instead of an answer
        thinking += _written(delta.get("reasoning_content") or delta.get("reasoning"))
        return Delta(text, thinking, calls, logprobs) if text or thinking or calls or logprobs else None

    def _end(self, reason: str) -> None:
        how = ending(reason)
        if how == "failed":
            raise StreamFailed(gave_up(self._node, reason), backend=self._backend, node=self._node)
        self._finish_reason = "tool_calls" if reason == "tool_calls" and self._offered else how

    def last_chunk(self, limit: int | None) -> Finished:
        """Return the chunk that ends a complete reply; ``limit`` is how many tokens it could have."""
        if self._finish_reason is None and self._usage is not None and self._usage.completion_tokens:
            cut = limit is not None and self._usage.completion_tokens >= limit
            self._finish_reason = "length" if cut else "stop"
        if self._finish_reason is None:
            raise ProtocolError(
                f"{self._node} announced the end of a reply without saying why it ends",
                backend=self._backend,
                node=self._node,
            )
        return Finished(
            self._finish_reason,
            usage=self._usage,
            timings=self._timings,
            model=self._model,
            node=self._node,
            tool=self._tool,
        )


def read_call(call: JsonObject) -> ToolCallDelta:
    """Return what the call of a tool has grown by."""
    function = call.get("function") or {}
    return ToolCallDelta(
        int(call.get("index") or 0),
        name_in(call.get("id")),
        name_in(function.get("name")),
        _written(function.get("arguments")),
    )


def text_and_thinking(content: Any) -> tuple[str, str]:
    """Return the answer's and the thinking's part of a message, which Mistral's API gives as a list of parts."""
    if not isinstance(content, list):
        return _written(content), ""
    text = _texts_of(part for part in content if part.get("type") != "thinking")
    thoughts = [part.get("thinking") for part in content if part.get("type") == "thinking"]
    return text, "".join(_texts_of(each) if isinstance(each, list) else _written(each) for each in thoughts)


def _texts_of(parts: Iterable[Any]) -> str:
    return "".join(_written(part.get("text")) for part in parts)


def _written(value: object) -> str:
    """Return a text, "" for nothing; raise for what is neither, since its words are not the model's."""
    if value and not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return text_in(value)


def read_usage(usage: JsonObject) -> Usage:
    """Return the counts in the form that OpenAI gave them."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=count_in(usage["prompt_tokens"]),
        completion_tokens=count_in(usage["completion_tokens"]),
        cached_tokens=count_in(details.get("cached_tokens")),
    )


def read_timings(timings: JsonObject) -> Timings:
    """Return llama.cpp's own measurements, whose times are in milliseconds."""
    return Timings(
        prompt_seconds=seconds_in(timings["prompt_ms"], a_second=1000),
        generation_seconds=seconds_in(timings["predicted_ms"], a_second=1000),
        drafted_tokens=count_in(timings.get("draft_n")) or None,
        accepted_tokens=count_in(timings.get("draft_n_accepted")) if timings.get("draft_n") else None,
    )
