"""Which part of a prompt a node has to read: what it may have of an earlier one is not measured."""

from __future__ import annotations

import random
from itertools import takewhile

import pytest
from faulty_node import FaultyNode
from hypothesis import given
from hypothesis import strategies as st
from pool_support import MODEL, ask, pool_over, question

from synaptic.backends.pool.learned.sent_prompts import MOST_REMEMBERED, MOST_SHARED, SentPrompts, beginnings
from synaptic.messages import Message

LOADED = f"{MODEL}:latest"


def prompt(text):
    return beginnings((Message("user", text),))


def words(count, seed):
    rng = random.Random(seed)
    return " ".join(f"{rng.randrange(10**6)}" for _ in range(count))


def test_a_prompt_that_was_not_sent_before_is_read_whole():
    sent = SentPrompts()
    assert sent.note(0, "m", prompt(words(200, 1))) == 1.0
    assert sent.note(0, "m", prompt(words(200, 2))) == 1.0


def test_of_one_that_was_nothing_is_known_and_other_nodes_and_models_have_not_seen_it():
    sent, long = SentPrompts(), prompt(words(200, 1))
    sent.note(0, "m", long)
    for number in range(100):
        sent.note(0, "m", prompt(words(50, number)))  # many slots ago it may be kept all the same
    assert sent.note(0, "m", long) is None
    assert sent.note(1, "m", long) == sent.note(0, "n", long) == 1.0


def test_what_a_system_prompt_has_in_common_is_taken_off_where_it_is_little():
    sent = SentPrompts()
    system = "Answer briefly. " * 8
    sent.note(0, "m", prompt(system + words(20, 0)))
    assert sent.note(0, "m", prompt(system + words(20, 1))) is None
    assert sent.note(0, "m", prompt(system + words(1000, 2))) == pytest.approx(1.0, abs=0.05)


def test_of_a_very_short_prompt_nothing_is_known():
    assert SentPrompts().note(0, "m", prompt("Hello")) is None


def test_what_is_remembered_has_a_bound():
    sent = SentPrompts()
    for number in range(MOST_REMEMBERED + 100):
        sent.note(number, "m", (64, (7,)))
    assert len(sent._sent) == MOST_REMEMBERED


@given(st.text(max_size=900), st.text(max_size=600), st.text(max_size=900))
def test_what_is_measured_was_new_for_the_most_part(common, one, other):
    sent = SentPrompts()
    sent.note(0, "m", prompt(common + one))
    if sent.note(0, "m", prompt(common + other)) is not None:
        texts = [f"user\0{common}{end}\0" for end in (one, other)]
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        assert shared <= MOST_SHARED * len(texts[1])


@pytest.mark.parametrize("common", ["", "Read this before. " * 30])
async def test_a_node_that_has_prompts_in_its_cache_is_not_taken_for_a_fast_reader(common):
    """It counts all tokens of the prompt, and the time of the new ones alone, as Ollama does."""
    node = FaultyNode(prefix_cache=True, seconds_per_prompt_token=0.0005, loaded=[MODEL])
    async with node, pool_over([node]) as trial:
        rates = trial.state(0).models[LOADED].rates
        for number in range(3):
            for _ in range(3):
                await ask(trial.pool, question(f"{common}{words(400, number)}"))
        assert 1500 < rates.prompt_rate < 2700, "2000 tokens a second"


async def test_cold_is_what_the_node_says_it_did_not_have_in_memory():
    node = FaultyNode(loaded=[MODEL], warm_load_seconds=0.84, load_seconds=0.01)
    async with node, pool_over([node]) as trial:
        rates = trial.state(0).models[LOADED].rates
        await ask(trial.pool, question("One"))
        assert (rates.load_seconds, rates.samples) == (0.0, 1)
        node.memory.unload(MODEL)
        trial.pool.members[0].memory_at = 0.0  # it was looked at a while ago
        await ask(trial.pool, question("Two"))
        assert rates.load_seconds > 0
