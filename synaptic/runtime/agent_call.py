"""One agent's call: the request, the stream, the shape of the output, and its one repair."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from synaptic.errors import OutputError, OutputTruncated, StreamTruncated
from synaptic.messages import ChatRequest, Chunk, FinishReason, Message, Timings, Usage
from synaptic.runtime.events import EventHandler, StepRepaired, StepRetried, TokenDelta
from synaptic.runtime.policies import as_generator
from synaptic.shape import is_complete_json

if TYPE_CHECKING:
    from synaptic.backends.base import Backend
    from synaptic.pipeline.graph import CompiledCall
    from synaptic.shape import Shape

REPAIRS = 1
"""Times that a call with the wrong shape of output is repaired; each costs a whole call."""

DEFAULT_MAX_TOKENS = 1024

Output: TypeAlias = Any


@dataclass(slots=True)
class CallRecord:
    """What is known of a call so far; still true when the call is cancelled in the middle.

    Attributes:
        text: What the current attempt has produced.
        attempts: Requests sent, the first one, transport retries and repairs all counted.
        first_token_seconds: From sending the first request to the first token of the last.

    """

    text: list[str] = field(default_factory=list)
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    model: str | None = None
    node: str | None = None
    first_token_seconds: float | None = None
    finish_reason: FinishReason | None = None

    @property
    def partial(self) -> str:
        """The text so far."""
        return "".join(self.text)


async def call_agent(
    backend: Backend, request: ChatRequest, shape: Shape | None, record: CallRecord, emit: EventHandler
) -> Output:
    """Return the agent's output: text, or a value of ``shape``.

    Structured output is constrained while it is decoded, then validated. An output with the wrong shape is
    asked for once more, telling the model what was wrong, with twice the token limit if the limit cut it.

    Raises:
        BackendError: If the call failed.
        OutputTruncated: If the token limit cut the JSON, twice.
        OutputInvalid: If the output had the wrong shape, twice.

    """
    for repair in range(REPAIRS + 1):
        await _stream(backend, request, record, emit)
        text = record.partial
        if shape is None:
            return text.strip()
        try:
            return _checked(text, shape, record.finish_reason, request.max_tokens)
        except OutputError as exc:
            if repair == REPAIRS:
                raise
            emit(StepRepaired(request.tag, exc.message))
            request = _repair_request(request, exc)
    raise AssertionError("unreachable")


def _checked(text: str, shape: Shape, finish: FinishReason | None, limit: int | None) -> Output:
    if finish == "length" and not is_complete_json(text):
        raise OutputTruncated(f"the token limit ({limit}) cut the JSON", text=text)
    return shape.validate_text(text)


def _repair_request(request: ChatRequest, error: OutputError) -> ChatRequest:
    """Return the request that asks again. A cut reply is not shown to the model again: it would go on alike."""
    if isinstance(error, OutputTruncated):
        limit = request.max_tokens and request.max_tokens * 2
        note = "Your last reply was too long and was cut off. Reply again, much shorter."
        return replace(request, max_tokens=limit, messages=(*request.messages[:-1], _with_note(request, note)))
    note = f"Your last reply was not usable: {error.message}. Reply again."
    return replace(request, messages=(*request.messages[:-1], _with_note(request, note)))


def _with_note(request: ChatRequest, note: str) -> Message:
    last = request.messages[-1]
    return replace(last, content=f"{last.content}\n\n{note}")


async def _stream(backend: Backend, request: ChatRequest, record: CallRecord, emit: EventHandler) -> None:
    started = time.perf_counter()
    _begin_attempt(record)
    async with aclosing(as_generator(backend.stream(request))) as chunks:
        async for chunk in chunks:
            if chunk.restart is not None:
                emit(StepRetried(request.tag, chunk.restart.attempt, chunk.restart.reason, chunk.restart.delay))
                _begin_attempt(record)
                continue
            if (chunk.text or chunk.thinking) and record.first_token_seconds is None:
                record.first_token_seconds = time.perf_counter() - started
            if chunk.text:
                record.text.append(chunk.text)
                emit(TokenDelta(request.tag, chunk.text))
            if chunk.finish_reason is not None:
                _end_attempt(record, chunk)
    if record.finish_reason is None:
        raise StreamTruncated("the reply ended before the backend said that it was complete", backend=backend.name)


def _begin_attempt(record: CallRecord) -> None:
    record.attempts += 1
    record.text.clear()
    record.finish_reason = None
    record.first_token_seconds = None


def _end_attempt(record: CallRecord, chunk: Chunk) -> None:
    record.finish_reason = chunk.finish_reason
    record.usage += chunk.usage or Usage()
    record.timings = chunk.timings or Timings()
    record.model = chunk.model or record.model
    record.node = chunk.node or record.node


def build_request(call: CompiledCall, prompt: str, tag: str, defaults: ChatRequest) -> ChatRequest:
    """Return the request of one call: the agent's own wishes over the run's defaults."""
    system = Message("system", call.agent.prompt)
    return replace(
        defaults,
        messages=(system, Message("user", prompt)),
        model=call.model or defaults.model,
        schema=call.shape.decoding_schema() if call.shape else None,
        temperature=defaults.temperature if call.temperature is None else call.temperature,
        max_tokens=call.max_tokens or DEFAULT_MAX_TOKENS,
        tag=tag,
    )
