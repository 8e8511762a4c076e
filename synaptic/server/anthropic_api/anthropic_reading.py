"""From bodies of Anthropic's dialect to requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from synaptic.messages import ChatRequest, Image, Message, OfferedTool, Sampling, ToolCall
from synaptic.server.anthropic_api.anthropic_bodies import (
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from synaptic.server.gateway import BAD_REQUEST, Refusal, image_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.messages import ThinkLevel
    from synaptic.server.anthropic_api.anthropic_bodies import CountBody, MessagesBody, MessageTurn

_EFFORTS: Final[dict[str, ThinkLevel]] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}


def messages_request(body: MessagesBody) -> ChatRequest:
    """Return what ``/v1/messages`` asks.

    Raises:
        Refusal: If fields contradict each other, or a picture is none.
    """
    tools = _tools_of(body)
    choice = body.tool_choice
    named = {None: None, "auto": "auto", "any": "required", "none": "none"}.get(choice.type if choice else None)
    if choice is not None and choice.type == "tool":
        if choice.name not in {tool.name for tool in tools}:
            raise Refusal(BAD_REQUEST, f"tool_choice: there is no tool {choice.name!r}", field="tool_choice")
        named = choice.name
    shape = body.output_config.format if body.output_config else None
    return ChatRequest(
        messages=turns_of(body),
        model=body.model,
        schema=None if shape is None else shape.schema_,
        temperature=body.temperature,
        max_tokens=body.max_tokens,
        think=_think(body),
        tools=tools,
        tool_choice=named,
        parallel_tools=False if choice is not None and choice.disable_parallel_tool_use and tools else None,
        stop=tuple(text for text in body.stop_sequences or () if text),
        sampling=Sampling(top_p=body.top_p, top_k=body.top_k),
    )


def turns_of(body: CountBody) -> tuple[Message, ...]:
    """Return the conversation. Results of tools are turns of their own, before what the user says beside them.

    Raises:
        Refusal: If a picture is none.
    """
    found: list[Message] = []
    if body.system:
        texts = [body.system] if isinstance(body.system, str) else [block.text for block in body.system]
        found.append(Message("system", "\n".join(texts)))
    names: dict[str, str] = {}
    for index, turn in enumerate(body.messages):
        found += _turn(turn, f"messages[{index}].content", names)
    return tuple(found)


def counted_request(body: CountBody) -> ChatRequest:
    """Return a request whose prompt is the one that ``/v1/messages/count_tokens`` asks about.

    Raises:
        Refusal: If a picture is none.
    """
    return ChatRequest(messages=turns_of(body), model=body.model, think=_think(body), tools=_tools_of(body))


def _tools_of(body: CountBody) -> tuple[OfferedTool, ...]:
    return tuple(OfferedTool(tool.name, tool.description or "", tool.input_schema) for tool in body.tools or ())


def _think(body: CountBody) -> bool | ThinkLevel | None:
    effort = body.output_config.effort if body.output_config else None
    if body.thinking is not None and body.thinking.type == "disabled":
        return False
    if effort is not None:
        return _EFFORTS[effort]
    return True if body.thinking is not None and body.thinking.type == "enabled" else None


def _turn(turn: MessageTurn, field: str, names: dict[str, str]) -> Iterator[Message]:
    if isinstance(turn.content, str):
        yield Message(turn.role, turn.content)
        return
    blocks = turn.content
    for index, block in enumerate(blocks):
        if isinstance(block, ToolResultBlock):
            yield _result(block, f"{field}[{index}]", names)
    text = "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
    calls = [block for block in blocks if isinstance(block, ToolUseBlock)]
    names |= {call.id: call.name for call in calls}
    images = _images(blocks, field)
    if text or images or calls or not any(isinstance(block, ToolResultBlock) for block in blocks):
        yield Message(
            turn.role,
            text,
            images=images,
            tool_calls=tuple(
                ToolCall(call.id, call.name, json.dumps(call.input, ensure_ascii=False)) for call in calls
            ),
            thinking="\n".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock)),
        )


def _call(block: ToolUseBlock) -> ToolCall:
    return ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False))


def _result(block: ToolResultBlock, field: str, names: dict[str, str]) -> Message:
    parts = block.content if isinstance(block.content, list) else []
    text = block.content if isinstance(block.content, str) else ""
    text += "\n".join(part.text for part in parts if isinstance(part, TextBlock))
    return Message(
        "tool",
        f"Error: {text}" if block.is_error else text,
        images=_images(parts, f"{field}.content"),
        tool_call_id=block.tool_use_id,
        tool_name=names.get(block.tool_use_id, ""),
    )


def _images(blocks: Sequence[object], field: str) -> tuple[Image, ...]:
    return tuple(
        image_from(block.source.data, block.source.media_type, f"{field}[{index}].source.data")
        for index, block in enumerate(blocks)
        if isinstance(block, ImageBlock)
    )
