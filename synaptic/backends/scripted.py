"""The backend without a model: scripted replies, an echo, delays, and every way in which a backend can fail.

It ships with the package, since an author of a pipeline wants to try it without waiting for a model. Without a
script it echoes the last user message, or makes the smallest value that fits the schema that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from synaptic.backends.base import EVERY_FEATURE, BackendContext, BackendKind, Capabilities
from synaptic.backends.schema_sample import sample_value
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    ContextOverflow,
    EngineCrashed,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import (
    ChatRequest,
    Delta,
    Finished,
    FinishReason,
    ModelInfo,
    ReplyChunk,
    Timings,
    ToolCall,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

NAME = "scripted"

FailureKind = Literal[
    "unavailable",
    "busy",
    "not_found",
    "rejected",
    "server_error",
    "stream_failed",
    "truncated",
    "stall",
    "protocol",
    "crash",
]

_ERRORS: dict[str, tuple[type[BackendError], str]] = {
    "unavailable": (BackendUnavailable, "nothing answers"),
    "busy": (BackendBusy, "the server is busy"),
    "not_found": (ModelNotFound, "the model is not there"),
    "rejected": (RequestRejected, "the request was rejected"),
    "server_error": (ServerError, "the server failed"),
    "stream_failed": (StreamFailed, "the server failed in mid-stream"),
    "truncated": (StreamTruncated, "the stream ended before its end was announced"),
    "protocol": (ProtocolError, "the server sent something else than JSON"),
    "crash": (EngineCrashed, "the engine died"),
}

_TOKENS = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True, slots=True)
class Failure:
    """A scripted failure.

    Attributes:
        kind: Which; ``stall`` sends nothing more until it is cancelled.
        after_tokens: How much of ``text`` is sent before.
        text: What the reply would have been.
    """

    kind: FailureKind
    after_tokens: int = 0
    text: str = "one two three four five six seven eight"

    def __post_init__(self) -> None:
        if self.kind not in get_args(FailureKind):
            known = ", ".join(get_args(FailureKind))
            raise ValueError(f"there is no failure of the kind {self.kind!r}; known: {known}")

    def error(self) -> BackendError:
        """Return the error that this failure raises."""
        kind, message = _ERRORS[self.kind]
        return kind(f"{message} (scripted)", backend=NAME, node=NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A scripted reply with everything said.

    Attributes:
        token_delay: Seconds before each token; ``None`` takes the backend's.
        tool_calls: What the model asks to have called, behind its text.
    """

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    token_delay: float | None = None


_PLAIN = Reply(text="")
_NO_TIME = Timings(prompt_seconds=0.0, generation_seconds=0.0)

Answer: TypeAlias = "str | Mapping[str, Any] | list[Any] | Failure | Reply | Exception"
Script: TypeAlias = (
    "Callable[[ChatRequest], Answer | Awaitable[Answer]] | Sequence[Answer] | Mapping[str, Answer | tuple[Answer, ...]]"
)


