"""One agent's call: the request, the stream, the shape of the output, and its repairs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never

from synaptic.agents import is_complete_json
from synaptic.backends import capabilities_of
from synaptic.errors import OutputEmpty, OutputError, OutputTruncated, StreamTruncated
from synaptic.messages import (
    ChatRequest,
    Continued,
    Delta,
    Finished,
    FinishReason,
    Message,
    Restarted,
    Shortened,
    ThoughtSoFar,
    Timeouts,
    Timings,
    Usage,
)
from synaptic.runtime.events import (
    EventHandler,
    PromptShortened,
    StepContinued,
    StepRepaired,
    StepRetried,
    StepThinking,
    StepThought,
    TokenDelta,
    UnusableReply,
)
from synaptic.runtime.policies import as_generator
from synaptic.text import plural

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from synaptic.agents import Shape
    from synaptic.backends import Backend
    from synaptic.messages import Chunk
    from synaptic.pipeline import CompiledCall
    from synaptic.runtime.list_feed import ListFeed
    from synaptic.runtime.past import Done

REPAIRS = 1
"""Repairs of a call with the wrong shape of output, where its step says nothing; each costs a whole call."""

DEFAULT_MAX_TOKENS = 1024

MADE_ANEW: Final = (
    "the run was cut off in this call; it is made anew: its text was short, or has a shape, or what answers"
    " is not known to go on with one"
)

THOUGHT_PIECES: Final = 64
"""Pieces of thinking that are told together, and lost where the program is killed before."""

ROOM_TO_ANSWER = 2
ROOM_TO_THINK = 4
"""How many times the token limit a reply gets that used it up without answering: less if it may not think any more."""

Output: TypeAlias = Any

_NOTHING = Usage()
_NO_TIMINGS = Timings()
_NO_BOUNDS = Timeouts()


@dataclass(slots=True)
class CallRecord:
    """What is known of a call so far; still true when the call is cancelled in the middle.

    Attributes:
        text: What the current attempt has produced.
        before: What an earlier run of the call had said, which stays until something new is said.
        thinking: Pieces of thinking that it has produced; a server sends about one for each token.
        tool: What the model called instead of answering.
        attempts: Requests sent, the first one, transport retries, fallbacks and repairs all counted.
        first_token_seconds: From sending the first request to the first token of the last.
        stop_reason: Why the output ends where it ends, of a call that an earlier run made.
        feed: Gets the text as it comes, where a map waits for the items of a list in it.
    """

    agent: str | None = None
    backend: str | None = None
    model: str | None = None
    node: str | None = None
    started_at: float | None = None
    text: list[str] = field(default_factory=list)
    before: str = ""
    thinking: int = 0
    tool: str | None = None
    attempts: int = 0
    usage: Usage = _NOTHING
    timings: Timings = _NO_TIMINGS
    first_token_seconds: float | None = None
    finish_reason: FinishReason | None = None
    cached: bool = False
    stop_reason: str | None = None
    feed: ListFeed | None = None

    @property
    def partial(self) -> str:
        """The text so far."""
        return "".join(self.text)

    @property
    def left(self) -> str:
        """What stays of the call if it ends here."""
        return self.partial or self.before

    def say(self, text: str) -> None:
        """Add a piece of text."""
        self.text.append(text)
        if self.feed is not None:
            self.feed.write(text)

    def reuse(self, done: Done) -> None:
        """Take over what is known of a call that is not made, because an earlier run made it."""
        self.model = done.model or self.model
        self.backend = done.backend or self.backend
        self.node = done.node
        self.stop_reason = done.stop_reason

    def take(self, reply: UnusableReply) -> str | None:
        """Take over a reply of an earlier run; return the model that was asked."""
        _begin_attempt(self)
        self.say(reply.content)
        self.attempts, self.usage = reply.attempts, reply.usage
        self.thinking, self.tool, self.finish_reason = reply.thinking, reply.tool, reply.finish_reason
        return reply.model

    def unusable(self, model: str | None) -> UnusableReply:
        """Return the reply that has come, which cannot be used."""
        return UnusableReply(
            content=self.partial,
            model=model,
            finish_reason=self.finish_reason,
            attempts=self.attempts,
            usage=self.usage,
            thinking=self.thinking,
            tool=self.tool,
        )

    def refused(self) -> None:
        """Take back the latest attempt if it was refused before it was sent: nothing came of it."""
        if self.attempts and self.first_token_seconds is None and self.finish_reason is None:
            self.attempts -= 1

    def forget_text(self) -> None:
        """Void the text so far."""
        self.text.clear()
        if self.feed is not None:
            self.feed.reset()


async def call_agent(
    backend: Backend,
    request: ChatRequest,
    shape: Shape | None,
    record: CallRecord,
    emit: EventHandler,
    *,
    repairs: int = REPAIRS,
    known: Sequence[UnusableReply] = (),
) -> Output:
    """Return the agent's output: text, or a value of ``shape``.

    Structured output is constrained while it is decoded, then validated. An output with the wrong shape is
    asked for again, telling the model what was wrong, with twice the token limit if the limit cut it. An empty output
    is asked for once more, too, without thinking where thinking came instead; no output is ever empty.

    The first replies are those that are ``known`` from an earlier run; the one after them is what was ``begun``.

    Raises:
        BackendError: If the call failed.
        BudgetExceeded: If the run has used up what it may use.
        OutputEmpty: If no text came, also the second time.
        OutputTruncated: If the token limit cut the JSON, also of the last repair.
        OutputInvalid: If the output had the wrong shape, also after the last repair.
    """
    after_empty = min(1, repairs)
    known_replies = iter(known)
    begun, request = request.begun, replace(request, begun="") if request.begun else request
    while True:
        reply = next(known_replies, None)
        if reply is not None:
            model = record.take(reply)
        else:
            model = await _stream(backend, replace(request, begun=begun) if begun else request, record, emit)
            begun = ""
        try:
            return _checked(record, shape, request)
        except OutputError as exc:
            forget = capabilities_of(backend).forget
            if forget is not None:
                await forget(request)
            is_empty = isinstance(exc, OutputEmpty)
            if (after_empty if is_empty else repairs) == 0:
                raise
            after_empty, repairs = (0, repairs) if is_empty else (after_empty, repairs - 1)
            if reply is None:  # what is known was told by the run that got it
                emit(StepRepaired(request.tag, exc.message, record.unusable(model)))
            request = _repair_request(request, exc, model, thought=record.thinking > 0)


def _checked(record: CallRecord, shape: Shape | None, request: ChatRequest) -> Output:
    text = record.partial
    if not text.strip():
        raise _empty(record, request)
    if shape is None:
        return text.strip()
    if record.finish_reason == "length" and not is_complete_json(text):
        thought = f"; about {plural(record.thinking, 'token')} of thinking came before it" if record.thinking else ""
        raise OutputTruncated(
            f"the token limit ({request.max_tokens}) cut the JSON{thought}",
            text=text,
            hint="raise the step's max_tokens" + (", or set think to false" if record.thinking else ""),
        )
    return shape.validate_text(text)


def _empty(record: CallRecord, request: ChatRequest) -> OutputEmpty:
    """Return the error for a reply without text: what came instead, and what to set."""
    limit = request.max_tokens
    if record.tool is not None:
        what = f"the model called a tool ({record.tool}) instead of answering"
        return OutputEmpty(what, hint="no tools are offered; ask for an answer in words, or use another model")
    told = ", although it was told not to think" if request.think is False else ""
    calm = "use another model" if told else "set think to false"
    if record.thinking and record.finish_reason == "length":
        what = f"the model used up its token limit ({limit}) by thinking{told}, and no answer came"
        return OutputEmpty(what, hint=f"raise the step's max_tokens, or {calm}")
    if record.thinking:
        tokens = plural(record.thinking, "token")
        what = f"the model ended its reply after about {tokens} of thinking{told}, without an answer"
        return OutputEmpty(what, hint=calm if told else f"{calm}, or use another model")
    if record.finish_reason == "length":
        what = f"the model used up its token limit ({limit}), and no text came"
        return OutputEmpty(what, hint="raise the step's max_tokens; if the model thinks unseen, set think to false")
    return OutputEmpty("the model's reply is empty", hint="say in the prompt what to answer, or use another model")


def _repair_request(request: ChatRequest, error: OutputError, model: str | None, *, thought: bool) -> ChatRequest:
    """Return the request that asks again. A cut reply is not shown to the model again: it would go on alike."""
    if isinstance(error, OutputEmpty) and thought:
        more = ROOM_TO_THINK if request.think else ROOM_TO_ANSWER
        limit = request.max_tokens and request.max_tokens * more
        return replace(request, think=request.think or False, max_tokens=limit, model=model)
    if isinstance(error, OutputEmpty):
        limit = request.max_tokens and request.max_tokens * ROOM_TO_ANSWER
        note = "Your last reply was empty. Reply in words."
    elif isinstance(error, OutputTruncated):
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
    reply = as_generator(backend.stream(request))
    chunks = _beginning_anew(reply, request, emit) if request.begun else reply
    thoughts = _Thoughts(request.tag, emit)
    try:
        async for chunk in chunks:
            match chunk:
                case Delta():
                    if record.first_token_seconds is None and (chunk.text or chunk.thinking):
                        record.first_token_seconds = time.perf_counter() - started
                    record.thinking += thoughts.take(chunk.thinking)
                    if chunk.text:
                        thoughts.tell()
                        emit(TokenDelta(request.tag, chunk.text))
                        record.say(chunk.text)
                case Finished():
                    _end_attempt(record, chunk)
                case ThoughtSoFar():
                    record.thinking += len(record.text)
                    record.forget_text()
                    emit(StepThought(request.tag))
                case Restarted():
                    model = chunk.model or model
                    thoughts.tell()
                    emit(StepRetried(request.tag, chunk.attempt, chunk.reason, chunk.delay, chunk.model))
                    _begin_attempt(record)
                case Continued():
                    _continue(record, chunk, request, emit)
                case Shortened():
                    emit(PromptShortened(request.tag, chunk.how, chunk.tokens_before, chunk.tokens_after))
                case _:
                    assert_never(chunk)
    finally:
        thoughts.tell()
        await chunks.aclose()
    if record.finish_reason is None:
        raise StreamTruncated("the reply ended before the backend said that it was complete", backend=backend.name)
    return model


class _Thoughts:
    """Tells what a model thinks in parts: there is an event for each piece of an answer, but who follows a thought?"""

    def __init__(self, path: str, emit: EventHandler) -> None:
        self._path = path
        self._emit = emit
        self._pieces: list[str] = []

    def take(self, piece: str) -> bool:
        """Take a piece; return whether it is one."""
        if piece:
            self._pieces.append(piece)
            if len(self._pieces) >= THOUGHT_PIECES:
                self.tell()
        return bool(piece)

    def tell(self) -> None:
        """Tell what was not told yet."""
        if self._pieces:
            self._emit(StepThinking(self._path, "".join(self._pieces)))
            self._pieces.clear()


def _continue(record: CallRecord, chunk: Continued, request: ChatRequest, emit: EventHandler) -> None:
    """Note that another server goes on with the text so far, or this one with what an earlier process got."""
    emit(StepContinued(request.tag, chunk.reason, chunk.node))
    if request.begun and not record.text:
        for piece in _pieces(request.begun, request.begun_pieces):  # should it break off again, they are counted
            emit(TokenDelta(request.tag, piece))
        record.say(request.begun)
    else:
        record.attempts += 1


def _pieces(text: str, pieces: int) -> Iterator[str]:
    """Cut a text into so many pieces of about one size."""
    most = max(1, min(pieces, len(text)))
    ends = [len(text) * number // most for number in range(most + 1)]
    return (text[start:end] for start, end in pairwise(ends))


async def _beginning_anew(
    chunks: AsyncGenerator[Chunk], request: ChatRequest, emit: EventHandler
) -> AsyncGenerator[Chunk]:
    """Yield the chunks; say so first where they do not go on with what was begun."""
    waits = True
    try:
        async for chunk in chunks:
            if waits and not isinstance(chunk, Shortened | Restarted | Continued):
                emit(StepRetried(request.tag, 1, MADE_ANEW, 0.0))
            waits = waits and isinstance(chunk, Shortened)
            yield chunk
    finally:
        await chunks.aclose()


def _begin_attempt(record: CallRecord) -> None:
    record.attempts += 1
    if record.attempts > 1:
        record.forget_text()
        record.thinking = 0
        record.tool = None
        record.finish_reason = None
        record.first_token_seconds = None


def _end_attempt(record: CallRecord, chunk: Finished) -> None:
    record.finish_reason = chunk.finish_reason
    if chunk.usage is not None:
        record.usage = chunk.usage if record.usage is _NOTHING else record.usage + chunk.usage
    record.timings = chunk.timings or _NO_TIMINGS
    record.model = chunk.model or record.model
    record.node = chunk.node or record.node
    record.cached = chunk.cached
    record.tool = chunk.tool


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
        max_tokens=call.max_tokens or defaults.max_tokens or call.usual_tokens or DEFAULT_MAX_TOKENS,
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
