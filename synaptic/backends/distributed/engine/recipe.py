"""The recipe of an engine: CMake's options, and what is changed in llama.cpp's tree before it is built."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synaptic.backends.distributed.engine.tools import Tools

RECIPE = 3
"""Raised when something below changes what is built: it is part of the name of an engine."""

ACCELERATIONS = ("cpu", "cuda", "vulkan", "metal")
TARGETS = ("llama-server", "ggml-rpc-server")

DROPPED_VARIANTS = (
    "x64", "sandybridge", "piledriver", "skylakex", "cannonlake", "icelake", "cooperlake", "zen4",
    "sapphirerapids",
)  # fmt: skip
"""The x86-64 CPUs that get no code of their own, of llama.cpp's fourteen: each takes a thirtieth of the whole build.

ggml loads the best variant that a machine can run. These run another one:

- ``x64``: CPUs without SSE 4.2, all from before 2013: none. The engine does not run there.
- ``sandybridge`` (runs sse42): has AVX, but not F16C; 2011.
- ``piledriver`` (runs ivybridge): has FMA besides, which the products of quantized weights do not use; 2012 to 2015.
- ``skylakex``, ``cannonlake`` (run haswell): have AVX-512, but not VNNI, which the products of quantized weights use.
- ``icelake`` (runs cascadelake): has VBMI besides, for which ggml has no code.
- ``cooperlake``, ``zen4`` (run cascadelake): have BF16 besides, which only weights in BF16 use.
- ``sapphirerapids`` (runs cascadelake): has AMX besides. Virtual machines name AMX among their instructions and refuse
  its tiles: the engine loaded, answered for itself, and died with SIGILL at the first matrix product.
"""

_PORTABLE = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_RPC": "ON",
    "GGML_RPC_RDMA": "OFF",  # it would be on or off by what libraries happen to be installed here
    "LLAMA_OPENSSL": "OFF",  # the same; the coordinator speaks HTTP on the loopback interface
}
_ONLY_WHAT_IS_USED = {
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # it would be fetched from the network in the middle of the build
    "LLAMA_ALL_WARNINGS": "OFF",  # they take time, and are for llama.cpp's authors
    "GGML_ALL_WARNINGS": "OFF",
}
_RELOCATABLE = {
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
}

_DROPPED = re.compile(rf"^ *ggml_add_cpu_backend_variant\((?:{'|'.join(DROPPED_VARIANTS)})\b.*\n", re.MULTILINE)
_TEXT_ONLY = "text_only.cpp"
_APPENDED = {
    # The time of a token goes into ggml, which keeps -O3: this code chooses tokens, and reads and writes models, JSON
    # and chat templates.
    "src/CMakeLists.txt": """
target_compile_options(llama PRIVATE -O1)
""",
    # Several sources are compiled as one, and their headers once. json.cpp stays alone: it specializes templates that
    # the others use.
    "common/CMakeLists.txt": """
set_source_files_properties(json.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
set_target_properties(llama-common PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
target_compile_options(llama-common PRIVATE -O1)
""",
    "tools/server/CMakeLists.txt": """
set_target_properties(server-context llama-server-impl PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
target_compile_options(server-context PRIVATE -O1)
target_compile_options(llama-server-impl PRIVATE -O1)
""",
    "vendor/cpp-httplib/CMakeLists.txt": """
target_compile_options(cpp-httplib PRIVATE -O1)
""",
}
_REPLACED = {
    "tools/mtmd/CMakeLists.txt": f"""\
add_library(mtmd STATIC {_TEXT_ONLY})
set_target_properties(mtmd PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(mtmd PUBLIC ggml llama)
target_include_directories(mtmd PUBLIC .)
target_compile_features(mtmd PRIVATE cxx_std_17)
""",
}


def cmake_options(
    acceleration: str, commit: str, *, root: Path, tools: Tools, cuda_architectures: str | None = None
) -> dict[str, str]:
    """Return CMake's options for an engine that runs on any CPU of this kind and from any directory.

    Args:
        acceleration: ``cpu``, ``cuda``, ``vulkan`` or ``metal``.
        commit: Of llama.cpp; it would ask git, which may know of another repository around the build.
        root: The directory that source and build are in; its name is kept out of the binaries, so that the same
            source and compiler give the same engine everywhere.
        tools: The programs of the build.
        cuda_architectures: ``90;89``; ``None`` for llama.cpp's own list.
    """
    flags = shlex.quote(f"-ffile-prefix-map={root.resolve()}=.")  # not CXXFLAGS: -march=native would be in there
    origin = "@loader_path" if platform.system() == "Darwin" else "$ORIGIN"
    options = {
        **_PORTABLE,
        **_ONLY_WHAT_IS_USED,
        **_RELOCATABLE,
        "CMAKE_MAKE_PROGRAM": tools.make,
        "CMAKE_C_COMPILER": tools.cc,
        "CMAKE_CXX_COMPILER": tools.cxx,
        "CMAKE_INSTALL_RPATH": origin,
        "CMAKE_C_FLAGS": flags,
        "CMAKE_CXX_FLAGS": flags,
        "LLAMA_BUILD_NUMBER": "0",  # the distribution does not tell
        "LLAMA_BUILD_COMMIT": commit,
        **{f"GGML_{name.upper()}": "ON" if name == acceleration else "OFF" for name in ACCELERATIONS[1:]},
    }
    languages = ["C", "CXX"]
    if acceleration == "cuda" and tools.nvcc is not None:
        languages.append("CUDA")
        options["CMAKE_CUDA_COMPILER"] = tools.nvcc
        options["GGML_CUDA_NCCL"] = "OFF"  # for several GPUs in one process with tensor split; not what we do
        if cuda_architectures:
            options["CMAKE_CUDA_ARCHITECTURES"] = cuda_architectures
    if tools.ccache is not None:
        options.update({f"CMAKE_{language}_COMPILER_LAUNCHER": tools.ccache for language in languages})
    return options


def adapt(tree: Path) -> None:
    """Change llama.cpp's tree so that it builds in less time; what the two programs do with text stays the same.

    Raises:
        OSError: If a file is not there or cannot be written.
    """
    variants = tree / "ggml/src/CMakeLists.txt"
    variants.write_text(_DROPPED.sub("", variants.read_text(encoding="utf-8")), encoding="utf-8")
    for name, lines in _APPENDED.items():
        with (tree / name).open("a", encoding="utf-8") as file:
            file.write(lines)
    for name, text in _REPLACED.items():
        (tree / name).write_text(text, encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(_TEXT_ONLY), tree / "tools/mtmd" / _TEXT_ONLY)
