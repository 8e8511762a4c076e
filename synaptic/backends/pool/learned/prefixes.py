"""Which node's cache is likely to hold the beginning of a prompt.

A server keeps the attention state (KV) of the last prompt of each of its slots, and computes only what differs after
the common beginning. Nothing tells from outside what it keeps, so what was sent there last is remembered: the hashes of
the growing beginnings of the prompt, block by block. Two prompts share a block if all before it is alike, too.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from synaptic.backends.pool.node import NOTHING_CACHED
from synaptic.waiting import CHARACTERS_A_TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.messages import Message

BLOCK_CHARACTERS = 512
"""AIBrix takes 128, llm-d 16 tokens; what is saved below a block of ours is a few hundredths of a second."""

MOST_BLOCKS = 64
TOKENS_A_BLOCK = BLOCK_CHARACTERS // CHARACTERS_A_TOKEN
MOST_PROMPTS = 4096
"""Prompts that are remembered over all nodes and models, about 30 MB of hashes at most."""

MOST_NODES = 16
"""So many nodes are named for one prompt, those with the most of it first."""

Chain: TypeAlias = tuple[int, ...]
_Slots: TypeAlias = tuple[int, str]


def chain(messages: Sequence[Message]) -> Chain:
    """Return the hashes of the prompt's beginnings of 1, 2, ... whole blocks; of a short prompt, none.

    They hold within this process only. What a prompt has beyond the last block does not count, so that the cost has a
    bound.
    """
    left = BLOCK_CHARACTERS * MOST_BLOCKS
    parts: list[str] = []
    for message in messages:
        parts += (message.role, "\0", message.content[:left], "\0")
        left -= len(message.content)
        if left <= 0:
            break
    text = "".join(parts)
    hashes: list[int] = []
    so_far = 0
    for end in range(BLOCK_CHARACTERS, len(text) + 1, BLOCK_CHARACTERS):
        so_far = hash((so_far, text[end - BLOCK_CHARACTERS : end]))
        hashes.append(so_far)
    return tuple(hashes[:MOST_BLOCKS])


class Prefixes:
    """Remembers, for each model on each node, the last prompts that went there.

    Args:
        kept: How many: as many as the server has slots for the model. A node's own number may be given with each
            prompt.
    """

    def __init__(self, kept: int = 1) -> None:
        self._kept = kept
        self._prompts: OrderedDict[_Slots, list[Chain]] = OrderedDict()
        self._count = 0
        self._holders: dict[str, dict[int, set[int]]] = {}

    def __len__(self) -> int:
        """Return how many prompts are remembered."""
        return self._count

    def note(self, node_key: int, model: str, prompt: Chain, *, kept: int | None = None) -> None:
        """Take note that ``prompt`` was sent to a node: it takes the place of the oldest one there."""
        slots = (node_key, model)
        prompts = self._prompts.get(slots)
        if prompts is None:
            if not prompt:
                return
            prompts = self._prompts[slots] = []
        if prompt in prompts:
            prompts.remove(prompt)  # the slot that has it takes it again
            prompts.append(prompt)
        else:
            self._add(slots, prompts, prompt)
        while len(prompts) > (kept or self._kept):
            self._drop_oldest(slots, prompts)
        self._prompts.move_to_end(slots)
        while self._count > MOST_PROMPTS:
            oldest, its_prompts = next(iter(self._prompts.items()))
            self._drop_oldest(oldest, its_prompts)
            if not its_prompts:
                del self._prompts[oldest]

    def cached(self, model: str, prompt: Chain) -> Mapping[int, int]:
        """Return node's key -> tokens of the prompt that its cache is likely to hold; those with none are left out."""
        holders = self._holders.get(model)
        if holders is None or not prompt or prompt[0] not in holders:
            return NOTHING_CACHED
        deepest = 1
        while deepest < len(prompt) and prompt[deepest] in holders:
            deepest += 1
        tokens: dict[int, int] = {}
        for blocks in range(deepest, 0, -1):
            for key in islice(holders[prompt[blocks - 1]], MOST_NODES):
                tokens.setdefault(key, blocks * TOKENS_A_BLOCK)
            if len(tokens) >= MOST_NODES:
                break
        return tokens

    def forget(self, node_key: int, model: str | None = None) -> None:
        """Take note that a node has lost its cache: of one model that was unloaded, or of all."""
        lost = [(node_key, model)] if model is not None else [slots for slots in self._prompts if slots[0] == node_key]
        for slots in lost:
            prompts = self._prompts.pop(slots, [])
            while prompts:
                self._drop_oldest(slots, prompts)

    def _add(self, slots: _Slots, prompts: list[Chain], prompt: Chain) -> None:
        key, model = slots
        if prompt:
            holders = self._holders.setdefault(model, {})
            for block in prompt[_shared(prompt, prompts) :]:
                holders.setdefault(block, set()).add(key)
        prompts.append(prompt)
        self._count += 1

    def _drop_oldest(self, slots: _Slots, prompts: list[Chain]) -> None:
        key, model = slots
        oldest = prompts.pop(0)
        self._count -= 1
        if not oldest:
            return
        holders = self._holders[model]
        for block in oldest[_shared(oldest, prompts) :]:
            nodes = holders[block]
            nodes.discard(key)
            if not nodes:
                del holders[block]
        if not holders:
            del self._holders[model]


def _shared(prompt: Chain, others: Sequence[Chain]) -> int:
    """Return how many blocks ``prompt`` has in common with the one of ``others`` that has the most of it."""
    most = 0
    for other in others:
        alike = min(len(prompt), len(other))
        while most < alike and prompt[most] == other[most]:
            most += 1
    return most
