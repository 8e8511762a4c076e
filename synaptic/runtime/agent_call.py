"""One agent's call: the request, the stream, the shape of the output, and its repairs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from synaptic.agents import is_complete_json
from synaptic.backends import capabilities_of
from synaptic.errors import OutputError, OutputTruncated, StreamTruncated
from synaptic.messages import (
    ChatRequest,
    Continued,
    Delta,
    Finished,
    FinishReason,
    Message,
    Restarted,
    Shortened,
    Timeouts,
    Timings,
    Usage,
)
from synaptic.runtime.events import EventHandler, PromptShortened, StepContinued, StepRepaired, StepRetried, TokenDelta
from synaptic.runtime.policies import as_generator

if TYPE_CHECKING:
    from synaptic.agents import Shape
    from synaptic.backends import Backend
    from synaptic.pipeline import CompiledCall
    from synaptic.runtime.list_feed import ListFeed

REPAIRS = 1
"""Repairs of a call with the wrong shape of output, where its step says nothing; each costs a whole call."""

DEFAULT_MAX_TOKENS = 1024

Output: TypeAlias = Any

_NOTHING = Usage()
_NO_TIMINGS = Timings()
_NO_BOUNDS = Timeouts()


@dataclass(slots=True)
class CallRecord:
    """What is known of a call so far; still true when the call is cancelled in the middle.

    Attributes:
        text: What the current attempt has produced.
        attempts: Requests sent, the first one, transport retries, fallbacks and repairs all counted.
        first_token_seconds: From sending the first request to the first token of the last.
        feed: Gets the text as it comes, where a map waits for the items of a list in it.

    """

    agent: str | None = None
    backend: str | None = None
    model: str | None = None
    node: str | None = None
    started_at: float | None = None
    text: list[str] = field(default_factory=list)
    attempts: int = 0
    usage: Usage = _NOTHING
    timings: Timings = _NO_TIMINGS
    first_token_seconds: float | None = None
    finish_reason: FinishReason | None = None
    cached: bool = False
    feed: ListFeed | None = None

    @property
    def partial(self) -> str:
        """The text so far."""
        return "".join(self.text)


async def call_agent(
    backend: Backend,
    request: ChatRequest,
    shape: Shape | None,
    record: CallRecord,
    emit: EventHandler,
    *,
    repairs: int = REPAIRS,
) -> Output:
    """Return the agent's output: text, or a value of ``shape``.

    Structured output is constrained while it is decoded, then validated. An output with the wrong shape is
    asked for again, telling the model what was wrong, with twice the token limit if the limit cut it.

    Raises:
        BackendError: If the call failed.
        BudgetExceeded: If the run has used up what it may use.
        OutputTruncated: If the token limit cut the JSON, also of the last repair.
        OutputInvalid: If the output had the wrong shape, also after the last repair.

    """
    while True:
        model = await _stream(backend, request, record, emit)
        text = record.partial
        if shape is None:
            return text.strip()
        try:
            return _checked(text, shape, record.finish_reason, request.max_tokens)
        except OutputError as exc:
            forget = capabilities_of(backend).forget
            if forget is not None:
                await forget(request)
            if repairs == 0:
                raise
            repairs -= 1
            emit(StepRepaired(request.tag, exc.message))
            request = _repair_request(request, exc, model)


def _checked(text: str, shape: Shape, finish: FinishReason | None, limit: int | None) -> Output:
    if finish == "length" and not is_complete_json(text):
        raise OutputTruncated(f"the token limit ({limit}) cut the JSON", text=text)
    return shape.validate_text(text)


def _repair_request(request: ChatRequest, error: OutputError, model: str | None) -> ChatRequest:
    """Return the request that asks again. A cut reply is not shown to the model again: it would go on alike."""
    if isinstance(error, OutputTruncated):
        limit = request.max_tokens and request.max_tokens * 2
        note = "Your last reply was too long and was cut off. Reply again, much shorter."
    else:
        limit = request.max_tokens
        note = f"Your last reply was not usable: {error.message}. Reply again."
    last = request.messages[-1]
    messages = (*request.messages[:-1], replace(last, content=f"{last.content}\n\n{note}"))
    return replace(request, messages=messages, max_tokens=limit, model=model)


async def _stream(backend: Backend, request: ChatRequest, record: CallRecord, emit: EventHandler) -> str | None:
    """Read one reply into the record and return the model that was asked last: a fallback may have taken over."""
    started = time.perf_counter()
    model = request.model
    _begin_attempt(record)
    chunks = as_generator(backend.stream(request))
    try:
        async for chunk in chunks:
            match chunk:
                case Delta():
                    if record.first_token_seconds is None and (chunk.text or chunk.thinking):
                        record.first_token_seconds = time.perf_counter() - started
                    if chunk.text:
                        record.text.append(chunk.text)
                        emit(TokenDelta(request.tag, chunk.text))
                        if record.feed is not None:
                            record.feed.write(chunk.text)
                case Finished():
                    _end_attempt(record, chunk)
                case Restarted():
                    model = chunk.model or model
                    emit(StepRetried(request.tag, chunk.attempt, chunk.reason, chunk.delay, chunk.model))
                    _begin_attempt(record)
                case Continued():
                    record.attempts += 1
                    emit(StepContinued(request.tag, chunk.reason, chunk.node))
                case Shortened():
                    emit(PromptShortened(request.tag, chunk.how, chunk.tokens_before, chunk.tokens_after))
                case _:
                    assert_never(chunk)
    finally:
        await chunks.aclose()
    if record.finish_reason is None:
        raise StreamTruncated("the reply ended before the backend said that it was complete", backend=backend.name)
    return model


def _begin_attempt(record: CallRecord) -> None:
    record.attempts += 1
    if record.attempts > 1:
        record.text.clear()
        record.finish_reason = None
        record.first_token_seconds = None
        if record.feed is not None:
            record.feed.reset()


def _end_attempt(record: CallRecord, chunk: Finished) -> None:
    record.finish_reason = chunk.finish_reason
    if chunk.usage is not None:
        record.usage = chunk.usage if record.usage is _NOTHING else record.usage + chunk.usage
    record.timings = chunk.timings or _NO_TIMINGS
    record.model = chunk.model or record.model
    record.node = chunk.node or record.node
    record.cached = chunk.cached


def build_request(
    call: CompiledCall,
    prompt: str,
    tag: str,
    defaults: ChatRequest,
    *,
    values: tuple[tuple[int, int], ...] = (),
    priority: int = 0,
    rank: int = 0,
) -> ChatRequest:
    """Return the request of one call: the agent's own wishes over the run's defaults.

    Args:
        call: What is called.
        prompt: The filled-in template.
        tag: The step's path.
        defaults: What holds where neither step nor agent nor pipeline says otherwise.
        values: Spans of the prompt that may be shortened.
        priority: Of the step, among calls that wait for a place.
        rank: Calls on the longest way from this one to the end of the run.

    """
    # Another backend than the run's does not have the run's model.
    default_model = defaults.model if call.policy.backend is None else None
    return ChatRequest(
        messages=(Message("system", call.agent.prompt), Message("user", prompt, values)),
        model=call.model or default_model,
        schema=call.shape.decoding_schema() if call.shape else None,
        temperature=defaults.temperature if call.temperature is None else call.temperature,
        max_tokens=call.max_tokens or defaults.max_tokens or DEFAULT_MAX_TOKENS,
        seed=defaults.seed,
        num_ctx=call.num_ctx or defaults.num_ctx,
        keep_alive=defaults.keep_alive,
        think=defaults.think,
        repetition_guard=defaults.repetition_guard,
        timeouts=_merged(call.timeouts, defaults.timeouts),
        tag=tag,
        priority=defaults.priority + priority,
        rank=rank,
    )


def _merged(own: Timeouts, defaults: Timeouts) -> Timeouts:
    if own is _NO_BOUNDS or own == _NO_BOUNDS:
        return defaults
    return Timeouts(
        first_token=defaults.first_token if own.first_token is None else own.first_token,
        idle=defaults.idle if own.idle is None else own.idle,
        total=defaults.total if own.total is None else own.total,
    )
