"""When a node gets calls, how many, and when it is looked at again."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from synaptic.backends.pool.node.failures import CallFailure
from synaptic.backends.pool.node.health import (
    CALM_SECONDS,
    CALM_SUCCESSES,
    FORGIVEN_AFTER,
    LEAST_TRUST,
    NOT_ASKED,
    STRIKES,
    WARM_SECONDS,
    Health,
)
from synaptic.backends.pool.node.state import NodeState
from synaptic.waiting import Rules

LONGEST_EJECTION, LONGEST_PAUSE = Rules.EJECTION.longest, Rules.BUSY_PAUSE.longest
SOFT = CallFailure("node", down=False, delivered=True, elsewhere=True, why="it failed")
HARD = CallFailure("node", down=True, delivered=False, elsewhere=True, why="nothing answers there")
JITTER = 1.1


class Node:
    """A node, its clock, and what the picker sees of it."""

    def __init__(self, limit: int = 4) -> None:
        self.now = 100.0
        self.state = NodeState(0, "n", limit=limit, cap=limit)
        self.health = Health(limit, rng=random.Random(1))
        self.health.answered(self.now)

    @property
    def cap(self) -> int:
        self.health.apply(self.state, self.now)
        return self.state.cap

    @property
    def condition(self) -> str:
        return self.health.condition(self.now)

    def fail(self, failure: CallFailure = SOFT, times: int = 1, *, last_candidate: bool = False) -> None:
        for _ in range(times):
            self.health.failed(failure, self.now, last_candidate=last_candidate)

    def ejected_for(self) -> float:
        """Return how long the node is closed from now on, and pass that time."""
        assert self.cap == 0
        until = self.health.next_change(self.now)
        assert until is not None
        took, self.now = until - self.now, until
        return took

    def probe_after(self) -> float:
        """Return when the next probe is due, seen from now, and pass that time."""
        at = self.health.next_probe(self.now)
        assert at is not None
        took, self.now = at - self.now, max(at, self.now)
        return took


def test_a_node_gets_no_calls_before_it_has_answered() -> None:
    health, state = Health(2), NodeState(0, "n", limit=2, cap=2)
    health.apply(state, 0.0)
    assert (state.cap, state.why_closed, health.condition(0.0)) == (0, NOT_ASKED, "unknown")
    assert health.answered(0.0)
    health.apply(state, 0.0)
    assert (state.cap, state.trust, health.condition(0.0), health.reason) == (2, 1.0, "up", "")


def test_a_node_that_never_answered_is_down() -> None:
    health = Health(2)
    assert health.silent(0.0, "nobody there")
    assert (health.condition(0.0), health.reason) == ("down", "nobody there")
    assert health.answered(1.0)
    assert health.condition(1.0) == "trying"


def test_three_soft_failures_in_a_row_eject() -> None:
    node = Node()
    node.fail(times=STRIKES - 1)
    assert node.cap == 4
    node.health.succeeded(node.now)
    node.fail(times=STRIKES - 1)
    assert node.cap == 4
    node.fail()
    assert (node.cap, node.condition, node.health.reason) == (0, "down", "it failed")
    assert node.state.why_closed == "it failed"
    assert node.health.next_probe(node.now) is None


def test_ejections_grow_and_are_forgiven_after_a_while_of_good_service() -> None:
    node = Node()
    node.fail(times=STRIKES)
    took = [node.ejected_for()]
    for _ in range(8):
        node.fail()
        took.append(node.ejected_for())
    assert took == pytest.approx([1, 2, 4, 8, 16, 32, LONGEST_EJECTION, LONGEST_EJECTION, LONGEST_EJECTION])
    for _ in range(20):
        node.health.succeeded(node.now)
        node.now += FORGIVEN_AFTER / 20
    node.fail(times=STRIKES)
    assert node.ejected_for() == pytest.approx(LONGEST_EJECTION), "that was no good service yet"
    node.health.succeeded(node.now)
    node.now += FORGIVEN_AFTER + 1
    node.health.succeeded(node.now)
    node.fail(times=STRIKES)
    assert node.ejected_for() == pytest.approx(1)


def test_an_ejected_node_is_tried_with_one_call_and_warms_up() -> None:
    node = Node(limit=10)
    node.fail(times=STRIKES)
    node.ejected_for()
    assert (node.cap, node.condition, node.health.reason) == (1, "trying", "")
    assert node.health.succeeded(node.now)
    caps, trusts = [], []
    for _ in range(11):
        caps.append(node.cap)
        trusts.append(node.state.trust)
        change = node.health.next_change(node.now)
        assert change is None or node.now < change <= node.now + 1
        node.now += WARM_SECONDS / 10
    assert caps == sorted(caps)
    assert trusts == sorted(trusts)
    assert (caps[0], caps[5], caps[-1]) == (1, 5, 10)
    assert (trusts[0], trusts[-1]) == (LEAST_TRUST, 1.0)
    assert node.condition == "up"
    assert node.health.next_change(node.now) is None


def test_a_call_that_fails_while_it_is_tried_ejects_it_again_at_once() -> None:
    node = Node()
    node.fail(times=STRIKES)
    node.ejected_for()
    node.fail()
    assert node.cap == 0


def test_a_node_that_is_down_is_probed_and_tried_when_it_answers() -> None:
    node = Node()
    node.fail(HARD)
    assert (node.cap, node.condition) == (0, "down")
    delays = []
    for _ in range(6):
        delays.append(node.probe_after())
        assert node.cap == 0, "only an answer opens it"
        node.health.silent(node.now, "still nobody")
    for delay, expected in zip(delays, [0.5, 1, 2, 3, 3, 3], strict=True):
        assert expected / JITTER <= delay <= expected * JITTER
    assert node.health.reason == "still nobody"
    assert node.health.answered(node.now)
    assert (node.cap, node.condition) == (1, "trying")
    assert node.health.next_probe(node.now) is None


def test_a_node_that_answers_probes_and_nothing_else_is_not_probed_ever_faster() -> None:
    node = Node()
    delays = []
    for _ in range(5):
        node.fail(HARD)
        delays.append(node.probe_after())
        node.health.answered(node.now)
    assert delays[-1] > 2
    node.health.succeeded(node.now)
    node.fail(HARD)
    assert node.probe_after() < 1


def test_the_last_candidate_is_never_ejected_for_a_soft_failure() -> None:
    node = Node(limit=2)
    node.fail(times=50, last_candidate=True)
    assert node.cap == 2
    node.fail(HARD, last_candidate=True)
    assert node.cap == 0


def test_an_answer_opens_no_node_that_time_has_closed() -> None:
    node = Node()
    node.fail(times=STRIKES)
    assert not node.health.answered(node.now)
    assert node.cap == 0


def test_a_probe_that_is_not_answered_takes_an_open_node_down() -> None:
    node = Node()
    assert node.health.silent(node.now, "it hangs")
    assert (node.cap, node.health.reason) == (0, "it hangs")
    assert not node.health.silent(node.now, "it hangs")


def test_each_503_takes_a_place_away_and_the_last_makes_a_pause_that_doubles() -> None:
    node = Node(limit=4)
    caps = []
    for _ in range(3):
        node.health.busy(node.now)
        caps.append(node.cap)
    assert caps == [3, 2, 1]
    pauses = []
    for _ in range(9):
        node.health.busy(node.now)
        assert node.cap == 0
        assert "busy" in node.state.why_closed
        pauses.append(node.ejected_for())
        assert node.cap == 1, "one call after a pause"
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE])
    assert node.condition == "up"


def test_many_503s_at_once_are_one_pause() -> None:
    node = Node(limit=2)
    for _ in range(20):
        node.health.busy(node.now)
    assert node.ejected_for() == pytest.approx(0.5)


def test_a_server_that_says_when_to_come_again_is_left_alone_until_then() -> None:
    node = Node(limit=4)
    node.health.busy(node.now, retry_after=7.0)
    assert node.ejected_for() == pytest.approx(7)
    node.health.busy(node.now, retry_after=7200.0)
    assert node.ejected_for() == pytest.approx(LONGEST_PAUSE)


def test_places_come_back_one_by_one_after_some_calm() -> None:
    node = Node(limit=3)
    node.health.busy(node.now)
    node.health.busy(node.now)
    for _ in range(CALM_SUCCESSES * 2):
        node.health.succeeded(node.now)
    assert node.cap == 1, "successes alone are not enough"
    for expected in (2, 3, 3):
        node.now += CALM_SECONDS
        for _ in range(CALM_SUCCESSES):
            node.health.succeeded(node.now)
        assert node.cap == expected


def test_a_node_that_is_busy_while_it_is_tried_is_left_alone() -> None:
    node = Node(limit=4)
    node.fail(HARD)
    node.probe_after()
    node.health.answered(node.now)
    node.health.busy(node.now)
    assert node.ejected_for() == pytest.approx(0.5)
    assert node.cap == 1


def test_a_limit_that_is_raised_counts() -> None:
    node = Node(limit=1)
    node.state.limit = 3
    assert node.cap == 3


class AnyOrder(RuleBasedStateMachine):
    """Calls, probes and time in any order."""

    node: Node

    @initialize(limit=st.integers(1, 8))
    def start(self, limit: int) -> None:
        self.node = Node(limit)
        self.soft_and_last_only = True

    @rule(seconds=st.floats(0.0, 90.0))
    def wait(self, seconds: float) -> None:
        self.node.now += seconds

    @rule()
    def succeed(self) -> None:
        self.node.health.succeeded(self.node.now)

    @rule(last=st.booleans())
    def fail_softly(self, last: bool) -> None:  # noqa: FBT001  (hypothesis passes it by name)
        was_open = self.node.cap > 0
        self.node.fail(SOFT, last_candidate=last)
        if last and was_open:
            assert self.node.cap > 0

    @rule()
    def fail_hard(self) -> None:
        self.node.fail(HARD)
        assert self.node.cap == 0
        assert self.node.condition == "down"

    @rule(retry_after=st.none() | st.floats(0.0, 100.0))
    def be_busy(self, retry_after: float | None) -> None:
        self.node.health.busy(self.node.now, retry_after)

    @precondition(lambda self: self.node.condition == "down")
    @rule(answers=st.booleans())
    def probe(self, answers: bool) -> None:  # noqa: FBT001  (as above)
        due = self.node.health.next_probe(self.node.now)
        if due is not None:
            assert due - self.node.now <= 3 * JITTER
            self.node.now = max(self.node.now, due)
            if answers:
                self.node.health.answered(self.node.now)
            else:
                self.node.health.silent(self.node.now, "silent")

    @invariant()
    def caps_are_kept(self) -> None:
        if not hasattr(self, "node"):
            return
        node = self.node
        assert 0 <= node.cap <= node.state.limit
        assert LEAST_TRUST <= node.state.trust <= 1
        assert bool(node.state.why_closed) == (node.cap == 0)
        if node.condition == "trying":
            assert node.cap <= 1
        change = node.health.next_change(node.now)
        assert change is None or change > node.now
        if node.cap == 0:
            assert change is not None or node.health.next_probe(node.now) is not None, "closed for ever"

    def teardown(self) -> None:
        """Check that whatever was, the node comes back whole."""
        if not hasattr(self, "node"):
            return
        node = self.node
        for _ in range(40 + CALM_SUCCESSES * 10):
            due = node.health.next_probe(node.now)
            if due is not None:
                node.now = max(node.now, due)
                node.health.answered(node.now)
            elif node.cap == 0:
                node.ejected_for()
            else:
                node.now += CALM_SECONDS
                node.health.succeeded(node.now)
        assert (node.cap, node.condition, node.state.trust) == (node.state.limit, "up", 1.0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
