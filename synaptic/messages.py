"""The one vocabulary that every layer shares: what is asked, what comes back, what a backend can serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from synaptic.quick_init import quick_init

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls"]

JsonSchema: TypeAlias = Mapping[str, Any]

ThinkLevel = Literal["low", "medium", "high", "max"]

PriorityClass = Literal["interactive", "run", "batch"]
PRIORITIES: dict[PriorityClass, int] = {"interactive": 1000, "run": 0, "batch": -1000}
"""What a class of calls adds to their priority. Within a class, steps have their own, between -100 and 100."""


@quick_init
@dataclass(frozen=True, slots=True)
class Image:
    """A picture that belongs to a message: its bytes in base64, and what kind they are (``image/png``)."""

    data: str
    media_type: str


@quick_init
@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model asked for; ``arguments`` is the text of a JSON object."""

    id: str
    name: str
    arguments: str

    @property
    def values(self) -> dict[str, Any] | None:
        """The arguments, none of them where the text is empty; ``None`` where it is no JSON object."""
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


@quick_init
@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that a model may ask for; ``parameters`` is the JSON Schema of its arguments. It is called elsewhere."""

    name: str
    description: str
    parameters: JsonSchema


@quick_init
@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        values: Spans (start, end) of ``content`` that are data filled into a template: what may be shortened where the
            whole does not fit. Empty where that is not known or not wanted.
        images: Pictures that the turn shows.
        tool_calls: What the assistant asked for in this turn.
        tool_call_id: Which of these calls a turn of the role "tool" answers.
        tool_name: The name of the tool that answers.
        thinking: What the assistant thought before this turn.
    """

    role: Role
    content: str
    values: tuple[tuple[int, int], ...] = ()
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    tool_name: str = ""
    thinking: str = ""


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
class Sampling:
    """How tokens are chosen, beside the temperature; ``None`` leaves a value to the server."""

    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


NO_SAMPLING = Sampling()


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
        think: Ask a reasoning model to think, how much, or not to; ``None`` leaves it to the model.
        repetition_guard: Keep small models from repeating themselves, by whatever means the backend has.
        tag: The path of the step that asks (``research[2]``); for logs and scripted replies, never sent.
        priority: Of calls that wait for a place, the one with the higher priority goes first.
        rank: Calls on the longest way from this one to the end of its run; decides between equal priorities.
        begun: The beginning of the reply, as an earlier process got it. A backend that can go on with it yields a
            `Continued` first, and then what comes behind it; any other answers from the start.
        begun_pieces: In how many pieces that came, about one a token; 0 where nobody knows.
        tools: What the model may ask to have called.
        tool_choice: "auto", "none", "required", or the name of the one tool to be asked for; ``None`` is "auto".
        parallel_tools: Whether one reply may ask for several calls; ``None`` leaves it to the server.
        stop: Texts that end the reply, and are no part of it.
        sampling: How tokens are chosen.
        logprobs: How many alternatives each token of the reply is told with, beside its own log-probability; ``None``
            wants no log-probabilities.
        truncate: Let the server cut a prompt that does not fit its context; else that is an error.
        options: Further options by the names that Ollama gives them (``typical_p``), for servers that know
            these.
        verbatim: The reply is wanted as the server sends it: nothing of it is taken for a mark of a chat template, and
            ``max_tokens`` bounds thinking, too.
        unread: Takes what a server had sent of a reply that is given up, beyond what was read: for those who count what
            was generated. It is no part of what is asked.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    schema: JsonSchema | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    num_ctx: int | None = None
    keep_alive: str | None = None
    think: bool | ThinkLevel | None = None
    repetition_guard: bool = True
    timeouts: Timeouts = Timeouts()
    tag: str = ""
    priority: int = 0
    rank: int = 0
    begun: str = ""
    begun_pieces: int = 0
    tools: tuple[OfferedTool, ...] = ()
    tool_choice: str | None = None
    parallel_tools: bool | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = NO_SAMPLING
    logprobs: int | None = None
    truncate: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    verbatim: bool = False
    unread: Callable[[Delta | Finished], None] | None = field(default=None, compare=False, repr=False)


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
    """What the server measured; ``None`` where it does not say.

    Attributes:
        drafted_tokens: Tokens of the reply that were guessed before the model was asked (speculative decoding).
        accepted_tokens: Those of them that the model agreed with.
    """

    load_seconds: float | None = None
    prompt_seconds: float | None = None
    generation_seconds: float | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None


@quick_init
@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """What the call of a tool has grown by.

    Attributes:
        index: Which call of the reply it is, from 0.
        id: With the call's first delta; "" where the server gives none, and in later ones.
        name: The same.
        arguments: A piece of the text of a JSON object.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@quick_init
@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token with its log-probability, and the likeliest alternatives, themselves without any."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


@quick_init
@dataclass(frozen=True, slots=True)
class Delta:
    """What a reply has grown by: text, a reasoning model's thinking, calls of tools. Each may be empty.

    Attributes:
        logprobs: Of the tokens of the text, where they were asked for.
    """

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


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


CUT_OFF: Final = "the run was cut off in the middle of this call"
"""Why a call goes on with what an earlier process got of it."""


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


@quick_init
@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of several texts, in their order, and how many tokens they were together."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int
    model: str | None = None
