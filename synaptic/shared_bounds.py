"""Bounds that settings, agents and requests share. Apart, since the settings are read before anything is asked."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

LONGEST_CONTEXT: Final = 10_485_760
"""Tokens of context that can be asked for at all: what Llama 4 Scout was trained with, the longest that we know of."""

LONGEST_REPLY: Final = 1_000_000
"""Tokens that a reply can be allowed at all."""

Overflow: TypeAlias = Literal["error", "truncate_oldest", "summarise"]
"""What happens to a prompt that does not fit the model's context."""
