"""What clients send to ``/v1/responses``. What would be ignored is refused; what changes nothing is known by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from synaptic.server.gateway import WireBody
from synaptic.server.openai_api.openai_bodies import MOST_LOGPROBS, Fraction, Tokens

ItemStatus = Literal["in_progress", "completed", "incomplete"] | None
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class InputText(WireBody):
    """A piece of text; of the assistant, one that it said."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputRefusal(WireBody):
    """What the assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


class InputImage(WireBody):
    """A picture."""

    type: Literal["input_image"]
    image_url: str
    detail: str | None = None
    file_id: None = None


InputPart = Annotated[InputText | InputRefusal | InputImage, Field(discriminator="type")]


class InputMessage(WireBody):
    """One message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]
    id: str | None = None
    status: ItemStatus = None
    phase: str | None = None


class InputCall(WireBody):
    """A call of a function, which the assistant made."""

    type: Literal["function_call"]
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arguments: str
    id: str | None = None
    status: ItemStatus = None


class InputCallOutput(WireBody):
    """What a called function returned."""

    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1)
    output: str | list[InputPart]
    id: str | None = None
    status: ItemStatus = None


class ReasoningPart(WireBody):
    """A piece of thinking."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class InputReasoning(WireBody):
    """What the assistant thought before what follows."""

    type: Literal["reasoning"]
    summary: list[ReasoningPart] = Field(default_factory=list)
    content: list[ReasoningPart] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: ItemStatus = None


def _kind(item: Any) -> Any:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return kind or "message"


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallOutput, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(_kind),
]


class FunctionOffer(WireBody):
    """A function that may be called."""

    type: Literal["function"]
    name: str = Field(min_length=1, max_length=200)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenName(WireBody):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class TextFormat(WireBody):
    """What the answer is to be."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class TextChoice(WireBody):
    """How the answer is given."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningChoice(WireBody):
    """How much is thought; summaries are not made: thinking is told as it is."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseStreamOptions(WireBody):
    """What a stream tells."""

    include_obfuscation: bool | None = None


class CountedInput(WireBody):
    """What a response is made from; alone, it is counted (``/v1/responses/input_tokens``)."""

    model: str = Field(min_length=1, max_length=500)
    input: str | list[InputItem] = Field(default_factory=list)
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: None = None
    tools: list[FunctionOffer] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenName | None = None
    parallel_tool_calls: bool | None = None
    text: TextChoice | None = None
    reasoning: ReasoningChoice | None = None
    truncation: Literal["disabled"] | None = None


class ResponsesBody(CountedInput):
    """``/v1/responses``."""

    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: Fraction | None = None
    max_output_tokens: Tokens | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    background: Literal[False] | None = None
    max_tool_calls: None = None
    prompt: None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
