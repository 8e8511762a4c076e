"""The forms that OpenAI gave to tools, pictures and log-probabilities, and that every other server took over."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from synaptic.backends.http import text_in
from synaptic.messages import TokenLogprob

if TYPE_CHECKING:
    from synaptic.backends.http import JsonObject
    from synaptic.messages import ChatRequest, Message

LEAST_LOGPROB = -9999.0
"""What is written for the probability 0, whose logarithm JSON has no number for."""


def tools_payload(request: ChatRequest) -> list[JsonObject]:
    """Return the tools of a request."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in request.tools
    ]


def message_payload(message: Message) -> JsonObject:
    """Return a message; pictures are data URLs."""
    payload: JsonObject = {"role": message.role, "content": message.content}
    if message.images:
        pictures = [
            {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{image.data}"}}
            for image in message.images
        ]
        payload["content"] = [{"type": "text", "text": message.content}, *pictures]
    if message.thinking:
        payload["reasoning_content"] = message.thinking
    if message.tool_calls:
        payload["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        payload["tool_call_id"] = message.tool_call_id
        if message.tool_name:
            payload["name"] = message.tool_name
    return payload


def request_payload(request: ChatRequest) -> JsonObject:
    """Return what a request asks for beyond text: its tools, its stops, its sampling, its log-probabilities."""
    choice = request.tool_choice
    if choice not in {None, "auto", "none", "required"}:
        named: Any = {"type": "function", "function": {"name": choice}}
    else:
        named = choice
    sampling = request.sampling
    chosen = {
        "tools": tools_payload(request) or None,
        "tool_choice": named if request.tools else None,
        "parallel_tool_calls": request.parallel_tools if request.tools else None,
        "stop": list(request.stop) or None,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "logprobs": None if request.logprobs is None else True,
        "top_logprobs": request.logprobs,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def read_logprobs(entries: object) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities in a list of them; what is none is left out."""
    found = (_logprob(entry) for entry in entries) if isinstance(entries, list) else ()
    return tuple(entry for entry in found if entry is not None)


def _logprob(entry: object) -> TokenLogprob | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return None
    value, octets = entry.get("logprob"), entry.get("bytes")
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    is_bytes = isinstance(octets, list) and all(type(octet) is int and 0 <= octet < 256 for octet in octets)
    return TokenLogprob(
        text_in(entry.get("token")),
        float(value) if known and value is not None else LEAST_LOGPROB,
        tuple(octets) if is_bytes and octets is not None else None,
        read_logprobs(entry.get("top_logprobs")),
    )


def vectors_in(value: object) -> tuple[tuple[float, ...], ...] | None:
    """Return a list of lists of numbers; ``None`` for anything else."""
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        return None
    if not all(isinstance(number, (int, float)) for row in value for number in row):
        return None
    return tuple(tuple(float(number) for number in row) for row in value)
