"""Which inputs are too long for the plan's prompts, and the parts that they are read in; before the first call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.pipeline import CallPolicy, LongInput, known_prompts
from synaptic.runtime.long_input.text_parts import Material, TextPart, material_of, parts_of, texts_of
from synaptic.runtime.policies import (
    Refused,
    divide,
    most_tokens,
    prompt_text,
    too_long,
    without_values,
)
from synaptic.runtime.prompt_ground import ground_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synaptic.backends import Capabilities
    from synaptic.messages import ChatRequest
    from synaptic.pipeline import KnownPrompt, Plan
    from synaptic.runtime.policies import PromptSizes, TokenCounter
    from synaptic.runtime.prompt_ground import Ground

SHARE_OF_NOTES: Final = 4
"""The notes of an input take a quarter of the context at most: every prompt that reads them has to be processed."""

SHARE_OF_PART: Final = 2
"""A part takes half the context at most: the longer a prompt, the slower its tokens and the more a model overlooks."""

LEAST_NOTES: Final = 64
LEAST_NOTE: Final = 48
MOST_NOTE: Final = 400
LABEL_TOKENS: Final = 24
LEAST_PART: Final = 512
"""Tokens; parts are not made smaller than this to give every node one."""

PREFACE_TOKENS: Final = 48

READING_TOKENS: Final = 160
"""What the reader is told beside the part and the question."""


@dataclass(frozen=True, slots=True)
class Division:
    """A long input, divided.

    Attributes:
        question: What the input is read for.
        parts: What is read, in its order.
        room: Tokens that the notes may have together.
        room_for_part: Tokens that one part may have.
        earlier: The turns of the conversation before that question.
    """

    shown: LongInput
    question: str
    parts: tuple[TextPart, ...]
    room: int
    room_for_part: int
    earlier: str = ""

    @property
    def note(self) -> int:
        """Most tokens of the note of one part."""
        most = min(MOST_NOTE, self.shown.context // 8)
        return max(LEAST_NOTE, min(most, self.room // len(self.parts) - LABEL_TOKENS))


async def divisions(
    plan: Plan,
    defaults: ChatRequest,
    run: Mapping[str, str],
    sizes: Callable[[CallPolicy], PromptSizes],
    *,
    count: bool,
) -> tuple[Division, ...]:
    """Return the inputs that are read in parts because a prompt that they go into would not fit.

    Args:
        plan: What is run.
        defaults: What holds for a call where nothing else says otherwise.
        run: What templates see as ``run``.
        sizes: How long the prompts of a call may be.
        count: Whether the backend may be asked to count, which may start it.

    Raises:
        ContextOverflow: If a prompt cannot fit: it is not to be shortened, or too long without any data.
    """
    room: dict[str, int] = {}
    for prompt in known_prompts(plan.compiled.graph, plan.inputs, run):
        ground = await ground_of(sizes(prompt.call.policy), defaults, prompt, count=count)
        if ground is not None:
            for name, most in (await _shares(prompt, plan, ground)).items():
                room[name] = min(most, room.get(name, most))
    if not room:
        return ()
    reading = await ground_of(sizes(CallPolicy()), defaults, count=count)
    if reading is None:  # a step that names a backend of its own has a context: its call shortens its prompt
        return ()
    found = []
    for name, most in room.items():
        material = material_of(name, plan.inputs, plan.attached)
        earlier = run["conversation"] if plan.pipeline.spec.conversation and material.question else ""
        found.append(await _divided(name, material, min(most, reading.context // SHARE_OF_NOTES), reading, earlier))
    return tuple(found)


async def _shares(prompt: KnownPrompt, plan: Plan, ground: Ground) -> dict[str, int]:
    """Return the inputs that have to be shorter for this prompt, with the tokens that each may have.

    Raises:
        ContextOverflow: If the prompt cannot fit.
    """
    allowed = ground.allowed(prompt)
    if most_tokens(ground.request) <= allowed:
        return {}
    await _refuse(prompt.path, ground)
    tokens = await ground.counter.count(prompt_text(ground.request.messages))
    if ground.size.rule.how != "summarise" or tokens <= allowed:
        return {}
    held = await _held(prompt, plan, ground.counter)
    return shares(held, allowed - (tokens - sum(held.values())))


async def _refuse(path: str, ground: Ground) -> None:
    """Raise if the prompt cannot fit, whatever its step does about it."""
    size, request, remark = ground.size, ground.request, None
    if size.rule.how != "error":
        request, remark = without_values(request), " without the data in it"
    text = prompt_text(request.messages)
    least, said = await ground.counter.least(text)
    if least > ground.room:
        told = Refused(request, ground.context, said, path=path, remark=remark)
        raise too_long(told, size.rule, size.capabilities, size.backend)


async def _held(prompt: KnownPrompt, plan: Plan, counter: TokenCounter) -> dict[str, int]:
    """Return the inputs whose text stands in the prompt, with the tokens that each has there; no short ones."""
    held = {}
    for name, value in plan.inputs.items():
        texts = [text for text in texts_of(value) if text.strip() and text.strip() in prompt.text]
        tokens = await counter.count("\n".join(texts)) if texts else 0
        if tokens > LEAST_NOTES + PREFACE_TOKENS:
            held[name] = tokens
    return held


def shares(held: Mapping[str, int], room: int) -> dict[str, int]:
    """Return those of the texts that are too long for an equal share of the room, with the share of each."""
    left, found = max(0, room), {}
    ordered = sorted(held, key=lambda name: held[name])
    for index, name in enumerate(ordered):
        share = left // (len(ordered) - index)
        if held[name] > share:
            found[name] = share
            left -= share
        else:
            left -= held[name]
    return found


async def _divided(name: str, material: Material, most: int, ground: Ground, earlier: str) -> Division:
    """Return an input in parts; ``most`` tokens are there for what is asked and the notes."""
    context, counter, can = ground.context, ground.counter, ground.size.capabilities
    question = await counter.count(material.question)
    before = await counter.count(earlier) if earlier else 0
    notes = max(LEAST_NOTES, most - question - PREFACE_TOKENS)
    reply = max(LEAST_NOTE, min(MOST_NOTE, context // 8))
    room = max(LEAST_NOTES, min(context // SHARE_OF_PART, context - reply - READING_TOKENS - question - before))
    lengths = [await counter.count(text) for _, text in material.texts]
    total, places = sum(lengths), _places(can)
    parts: list[TextPart] = []
    for (title, text), length in zip(material.texts, lengths, strict=True):
        least = wanted_parts(length, room, max(1, places * length // max(1, total)))
        pieces = await divide(text, room, counter, parts=least)
        parts += parts_of(title, text, [piece for piece in pieces if piece.strip()], len(parts))
    shown = LongInput(
        name=name,
        tokens=total,
        exact=counter.exact,
        context=context,
        parts=len(parts),
        longer=can.longer_context,
    )
    return Division(shown, material.question, tuple(parts), notes, room, earlier)


def wanted_parts(tokens: int, room: int, places: int) -> int:
    """Return how many parts a text is read in at least: so many that they fit, and as many as there are places.

    Several calls run at once, so that the number is a multiple of the places, as long as the parts do not get small.
    """
    needed = math.ceil(tokens / room)
    waves = math.ceil(needed / places) * places
    return waves if tokens // waves >= LEAST_PART else max(needed, min(waves, tokens // LEAST_PART), 1)


def _places(can: Capabilities) -> int:
    """Return how many calls the backend serves at once; 1 where it does not say."""
    if can.capacity is not None:
        return can.capacity
    if can.nodes is None:
        return 1
    return max(1, sum(node.limit for node in can.nodes.statuses() if node.condition == "up"))
