"""How large a call will be, before it is made: estimates that the picker works with."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING

from synaptic.waiting import CHARACTERS_A_TOKEN

if TYPE_CHECKING:
    from synaptic.messages import ChatRequest, ToolCall

TOKENS_A_TURN = 8
"""What a chat template adds to a message, about."""

DEFAULT_OUTPUT = 1024
WEIGHT = 0.25
KEPT = 512
ANY_STEP = "*"


def prompt_tokens(request: ChatRequest, tokens_a_character: float | None = None) -> int:
    """Return about how many tokens the prompt is, with the tools that are offered."""
    characters = sum(len(message.content) + sum(map(_written, message.tool_calls)) for message in request.messages)
    characters += sum(len(json.dumps([tool.name, tool.description, dict(tool.parameters)])) for tool in request.tools)
    return int(characters * (tokens_a_character or 1 / CHARACTERS_A_TOKEN)) + TOKENS_A_TURN * len(request.messages)


class OutputSizes:
    """Learns how much of its token limit each step's output takes up, for each model."""

    def __init__(self) -> None:
        self._shares: OrderedDict[tuple[str, str], float] = OrderedDict()

    def expected(self, model: str, request: ChatRequest) -> int:
        """Return how many tokens the output will be.

        Like those of the same step; else like those of the model's other steps; else the limit itself.
        """
        limit = request.max_tokens or DEFAULT_OUTPUT
        share = self._shares.get((model, _step(request.tag)))
        if share is None:
            share = self._shares.get((model, ANY_STEP), 1.0)
        return max(1, round(limit * share))

    def learn(self, model: str, request: ChatRequest, tokens: int) -> None:
        """Take note of the size of a complete output."""
        share = min(1.0, tokens / (request.max_tokens or DEFAULT_OUTPUT))
        for key in ((model, ANY_STEP), (model, _step(request.tag))):
            old = self._shares.get(key)
            self._shares[key] = share if old is None else old + WEIGHT * (share - old)
            self._shares.move_to_end(key)
        if len(self._shares) > KEPT:
            self._shares.popitem(last=False)


def _written(call: ToolCall) -> int:
    return len(call.name) + len(call.arguments)


def _step(tag: str) -> str:
    """Return the step of a path without its numbers: all instances of a map are alike (``research[2]``)."""
    return tag.partition("[")[0]
