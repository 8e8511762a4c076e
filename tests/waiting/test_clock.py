"""The time of day during one program: durations are right whatever is done to the clock."""

from __future__ import annotations

import time

from synaptic.waiting import SteadyClock, steady_time

HOUR = 3600.0


def test_a_clock_that_is_set_changes_no_duration():
    wall, elapsed = 1_000_000.0, 50.0
    clock = SteadyClock(lambda: wall, lambda: elapsed)
    began = clock()
    assert began == wall
    elapsed += 2.0
    for jump in (-HOUR, HOUR):
        wall += jump
        assert clock() - began == 2.0


def test_it_is_the_time_of_day_and_goes_on():
    first = steady_time()
    assert abs(first - time.time()) < HOUR
    assert steady_time() >= first
