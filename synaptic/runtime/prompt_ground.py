"""A request before it is sent, and what is known of the lengths where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.runtime.agent_call import build_request
from synaptic.runtime.policies import TokenCounter, room_for_prompt

if TYPE_CHECKING:
    from synaptic.messages import ChatRequest
    from synaptic.pipeline import KnownPrompt
    from synaptic.runtime.policies import PromptSizes


@dataclass(frozen=True, slots=True)
class Ground:
    """A request, and what is known of the lengths where it goes.

    Attributes:
        context: The model's, in tokens.
    """

    request: ChatRequest
    context: int
    size: PromptSizes
    counter: TokenCounter

    @property
    def room(self) -> int:
        """Tokens that the prompt may have."""
        return room_for_prompt(self.request, self.context)

    def allowed(self, prompt: KnownPrompt) -> int:
        """Return the tokens that what is known of a prompt may have: half is for what other steps will write."""
        return self.room if prompt.complete else self.room // 2


async def ground_of(
    size: PromptSizes, defaults: ChatRequest, prompt: KnownPrompt | None = None, *, count: bool
) -> Ground | None:
    """Return what is known where a prompt goes; ``None`` where the backend cannot tell its context.

    Args:
        size: How long the prompts of the call may be.
        defaults: What holds where nothing else says otherwise.
        prompt: What is sent; ``None`` is nothing yet.
        count: Whether the backend may be asked to count, which may start it.
    """
    request = defaults
    if prompt is not None:
        request = build_request(prompt.call, prompt.text, prompt.path, defaults, values=prompt.values)
    context = await size.contexts.of(request)
    counter = TokenCounter(size.capabilities, request, asks=count)
    return None if context is None else Ground(request, context, size, counter)
