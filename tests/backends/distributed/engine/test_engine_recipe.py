"""How an engine is configured, and what is changed in llama.cpp's tree before it is built."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from engine_support import NEEDS_CMAKE, sdist, write_program

from synaptic.backends.distributed.engine.build import BuildOrder, install
from synaptic.backends.distributed.engine.recipe import DROPPED_VARIANTS, adapt, cmake_options
from synaptic.backends.distributed.engine.tools import Tools, find_tools

TOOLS = Tools(cmake="/b/cmake", cc="/b/cc", cxx="/b/c++", make="/b/ninja")
# As in the pinned tree: kept and dropped variants of x86-64, and those of other kinds of CPU.
VARIANTS = """    if (GGML_SYSTEM_ARCH STREQUAL "x86")
        ggml_add_cpu_backend_variant(x64)
        ggml_add_cpu_backend_variant(sse42              SSE42)
        if (NOT MSVC)
            ggml_add_cpu_backend_variant(piledriver     SSE42 AVX F16C FMA)
        endif()
        ggml_add_cpu_backend_variant(haswell            SSE42 AVX F16C FMA AVX2 BMI2)
        ggml_add_cpu_backend_variant(icelake            SSE42 AVX F16C FMA AVX2 BMI2 AVX512 AVX512_VBMI AVX512_VNNI)
    elseif (GGML_SYSTEM_ARCH STREQUAL "ARM")
        ggml_add_cpu_backend_variant(armv8.2_1    DOTPROD)
        ggml_add_cpu_backend_variant(apple_m1     DOTPROD)
    endif()
"""


def tree(directory: Path) -> Path:
    """The files of llama.cpp that are changed."""
    files = {
        "ggml/src/CMakeLists.txt": VARIANTS,
        "src/CMakeLists.txt": "add_library(llama llama.cpp)\n",
        "common/CMakeLists.txt": "add_library(llama-common arg.cpp)\n",
        "tools/server/CMakeLists.txt": "add_executable(llama-server main.cpp)\n",
        "tools/mtmd/CMakeLists.txt": "add_library(mtmd mtmd.cpp clip.cpp)\n",
        "vendor/cpp-httplib/CMakeLists.txt": "add_library(cpp-httplib STATIC httplib.cpp)\n",
    }
    for name, text in files.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


def test_an_engine_is_built_for_every_cpu_and_any_place():
    options = cmake_options("cpu", "abc1234", root=Path("/c/build dir"), tools=TOOLS)
    on = ("GGML_BACKEND_DL", "GGML_CPU_ALL_VARIANTS", "GGML_RPC", "CMAKE_BUILD_WITH_INSTALL_RPATH")
    assert {options[name] for name in on} == {"ON"}
    off = ("GGML_NATIVE", "GGML_CUDA", "GGML_VULKAN", "GGML_METAL", "LLAMA_USE_PREBUILT_UI", "GGML_RPC_RDMA")
    assert {options[name] for name in off} == {"OFF"}
    assert options["LLAMA_BUILD_COMMIT"] == "abc1234" and options["CMAKE_CXX_COMPILER"] == "/b/c++"
    assert options["CMAKE_CXX_FLAGS"] == "'-ffile-prefix-map=/c/build dir=.'"
    assert not any(name.endswith("_LAUNCHER") for name in options)


def test_an_accelerated_engine_keeps_its_cpu_variants():
    tools = Tools(cmake="", cc="", cxx="", make="", nvcc="/cuda/bin/nvcc", ccache="/b/ccache")
    options = cmake_options("cuda", "abc1234", root=Path("/c"), tools=tools, cuda_architectures="90")
    assert options["GGML_CUDA"] == "ON" and options["GGML_CPU_ALL_VARIANTS"] == "ON"
    assert options["CMAKE_CUDA_ARCHITECTURES"] == "90" and options["CMAKE_CUDA_COMPILER"] == "/cuda/bin/nvcc"
    assert {options[f"CMAKE_{language}_COMPILER_LAUNCHER"] for language in ("C", "CXX", "CUDA")} == {"/b/ccache"}
    assert "CMAKE_CUDA_ARCHITECTURES" not in cmake_options("cuda", "a", root=Path("/c"), tools=tools)


def test_ccache_is_used_where_it_is_installed(tmp_path):
    for name in ("cmake", "cc", "c++", "ninja", "ccache"):
        write_program(tmp_path / name, "#!/bin/sh\n")
    environment = {"PATH": str(tmp_path), "CUDA_HOME": ""}
    assert find_tools("cpu", environment).ccache == str(tmp_path / "ccache")


@NEEDS_CMAKE
async def test_the_compiler_is_run_through_ccache(tmp_path, monkeypatch):
    small, log = sdist(tmp_path / "archive"), tmp_path / "log"
    write_program(tmp_path / "bin/ccache", f'#!/bin/sh\necho "$@" >> "{log}"\nexec "$@"\n')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    await install(BuildOrder(archive=small.archive, source=small.source, jobs=1))
    assert "ggml.c" in log.read_text()


def test_only_the_cpus_that_matter_get_code_of_their_own(tmp_path):
    adapt(tree(tmp_path))
    kept = re.findall(r"variant\(([\w.]+)", (tmp_path / "ggml/src/CMakeLists.txt").read_text())
    assert kept == ["sse42", "haswell", "armv8.2_1", "apple_m1"]
    assert "haswell" not in DROPPED_VARIANTS and "sse42" not in DROPPED_VARIANTS


def test_the_rest_of_the_tree_is_adapted(tmp_path):
    adapt(tree(tmp_path))
    common = (tmp_path / "common/CMakeLists.txt").read_text()
    assert common.startswith("add_library(llama-common arg.cpp)\n") and "UNITY_BUILD ON" in common
    multimodal = tmp_path / "tools/mtmd"
    assert "clip.cpp" not in (multimodal / "CMakeLists.txt").read_text()
    assert "mtmd_init_from_file" in (multimodal / "text_only.cpp").read_text()


def test_another_tree_than_the_pinned_one_is_not_adapted(tmp_path):
    with pytest.raises(FileNotFoundError):
        adapt(tmp_path)


@NEEDS_CMAKE
async def test_a_source_is_adapted_before_it_is_built(tmp_path):
    def build_the_rest(unpacked: Path) -> None:
        with (unpacked / "CMakeLists.txt").open("a") as file:
            file.write("file(WRITE ${CMAKE_BINARY_DIR}/bin/libggml-adapted.so x)\n")

    small = sdist(tmp_path)
    source = replace(small.source, adapt=build_the_rest)
    done = await install(BuildOrder(archive=small.archive, source=source, jobs=1))
    assert (done.engine.files.directory / "libggml-adapted.so").is_file()
