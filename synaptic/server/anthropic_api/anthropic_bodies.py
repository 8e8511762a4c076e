"""What clients of Anthropic send. Marks for caches and bills change nothing here; other unknown fields are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synaptic.server.gateway import OpenBody, WireBody
from synaptic.shared_bounds import LONGEST_CONTEXT

Fraction = Annotated[float, Field(ge=0, le=1)]


class TextBlock(OpenBody):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageSource(WireBody):
    """The bytes of a picture."""

    type: Literal["base64"]
    media_type: str
    data: str


class ImageBlock(OpenBody):
    """A picture."""

    type: Literal["image"]
    source: ImageSource


class ThinkingBlock(OpenBody):
    """What the assistant thought."""

    type: Literal["thinking"]
    thinking: str


class ToolUseBlock(OpenBody):
    """A call of a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


ResultContent = list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]]


class ToolResultBlock(OpenBody):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | ResultContent | None = None
    is_error: bool | None = None


Block = Annotated[TextBlock | ImageBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class MessageTurn(WireBody):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ClientTool(OpenBody):
    """A tool that the client calls; tools of Anthropic's own servers are of other types, and refused."""

    type: Literal["custom"] | None = None
    name: str = Field(min_length=1, max_length=200)
    description: str | None = None
    input_schema: dict[str, Any]


class ToolChoice(WireBody):
    """Whether and which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(OpenBody):
    """Whether to think; a budget in tokens is not heeded."""

    type: str


class OutputFormat(OpenBody):
    """The shape of an answer."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireBody):
    """How much work goes into an answer, and its shape."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountBody(WireBody):
    """``/v1/messages/count_tokens``."""

    model: str = Field(min_length=1, max_length=500)
    messages: list[MessageTurn] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[ClientTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None
    context_management: Any = None
    metadata: dict[str, Any] | None = None


class MessagesBody(CountBody):
    """``/v1/messages``."""

    max_tokens: int = Field(ge=1, le=LONGEST_CONTEXT)
    stream: bool | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    top_k: int | None = Field(None, ge=0)
    stop_sequences: Annotated[list[str], Field(max_length=100)] | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    diagnostics: Any = None
