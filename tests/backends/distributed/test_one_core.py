"""A coordinator is kept on one core: the one with the least to do, of the fast ones."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from synaptic.backends.distributed.coordinator.one_core import CoreWatch, idlest

CORES = psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else []


@pytest.fixture
def child() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        process.kill()


def test_the_core_that_was_idle_for_longest_is_taken():
    assert idlest([0, 1, 2], {0: 5.0, 1: 5.0, 2: 5.0}, {0: 5.1, 1: 5.5, 2: 5.2}, {}) == 1


def test_of_cores_that_are_alike_the_last_is_taken():
    assert idlest([0, 1, 2], {0: 5.0, 1: 5.0, 2: 5.0}, {0: 5.21, 1: 5.2, 2: 5.0}, {}) == 1


def test_only_cores_that_we_may_use_are_taken():
    assert idlest([1, 3], {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0}, {0: 9.0, 1: 1.0, 2: 9.0, 3: 2.0}, {}) == 3


def test_slow_cores_are_left_out():
    speeds = {0: 4800.0, 1: 4800.0, 2: 3300.0, 3: 3300.0}
    assert idlest(range(4), dict.fromkeys(range(4), 0.0), {0: 0.5, 1: 0.2, 2: 1.0, 3: 1.0}, speeds) == 0


def test_where_there_is_no_choice_nothing_is_chosen():
    assert idlest([0], {0: 0.0}, {0: 1.0}, {}) is None
    assert idlest([4, 5], {0: 0.0}, {0: 1.0}, {}) is None


@pytest.mark.skipif(len(CORES) < 2, reason="this machine has one core, or cannot keep a process on one")
def test_a_process_is_kept_on_one_of_our_cores(child: psutil.Process):
    core = CoreWatch().keep(child.pid)
    assert core in CORES
    assert child.cpu_affinity() == [core]


@pytest.mark.skipif(len(CORES) < 2, reason="this machine has one core, or cannot keep a process on one")
def test_who_may_use_one_core_only_chooses_none(child: psutil.Process):
    try:
        os.sched_setaffinity(0, {CORES[0]})
        assert CoreWatch().keep(child.pid) is None
    finally:
        os.sched_setaffinity(0, CORES)
    assert child.cpu_affinity() == CORES


def test_a_process_that_is_gone_is_no_error(child: psutil.Process):
    child.kill()
    child.wait()
    assert CoreWatch().keep(child.pid) is None
