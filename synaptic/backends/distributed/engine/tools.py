"""What a build needs: tools and the packages that have them, memory, disk."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synaptic.errors import EngineUnavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

JOB_BYTES = 1_500_000_000
"""What the largest compilations of llama.cpp take in memory, each."""

_GIB = 1 << 30
DISK_BYTES = {"cpu": 1 * _GIB, "cuda": 6 * _GIB, "vulkan": 2 * _GIB, "metal": 1 * _GIB}
"""Free space that is asked for: archive, source, objects and the engine together, with something to spare."""

_PACKAGES: dict[str, dict[str, str]] = {
    "apt-get": {
        "cmake": "cmake", "c++": "g++", "cc": "gcc", "make": "ninja-build", "nvcc": "nvidia-cuda-toolkit",
        "glslc": "glslc libvulkan-dev spirv-headers",
    },
    "dnf": {
        "cmake": "cmake", "c++": "gcc-c++", "cc": "gcc", "make": "ninja-build", "nvcc": "cuda-toolkit",
        "glslc": "glslc vulkan-loader-devel spirv-headers-devel",
    },
    "pacman": {
        "cmake": "cmake", "c++": "gcc", "cc": "gcc", "make": "ninja", "nvcc": "cuda",
        "glslc": "shaderc vulkan-headers vulkan-icd-loader spirv-headers",
    },
    "zypper": {
        "cmake": "cmake", "c++": "gcc-c++", "cc": "gcc", "make": "ninja", "nvcc": "cuda-toolkit",
        "glslc": "shaderc vulkan-devel spirv-headers",
    },
    "apk": {
        "cmake": "cmake", "c++": "g++ linux-headers", "cc": "gcc", "make": "samurai", "nvcc": "",
        "glslc": "shaderc vulkan-loader-dev spirv-headers",
    },
    "brew": {
        "cmake": "cmake", "c++": "", "cc": "", "make": "ninja", "nvcc": "",
        "glslc": "shaderc vulkan-headers vulkan-loader",
    },
}  # fmt: skip
_INSTALL = {
    "apt-get": "sudo apt-get install", "dnf": "sudo dnf install", "pacman": "sudo pacman -S",
    "zypper": "sudo zypper install", "apk": "sudo apk add", "brew": "brew install",
}  # fmt: skip
_TITLES = {
    "cmake": "CMake", "c++": "a C++ compiler", "cc": "a C compiler", "make": "ninja or make",
    "nvcc": "nvcc, the CUDA compiler", "glslc": "glslc, the Vulkan shader compiler",
}  # fmt: skip
_CANDIDATES = {
    "cmake": ("cmake",),
    "c++": ("c++", "g++", "clang++"),
    "cc": ("cc", "gcc", "clang"),
    "make": ("ninja", "ninja-build", "samu", "make", "gmake"),
    "nvcc": ("nvcc",),
    "glslc": ("glslc",),
}
_VARIABLES = {"c++": "CXX", "cc": "CC", "nvcc": "CUDACXX"}
_NEEDED = ("cmake", "cc", "c++", "make")
_NEEDED_FOR = {"cuda": ("nvcc",), "vulkan": ("glslc",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The programs of a build, by absolute path; ``ccache`` keeps what was compiled, where it is installed."""

    cmake: str
    cc: str
    cxx: str
    make: str
    nvcc: str | None = None
    ccache: str | None = None

    @property
    def ninja(self) -> bool:
        """Whether the build tool is ninja, which can go on with a build that was broken off."""
        return Path(self.make).name.removesuffix("-build") in {"ninja", "samu"}

    @property
    def generator(self) -> str:
        """CMake's name for the build tool."""
        return "Ninja" if self.ninja else "Unix Makefiles"


