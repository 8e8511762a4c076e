"""Prompts and answers in the form of the conventions: JSON of messages, each of parts. Told where that is wanted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from synaptic.pipeline import present
from synaptic.runtime.telemetry import conventions as of
from synaptic.text import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.messages import Message
    from synaptic.runtime.telemetry.span_steps import Value

LONGEST_TEXT: Final = 32_000
"""Characters of one message: collectors refuse what is too large, and all else in the same request with it."""


def prompt_content(messages: Sequence[Message]) -> dict[str, Value]:
    """Return the attributes for what a model is asked."""
    system = [_part(message.content) for message in messages if message.role == "system"]
    asked = [
        {"role": message.role, "parts": [_part(message.content)]} for message in messages if message.role != "system"
    ]
    return {**({of.INSTRUCTIONS: _json(system)} if system else {}), of.INPUT_MESSAGES: _json(asked)}


def answer_content(output: Any, finish_reason: str | None) -> dict[str, Value]:
    """Return the attributes for what came of it: text, or a value."""
    if output is None or output == "":
        return {}
    message = {"role": "assistant", "parts": [_part(present(output))], "finish_reason": finish_reason or "stop"}
    return {of.OUTPUT_MESSAGES: _json([message])}


def tool_content(value: Any) -> str:
    """Return arguments or the result of a tool as JSON; what is no JSON as Python shows it."""
    return cut(json.dumps(value, ensure_ascii=False, default=repr), LONGEST_TEXT)


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "content": cut(text, LONGEST_TEXT)}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
