"""The turns before a question, as the text that its prompts get: whole where that fits, else the older the shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic.pipeline import known_prompts
from synaptic.runtime.events import ConversationShortened
from synaptic.runtime.policies import estimated_tokens, most_tokens, prompt_text, without_values
from synaptic.runtime.prompt_ground import ground_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synaptic.messages import ChatRequest, Message
    from synaptic.pipeline import CallPolicy, KnownPrompt, Plan
    from synaptic.runtime.policies import PromptSizes
    from synaptic.runtime.prompt_ground import Ground

MOST_TOKENS: Final = 2000
"""Every call that asks the question processes the conversation anew: more of it costs more than it is worth."""

SHARE: Final = 4
"""A quarter of the context at most."""

LEAST_TOKENS: Final = 64
"""Where there is less room, no turn is passed on at all."""

LEAST_OF_MESSAGE: Final = 48
"""Tokens that are left of a message that is cut; below that it says nothing any more."""

_HEADING: Final = "Earlier in this conversation{}:"
_LEFT_OUT: Final = " (the first {} left out)"

_Turn: TypeAlias = "tuple[Message, ...]"


@dataclass(frozen=True, slots=True)
class EarlierTurns:
    """What of a conversation goes into prompts.

    Attributes:
        text: The turns, oldest first; "" where there are none.
        turns: How many there were; a turn is a question with its answer.
        kept: How many of them, the latest, are in the text.
        cut: How many of these are there with their beginnings only.
        heard: Whether any prompt of the run gets the text.
    """

    text: str = ""
    turns: int = 0
    kept: int = 0
    cut: int = 0
    heard: bool = True

    @property
    def shortened(self) -> ConversationShortened | None:
        """What is said where prompts get less than all that was said; ``None`` where they get all."""
        less = self.heard and (self.kept < self.turns or self.cut > 0)
        return ConversationShortened(self.turns, self.kept, self.cut) if less else None


NO_TURNS: Final = EarlierTurns()


def earlier_turns(messages: Sequence[Message], most: int = MOST_TOKENS, *, heard: bool = True) -> EarlierTurns:
    """Return the latest turns as text of about ``most`` tokens.

    Where the whole does not fit, each message from the last one backwards gets half of what is left, and keeps its
    beginning: that is where an answer says what it is about.
    """
    turns = _turns(messages)
    if not turns or most < LEAST_TOKENS:
        return EarlierTurns("", len(turns), 0, 0, heard)
    whole = [[_said(message, message.content.strip()) for message in turn] for turn in turns]
    left = most - estimated_tokens(_HEADING)
    fits = sum(_size(line) for lines in whole for line in lines) <= left
    kept: list[list[str]] = []
    cut = 0
    for turn, lines in zip(reversed(turns), reversed(whole), strict=True):
        shown = lines if fits else _shortened(turn, left)
        if not shown:
            break
        kept.append(shown)
        cut += shown != lines
        left -= sum(_size(line) for line in shown)
    missing = len(turns) - len(kept)
    told = _LEFT_OUT.format("turn is" if missing == 1 else f"{missing} turns are") if missing else ""
    text = "\n".join([_HEADING.format(told), *(line for lines in reversed(kept) for line in lines)])
    return EarlierTurns(text if kept else "", len(turns), len(kept), cut, heard)


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """Return the messages as turns; each begins with what the person says."""
    turns: list[_Turn] = []
    for message in messages:
        if message.role == "user" or not turns:
            turns.append((message,))
        else:
            turns[-1] = (*turns[-1], message)
    return turns


def _said(message: Message, text: str) -> str:
    return f"{'Person' if message.role == 'user' else 'You'}: {text}"


def _size(line: str) -> int:
    return estimated_tokens(line) + 1


def _shortened(turn: _Turn, room: int) -> list[str]:
    """Return the turn's messages in at most ``room`` tokens; none where that is too little to say anything."""
    lines: list[str] = []
    for message in reversed(turn):
        share = max(room // 2, LEAST_OF_MESSAGE)
        if share > room:
            return []
        lines.append(_said(message, _beginning(message.content.strip(), share)))
        room -= _size(lines[-1])
    return lines[::-1]


def _beginning(text: str, tokens: int) -> str:
    """Return as much of a text as ``tokens`` hold, up to the end of a word."""
    if estimated_tokens(text) <= tokens:
        return text
    end = len(text)
    while (size := estimated_tokens(text[:end])) > tokens:
        end = min(end - 1, end * tokens // size)
    word = text.rfind(" ", end // 2, end)
    return f"{text[: end if word < 0 else word].rstrip()} …"


async def room_for_turns(
    plan: Plan, defaults: ChatRequest, sizes: Callable[[CallPolicy], PromptSizes], *, count: bool
) -> int | None:
    """Return how many tokens of conversation every prompt that gets it has room for; ``None`` where none gets it.

    What a person asks now, and the files beside it, go first.

    Args:
        plan: What is run.
        defaults: What holds for a call where nothing else says otherwise.
        sizes: How long the prompts of a call may be.
        count: Whether the backend may be asked to count, which may start it.
    """
    run: Mapping[str, str] = {"id": "", "pipeline": plan.pipeline.name, "conversation": ""}
    most: int | None = None
    for prompt in known_prompts(plan.compiled.graph, plan.inputs, run):
        if not (prompt.call.hears or any(reference.is_conversation for reference in prompt.call.prompt.references)):
            continue
        most = MOST_TOKENS if most is None else most
        ground = await ground_of(sizes(prompt.call.policy), defaults, prompt, count=count)
        if ground is None:
            continue
        most = min(most, ground.context // SHARE)
        if most_tokens(ground.request) + most > ground.allowed(prompt):
            most = min(most, await _room_beside(prompt, ground))
    return most


async def _room_beside(prompt: KnownPrompt, ground: Ground) -> int:
    """Return the tokens that are left beside a prompt; of one that is shortened anyway, a half of what can be."""
    left = ground.allowed(prompt) - await ground.counter.count(prompt_text(ground.request.messages))
    if left < 0 and ground.size.rule.how != "error":
        bare = prompt_text(without_values(ground.request).messages)
        left = (ground.allowed(prompt) - await ground.counter.count(bare)) // 2
    return max(0, left)
