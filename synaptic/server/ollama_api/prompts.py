"""From messages to a prompt that fits: what Ollama leaves out when there is more than the context holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.server.ollama_api.refusals import prompt_too_long

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine

Messages = list[dict[str, Any]]


async def chat_prompt(engine: EmbeddedEngine, messages: Messages, context: int, *, truncate: bool) -> str:
    """Return the prompt for ``messages``.

    With ``truncate``, the oldest ones are left out until the rest fits into ``context`` tokens, but never one of the
    system nor the last one (``chatPrompt`` in ``server/prompt.go``).
    """
    prompt = await engine.prompt_for(messages)
    if not truncate:
        return prompt
    for shorter in shortened(messages):
        if await fits(engine, prompt, context):
            break
        prompt = await engine.prompt_for(shorter)
    return prompt


def shortened(messages: Messages) -> list[Messages]:
    """Return what is tried instead of ``messages``, one after the other, each shorter than the one before."""
    return [
        [message for message in messages[:start] if message["role"] == "system"] + messages[start:]
        for start in range(1, len(messages))
    ]


async def fits(engine: EmbeddedEngine, prompt: str, context: int) -> bool:
    """Tell whether ``prompt`` is at most ``context`` tokens; a short one need not be counted."""
    return len(prompt.encode()) <= context or len(await engine.tokens(prompt)) <= context


async def cut_prompt(engine: EmbeddedEngine, prompt: str, context: int, *, keep: int, shift: bool) -> str | list[int]:
    """Return ``prompt`` or, where it leaves no room for a reply, its beginning and its end as tokens.

    Raises:
        Refusal: If it is too long and may not be shifted.

    """
    if context <= 1 or len(prompt.encode()) < context:
        return prompt
    tokens = await engine.tokens(prompt)
    if len(tokens) <= context - 1:
        return prompt
    if not shift:
        raise prompt_too_long()
    return cut_tokens(tokens, context, keep)


def cut_tokens(tokens: Sequence[int], context: int, keep: int) -> list[int]:
    """Return the first ``keep`` tokens (all for a negative number) and the last ones, half of the rest left free.

    That is how the first shift of Ollama's own runners cut (``contextShiftPromptLimit``).
    """
    kept = min(len(tokens) if keep < 0 else keep, context - 1)
    limit = context - max((context - kept) // 2, 1)
    return [*tokens[:kept], *tokens[len(tokens) - (limit - kept) :]] if limit > kept else list(tokens[:kept])
