"""Bodies of ``/api/chat`` and ``/api/generate`` as requests to any backend."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final, cast

from synaptic.messages import NO_SAMPLING, ChatRequest, Image, Message, OfferedTool, Sampling, ToolCall
from synaptic.server.gateway import BAD_REQUEST, Refusal
from synaptic.server.ollama_api.option_bounds import BOUNDS, read_option
from synaptic.server.ollama_api.requests import ROLES, Body
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.messages import JsonSchema, Role, ThinkLevel

ANY_OBJECT: Final = {"type": "object"}
"""What ``"format": "json"`` asks for."""

_SAMPLING: Final = ("top_p", "top_k", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty")
_OURS: Final = {*_SAMPLING, "num_predict", "seed", "temperature", "stop", "num_ctx"}
_CHECKED: Final = {*BOUNDS, "stop", "use_mmap"}
_MAGIC: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


def read_chat(body: Body) -> ChatRequest:
    """Return what ``/api/chat`` asks.

    Raises:
        Refusal: If a field is wrong.
    """
    messages = tuple(_message(part, index) for index, part in enumerate(body.items("messages")))
    return _request(body, messages, tools=tuple(_tool(tool, index) for index, tool in enumerate(body.items("tools"))))


def read_generate(body: Body) -> ChatRequest:
    """Return what ``/api/generate`` asks, as a chat of one turn.

    Raises:
        Refusal: If a field is wrong, or asks for what only the server of a model can do.
    """
    body.refuse("raw", "suffix", "template", "context")
    system, prompt = body.text("system"), body.text("prompt")
    first = (Message("system", system),) if system else ()
    images = tuple(read_image(image, f"images[{index}]") for index, image in enumerate(body.items("images")))
    asked = (Message("user", prompt, images=images),) if prompt or images else ()
    return _request(body, (*first, *asked) if asked else ())


def _request(body: Body, messages: tuple[Message, ...], tools: tuple[OfferedTool, ...] = ()) -> ChatRequest:
    given = body.fields.get("options") or {}
    if body.fields.get("options") is not None:
        body.options()
    known = {name: read_option(name, value) for name, value in given.items() if name in _CHECKED and value is not None}
    others = {name: value for name, value in given.items() if name not in _OURS and value is not None}
    limit = known.get("num_predict")
    body.keep_alive()
    kept = body.fields.get("keep_alive")
    return ChatRequest(
        messages=messages,
        model=body.text("model"),
        schema=_schema(body),
        temperature=known.get("temperature"),
        max_tokens=None if limit is None or limit < 0 else limit,
        seed=known.get("seed"),
        num_ctx=known.get("num_ctx"),
        keep_alive=None if kept is None else str(kept),
        think=_think(body),
        tools=tools,
        stop=tuple(known.get("stop", ())),
        sampling=Sampling(**{name: known.get(name) for name in _SAMPLING}) if known else NO_SAMPLING,
        logprobs=body.logprobs(),
        truncate=body.switch("truncate", default=True),
        options=tuple(others.items()),
    )


def _think(body: Body) -> bool | ThinkLevel | None:
    body.thinks()
    return cast("bool | ThinkLevel | None", body.fields.get("think"))


def _schema(body: Body) -> JsonSchema | None:
    constraint = body.constraint()
    return constraint.get("json_schema", ANY_OBJECT) if constraint else None


def _message(part: Any, index: int) -> Message:
    if not isinstance(part, dict):
        raise Refusal(BAD_REQUEST, f"messages[{index}] must be an object")
    one = Body(part)
    role = one.text("role").lower()
    if role not in ROLES:
        raise Refusal(BAD_REQUEST, f"messages[{index}].role must be one of {', '.join(ROLES)}, not {excerpt(role)!r}")
    images = one.items("images")
    calls = one.items("tool_calls")
    return Message(
        cast("Role", role),
        one.text("content"),
        images=tuple(read_image(image, f"messages[{index}].images[{at}]") for at, image in enumerate(images)),
        tool_calls=tuple(_call(call, f"messages[{index}].tool_calls[{at}]", at) for at, call in enumerate(calls)),
        tool_call_id=one.text("tool_call_id"),
        tool_name=one.text("tool_name"),
        thinking=one.text("thinking"),
    )


def _call(call: Any, where: str, place: int) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refusal(BAD_REQUEST, f"{where}.function must be an object with a name")
    arguments = function.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise Refusal(BAD_REQUEST, f"{where}.function.arguments must be an object")
    identity = call.get("id")
    return ToolCall(
        identity if isinstance(identity, str) and identity else f"call_{place}",
        function["name"],
        json.dumps(arguments, ensure_ascii=False),
    )


def _tool(tool: Any, index: int) -> OfferedTool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise Refusal(BAD_REQUEST, f"tools[{index}].function must be an object with a name")
    parameters: Mapping[str, Any] = function.get("parameters") or {"type": "object", "properties": {}}
    description = function.get("description") or ""
    if not isinstance(parameters, dict) or not isinstance(description, str):
        raise Refusal(BAD_REQUEST, f"tools[{index}].function: parameters is a JSON Schema, description a text")
    return OfferedTool(function["name"], description, parameters)


def read_image(data: Any, where: str) -> Image:
    """Return a picture that is written in base64; its first bytes tell what kind it is.

    Raises:
        Refusal: If it is none.
    """
    try:
        raw = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except ValueError:  # also of characters that are none of base64
        raw = b""
    if not raw:
        raise Refusal(BAD_REQUEST, f"{where} must be a picture in base64")
    return Image(data, next((kind for magic, kind in _MAGIC if raw.startswith(magic)), "image/png"))
