"""The one vocabulary that every layer shares: what is asked, what comes back, what a backend can serve."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from synaptic.quick_init import quick_init

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length"]

JsonSchema: TypeAlias = Mapping[str, Any]

PriorityClass = Literal["interactive", "run", "batch"]
PRIORITIES: dict[PriorityClass, int] = {"interactive": 1000, "run": 0, "batch": -1000}
"""What a class of calls adds to their priority. Within a class, steps have their own, between -100 and 100."""


@quick_init
@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        values: Spans (start, end) of ``content`` that are data filled into a template: what may be shortened where the
            whole does not fit. Empty where that is not known or not wanted.

    """

    role: Role
    content: str
    values: tuple[tuple[int, int], ...] = ()


@quick_init
@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on one call, in seconds; ``None`` is off.

    Attributes:
        first_token: From sending the request to the first chunk; covers loading a cold model.
        idle: Between two chunks.
        total: The whole call.

    """

    first_token: float | None = None
    idle: float | None = None
    total: float | None = None


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One call of a model.

    Attributes:
        model: As the backend names it; ``None`` lets the backend take its own.
        schema: A JSON Schema that the reply is constrained to while it is decoded.
        max_tokens: Bound on what is generated; ``None`` leaves it to the backend.
        num_ctx: Context length in tokens to serve the call with (Ollama reloads a model when it changes).
        keep_alive: How long the model stays loaded after the call, as Ollama writes it ("5m", "-1").
        think: Ask a reasoning model to think, or not to; ``None`` leaves it to the model.
        repetition_guard: Keep small models from repeating themselves, by whatever means the backend has.
        tag: The path of the step that asks (``research[2]``); for logs and scripted replies, never sent.
        priority: Of calls that wait for a place, the one with the higher priority goes first.
        rank: Calls on the longest way from this one to the end of its run; decides between equal priorities.

    """

    messages: tuple[Message, ...]
    model: str | None = None
    schema: JsonSchema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    num_ctx: int | None = None
    keep_alive: str | None = None
    think: bool | None = None
    repetition_guard: bool = True
    timeouts: Timeouts = Timeouts()
    tag: str = ""
    priority: int = 0
    rank: int = 0


@quick_init
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, or of several added up. ``cached_tokens`` are part of ``prompt_tokens``."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@quick_init
@dataclass(frozen=True, slots=True)
class Timings:
    """What the server measured, in seconds; ``None`` where it does not say."""

    load_seconds: float | None = None
    prompt_seconds: float | None = None
    generation_seconds: float | None = None


@quick_init
@dataclass(frozen=True, slots=True)
class Delta:
    """What a reply has grown by: text, or a reasoning model's thinking. Either may be empty."""

    text: str = ""
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class ThoughtSoFar:
    """All text so far was thinking: the prompt had opened it, and now it was closed. The text begins from nothing."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """A call is being sent again; every delta before this is void, and the text begins from nothing.

    Attributes:
        attempt: The attempt that now begins; the first one was 1.
        delay: Seconds until it begins.
        model: The model that is asked instead, where it is another one.

    """

    attempt: int
    reason: str
    delay: float = 0.0
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Continued:
    """A call broke in mid-stream and another server goes on from the text so far, which stays valid.

    Attributes:
        node: The server that goes on.

    """

    reason: str
    node: str | None = None


Overflow: TypeAlias = Literal["error", "truncate_oldest", "summarise"]
"""What happens to a prompt that does not fit the model's context."""


@dataclass(frozen=True, slots=True)
class Shortened:
    """A prompt did not fit the context and was shortened as its step says; counts are tokens. Precedes the reply.

    Where the server itself has cut it, ``how`` is "server", and this comes behind the text, when that is known.
    """

    how: Literal["truncate_oldest", "summarise", "server"]
    tokens_before: int
    tokens_after: int


@quick_init
@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a complete reply, and its last chunk; a stream that ends without it was cut.

    Attributes:
        finish_reason: Why it ends: the model ended it, or the token limit or the context did.
        usage: Tokens of the whole call; ``None`` where the server does not count.
        timings: Of the last attempt; ``None`` where the server does not measure.
        model: That served the call.
        node: Where it was served: the name of the node, its address where it has none.
        cached: Whether the reply was kept from an earlier call, and no model was asked.
        tool: The name of a tool that the model called, although it was offered none; ``None`` where it did not.

    """

    finish_reason: FinishReason
    usage: Usage | None = None
    timings: Timings | None = None
    model: str | None = None
    node: str | None = None
    cached: bool = False
    tool: str | None = None


Chunk: TypeAlias = Delta | ThoughtSoFar | Restarted | Continued | Shortened | Finished
"""A piece of the stream of one call. Handle every member: ``match``, and ``assert_never`` for what is left over."""

ReplyChunk: TypeAlias = Delta | ThoughtSoFar | Finished
"""What a server's own reply consists of. The other chunks come from wrappers, and from backends of several servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that a backend can serve.

    Attributes:
        size_bytes: Size of the weights.
        context_length: The longest context, in tokens, that it can be served with.
        loaded: Whether it is in memory now.

    """

    name: str
    size_bytes: int | None = None
    context_length: int | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    loaded: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Where calls go, and why: the row of the routing table that applied.

    Attributes:
        model: The model that is used where nothing names another; ``None`` where only the backend knows.

    """

    backend: str
    node: str | None
    model: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class BackendNotice:
    """Something that a backend did on its own and that a person should know of (an engine restarted)."""

    backend: str
    message: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class BackendProgress:
    """Progress of long work inside a backend, in bytes. ``total`` is ``None`` while it is unknown."""

    backend: str
    label: str
    done: int
    total: int | None


BackendReport: TypeAlias = BackendNotice | BackendProgress
Reporter: TypeAlias = Callable[[BackendReport], None]


def ignore_report(report: BackendReport) -> None:
    """Take a report and do nothing: the default."""
