"""From bodies of OpenAI's dialect to requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.messages import ChatRequest, Message, OfferedTool, Sampling, ToolCall
from synaptic.server.gateway import BAD_REQUEST, Refusal, image_of
from synaptic.server.openai_api.openai_bodies import ImageContent, TextContent

if TYPE_CHECKING:
    from synaptic.messages import JsonSchema, ThinkLevel
    from synaptic.server.openai_api.openai_bodies import ChatBody, ChatTurn, CompletionBody, Sampled

ANY_OBJECT: Final = {"type": "object"}
EFFORTS: Final[dict[str, bool | ThinkLevel]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
"""How much is thought, as clients of OpenAI say it."""


def chat_request(body: ChatBody) -> ChatRequest:
    """Return what ``/v1/chat/completions`` asks.

    Raises:
        Refusal: If fields contradict each other, or a picture is none.
    """
    tools = tuple(
        OfferedTool(
            offer.function.name,
            offer.function.description or "",
            offer.function.parameters or {"type": "object", "properties": {}},
        )
        for offer in body.tools or ()
    )
    choice = body.tool_choice if body.tool_choice is None or isinstance(body.tool_choice, str) else None
    named = None if body.tool_choice is None or choice is not None else body.tool_choice.function.name  # type: ignore[union-attr]
    if named is not None and named not in {tool.name for tool in tools}:
        raise Refusal(BAD_REQUEST, f"tool_choice: there is no tool {named!r}", field="tool_choice")
    if choice == "required" and not tools:
        raise Refusal(BAD_REQUEST, "tool_choice: there are no tools", field="tool_choice")
    wants = bool(body.logprobs)
    if body.top_logprobs is not None and not wants:
        raise Refusal(BAD_REQUEST, "top_logprobs needs logprobs: true", field="top_logprobs")
    return ChatRequest(
        messages=tuple(_message(turn, index) for index, turn in enumerate(body.messages)),
        model=body.model,
        schema=_schema(body),
        temperature=body.temperature,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        seed=body.seed,
        think=None if body.reasoning_effort is None else EFFORTS[body.reasoning_effort],
        tools=tools,
        tool_choice=named or choice,
        parallel_tools=body.parallel_tool_calls if tools else None,
        stop=stops(body),
        sampling=sampling(body),
        logprobs=(body.top_logprobs or 0) if wants else None,
    )


def completion_request(body: CompletionBody, prompt: str) -> ChatRequest:
    """Return what ``/v1/completions`` asks of one prompt, as a chat of one turn: which model's template is used."""
    return ChatRequest(
        messages=(Message("user", prompt),),
        model=body.model,
        temperature=body.temperature,
        max_tokens=body.max_tokens,
        seed=body.seed,
        stop=stops(body),
        sampling=sampling(body),
        logprobs=body.logprobs,
    )


def stops(body: Sampled) -> tuple[str, ...]:
    """Return the texts that end the reply."""
    given = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return tuple(text for text in given if text)


def sampling(body: Sampled) -> Sampling:
    """Return how tokens are chosen."""
    return Sampling(
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repeat_penalty=body.repeat_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
    )


def _schema(body: ChatBody) -> JsonSchema | None:
    asked = body.response_format
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return ANY_OBJECT
    if asked.json_schema is None:
        raise Refusal(BAD_REQUEST, "response_format.json_schema is missing", field="response_format.json_schema")
    return asked.json_schema.schema_


def _message(turn: ChatTurn, index: int) -> Message:
    field = f"messages[{index}]"
    parts = turn.content if isinstance(turn.content, list) else []
    text = turn.content if isinstance(turn.content, str) else ""
    text += "\n".join(part.text for part in parts if isinstance(part, TextContent))
    pictures = [(at, part) for at, part in enumerate(parts) if isinstance(part, ImageContent)]
    if turn.role == "tool" and not turn.tool_call_id:
        raise Refusal(BAD_REQUEST, f"{field}.tool_call_id is missing", field=f"{field}.tool_call_id")
    calls = turn.tool_calls or []
    if (calls or turn.reasoning_content) and turn.role != "assistant":
        raise Refusal(BAD_REQUEST, f"{field}: only an assistant calls tools or thinks", field=field)
    return Message(
        "system" if turn.role == "developer" else turn.role,
        text or turn.refusal or "",
        images=tuple(image_of(part.image_url.url, f"{field}.content[{at}].image_url.url") for at, part in pictures),
        tool_calls=tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in calls),
        tool_call_id=turn.tool_call_id or "",
        tool_name=(turn.name or "") if turn.role == "tool" else "",
        thinking=turn.reasoning_content or "",
    )
