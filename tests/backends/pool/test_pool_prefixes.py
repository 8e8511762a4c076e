"""Which node's cache is likely to hold the beginning of a prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.pool.learned.prefixes import (
    BLOCK_CHARACTERS,
    MOST_BLOCKS,
    MOST_NODES,
    MOST_PROMPTS,
    TOKENS_A_BLOCK,
    Prefixes,
    chain,
)
from synaptic.messages import Message

SYSTEM = Message("system", "You are a careful researcher. " * 100)


def talk(question: str, system: Message = SYSTEM) -> tuple[Message, ...]:
    return (system, Message("user", question))


def blocks(*names: str) -> tuple[int, ...]:
    return tuple(hash(names[: end + 1]) for end in range(len(names)))


def test_alike_beginnings_have_alike_hashes():
    one, other = chain(talk("What is a heat pump? " * 100)), chain(talk("Why is the sky blue? " * 100))
    shared = sum(a == b for a, b in zip(one, other, strict=True))
    assert shared == len(SYSTEM.content) // BLOCK_CHARACTERS
    assert one == chain(talk("What is a heat pump? " * 100))


def test_what_comes_before_counts():
    text = "x" * BLOCK_CHARACTERS * 3
    plain = chain((Message("user", text),))
    assert len(set(plain)) == len(plain), "the same text further on is another beginning"
    assert not set(plain) & set(chain((Message("user", "!" + text),)))
    assert not set(plain) & set(chain((Message("assistant", text),)))


def test_where_a_message_ends_counts():
    first, second = "a" * BLOCK_CHARACTERS, "b" * BLOCK_CHARACTERS
    two = chain((Message("user", first), Message("user", second)))
    one = chain((Message("user", first + second),))
    assert two[1] != one[1]


def test_a_short_prompt_has_no_blocks_and_a_long_one_a_bounded_number():
    assert chain(()) == chain((Message("user", "What is a heat pump?"),)) == ()
    long = chain((Message("user", "x" * 10**7), Message("user", "y")))
    assert len(long) == MOST_BLOCKS


def test_the_longest_common_beginning_is_found():
    prefixes = Prefixes()
    prefixes.note(1, "m", blocks("a", "b", "c"))
    prefixes.note(2, "m", blocks("a", "x"))
    assert prefixes.cached("m", blocks("a", "b", "d")) == {1: 2 * TOKENS_A_BLOCK, 2: TOKENS_A_BLOCK}
    assert prefixes.cached("m", blocks("z")) == {}
    assert prefixes.cached("other", blocks("a", "b")) == {}
    assert prefixes.cached("m", ()) == {}


def test_a_slot_keeps_its_last_prompt_only():
    prefixes = Prefixes()
    prefixes.note(1, "m", blocks("a", "b"))
    prefixes.note(1, "m", blocks("a", "c"))
    assert prefixes.cached("m", blocks("a", "b")) == {1: TOKENS_A_BLOCK}
    prefixes.note(1, "m", ())
    assert prefixes.cached("m", blocks("a", "c")) == {}, "a short prompt takes the slot as well"


def test_several_slots_keep_several_prompts():
    prefixes = Prefixes(kept=2)
    for name in "abc":
        prefixes.note(1, "m", blocks(name))
    assert [bool(prefixes.cached("m", blocks(name))) for name in "abc"] == [False, True, True]
    prefixes.note(1, "m", blocks("d"), kept=1)
    assert [bool(prefixes.cached("m", blocks(name))) for name in "abcd"] == [False, False, False, True]


def test_a_prompt_that_comes_again_takes_its_slot_again():
    prefixes = Prefixes(kept=2)
    for name in "abaac":
        prefixes.note(1, "m", blocks(name))
    assert [bool(prefixes.cached("m", blocks(name))) for name in "abc"] == [True, False, True]


def test_what_two_slots_share_is_held_until_both_have_lost_it():
    prefixes = Prefixes(kept=2)
    prefixes.note(1, "m", blocks("a", "b"))
    prefixes.note(1, "m", blocks("a", "c"))
    prefixes.note(1, "m", blocks("z"))
    assert prefixes.cached("m", blocks("a", "b")) == {1: TOKENS_A_BLOCK}
    prefixes.note(1, "m", blocks("y"))
    assert prefixes.cached("m", blocks("a", "b")) == {}


def test_a_lost_cache_is_forgotten():
    prefixes = Prefixes()
    prefixes.note(1, "m", blocks("a"))
    prefixes.note(1, "x", blocks("a"))
    prefixes.note(2, "m", blocks("a"))
    prefixes.forget(1, "m")
    assert prefixes.cached("m", blocks("a")) == {2: TOKENS_A_BLOCK}
    assert prefixes.cached("x", blocks("a")) == {1: TOKENS_A_BLOCK}
    prefixes.forget(1)
    prefixes.forget(3, "unheard of")
    assert prefixes.cached("x", blocks("a")) == {}
    assert len(prefixes) == 1


def test_memory_is_bounded_and_the_latest_stay():
    prefixes = Prefixes()
    for key in range(MOST_PROMPTS + 10):
        prefixes.note(key, "m", blocks("a", str(key)))
    assert len(prefixes) == MOST_PROMPTS
    assert prefixes.cached("m", blocks("a", "5")).get(5, 0) <= TOKENS_A_BLOCK, "the oldest are forgotten"
    latest = MOST_PROMPTS + 9
    found = prefixes.cached("m", blocks("a", str(latest)))
    assert found[latest] == 2 * TOKENS_A_BLOCK
    assert len(found) <= 2 * MOST_NODES


@given(
    kept=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("mx"), st.none() | st.lists(st.sampled_from("ab"), max_size=4)),
        max_size=40,
    ),
    asked=st.lists(st.sampled_from("ab"), max_size=5),
)
def test_it_is_what_looking_through_all_prompts_would_find(kept, steps, asked):
    prefixes = Prefixes(kept)
    plain: dict[tuple[int, str], list[tuple[int, ...]]] = {}
    for key, model, names in steps:
        if names is None:
            prefixes.forget(key, model)
            plain.pop((key, model), None)
            continue
        prompt = blocks(*names)
        prefixes.note(key, model, prompt)
        if prompt or (key, model) in plain:
            others = [other for other in plain.get((key, model), []) if other != prompt]
            plain[key, model] = [*others, prompt][-kept:]
    question = blocks(*asked)
    expected = {}
    for (key, model), prompts in plain.items():
        most = max(sum(a == b for a, b in zip(prompt, question, strict=False)) for prompt in prompts)
        if model == "m" and most:
            expected[key] = most * TOKENS_A_BLOCK
    assert prefixes.cached("m", question) == expected
    assert len(prefixes) == sum(map(len, plain.values()))
    for key in range(4):
        prefixes.forget(key)
    assert len(prefixes) == 0 and prefixes.cached("m", question) == {}
