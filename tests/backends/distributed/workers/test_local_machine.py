"""What this machine really has, as its files tell it."""

import os
from pathlib import Path

import psutil

from synaptic.backends.distributed.workers import machine as local_machine
from synaptic.backends.distributed.workers.machine import available_bytes, cpu_name
from synaptic.processes.watch import (
    bound_memory,
    connected,
    is_listening,
    is_stopped,
    resident_bytes,
)

NOBODY = 2**22 + 1  # more than the largest process id


def group(directory: Path, limit: str, used: str, names: tuple[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names, "memory.stat"), (limit, used, "inactive_file 50\n"), strict=True):
        (directory / name).write_text(text)


def test_what_is_available_is_bounded_by_the_machine():
    assert 0 < available_bytes() <= psutil.virtual_memory().total


def test_the_processor_has_a_name(tmp_path: Path):
    assert cpu_name()
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Fast One 3000\n")
    assert local_machine._cpu_name(file) == "Fast One 3000"
    assert local_machine._cpu_name(tmp_path / "none")


def test_every_control_group_around_us_counts(tmp_path: Path):
    own = tmp_path / "cgroup"
    second = ("memory.max", "memory.current")
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    group(tmp_path / "a/b", "1000", "300", second)
    group(tmp_path / "a", "900", "400", second)
    group(tmp_path / "memory/x", "5000", "1000", first)
    own.write_text("0::/a/b\n")
    assert sorted(local_machine._group_rests(tmp_path, own)) == [550, 750]
    own.write_text("3:cpu,memory:/x\n4:pids:/y\n0::/\n")
    assert list(local_machine._group_rests(tmp_path, own)) == [4050]
    assert list(local_machine._group_rests(tmp_path, tmp_path / "none")) == []


def test_of_a_process_that_is_gone_nothing_is_true():
    assert not is_listening(NOBODY, 1)
    assert not is_stopped(NOBODY)
    assert connected(NOBODY, 1) == ()
    assert resident_bytes(NOBODY) == 0
    bound_memory(NOBODY, 1)


def test_of_this_process_some_is():
    assert resident_bytes(os.getpid()) > 1 << 20
    assert not is_stopped(os.getpid())
