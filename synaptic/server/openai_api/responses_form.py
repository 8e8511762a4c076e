"""The object that ``/v1/responses`` answers with, and the events of a stream of it, in their official order.

An item is added, grows, and is done before the next one is added; only calls of functions, of which a server may write
several at once, are done at the end.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from synaptic.backends import CallsSoFar
from synaptic.server.gateway import event
from synaptic.server.openai_api.openai_replies import logprob_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.backends import WholeReply
    from synaptic.messages import Delta, Finished, ToolCallDelta, Usage
    from synaptic.server.gateway import HttpFailure
    from synaptic.server.openai_api.openai_replies import Json
    from synaptic.server.openai_api.responses_bodies import ResponsesBody

_FAILED: Final = 500
_BUSY: Final = 429


def response_usage(usage: Usage) -> Json:
    """Return the counts; how many tokens of a reply were thought, servers do not tell."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


@dataclass(slots=True)
class ResponseForm:
    """One response as it comes into being.

    Attributes:
        told: The object so far.
    """

    told: Json
    _sequence: int = 0
    _open: Json | None = None
    _part: Json | None = None
    _calls: dict[int, Json] = field(default_factory=dict)
    _so_far: CallsSoFar = field(default_factory=CallsSoFar)

    @classmethod
    def of(cls, body: ResponsesBody, *, stored: bool) -> ResponseForm:
        """Return the response of a call, before anything came."""
        return cls(_head(body, stored=stored))

    def begin(self, model: str) -> Iterator[bytes]:
        """Yield what comes before the first item."""
        self.told["model"] = model
        yield self._event("response.created", response=self.told)
        yield self._event("response.in_progress", response=self.told)

    def take(self, delta: Delta) -> Iterator[bytes]:
        """Yield the events of a delta."""
        if delta.thinking:
            yield from self._enter("reasoning", {"summary": [], "content": []}, "rs")
            yield from self._grow("response.reasoning_text.delta", delta.thinking)
        if delta.text or delta.logprobs:
            yield from self._enter("message", {"role": "assistant", "content": []}, "msg")
            yield from self._grow("response.output_text.delta", delta.text, logprob_entries(delta.logprobs))
        for call in delta.tool_calls:
            yield from self._call(call)

    def end(self, end: Finished) -> Iterator[bytes]:
        """Yield what comes behind the last delta, without the last event: the response is what it will be then."""
        cut = end.finish_reason == "length"
        yield from self._leave("incomplete" if cut else "completed")
        for item in self._calls.values():
            item["status"] = "incomplete" if cut else "completed"
            place = {"item_id": item["id"], "output_index": self.told["output"].index(item)}
            yield self._event("response.function_call_arguments.done", **place, arguments=item["arguments"])
            yield self._event("response.output_item.done", output_index=place["output_index"], item=item)
        self.told["status"] = "incomplete" if cut else "completed"
        self.told["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        self.told["completed_at"] = int(time.time())
        self.told["usage"] = response_usage(end.usage) if end.usage else None

    def last(self) -> bytes:
        """Return the last event."""
        return self._event(f"response.{self.told['status']}", response=self.told)

    def failed(self, failure: HttpFailure) -> bytes:
        """Return the last event of a response that failed on its way."""
        code = "rate_limit_exceeded" if failure.status == _BUSY else "server_error"
        if failure.status < _FAILED and failure.status != _BUSY:
            code = "invalid_prompt"
        self.told |= {"status": "failed", "error": {"code": code, "message": failure.message}}
        return self.last()

    def whole(self, reply: WholeReply, deltas: Iterator[Delta]) -> Json:
        """Return the response that a whole reply is."""
        self.told["model"] = reply.model
        for delta in deltas:
            for _ in self.take(delta):
                pass
        for _ in self.end(reply.end):
            pass
        return self.told

    def _enter(self, kind: str, begun: Json, prefix: str) -> Iterator[bytes]:
        """Open an item of a kind, unless it is open."""
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._leave("completed")
        self._open = {"id": f"{prefix}_{secrets.token_hex(16)}", "type": kind, "status": "in_progress", **begun}
        self._part = {"type": "reasoning_text", "text": ""}
        if kind == "message":
            self._part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.told["output"].append(self._open)
        yield self._event("response.output_item.added", output_index=self._at, item=self._open)
        self._open["content"].append(self._part)
        yield self._event("response.content_part.added", **self._place, part=self._part)

    def _grow(self, kind: str, text: str, logprobs: list[Json] | None = None) -> Iterator[bytes]:
        assert self._part is not None, "entered before"
        self._part["text"] += text
        told: Json = {} if logprobs is None else {"logprobs": logprobs}
        if logprobs:
            self._part["logprobs"] += logprobs
        yield self._event(kind, **self._place, delta=text, **told)

    def _leave(self, status: str) -> Iterator[bytes]:
        """Close the item that is open."""
        if self._open is None or self._part is None:
            return
        self._open["status"] = status
        thought = self._open["type"] == "reasoning"
        kind = "response.reasoning_text.done" if thought else "response.output_text.done"
        told = {} if thought else {"logprobs": self._part["logprobs"]}
        yield self._event(kind, **self._place, text=self._part["text"], **told)
        yield self._event("response.content_part.done", **self._place, part=self._part)
        yield self._event("response.output_item.done", output_index=self._at, item=self._open)
        self._open = self._part = None

    def _call(self, delta: ToolCallDelta) -> Iterator[bytes]:
        if self._so_far.add(delta):
            yield from self._leave("completed")
            identity = secrets.token_hex(16)
            item = {"id": f"fc_{identity}", "type": "function_call", "status": "in_progress", "arguments": ""}
            item |= {"call_id": delta.id or f"call_{identity[:24]}", "name": delta.name}
            self._calls[delta.index] = item
            self.told["output"].append(item)
            at = len(self.told["output"]) - 1
            yield self._event("response.output_item.added", output_index=at, item=item)
        item = self._calls[delta.index]
        if delta.arguments:
            item["arguments"] += delta.arguments
            place = {"item_id": item["id"], "output_index": self.told["output"].index(item)}
            yield self._event("response.function_call_arguments.delta", **place, delta=delta.arguments)

    @property
    def _at(self) -> int:
        return len(self.told["output"]) - 1

    @property
    def _place(self) -> Json:
        assert self._open is not None, "only of an open item"
        return {"item_id": self._open["id"], "output_index": self._at, "content_index": 0}

    def _event(self, kind: str, **told: Any) -> bytes:
        self._sequence += 1
        return event({"type": kind, "sequence_number": self._sequence - 1, **told}, kind)


def _head(body: ResponsesBody, *, stored: bool) -> Json:
    """Return what is known of a response before it is made: what was asked, in the words of the reference."""
    text = body.text.model_dump(exclude_none=True, by_alias=True) if body.text else {}
    choice = body.tool_choice or "auto"
    effort = body.reasoning.effort if body.reasoning else None
    return {
        "id": f"resp_{secrets.token_hex(24)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": True if body.parallel_tool_calls is None else body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": effort, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": body.temperature,
        "text": {"format": {"type": "text"}, **text},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
        "tools": [
            {"parameters": None, "strict": None, **tool.model_dump(exclude_none=True)} for tool in body.tools or ()
        ],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }
