"""What clients of OpenAI send. Fields that change nothing here are known by name; any other is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synaptic.server.gateway import WireBody
from synaptic.shared_bounds import LONGEST_CONTEXT

MOST_CHOICES = 16
MOST_LOGPROBS = 20
MOST_TEXTS = 2048

Fraction = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1, le=LONGEST_CONTEXT)]
Stops = str | Annotated[list[str], Field(max_length=100)] | None


class TextContent(WireBody):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(WireBody):
    """Where a picture is."""

    url: str
    detail: str | None = None


class ImageContent(WireBody):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class CalledFunction(WireBody):
    """What an assistant called."""

    name: str
    arguments: str


class CalledTool(WireBody):
    """A call of an assistant."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatTurn(WireBody):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Annotated[TextContent | ImageContent, Field(discriminator="type")]] | None = None
    name: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class OfferedFunction(WireBody):
    """A function that may be called."""

    name: str = Field(min_length=1, max_length=200)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolOffer(WireBody):
    """A tool that may be called."""

    type: Literal["function"]
    function: OfferedFunction


class ChosenFunction(WireBody):
    """The name of a function."""

    name: str


class ChosenTool(WireBody):
    """The one tool that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class AskedSchema(WireBody):
    """The shape of an answer."""

    name: str = ""
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class AskedFormat(WireBody):
    """What an answer is to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: AskedSchema | None = None


class StreamOptions(WireBody):
    """What a stream tells."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class Sampled(WireBody):
    """What every generating call may say, and what it may say without an effect."""

    model: str = Field(min_length=1, max_length=500)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: Fraction | None = None
    top_k: int | None = Field(None, ge=-1)
    min_p: Fraction | None = None
    repeat_penalty: float | None = Field(None, ge=0.01, le=100)
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: int | None = None
    stop: Stops = None
    max_tokens: Tokens | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def counts(self) -> bool:
        """Whether the last piece of a stream says how many tokens there were."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatBody(Sampled):
    """``/v1/chat/completions``."""

    messages: list[ChatTurn] = Field(min_length=1)
    tools: list[ToolOffer] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: AskedFormat | None = None
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: str | None = None


class CompletionBody(Sampled):
    """``/v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)


class EmbeddingBody(WireBody):
    """``/v1/embeddings``."""

    model: str = Field(min_length=1, max_length=500)
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: str | None = None
