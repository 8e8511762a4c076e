"""What a build needs, and how far it is: pure decisions."""

import os
import sys
from pathlib import Path

import pytest
from engine_support import write_program

from synaptic.backends.distributed.engine.progress import BuildMeter
from synaptic.backends.distributed.engine.tools import (
    Tools,
    default_jobs,
    find_tool,
    find_tools,
    package_hint,
    parse_capabilities,
    refuse_full_disk,
)
from synaptic.errors import EngineUnavailable, UsageError

GIB = 1 << 30


def machine(directory: Path, *programs: str) -> dict[str, str]:
    """An environment whose PATH has just these programs, and no CUDA."""
    directory.mkdir()
    for program in programs:
        write_program(directory / program, "#!/bin/sh\n")
    return {"PATH": str(directory), "CUDA_HOME": ""}


def test_tools_are_found_and_ninja_goes_before_make(tmp_path):
    tools = find_tools("cpu", machine(tmp_path / "bin", "cmake", "g++", "gcc", "make", "ninja"))
    assert tools.cxx == str(tmp_path / "bin/g++") and tools.make == str(tmp_path / "bin/ninja")
    assert tools.ninja and tools.generator == "Ninja"


def test_make_does_where_there_is_no_ninja():
    tools = Tools(cmake="", cc="", cxx="", make="/usr/bin/make")
    assert not tools.ninja and tools.generator == "Unix Makefiles"
    assert Tools(cmake="", cc="", cxx="", make="/usr/bin/ninja-build").ninja


def test_the_environment_may_name_the_compiler():
    there = {"/opt/g++-14": "/opt/g++-14", "c++": "/usr/bin/c++"}
    assert find_tool("c++", {"CXX": "ccache /opt/g++-14"}, there.get) == "/opt/g++-14"
    assert find_tool("c++", {"CXX": "/gone"}, there.get) == "/usr/bin/c++"
    assert find_tool("c++", {}, {}.get) is None


def test_every_missing_tool_is_named_at_once(tmp_path):
    with pytest.raises(EngineUnavailable) as caught:
        find_tools("cuda", machine(tmp_path / "bin", "cc", "ninja"))
    message = caught.value.message
    assert "a C++ compiler" in message and "nvcc" in message
    assert "a C compiler" not in message and "ninja or make" not in message
    assert caught.value.hint


def test_metal_is_for_macs():
    if sys.platform == "darwin":
        pytest.skip("this is one")
    with pytest.raises(UsageError, match="--metal is for macOS"):
        find_tools("metal", os.environ)


@pytest.mark.parametrize(
    ("missing", "manager", "expected"),
    [
        (["c++"], "apt-get", "run: sudo apt-get install g++"),
        (["cc", "c++"], "pacman", "run: sudo pacman -S gcc"),
        (["cmake", "make"], "dnf", f"run: sudo dnf install cmake ninja-build, or: {sys.executable} -m pip install"),
        (["nvcc"], "apk", "install nvcc, the CUDA compiler"),
        (["cmake", "c++"], None, "install CMake and a C++ compiler"),
        (["cmake", "c++", "nvcc"], None, "install CMake, a C++ compiler and nvcc, the CUDA compiler"),
        (["glslc"], "zypper", "run: sudo zypper install shaderc vulkan-devel spirv-headers"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="there it also names xcode-select")
def test_the_hint_names_packages(missing, manager, expected):
    assert package_hint(missing, manager).startswith(expected)


def test_a_full_disk_is_refused_before_anything_is_fetched():
    refuse_full_disk("cpu", Path("/c"), 100 * GIB)
    with pytest.raises(EngineUnavailable, match=r"/c has 0\.5 GiB free"):
        refuse_full_disk("cpu", Path("/c"), GIB // 2)
    with pytest.raises(EngineUnavailable):
        refuse_full_disk("cuda", Path("/c"), 3 * GIB)


@pytest.mark.parametrize(("cpus", "memory", "jobs"), [(8, 64 * GIB, 8), (8, 4 * GIB, 2), (4, 0, 1), (1, 64 * GIB, 1)])
def test_jobs_follow_cpus_and_memory(cpus, memory, jobs):
    assert default_jobs(cpus, memory) == jobs


@pytest.mark.parametrize(
    ("text", "architectures"),
    [("9.0\n", "90"), ("8.6\n8.9\n8.6\n", "86;89"), ("", None), ("No devices were found\n", None), ("[N/A]\n", None)],
)
def test_cuda_architectures_are_those_of_the_gpus(text, architectures):
    assert parse_capabilities(text) == architectures


def test_ninjas_count_is_read_and_the_rest_is_guessed():
    meter = BuildMeter()
    assert not meter.read("-- Configuring done")
    assert meter.read("[1/459] Building CXX object a.o")
    assert meter.progress(1.0).remaining is None
    assert meter.read("[230/459] Building CXX object b.o")
    progress = meter.progress(300.0)
    assert progress.detail == "230 of 459 steps" and progress.share == pytest.approx(0.5, abs=0.01)
    assert progress.remaining == pytest.approx(300.0, rel=0.02)


def test_makes_percentages_are_read_and_what_was_done_before_is_not_counted_as_speed():
    meter = BuildMeter()
    meter.read("[ 80%] Building CXX object a.o")
    assert meter.progress(1.0).remaining is None
    meter.read("[ 90%] Building CXX object b.o")
    assert meter.progress(60.0).remaining == pytest.approx(60.0)


def test_progress_never_goes_back_and_never_beyond_the_end():
    meter = BuildMeter()
    for line, share in (("[5/10] a", 0.5), ("[4/10] b", 0.5), ("[10/10] c", 1.0), ("[11/10] d", 1.0)):
        meter.read(line)
        assert meter.progress(1.0).share == share
    assert meter.progress(1.0).remaining is None
    assert meter.read("[0/0] e")
