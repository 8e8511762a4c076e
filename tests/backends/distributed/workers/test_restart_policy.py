"""When a worker is started again, and when no more."""

from synaptic.backends.distributed.workers.restart_policy import (
    DELAYS,
    MOST_IN_WINDOW,
    RAN_WELL_SECONDS,
    WINDOW_SECONDS,
    Restarts,
)


def test_the_first_restart_is_at_once_and_each_further_one_in_a_row_waits_longer():
    restarts = Restarts()
    delays = [restarts.after_end(float(second), 0.0) for second in range(len(DELAYS) + 1)]
    assert delays == [*DELAYS, None]
    assert delays[0] == 0.0
    assert list(DELAYS) == sorted(set(DELAYS))


def test_a_run_that_went_well_ends_the_row():
    restarts = Restarts()
    for second in range(len(DELAYS)):
        restarts.after_end(float(second), 0.0)
    assert restarts.after_end(20.0, RAN_WELL_SECONDS) == 0.0


def test_there_are_only_so_many_in_a_window():
    restarts = Restarts()
    assert [restarts.after_end(float(number), 60.0) for number in range(MOST_IN_WINDOW)] == [0.0] * MOST_IN_WINDOW
    assert restarts.after_end(float(MOST_IN_WINDOW), 60.0) is None
    assert restarts.after_end(WINDOW_SECONDS + 2.0, 60.0) == 0.0


def test_a_person_begins_anew():
    restarts = Restarts()
    while restarts.after_end(0.0, 0.0) is not None:
        pass
    restarts.forget()
    assert restarts.after_end(0.0, 0.0) == 0.0