class ScriptedBackend:
    """A backend that answers from a script.

    A script is one of

    - a function of the request that returns an answer, or something to await for one;
    - a list of answers, given in order;
    - a mapping from step to answer: the exact path of a step (``research[2]``) or a pattern (``research*``; brackets
      stand for themselves); a tuple of answers is given in order, its last one from then on. A step that is not in the
      mapping is answered as if there were no script.

    An answer is a text, a value that is sent as JSON, a ``Reply``, a ``Failure``, or an exception to raise.

    Args:
        replies: The script; ``None`` echoes the last user message, or makes a small value of the schema.
        token_delay: Seconds before each token but the first.
        first_token_delay: Seconds before the first token.
        slots: How many calls are served at once; others wait. ``None`` serves all.
        context: The longest prompt and reply together, in words, which are its tokens. ``None`` is unbounded.
        model: The one model that it claims to have.

    Attributes:
        requests: Every request so far.
        active: Calls being served now.
        max_active: The most calls that were served at once.
        closed: Whether ``aclose`` was called.
    """

    name = NAME

    def __init__(
        self,
        replies: Script | None = None,
        *,
        token_delay: float = 0.0,
        first_token_delay: float = 0.0,
        slots: int | None = None,
        context: int | None = None,
        model: str = "scripted",
    ) -> None:
        self._replies = replies
        self._token_delay = token_delay
        self._first_token_delay = first_token_delay
        self._slots = None if slots is None else asyncio.Semaphore(slots)
        self._context = context
        self._turns: dict[str, int] = {}
        self.model = model
        self.requests: list[ChatRequest] = []
        self.active = 0
        self.max_active = 0
        self.closed = False
        self.capabilities = Capabilities(
            default_model=self.default_model,
            context_length=self.context_length,
            count_tokens=self.count_tokens,
            features=EVERY_FEATURE - {"logprobs", "options"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the scripted answer to ``request``, token by token.

        Raises:
            BackendError: If the script says so, or has no answer left.
        """
        if self.closed:
            raise BackendUnavailable("the scripted backend has been closed", backend=NAME)
        self.requests.append(request)
        if self._slots is not None:
            await self._slots.acquire()
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            answer = self._answer(request)
            if not isinstance(answer, str) and isinstance(answer, Awaitable):
                answer = await answer
            prompt_tokens = self._prompt_tokens(request)
            reply, tokens, failure = as_played(answer)
            delay = self._token_delay if reply.token_delay is None else reply.token_delay
            pause = self._first_token_delay
            at_once = delay <= 0 and pause <= 0
            started = 0.0 if at_once else time.perf_counter()
            if reply.thinking:
                yield Delta(thinking=reply.thinking)
            for token in tokens if failure is None else tokens[: failure.after_tokens]:
                if pause > 0:
                    await asyncio.sleep(pause)
                pause = delay
                yield Delta(token)
            if failure is not None:
                await _fail(failure)
            for index, call in enumerate(reply.tool_calls):
                yield Delta(tool_calls=(ToolCallDelta(index, call.id, call.name, call.arguments),))
            yield Finished(
                "tool_calls" if reply.tool_calls else reply.finish_reason,
                usage=Usage(prompt_tokens, len(tokens)),
                timings=_NO_TIME if at_once else Timings(None, 0.0, time.perf_counter() - started),
                model=request.model or self.model,
                node=NAME,
            )
        finally:
            self.active -= 1
            if self._slots is not None:
                self._slots.release()

    async def models(self) -> list[ModelInfo]:
        """Return the one model there is."""
        return [ModelInfo(name=self.model, loaded=True)]

    async def default_model(self) -> str:
        """Return the one model there is."""
        return self.model

    async def context_length(self, _: ChatRequest) -> int | None:
        """Return the context that was chosen."""
        return self._context

    async def count_tokens(self, text: str) -> int:
        """Return the number of words: each is a token here."""
        return len(text.split())

    async def aclose(self) -> None:
        """Refuse further calls."""
        self.closed = True

    def _answer(self, request: ChatRequest) -> Answer | Awaitable[Answer]:
        script = self._replies
        if script is None:
            return default_answer(request)
        if callable(script):
            return script(request)
        if not isinstance(script, Mapping):
            return self._in_order("", script, request, repeat_last=False)
        key = matching_key(request.tag, script)
        if key is None:
            return default_answer(request)
        answer = script[key]
        return self._in_order(key, answer, request, repeat_last=True) if isinstance(answer, tuple) else answer

    def _in_order(self, key: str, answers: Sequence[Answer], request: ChatRequest, *, repeat_last: bool) -> Answer:
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        if turn < len(answers):
            return answers[turn]
        if repeat_last and answers:
            return answers[-1]
        raise RequestRejected(
            f"the script has {len(answers)} answers, and none is left for the call {request.tag or turn + 1!r}",
            backend=NAME,
        )

    def _prompt_tokens(self, request: ChatRequest) -> int:
        """Return the length of the prompt; one that does not fit the context is refused, as a server does."""
        tokens = 0
        for message in request.messages:
            tokens += len(message.content.split())
        if self._context is not None and tokens > self._context:
            raise ContextOverflow(
                f"the prompt is {tokens} tokens, but the context is {self._context} tokens",
                hint="shorten the prompt",
                backend=NAME,
                node=NAME,
            )
        return tokens


def from_context(context: BackendContext) -> ScriptedBackend:
    """Return a backend that echoes; the settings name its model."""
    return ScriptedBackend(model=context.settings.model or "scripted")


KIND = BackendKind(name=NAME, summary="no model: echoes, or answers from a script", open=from_context)


def default_answer(request: ChatRequest) -> str:
    """Return what is said without a script: a small value of the schema, else the last user message."""
    if request.schema is not None:
        return json.dumps(sample_value(request.schema), ensure_ascii=False)
    return next((message.content for message in reversed(request.messages) if message.role == "user"), "")


def matching_key(tag: str, keys: Iterable[str]) -> str | None:
    """Return the key that is ``tag``, else the first that is a pattern of it; brackets stand for themselves."""
    patterns = list(keys)
    if tag in patterns:
        return tag
    return next((key for key in patterns if fnmatchcase(tag, key.replace("[", "[[]"))), None)


def as_reply(answer: Answer) -> Reply:
    """Return an answer in its full form; of a failure, the reply that it breaks off."""
    match answer:
        case Reply():
            return answer
        case Failure():
            return Reply(text=answer.text)
        case str():
            return Reply(text=answer)
        case _:
            return Reply(text=json.dumps(answer, ensure_ascii=False))


def as_played(answer: Answer) -> tuple[Reply, list[str], Failure | None]:
    """Return the reply, the tokens of its text, and the failure that breaks it off.

    Raises:
        Exception: The answer itself, if it is one.
    """
    if isinstance(answer, str):
        return _PLAIN, tokens_of(answer), None
    if isinstance(answer, Exception):
        raise answer
    reply = as_reply(answer)
    return reply, tokens_of(reply.text), answer if isinstance(answer, Failure) else None


async def _fail(failure: Failure) -> None:
    if failure.kind == "stall":
        await asyncio.get_running_loop().create_future()
    raise failure.error()


def tokens_of(text: str) -> list[str]:
    """Split a text into words, each with the blanks before it; joined, they are the text again."""
    return _TOKENS.findall(text)