def search_path(environment: Mapping[str, str]) -> str:
    """Return where tools are looked for: the PATH, this interpreter's programs (pip has a CMake), CUDA's own place."""
    cuda = [str(Path(place) / "bin") for place in (environment.get("CUDA_HOME"), "/usr/local/cuda") if place]
    return os.pathsep.join([environment.get("PATH", os.defpath), str(Path(sys.executable).parent), *cuda])


def find_tools(acceleration: str, environment: Mapping[str, str]) -> Tools:
    """Return the programs of a build.

    Raises:
        EngineUnavailable: If one is missing; the message names every missing one, the hint the packages.
        UsageError: If this kind of machine has no such acceleration.
    """
    if acceleration == "metal" and sys.platform != "darwin":
        raise UsageError("--metal is for macOS", hint="on this machine: --cuda, --vulkan, or nothing for the CPU alone")
    path = search_path(environment)
    found = {
        tool: find_tool(tool, environment, lambda name: shutil.which(name, path=path))
        for tool in (*_NEEDED, *_NEEDED_FOR.get(acceleration, ()))
    }
    missing = [tool for tool, program in found.items() if program is None]
    if missing:
        manager = next((name for name in _PACKAGES if shutil.which(name)), None)
        raise EngineUnavailable(
            "an engine is built from source, and " + _listed([_TITLES[tool] for tool in missing]) + " cannot be found",
            hint=package_hint(missing, manager),
        )
    return Tools(
        cmake=found["cmake"] or "",
        cc=found["cc"] or "",
        cxx=found["c++"] or "",
        make=found["make"] or "",
        nvcc=found.get("nvcc"),
        ccache=shutil.which("ccache", path=path),
    )


def find_tool(tool: str, environment: Mapping[str, str], which: Callable[[str], str | None]) -> str | None:
    """Return the path of a tool: what the environment names (``CXX``), else the first usual name that is there."""
    named = shlex.split(environment.get(_VARIABLES.get(tool, ""), ""))
    return next((path for name in (*named[-1:], *_CANDIDATES[tool]) if (path := which(name)) is not None), None)


def package_hint(missing: Sequence[str], manager: str | None) -> str:
    """Return what to install.

    Args:
        missing: Names of tools, as ``c++``.
        manager: The machine's package manager; ``None`` where none of the known ones is there.
    """
    parts = []
    if manager in _PACKAGES:
        packages = dict.fromkeys(word for tool in missing for word in _PACKAGES[manager][tool].split())
        if packages:
            parts.append(f"{_INSTALL[manager]} {' '.join(packages)}")
    if sys.platform == "darwin" and {"c++", "cc"} & set(missing):
        parts.append("xcode-select --install")
    python = [name for tool, name in (("cmake", "cmake"), ("make", "ninja")) if tool in missing]
    if python and set(missing) <= {"cmake", "make"}:
        parts.append(f"{sys.executable} -m pip install {' '.join(python)}")
    return "run: " + ", or: ".join(parts) if parts else "install " + _listed([_TITLES[tool] for tool in missing])


def refuse_full_disk(acceleration: str, place: Path, free: int) -> None:
    """Make sure that a build fits.

    Raises:
        EngineUnavailable: If fewer bytes are free than it takes.
    """
    needed = DISK_BYTES[acceleration]
    if free < needed:
        raise EngineUnavailable(
            f"{place} has {free / _GIB:.1f} GiB free; building an engine takes {needed / _GIB:.0f} GiB",
            hint="free some space, or let XDG_CACHE_HOME name a directory on a larger disk",
        )


def default_jobs(cpus: int, available_bytes: int) -> int:
    """Return how many compilations run at once: one a CPU, as far as the memory goes."""
    return max(1, min(cpus, available_bytes // JOB_BYTES))


def parse_capabilities(text: str) -> str | None:
    """Return CMake's list of CUDA architectures for what ``nvidia-smi --query-gpu=compute_cap`` printed (``9.0``)."""
    found = {line.strip().replace(".", "") for line in text.splitlines() if line.strip()}
    return ";".join(sorted(found)) if found and all(name.isdigit() for name in found) else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
