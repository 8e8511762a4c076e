"""The shortlist of a large pool: kept up change by change, it is what it would be if it were built anew."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from pool_states import NAMES, model_states, node, nodes, pools, shapes

from synaptic.backends.pool.index import UNKNOWN, Shortlist
from synaptic.backends.pool.learned.rates import Rates, Sample
from synaptic.backends.pool.node.state import CallShape
from synaptic.backends.pool.policy import Reservations, pick

NOW = 1000.0
CALL = CallShape("m", prompt_tokens=100, output_tokens=100)


def keys(shortlist: Shortlist, call: CallShape = CALL, seed: int = 1) -> list[int]:
    return [one.key for one in shortlist.candidates(call, random.Random(seed))]


def state_of(shortlist: Shortlist) -> list[object]:
    return [(shortlist.places(name), shortlist.groups(name)) for name in NAMES]


def decide(nodes_, call):
    return pick(call, nodes_, NOW, Reservations(), random.Random(1), Rates())


def test_few_of_many_are_named_and_none_twice():
    pool = [node(key, speed=1 + key % 40, resident=key % 3 == 0, limit=2) for key in range(3000)]
    for one in pool[::2]:
        one.claim("m", NOW + one.key)
        one.claim("m", NOW + one.key)
    shortlist = Shortlist(pool)
    call = replace(CALL, cached=dict.fromkeys(range(100), 128))
    for seed in range(50):
        found = keys(shortlist, call, seed)
        assert len(found) == len(set(found)) <= 24


def test_the_only_free_one_with_the_model_in_memory_is_found():
    pool = [node(key, speed=40, ends=[NOW + key + 1]) for key in range(1000)]
    pool += [node(key, speed=40, resident=False) for key in range(1000, 2000)]
    pool.append(node(2000, speed=1))
    shortlist = Shortlist(pool)
    assert all(2000 in keys(shortlist, seed=seed) for seed in range(20))


def test_the_fastest_free_ones_come_first():
    pool = [node(key, speed=1 + key) for key in range(200)]
    shortlist = Shortlist(pool)
    assert min(keys(shortlist)) > 100
    for one in pool[100:]:
        one.claim("m", NOW + 1000)
        shortlist.touch(one)
    found = keys(shortlist)
    assert max(key for key in found if key < 100) > 50
    assert any(key >= 100 for key in found), "a fast busy one may be worth waiting for"


def test_busy_ones_that_end_soon_are_named():
    pool = [node(key, speed=40, ends=[NOW + 1000 - key]) for key in range(500)]
    assert min(keys(Shortlist(pool))) > 450


def test_the_ones_with_the_prompt_in_their_cache_are_named():
    pool = [node(key, speed=1 + key % 10) for key in range(500)]
    call = replace(CALL, cached={10: 128, 20: 1280, 31: 640, 40: 1024})
    assert {20, 40} <= set(keys(Shortlist(pool), call))


def test_nodes_that_others_wait_for_are_left_out_where_there_are_others():
    pool = [node(key, speed=40, ends=[NOW + 1 + key]) for key in range(100)]
    shortlist = Shortlist(pool)
    ahead = Reservations()
    for one in pool[:10]:
        ahead.reserve(one, NOW + 500)
    for seed in range(30):
        assert all(one.key >= 10 for one in shortlist.candidates(CALL, random.Random(seed), ahead))
    for one in pool[10:]:
        ahead.reserve(one, NOW + 500)
    assert shortlist.candidates(CALL, random.Random(1), ahead)


def test_nodes_of_unknown_speed_get_a_chance():
    pool = [node(key, speed=0 if key >= 490 else 20) for key in range(500)]
    assert any(key >= 490 for key in keys(Shortlist(pool)))


def test_everybody_gets_a_chance_among_equals():
    shortlist = Shortlist(node(key) for key in range(64))
    drawn = {key for seed in range(400) for key in keys(shortlist, seed=seed)}
    assert drawn == set(range(64))


def test_changes_move_a_node():
    one = node(0, limit=2)
    shortlist = Shortlist([one])
    assert shortlist.places("m")[0].kind == "free"
    one.claim("m", NOW + 5)
    one.claim("m", NOW + 9)
    shortlist.touch(one)
    assert shortlist.places("m")[0][::2] == ("busy", NOW + 5)
    one.cap = 0
    shortlist.touch(one)
    assert shortlist.places("m")[0].kind == "closed"
    one.cap = 2
    one.models["m"].resident = False
    shortlist.touch(one)
    assert shortlist.places("m")[0].kind == "cold busy"
    one.release("m", NOW + 5)
    shortlist.touch(one)
    assert shortlist.places("m")[0].kind == "cold"
    one.models["m"].refused_until = NOW + 60
    shortlist.touch(one)
    assert shortlist.places("m")[0].kind == "doubtful"
    del one.models["m"]
    shortlist.touch(one)
    assert shortlist.places("m") == {} and shortlist.groups("m") == {}


def test_a_node_that_becomes_faster_changes_its_bucket():
    one = node(0, speed=0)
    shortlist = Shortlist([one])
    assert shortlist.places("m")[0].bucket == UNKNOWN
    one.models["m"].rates.learn(Sample(first_token=1, total=20, prompt_tokens=100, output_tokens=100))
    shortlist.touch(one)
    slow = shortlist.places("m")[0].bucket
    for _ in range(30):
        one.models["m"].rates.learn(Sample(first_token=0.1, total=2, prompt_tokens=100, output_tokens=100))
    shortlist.touch(one)
    assert shortlist.places("m")[0].bucket < slow < UNKNOWN


def test_a_node_that_comes_and_one_that_goes():
    shortlist = Shortlist()
    assert keys(shortlist) == []
    one, other = node(0), node(1)
    shortlist.touch(one)
    shortlist.touch(other)
    assert sorted(keys(shortlist)) == [0, 1]
    shortlist.remove(one)
    shortlist.remove(one)
    assert keys(shortlist) == [1]


def test_where_none_can_serve_it_the_reasons_are_there():
    lacks, closed = node(0), node(1)
    del lacks.models["m"]
    closed.cap = 0
    assert decide(Shortlist([lacks, closed]).candidates(CALL, random.Random(1)), CALL).hopeless is False
    assert decide(Shortlist([lacks]).candidates(CALL, random.Random(1)), CALL).hopeless
    unreached = node(2)
    unreached.models.clear()
    unreached.cap = 0
    many = [node(key) for key in range(10, 50)]
    for one in many:
        del one.models["m"]
    found = Shortlist([*many, unreached]).candidates(CALL, random.Random(1))
    assert decide(found, CALL).hopeless is False, "the one that was never reached may have the model"


@st.composite
def changes(draw):
    """Return a change of one node, as a function that makes it."""
    what = draw(st.sampled_from(["claim", "release", "cap", "state", "gone model", "learn", "trust", "leave", "ask"]))
    name = draw(st.sampled_from(NAMES))
    end = draw(st.sampled_from([900.0, 1001.0, 1030.0]))
    cap = draw(st.integers(0, 4))
    trust = draw(st.sampled_from([0.2, 1.0]))
    state = draw(model_states(name))
    return what, name, end, cap, trust, state


def apply(change, one, held, shortlist, pool) -> None:
    what, name, end, cap, trust, state = change
    if what == "claim" and name in one.models:
        one.claim(name, end)
        held.append((one, name, end))
    elif what == "release" and held:
        one, name, end = held.pop(0)
        one.release(name, end)
    elif what == "cap":
        one.cap = cap
    elif what == "state":
        one.models[name] = state
    elif what == "gone model":
        one.models.pop(name, None)
    elif what == "learn" and name in one.models:
        one.models[name].rates.learn(Sample(first_token=cap / 4, total=5.0, prompt_tokens=100, output_tokens=100))
    elif what == "trust":
        one.trust = trust
    elif what == "leave":
        pool.pop(one.key, None)
        shortlist.remove(one)
        return
    elif what == "ask":
        shortlist.candidates(CallShape(name), random.Random(1))
    if one.key in pool:
        shortlist.touch(one)


@settings(max_examples=200, deadline=None)
@given(
    start=pools(most=8),
    steps=st.lists(st.tuples(st.integers(0, 9), changes()), max_size=40),
    call=shapes(),
    late=nodes(9),
    seed=st.integers(0, 1000),
)
def test_kept_up_it_is_what_it_would_be_if_built_anew(start, steps, call, late, seed):
    pool = {one.key: one for one in start}
    shortlist = Shortlist(start)
    held: list = []
    everybody = [*start, late]
    pool[late.key] = late
    shortlist.touch(late)
    for at, change in steps:
        apply(change, everybody[at % len(everybody)], held, shortlist, pool)
    assert state_of(shortlist) == state_of(Shortlist(pool.values()))
    found = shortlist.candidates(call, random.Random(seed))
    full = decide(list(pool.values()), call)
    short = decide(found, call)
    ahead = Reservations()
    for one in pool.values():
        if one.key % 3 and one.in_flight:
            ahead.reserve(one, NOW + 90)
    assert decide(shortlist.candidates(call, random.Random(seed), ahead), call).possible == full.possible
    assert short.possible == full.possible
    assert short.hopeless == full.hopeless
    free = [
        one.key
        for one in pool.values()
        if one.in_flight < one.cap
        and (state := one.models.get(call.model)) is not None
        and state.resident
        and not state.refused_until
        and one.key not in call.tried
        and (state.capabilities is None or call.needs <= state.capabilities)
        and one.memory_bytes is None
    ]
    assert not free or set(free) & {one.key for one in found}


def test_a_node_where_other_programs_have_calls_is_looked_at_behind_those_where_they_have_none():
    pool = [node(key, speed=40) for key in range(100)]
    shortlist = Shortlist(pool)
    for one in pool[:96]:
        one.elsewhere = 2
        shortlist.touch(one)
    for seed in range(20):
        assert decide([pool[key] for key in keys(shortlist, seed=seed)], CALL).node in pool[96:]
    assert shortlist.places("m") == Shortlist(pool).places("m"), "it is what it would be if it were built anew"
