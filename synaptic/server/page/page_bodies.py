"""What the page sends."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from synaptic.server.gateway import WireBody

LONGEST_QUESTION = 1_000_000  # characters


class AskBody(WireBody):
    """A question to a pipeline."""

    pipeline: str = Field(min_length=1, max_length=300)
    query: str = Field(min_length=1, max_length=LONGEST_QUESTION)
    model: str | None = Field(None, max_length=300)


class RerunBody(WireBody):
    """A run once more: from which step on (none: all of it), and with which model (none: its own)."""

    at: str | None = Field(None, max_length=300)
    model: str | None = Field(None, max_length=300)


class AnswerBody(WireBody):
    """What a person decides of what a step asks: its value as it is, another one, or that it may not go on."""

    step: str = Field(min_length=1, max_length=300)
    decision: Literal["accepted", "edited", "refused"]
    value: Any = None
    reason: str = Field("", max_length=1000)


class NoBody(WireBody):
    """Nothing but the braces, by which a request shows that no form of another site sent it."""
