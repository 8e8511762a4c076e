"""From messages to a prompt that fits: what Ollama leaves out when there is more than the context holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synaptic.server.ollama_api.refusals import prompt_too_long

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine

Messages = list[dict[str, Any]]

LONGEST_TOKEN = 256
"""Characters: twice what any vocabulary has. The engine takes 10 µs for one where there are no blanks."""

LONG_TOKEN = 64
"""Characters that are more than those of nearly every token."""


async def chat_prompt(engine: EmbeddedEngine, messages: Messages, context: int, *, truncate: bool) -> str:
    """Return the prompt for ``messages``.

    With ``truncate``, the oldest ones are left out until the rest fits into ``context`` tokens, but never one of the
    system nor the last one (``chatPrompt`` in ``server/prompt.go``).
    """
    if not truncate:
        return await engine.prompt_for(messages)
    most = context * LONGEST_TOKEN
    prompt = "" if _characters(messages) > most else await engine.prompt_for(messages)
    if prompt and await fits(engine, prompt, context):
        return prompt
    return await _longest_end(engine, messages, context)


async def _longest_end(engine: EmbeddedEngine, messages: Messages, context: int) -> str:
    """Return the prompt of as many of the last messages as fit, of one at least; of few, so that few are looked at."""
    fitting, prompt = 1, await engine.prompt_for(shortened(messages, 1))
    if len(messages) < 2 or not await fits(engine, prompt, context):
        return prompt
    too_many, count = len(messages), 2
    while too_many - fitting > 1:
        count = min(count, (fitting + too_many) // 2)
        tried = await engine.prompt_for(shortened(messages, count))
        if await fits(engine, tried, context):
            fitting, prompt, count = count, tried, count * 2
        else:
            too_many, count = count, (fitting + count) // 2
    return prompt


def shortened(messages: Messages, count: int) -> Messages:
    """Return the last ``count`` messages, and those of the system before them."""
    start = len(messages) - count
    return [message for message in messages[:start] if message["role"] == "system"] + messages[start:]


def _characters(messages: Messages) -> int:
    return sum(len(str(message.get("content") or "")) for message in messages)


async def fits(engine: EmbeddedEngine, prompt: str, context: int) -> bool:
    """Tell whether ``prompt`` is at most ``context`` tokens; one that is surely short, or long, need not be counted."""
    if len(prompt) > context * LONGEST_TOKEN:
        return False
    return len(prompt.encode()) <= context or len(await engine.tokens(prompt)) <= context


async def cut_prompt(engine: EmbeddedEngine, prompt: str, context: int, *, keep: int, shift: bool) -> str | list[int]:
    """Return ``prompt`` or, where it leaves no room for a reply, its beginning and its end as tokens.

    Raises:
        Refusal: If it is too long and may not be shifted.
    """
    if context <= 1 or len(prompt.encode()) < context:
        return prompt
    if len(prompt) > context * LONGEST_TOKEN and not shift:
        raise prompt_too_long()
    tokens = await _edges(engine, prompt, context)
    if len(tokens) <= context - 1:
        return prompt
    if not shift:
        raise prompt_too_long()
    return cut_tokens(tokens, context, keep)


async def _edges(engine: EmbeddedEngine, prompt: str, context: int) -> list[int]:
    """Return the tokens of a prompt; of one far too long, those of its beginning and of its end: no other is kept."""
    piece = context * LONG_TOKEN
    if len(prompt) > 2 * piece:
        tokens = await engine.tokens(prompt[:piece]) + await engine.tokens(prompt[-piece:], special=False)
        if len(tokens) >= 2 * context:
            return tokens
    return await engine.tokens(prompt)


def cut_tokens(tokens: Sequence[int], context: int, keep: int) -> list[int]:
    """Return the first ``keep`` tokens (all for a negative number) and the last ones, half of the rest left free.

    That is how the first shift of Ollama's own runners cut (``contextShiftPromptLimit``).
    """
    kept = min(len(tokens) if keep < 0 else keep, context - 1)
    limit = context - max((context - kept) // 2, 1)
    return [*tokens[:kept], *tokens[len(tokens) - (limit - kept) :]] if limit > kept else list(tokens[:kept])
