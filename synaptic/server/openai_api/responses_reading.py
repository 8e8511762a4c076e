"""From bodies of ``/v1/responses``, and what went before them, to requests."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from synaptic.messages import ChatRequest, Message, OfferedTool, Sampling, ToolCall
from synaptic.server.gateway import BAD_REQUEST, Refusal, image_of
from synaptic.server.openai_api.openai_reading import ANY_OBJECT, EFFORTS
from synaptic.server.openai_api.responses_bodies import (
    InputCall,
    InputCallOutput,
    InputImage,
    InputItem,
    InputMessage,
    InputReasoning,
    InputRefusal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synaptic.messages import Image, JsonSchema, ThinkLevel
    from synaptic.runtime import KeptResponse
    from synaptic.server.openai_api.responses_bodies import CountedInput, InputPart, ResponsesBody, TextChoice

LOGPROBS = "message.output_text.logprobs"
_ITEMS: TypeAdapter[list[Any]] = TypeAdapter(list[InputItem])
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def response_request(body: ResponsesBody, messages: Sequence[Message]) -> ChatRequest:
    """Return what ``/v1/responses`` asks, with the conversation so far.

    Raises:
        Refusal: If fields contradict each other.
    """
    tools = _tools_of(body)
    choice = body.tool_choice if body.tool_choice is None or isinstance(body.tool_choice, str) else None
    named = None if body.tool_choice is None or isinstance(body.tool_choice, str) else body.tool_choice.name
    if named is not None and named not in {tool.name for tool in tools}:
        raise Refusal(BAD_REQUEST, f"tool_choice: there is no tool {named!r}", field="tool_choice")
    if choice == "required" and not tools:
        raise Refusal(BAD_REQUEST, "tool_choice: there are no tools", field="tool_choice")
    return ChatRequest(
        messages=tuple(messages),
        model=body.model,
        schema=_schema(body.text),
        temperature=body.temperature,
        max_tokens=body.max_output_tokens,
        think=_think(body),
        tools=tools,
        tool_choice=named or choice,
        parallel_tools=body.parallel_tool_calls if tools else None,
        sampling=Sampling(top_p=body.top_p),
        logprobs=(body.top_logprobs or 0) if body.top_logprobs or LOGPROBS in (body.include or ()) else None,
    )


def counted_request(body: CountedInput, messages: Sequence[Message]) -> ChatRequest:
    """Return a request whose prompt is the one that ``/v1/responses/input_tokens`` asks about."""
    return ChatRequest(messages=tuple(messages), model=body.model, think=_think(body), tools=_tools_of(body))


def conversation_of(body: CountedInput, chain: Sequence[KeptResponse]) -> list[Message]:
    """Return the messages of a call: the instructions, what was said before, and what is said now.

    Raises:
        Refusal: If there is nothing in it, or something that is not understood.
    """
    given = body.input
    items = [InputMessage(role="user", content=given)] if isinstance(given, str) else given
    if not items and not chain:
        raise Refusal(BAD_REQUEST, "input: there is nothing to answer", field="input")
    before = [item for kept in chain for item in (*kept.given, *kept.told["output"])]
    try:
        earlier = _ITEMS.validate_python(before)
    except ValidationError as error:
        said = "previous_response_id: that response cannot be read any more"
        raise Refusal(BAD_REQUEST, said, field="previous_response_id") from error
    head = [Message("system", body.instructions)] if body.instructions else []
    return [*head, *_messages([*earlier, *items], first=len(earlier))]


def given_items(body: CountedInput) -> list[dict[str, Any]]:
    """Return the items of a call as they are kept and listed: each with its id, texts as lists of parts."""
    items = [InputMessage(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    listed = []
    for item in items:
        told = item.model_dump(mode="json", exclude_none=True, by_alias=True)
        if item.type == "message" and isinstance(item.content, str):
            kind = "output_text" if item.role == "assistant" else "input_text"
            told["content"] = [{"type": kind, "text": item.content}]
        status = {} if item.type == "reasoning" else {"status": "completed"}
        listed.append({"id": f"{_PREFIXES[item.type]}_{secrets.token_hex(16)}", **status, **told})
    return listed


def _tools_of(body: CountedInput) -> tuple[OfferedTool, ...]:
    return tuple(
        OfferedTool(offer.name, offer.description or "", offer.parameters or {"type": "object", "properties": {}})
        for offer in body.tools or ()
    )


def _think(body: CountedInput) -> bool | ThinkLevel | None:
    effort = None if body.reasoning is None else body.reasoning.effort
    return None if effort is None else EFFORTS[effort]


def _schema(text: TextChoice | None) -> JsonSchema | None:
    asked = None if text is None else text.format
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return ANY_OBJECT
    if asked.schema_ is None:
        raise Refusal(BAD_REQUEST, "text.format.schema is missing", field="text.format.schema")
    return asked.schema_


class _Turn:
    """What the assistant thought, said and called in one go: items apart here, one message there."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[ToolCall] = []

    def message(self) -> list[Message]:
        """Return it as a message; nothing where it is empty."""
        if not (self.texts or self.calls):
            return []
        calls, thinking = tuple(self.calls), "\n".join(self.thoughts)
        return [Message("assistant", "\n".join(self.texts), tool_calls=calls, thinking=thinking)]


def _messages(items: Iterable[Any], *, first: int) -> list[Message]:
    messages: list[Message] = []
    turn, names = _Turn(), dict[str, str]()
    for index, item in enumerate(items):
        field = f"input[{index - first}]" if index >= first else "previous_response_id"
        if isinstance(item, InputReasoning):
            turn.thoughts += [part.text for part in item.content or item.summary]
        elif isinstance(item, InputCall):
            turn.calls.append(ToolCall(item.call_id, item.name, item.arguments))
            names[item.call_id] = item.name
        elif isinstance(item, InputMessage) and item.role == "assistant":
            text, pictures = _content(item.content, field)
            if pictures:
                raise Refusal(BAD_REQUEST, f"{field}: an assistant shows no pictures", field=field)
            turn.texts.append(text)
        else:
            messages += turn.message()
            turn = _Turn()
            messages.append(_said(item, field, names))
    return [*messages, *turn.message()]


def _said(item: InputMessage | InputCallOutput, field: str, names: dict[str, str]) -> Message:
    if isinstance(item, InputMessage):
        text, pictures = _content(item.content, field)
        return Message("user" if item.role == "user" else "system", text, images=pictures)
    text, pictures = _content(item.output, field)
    name = names.get(item.call_id)
    if name is None:
        said = f"{field}.call_id: no function was called with that id"
        raise Refusal(BAD_REQUEST, said, field=f"{field}.call_id")
    return Message("tool", text, images=pictures, tool_call_id=item.call_id, tool_name=name)


def _content(content: str | list[InputPart], field: str) -> tuple[str, tuple[Image, ...]]:
    if isinstance(content, str):
        return content, ()
    texts: list[str] = []
    pictures: list[Image] = []
    for at, part in enumerate(content):
        if isinstance(part, InputImage):
            pictures.append(image_of(part.image_url, f"{field}.content[{at}].image_url"))
        else:
            texts.append(part.refusal if isinstance(part, InputRefusal) else part.text)
    return "\n".join(texts), tuple(pictures)
