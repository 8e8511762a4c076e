"""Which node takes a call: each rule alone, then against a plain search over random pools."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_states import node, pools, shapes

from synaptic.backends.pool.learned.rates import STALE_SECONDS, Rates
from synaptic.backends.pool.node.state import CallShape, ModelState
from synaptic.backends.pool.policy import (
    AS_GOOD_AS_EQUAL,
    Pick,
    Reservations,
    Why,
    explain,
    footprint,
    load_seconds,
    pick,
    remaining,
)

NOW = 1000.0
GIB = 2**30
CALL = CallShape("m", prompt_tokens=100, output_tokens=100)


def decide(call, nodes, *, ahead=None, seed=1, fallback=None) -> Pick:
    return pick(call, nodes, NOW, ahead or Reservations(), random.Random(seed), fallback or Rates())


def whys(decision: Pick) -> list[Why]:
    return [verdict.why for verdict in decision.verdicts]


def test_the_fastest_free_node_is_taken():
    slow, fast = node(0, speed=10), node(1, speed=40)
    decision = decide(CALL, [slow, fast])
    assert decision.node is fast
    assert decision.seconds == pytest.approx(100 / 400 + 100 / 40)
    assert whys(decision) == [Why.SLOWER, Why.TAKEN]


def test_a_fast_busy_node_is_waited_for_where_that_is_earlier():
    slow, fast = node(0, speed=1), node(1, speed=40, ends=[NOW + 5])
    decision = decide(CALL, [slow, fast])
    assert decision.node is None and decision.awaited is fast and decision.possible
    assert decision.seconds == pytest.approx(5 + 100 / 400 + 100 / 40)
    assert whys(decision) == [Why.SLOWER, Why.BUSY]


def test_a_slow_free_node_is_taken_where_waiting_takes_longer():
    slow, fast = node(0, speed=1), node(1, speed=40, ends=[NOW + 500])
    assert decide(CALL, [slow, fast]).node is slow


def test_calls_of_other_programs_cost_the_time_that_one_waits_behind_them():
    crowded, slower = node(0, speed=40, limit=2), node(1, speed=30, limit=2)
    crowded.elsewhere = 1
    assert decide(CALL, [crowded, slower]).node is crowded, "it has a place left"
    crowded.elsewhere = 2
    assert decide(CALL, [crowded, slower]).node is slower
    run = 100 / 400 + 100 / 40
    (told,) = explain(alone := decide(CALL, [crowded]))
    assert alone.node is crowded, "nobody is held back for the calls of others"
    assert (told.seconds, told.wait) == (pytest.approx(1.5 * run), pytest.approx(0.5 * run))
    assert told.why == "taken (other programs have 2 calls there)"


def test_of_two_equals_the_one_with_fewer_calls_of_all_programs_is_taken():
    mine, theirs = node(0, speed=40, limit=8, ends=[NOW + 5]), node(1, speed=40, limit=8)
    theirs.elsewhere = 3
    assert {decide(CALL, [mine, theirs], seed=seed).node for seed in range(20)} == {mine}


def test_a_place_that_a_call_ahead_waits_for_counts_as_taken():
    slow, fast = node(0, speed=1), node(1, speed=40, ends=[NOW + 5])
    ahead = Reservations()
    assert not ahead
    ahead.reserve(fast, NOW + 200)
    assert ahead
    assert decide(CALL, [slow, fast], ahead=ahead).node is slow
    assert ahead.free_at(fast, NOW) == NOW + 200
    assert ahead.free_at(slow, NOW) == NOW


def test_reservations_take_the_places_in_the_order_in_which_they_become_free():
    two = node(0, limit=2, ends=[NOW + 5, NOW + 9])
    ahead = Reservations()
    assert ahead.free_at(two, NOW) == NOW + 5
    ahead.reserve(two, NOW + 20)
    assert ahead.free_at(two, NOW) == NOW + 9
    ahead.reserve(two, NOW + 30)
    assert ahead.free_at(two, NOW) == NOW + 20
    assert two.ends == [NOW + 5, NOW + 9], "the node itself is left as it is"


def test_a_node_whose_cap_was_lowered_is_free_when_enough_of_its_calls_have_ended():
    lowered = node(0, limit=4, ends=[NOW + 1, NOW + 2, NOW + 3])
    lowered.cap = 2
    decision = decide(CALL, [lowered])
    assert decision.awaited is lowered
    assert decision.verdicts[0].wait == pytest.approx(2)


@pytest.mark.parametrize(("end", "left"), [(7.0, 7.0), (0.0, 0.05), (-1.0, 0.1), (-100.0, 10.0)])
def test_an_overdue_call_does_not_count_as_over(end, left):
    assert remaining(NOW + end, NOW) == pytest.approx(left)


def test_a_busy_node_that_is_overdue_is_never_taken():
    overdue = node(0, speed=40, ends=[NOW - 300])
    decision = decide(CALL, [overdue])
    assert decision.node is None and decision.awaited is overdue
    assert decision.verdicts[0].wait == pytest.approx(30)


def test_a_model_in_memory_is_preferred_to_a_load():
    cold, warm = node(0, speed=40, resident=False, size=5 * 10**9), node(1, speed=20)
    decision = decide(CALL, [cold, warm])
    assert decision.node is warm
    assert decision.verdicts[0].load == pytest.approx(10)


def test_a_load_is_worth_it_where_the_nodes_that_have_the_model_are_busy_for_longer():
    cold, warm = node(0, speed=20, resident=False, size=5 * 10**9), node(1, speed=20, ends=[NOW + 60])
    assert decide(CALL, [cold, warm]).node is cold


def test_how_long_a_load_takes():
    assert load_seconds(ModelState("m"), Rates()) == 1
    assert load_seconds(ModelState("m", size_bytes=5 * 10**9), Rates()) == 10
    assert load_seconds(ModelState("m", size_bytes=5 * 10**9), Rates(load_seconds=3)) == 3
    assert load_seconds(ModelState("m", size_bytes=5, rates=Rates(load_seconds=7)), Rates(load_seconds=3)) == 7


def test_a_load_that_is_under_way_is_joined():
    loading = node(0, limit=2, resident=False, size=50 * 10**9, ends=[NOW + 30])
    loading.models["m"].loading_until = NOW + 4
    verdict = decide(CALL, [loading]).verdicts[0]
    assert (verdict.wait, verdict.load) == (0, pytest.approx(4))


def test_a_load_that_ends_before_a_place_is_free_costs_nothing_more():
    loading = node(0, resident=False, ends=[NOW + 30])
    loading.models["m"].loading_until = NOW + 4
    verdict = decide(CALL, [loading]).verdicts[0]
    assert (verdict.wait, verdict.load) == (pytest.approx(30), 0)


def test_the_load_of_another_model_is_waited_for():
    loading = node(0, limit=2, resident=False, size=10**9, others={"x": 10**9})
    loading.models["x"].loading_until = NOW + 4
    assert decide(CALL, [loading]).verdicts[0].load == pytest.approx(4 + 2)


def test_a_longer_context_than_the_loaded_one_means_a_load():
    short, long = node(0, speed=40, size=10**9, context=2048), node(1, speed=20, size=10**9, context=8192)
    call = replace(CALL, num_ctx=8192)
    decision = decide(call, [short, long])
    assert decision.verdicts[0].load == pytest.approx(2)
    assert decide(replace(CALL, num_ctx=2048), [short, long]).node is short
    short.models["m"].context_length = 2048  # it cannot have more: the server will not load it anew
    assert decide(call, [short, long]).node is short


def test_less_than_the_modelfile_says_means_a_load_and_less_than_is_loaded_does_not():
    state = node(0, size=10**9, context=4096).models["m"]
    state.own_context = 8192
    assert [state.reloads(wanted) for wanted in (None, 4096, 8192)] == [True] * 3
    state.loaded_context = 16384
    assert [state.reloads(wanted) for wanted in (None, 4096, 16384, 32768)] == [False, False, False, True]
    assert [state.context_for(wanted) for wanted in (None, 4096, 32768)] == [16384, 16384, 32768]
    state.resident = False
    assert [state.context_for(wanted) for wanted in (None, 4096, 32768)] == [8192, 8192, 32768]


def test_a_reload_waits_until_the_model_is_not_in_use():
    busy = node(0, limit=4, size=10**9, context=2048, ends=[NOW + 7, NOW + 9])
    decision = decide(replace(CALL, num_ctx=8192), [busy])
    assert decision.node is None and decision.awaited is busy
    assert decision.verdicts[0].wait == pytest.approx(9)


def test_a_model_that_does_not_fit_excludes_the_node():
    small = node(0, resident=False, size=9 * GIB, memory=8 * GIB)
    decision = decide(CALL, [small])
    assert not decision.possible and whys(decision) == [Why.DOES_NOT_FIT] and decision.hopeless
    assert footprint(small.models["m"], 10_000) > footprint(small.models["m"], None) == 9 * GIB


def test_nothing_busy_is_pushed_out_of_memory():
    full = node(0, limit=4, resident=False, size=5 * GIB, memory=8 * GIB, others={"x": 4 * GIB})
    assert decide(CALL, [full]).node is full, "an idle model makes room"
    full.claim("x", NOW + 12)
    decision = decide(CALL, [full])
    assert decision.node is None and decision.awaited is full
    assert decision.verdicts[0].wait == pytest.approx(12)


def test_whoever_waits_for_memory_is_not_overtaken_for_ever():
    full = node(0, limit=4, resident=False, size=5 * GIB, memory=8 * GIB, others={"x": 4 * GIB})
    full.claim("x", NOW + 12)
    ahead = Reservations()
    ahead.reserve(full, NOW + 40)
    behind = decide(CallShape("x"), [full], ahead=ahead)
    assert behind.node is None and behind.verdicts[0].wait == pytest.approx(40)


def test_who_is_out_of_question():
    lacks = node(0)
    del lacks.models["m"]
    blind = node(1, capabilities=frozenset({"completion"}))
    closed = node(2, limit=1)
    closed.cap, closed.why_closed = 0, "connection refused"
    refused = node(3)
    refused.models["m"].refused_until, refused.models["m"].refused_why = NOW + 1, "it could not load it"
    decision = decide(replace(CALL, needs=frozenset({"vision"})), [lacks, blind, closed, refused])
    assert decision.node is None and decision.awaited is None and not decision.possible
    assert decision.seconds == inf
    assert whys(decision) == [Why.LACKS_MODEL, Why.LACKS_CAPABILITY, Why.CLOSED, Why.REFUSED]
    assert not decision.hopeless, "the last two may come back"
    assert [candidate.why.rpartition(": ")[2] for candidate in explain(decision)[2:]] == [
        "connection refused",
        "it could not load it",
    ]


def test_unknown_capabilities_exclude_nobody_and_a_refusal_ends():
    unknown = node(0)
    unknown.models["m"].refused_until = NOW
    assert decide(replace(CALL, needs=frozenset({"tools"})), [unknown]).node is unknown


def test_a_node_that_was_never_reached_may_have_the_model():
    unreached = node(0)
    unreached.models.clear()
    unreached.cap, unreached.why_closed = 0, "not asked yet"
    decision = decide(CALL, [unreached])
    assert not decision.possible and not decision.hopeless


def test_no_nodes_at_all():
    decision = decide(CALL, [])
    assert not decision.possible and decision.verdicts == [] and explain(decision) == ()


def test_a_node_that_has_failed_the_call_is_taken_only_where_no_other_is_left():
    failed, other = node(0, speed=40), node(1, speed=1, ends=[NOW + 900])
    call = replace(CALL, tried=frozenset({0}))
    decision = decide(call, [failed, other])
    assert decision.awaited is other
    assert whys(decision) == [Why.TRIED, Why.BUSY]
    other.cap = 0
    assert decide(call, [failed, other]).node is failed


def test_a_node_that_has_just_come_back_counts_as_slower():
    back, other = node(0, speed=40), node(1, speed=30)
    back.trust = 0.5
    decision = decide(CALL, [back, other])
    assert decision.node is other
    assert decision.verdicts[0].seconds == pytest.approx(100 / 400 + 100 / 40)
    assert "just come back" in explain(decision)[1].why


def test_what_the_cache_holds_is_not_counted_again():
    call = replace(CALL, prompt_tokens=4000, cached={1: 3000})
    nodes = [node(0, speed=20), node(1, speed=20)]
    decision = decide(call, nodes)
    assert decision.node is nodes[1]
    saved = decision.verdicts[0].run - decision.verdicts[1].run
    assert saved == pytest.approx(3000 / 200)
    assert explain(decision)[0].cached_tokens == 3000


def test_a_cache_does_not_hold_more_than_the_prompt():
    decision = decide(replace(CALL, cached={0: 10**6}), [node(0, speed=20)])
    assert decision.seconds == pytest.approx(100 / 20)


def test_a_cache_is_not_worth_crowding_on_its_node():
    nodes = [node(key, limit=8, speed=20) for key in range(4)]
    for at in range(4):
        nodes[1].claim("m", NOW + at + 1)
    call = replace(CALL, prompt_tokens=4000, cached={1: 3000})
    decision = decide(call, nodes)
    assert decision.node is not nodes[1]
    assert decision.verdicts[1].cached == 0


def test_a_node_without_samples_is_taken_for_its_peers():
    peers = Rates(prompt_rate=400, output_rate=40)
    new, slow = node(0, speed=0), node(1, speed=10)
    decision = decide(CALL, [new, slow], fallback=peers)
    assert decision.node is new
    assert decision.seconds == pytest.approx(100 / 400 + 100 / 40)


def test_where_nothing_is_known_idle_beats_busy():
    busy, idle = node(0, speed=0, ends=[NOW]), node(1, speed=0)
    assert decide(CALL, [busy, idle]).node is idle
    loading = node(2, speed=0, resident=False, size=50 * 10**9)
    assert decide(CALL, [busy, loading]).node is loading, "who knows how long the busy one will be"


def test_a_slow_node_is_tried_again_after_a_while():
    recovered, other = node(0, speed=1), node(1, speed=20, ends=[NOW + 10])
    peers = Rates(prompt_rate=200, output_rate=20)
    assert decide(CALL, [recovered, other], fallback=peers).awaited is other
    recovered.models["m"].rates.learned_at = NOW - STALE_SECONDS - 1
    assert decide(CALL, [recovered, other], fallback=peers).node is recovered


def test_a_fast_node_stays_known_as_fast():
    fast = node(0, speed=40)
    fast.models["m"].rates.learned_at = NOW - STALE_SECONDS - 1
    decision = decide(CALL, [fast], fallback=Rates(prompt_rate=10, output_rate=1))
    assert decision.seconds == pytest.approx(100 / 400 + 100 / 40)


def test_equals_are_drawn_from():
    nodes = [node(key, speed=20 + key * 0.1) for key in range(5)]
    taken = Counter(decide(CALL, nodes, seed=seed).node.key for seed in range(500))
    assert set(taken) == {0, 1, 2, 3, 4}
    assert max(taken.values()) < 200


def test_of_two_equals_the_one_with_fewer_calls_is_taken():
    nodes = [node(0, limit=4, speed=20, ends=[NOW + 1, NOW + 2]), node(1, limit=4, speed=20, ends=[NOW + 9])]
    assert {decide(CALL, nodes, seed=seed).node.key for seed in range(50)} == {1}


def test_a_free_node_is_taken_where_a_busy_one_is_better_by_less_than_the_estimates_are_worth():
    free, busy = node(0, speed=20), node(1, speed=21, ends=[NOW + 0.06])
    assert decide(CALL, [free, busy]).node is free


def test_an_explanation_starts_with_the_winner():
    nodes = [node(0, speed=10), node(1, speed=40), node(2, speed=20)]
    nodes[2].cap = 0
    lines = explain(decide(CALL, nodes))
    assert [line.node for line in lines] == ["node-1", "node-0", "node-2"]
    assert lines[0].why == Why.TAKEN.value and lines[0].seconds == pytest.approx(2.75)
    assert lines[2].seconds is None and lines[2].why == Why.CLOSED.value


@settings(max_examples=300, deadline=None)
@given(nodes=pools(), call=shapes(), seed=st.integers(0, 10**6))
def test_the_pick_is_the_best_of_those_that_can(nodes, call, seed):
    decision = decide(call, nodes, seed=seed)
    verdicts = decision.verdicts
    assert [verdict.node for verdict in verdicts] == nodes
    scores = [verdict.score for verdict in verdicts]
    assert decision.possible == any(score < inf for score in scores)
    assert sum(why in {Why.TAKEN, Why.BUSY} for why in whys(decision)) == decision.possible
    for verdict in verdicts:
        possible = verdict.score < inf
        assert possible == (verdict.seconds is not None)
        if possible:
            assert verdict.seconds == pytest.approx(verdict.wait + verdict.load + verdict.run)
            assert verdict.wait > 0 or verdict.node.in_flight < verdict.node.cap
            assert min(verdict.wait, verdict.load, verdict.run) >= 0
    winner = decision.node or decision.awaited
    if winner is None:
        return
    best = min(scores)
    won = next(verdict for verdict in verdicts if verdict.node is winner)
    if decision.node is not None:
        assert winner.in_flight < winner.cap and won.wait == 0
        blind = min(verdicts, key=lambda verdict: verdict.score).run == 0
        assert blind or won.score <= best * AS_GOOD_AS_EQUAL
    else:
        assert won.score == best and won.wait > 0
    if winner.key in call.tried:
        assert all(verdict.node.key in call.tried for verdict in verdicts if verdict.score < inf)
