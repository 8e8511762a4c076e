"""Which steps may start when: the pure state machine of one scope."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.pipeline.graph import CompiledStep, Feed, Graph, Work
from synaptic.runtime.flow import LOST, NO_NEED_SUCCEEDED, NOT_NEEDED, Flow


def step(name, *needs, **options):
    return CompiledStep(id=name, work=Work(), needs=needs, **options)


def flow_of(*steps: CompiledStep, needed: Iterable[str] = ()) -> Flow:
    return Flow(Graph.of({one.id: one for one in steps}), frozenset(needed))


def test_a_step_starts_when_the_last_of_its_needs_ends():
    flow = flow_of(step("a"), step("b"), step("c", "a", "b"))
    assert flow.begin().start == ["a", "b"]
    assert flow.end("a", "succeeded").start == []
    assert flow.end("b", "skipped").start == ["c"]


def test_the_longest_way_to_the_end_goes_first_unless_a_priority_says_otherwise():
    steps = [step("side"), step("long"), step("next", "long"), step("last", "next")]
    assert flow_of(*steps).begin().start == ["long", "side"]
    urgent = step("urgent", priority=1)
    assert flow_of(*steps, urgent).begin().start == ["urgent", "long", "side"]


def test_a_failure_is_fatal_where_somebody_needs_the_step_or_nobody_does():
    flow = flow_of(step("a"), step("b", "a"))
    flow.begin()
    assert flow.end("a", "failed").fatal == "a"
    alone = flow_of(step("a"))
    alone.begin()
    assert alone.end("a", "failed").fatal == "a"


def test_any_starts_with_the_first_success_and_lets_the_others_go_on():
    flow = flow_of(step("a"), step("b"), step("c", "a", "b", join="any"))
    flow.begin()
    moves = flow.end("b", "succeeded")
    assert (moves.start, moves.cancel) == (["c"], [])
    assert flow.end("a", "succeeded").start == []


def test_first_cancels_the_losers_and_what_only_they_wait_for():
    flow = flow_of(
        step("a1"), step("a", "a1"), step("b"), step("shared"), step("other", "shared"), step("d", "shared"),
        step("c", "a", "b", "d", join="first"),
    )  # fmt: skip
    flow.begin()
    moves = flow.end("b", "succeeded")
    assert moves.start == ["c"]
    assert moves.cancel == ["a1"]
    assert sorted(moves.skipped) == [("a", LOST), ("d", LOST)]
    assert flow.is_pruned("a1") and not flow.is_pruned("shared")
    assert flow.end("shared", "succeeded").start == ["other"]


def test_first_leaves_a_loser_alone_that_the_result_wants():
    flow = flow_of(step("a"), step("b"), step("c", "a", "b", join="first"), needed=["a"])
    flow.begin()
    assert flow.end("b", "succeeded").cancel == []


def test_a_race_survives_failures_until_nobody_is_left():
    flow = flow_of(step("a"), step("b"), step("c", "a", "b", join="first"), step("d", "c"))
    flow.begin()
    assert flow.end("a", "failed").fatal is None
    moves = flow.end("b", "failed")
    assert (moves.lost, moves.fatal, moves.skipped) == (["c"], "c", [])


@pytest.mark.parametrize(
    ("ends", "on_error", "lost"),
    [
        (("failed", "failed"), "fail", True),
        (("failed", "skipped"), "fail", True),
        (("skipped", "failed"), "fail", True),
        (("skipped", "skipped"), "fail", False),
        (("failed", "failed"), "skip", False),
    ],
)
def test_a_race_without_a_winner_has_failed_unless_all_were_skipped_or_it_may_be(ends, on_error, lost):
    flow = flow_of(step("a"), step("b"), step("c", "a", "b", join="any", on_error=on_error), step("d", "c"))
    flow.begin()
    assert flow.end("a", ends[0]).fatal is None
    moves = flow.end("b", ends[1])
    assert moves.lost == (["c"] if lost else [])
    assert moves.skipped == ([] if lost else [("c", NO_NEED_SUCCEEDED)])
    assert moves.fatal == ("c" if lost else None)


def test_a_race_without_a_winner_takes_its_fallback():
    steps = [step("a"), step("b"), step("c", "a", "b", join="first", fallback="f"), step("f", on_demand=True)]
    flow = flow_of(*steps, step("d", "c"))
    flow.begin()
    flow.end("a", "failed")
    moves = flow.end("b", "failed")
    assert (moves.lost, moves.fatal, moves.start) == (["c"], None, ["f"])
    assert flow.end("f", "succeeded").adopted == [("c", "f")]


def test_a_failed_step_takes_the_output_of_its_fallback_which_runs_only_then():
    flow = flow_of(step("a", fallback="f"), step("f", on_demand=True), step("b", "a"))
    assert flow.begin().start == ["a"]
    moves = flow.end("a", "failed")
    assert (moves.fatal, moves.start) == (None, ["f"])
    moves = flow.end("f", "succeeded")
    assert moves.adopted == [("a", "f")]
    assert moves.start == ["b"]


def test_a_fallback_that_is_not_needed_is_skipped():
    flow = flow_of(step("a", fallback="f"), step("b", fallback="f"), step("f", on_demand=True))
    flow.begin()
    assert flow.end("a", "succeeded").skipped == []
    assert flow.end("b", "succeeded").skipped == [("f", NOT_NEEDED)]


def test_a_fallback_that_fails_is_the_end():
    flow = flow_of(step("a", fallback="f"), step("f", on_demand=True), step("b", "a"))
    flow.begin()
    flow.end("a", "failed")
    assert flow.end("f", "failed").fatal == "a"


def test_fallbacks_chain():
    flow = flow_of(step("a", fallback="f"), step("f", on_demand=True, fallback="g"), step("g", on_demand=True))
    flow.begin()
    assert flow.end("a", "failed").start == ["f"]
    assert flow.end("f", "failed").start == ["g"]
    moves = flow.end("g", "succeeded")
    assert moves.adopted == [("f", "g"), ("a", "f")]
    assert moves.fatal is None


def test_a_fallback_that_runs_anyway_is_waited_for():
    flow = flow_of(step("a", fallback="f"), step("f"), step("b", "a"), step("c", "f"))
    assert set(flow.begin().start) == {"a", "f"}
    assert flow.end("a", "failed").start == []
    assert set(flow.end("f", "succeeded").start) == {"b", "c"}


def test_a_map_starts_when_its_list_begins_to_be_written():
    feed = Feed("plan", "questions")
    flow = flow_of(step("before"), step("plan"), step("each", "plan", "before", feed=feed), step("last", "each"))
    assert set(flow.begin().start) == {"before", "plan"}
    assert flow.end("before", "succeeded").start == ["each"]
    assert flow.end("plan", "succeeded").start == []
    assert flow.end("each", "succeeded").start == ["last"]


def test_a_map_over_a_list_that_is_never_written_still_runs():
    flow = flow_of(
        step("a"), step("b"), step("race", "a", "b", join="any"),
        step("each", "race", feed=Feed("race", "items")),
    )  # fmt: skip
    flow.begin()
    flow.end("a", "skipped")
    moves = flow.end("b", "skipped")
    assert moves.skipped == [("race", NO_NEED_SUCCEEDED)]
    assert moves.start == ["each"]


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    names = [f"s{index}" for index in range(count)]
    steps = {}
    for index, name in enumerate(names):
        needs = tuple(sorted(draw(st.sets(st.sampled_from(names[:index]), max_size=3)))) if index else ()
        join = draw(st.sampled_from(["all", "any", "first"])) if len(needs) > 1 else "all"
        steps[name] = CompiledStep(id=name, work=Work(), needs=needs, join=join)
    return Graph.of(steps)


@settings(max_examples=200, deadline=None)
@given(graphs(), st.integers(0, 2**32), st.floats(0, 0.5))
def test_every_step_is_resolved_exactly_once_and_none_starts_early(graph, seed, trouble):
    chance = random.Random(seed)
    flow = Flow(graph, frozenset(graph.steps))
    resolved: dict[str, str] = {}
    running: list[str] = []

    def apply(moves):
        for name, _ in moves.skipped:
            assert name not in resolved and name not in running
            resolved[name] = "skipped"
        for name in moves.cancel:
            running.remove(name)
            resolved[name] = "skipped"
        for name in moves.start:
            one = graph.steps[name]
            assert name not in resolved and name not in running
            if one.join == "all":
                assert all(need in resolved for need in one.needs)
            else:
                assert any(resolved.get(need) == "succeeded" for need in one.needs)
            running.append(name)

    apply(flow.begin())
    while running:
        name = running.pop(chance.randrange(len(running)))
        resolved[name] = "skipped" if chance.random() < trouble else "succeeded"
        apply(flow.end(name, resolved[name]))
    assert set(resolved) == set(graph.steps)


@pytest.mark.parametrize("length", [1, 50])
def test_a_chain_runs_in_order(length):
    steps = [step("s0"), *(step(f"s{index}", f"s{index - 1}") for index in range(1, length))]
    flow = flow_of(*steps)
    order = []
    ready = flow.begin().start
    while ready:
        order += ready
        ready = flow.end(ready[0], "succeeded").start
    assert order == [f"s{index}" for index in range(length)]
