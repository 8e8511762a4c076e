"""How long to wait before another try, and when there is none."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from synaptic.waiting import Backoff, Restarts, Rules

BACKOFFS = {name: rule for name, rule in vars(Rules).items() if isinstance(rule, Backoff)}
WORKER, COORDINATOR = Rules.WORKER, Rules.COORDINATOR


@pytest.mark.parametrize("rule", BACKOFFS.values(), ids=list(BACKOFFS))
def test_delays_grow_and_the_last_one_repeats(rule):
    assert list(rule.delays) == sorted(set(rule.delays))
    assert all(later <= 2 * earlier for earlier, later in pairwise(rule.delays))
    low, high = rule.jitter
    for failures in range(1, 2 * len(rule.delays)):
        full = rule.delays[min(failures, len(rule.delays)) - 1]
        assert low * full <= rule.delay(failures) <= high * full


def test_jitter_is_drawn_from_its_range_and_from_the_generator_that_is_given():
    rule = Backoff((2.0,), jitter=(0.5, 1.0))
    drawn = [rule.delay(1, random.Random(seed)) for seed in range(200)]
    assert min(drawn) < 1.05
    assert max(drawn) > 1.95
    assert drawn == [rule.delay(1, random.Random(seed)) for seed in range(200)]


def test_the_first_restart_is_at_once_and_each_further_one_in_a_row_waits_longer():
    restarts = Restarts(WORKER)
    delays = [restarts.after_end(float(second), 0.0) for second in range(len(WORKER.delays) + 1)]
    assert delays == [*WORKER.delays, None]
    assert delays[0] == 0.0
    assert list(WORKER.delays) == sorted(set(WORKER.delays))


def test_a_run_that_went_well_ends_the_row():
    restarts = Restarts(WORKER)
    for second in range(len(WORKER.delays)):
        restarts.after_end(float(second), 0.0)
    assert restarts.after_end(20.0, WORKER.ends_row) == 0.0


def test_there_are_only_so_many_in_a_window():
    restarts = Restarts(WORKER)
    assert [restarts.after_end(float(number), 60.0) for number in range(WORKER.most)] == [0.0] * WORKER.most
    assert restarts.after_end(float(WORKER.most), 60.0) is None
    assert restarts.after_end(WORKER.window + 2.0, 60.0) == 0.0


def test_a_person_counts_from_zero():
    restarts = Restarts(WORKER)
    while restarts.after_end(0.0, 0.0) is not None:
        pass
    restarts.forget()
    assert restarts.after_end(0.0, 0.0) == 0.0


def test_starts_that_fail_in_a_row_are_bounded_and_wait_longer_and_longer():
    restarts = Restarts(COORDINATOR, row=1)
    delays = []
    while (delay := restarts.after_failure()) is not None:
        delays.append(delay)
    assert delays == list(COORDINATOR.delays[1:])


def test_a_loss_ends_a_row_of_failed_starts():
    restarts = Restarts(COORDINATOR, row=1)
    assert [restarts.after_failure() for _ in range(3)] == list(COORDINATOR.delays[1:4])
    assert restarts.after_end(10.0, 1.0) == 0.0
    assert restarts.after_failure() == COORDINATOR.delays[1]


def test_a_loss_is_made_good_at_once_until_there_are_too_many():
    restarts, now = Restarts(COORDINATOR, row=1), 0.0
    for _ in range(COORDINATOR.most):
        assert restarts.after_end(now, 1.0) == 0
        now += 2
    assert restarts.after_end(now, 1.0) is None


def test_failed_starts_between_losses_do_not_count_as_losses():
    restarts, now = Restarts(COORDINATOR, row=1), 0.0
    for _ in range(COORDINATOR.most):
        assert restarts.after_end(now, 1.0) == 0
        assert restarts.after_failure() == COORDINATOR.delays[1]
        now += 2
    assert restarts.after_end(now, 1.0) is None


def test_losses_do_not_add_up_while_calls_get_on():
    restarts = Restarts(COORDINATOR, row=1)
    for now in range(5 * COORDINATOR.most):
        assert restarts.after_end(float(now), 0.5, useful=True) == 0


def test_losses_after_long_service_do_not_add_up():
    restarts = Restarts(COORDINATOR, row=1)
    for number in range(5 * COORDINATOR.most):
        now = number * COORDINATOR.clears_window
        assert restarts.after_end(now, COORDINATOR.clears_window) == 0


def test_losses_that_are_far_apart_do_not_add_up():
    restarts = Restarts(COORDINATOR, row=1)
    for number in range(5 * COORDINATOR.most):
        assert restarts.after_end(number * COORDINATOR.window / (COORDINATOR.most - 1), 1.0) == 0
