"""An engine: ``llama-server``, the RPC server and their libraries of one llama.cpp build. Its files and its identity.

Two builds that call themselves the same need not be the same, so an engine is identified by what is in its files.
"""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.errors import ModelFileError, UsageError
from synaptic.processes import sha256_of, tied
from synaptic.text import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


LLAMA_SERVER = "llama-server"
RPC_SERVERS = ("ggml-rpc-server", "rpc-server")
"""The RPC server's names, the present one first."""
LIBRARY_NAMES = ("libggml", "libllama", "libmtmd", "ggml", "llama", "mtmd")
LIBRARY_SUFFIXES = (".so", ".dylib", ".dll")
BUILD_TREES = (".", "bin", "build/bin", "build/bin/Release")
"""Where the binaries are below the directory that a person names: an installation, a checkout that was built."""
CPU_LIBRARY = "ggml-cpu-"
SERVER_PART = "llama"
"""In the names of the libraries that read the command line (``libllama-common``)."""
SHORT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFiles:
    """The files of an engine.

    Attributes:
        directory: Where the two binaries are.
        libraries: The llama.cpp libraries beside them and in the ``lib`` beside their directory; none for a
            static build. Of names that lead to the same file only one is here.
    """

    directory: Path
    llama_server: Path
    rpc_server: Path
    libraries: tuple[Path, ...]

    @property
    def everything(self) -> tuple[Path, ...]:
        """All files, binaries first."""
        return (self.llama_server, self.rpc_server, *self.libraries)

    @property
    def cpu_variants(self) -> tuple[str, ...]:
        """The CPUs that the build has code for (``haswell``, ``zen4``); empty where it has code for one kind only."""
        names = (library.name.removeprefix("lib").split(".")[0] for library in self.libraries)
        return tuple(sorted(name.removeprefix(CPU_LIBRARY) for name in names if name.startswith(CPU_LIBRARY)))

    @property
    def size_bytes(self) -> int:
        """What the files take on disk."""
        return sum(file.stat().st_size for file in self.everything)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself when it is started on this machine.

    Attributes:
        version: As ``llama-server --version`` says it: ``0.4.1 (build 0, commit 0c1e57098)``.
        commit: The commit it was built from; "" where it does not know.
        rpc_version: The RPC protocol's version, ``major.minor.patch``; it has to be the same on every machine.
        backends: What ggml loaded: ``RPC``, ``CPU``, ``CUDA``.
        cpu_variant: Which of the CPU variants it chose here; "" where there is only one.
        devices: One line a device, as ``--list-devices`` prints it; a CPU alone is not listed there.
    """

    version: str
    commit: str
    rpc_version: str
    backends: tuple[str, ...] = ()
    cpu_variant: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine that can be used.

    Attributes:
        identity: Hex digest over its files and its RPC protocol version.
        origin: ``built`` or ``adopted``.
    """

    files: EngineFiles
    facts: EngineFacts
    identity: str
    origin: str

    @property
    def short_identity(self) -> str:
        """The beginning of the identity, for people."""
        return self.identity[:SHORT]

    def llama_server(self, *arguments: str) -> list[str]:
        """Return the command that runs ``llama-server``; see :func:`engine_command`."""
        return engine_command(self.files, self.files.llama_server, arguments)

    def rpc_server(self, *arguments: str) -> list[str]:
        """Return the command that runs the RPC server; see :func:`engine_command`."""
        return engine_command(self.files, self.files.rpc_server, arguments)


def engine_command(files: EngineFiles, program: Path, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs a program of the engine so that it dies with us.

    It runs in the engine's directory, because ggml also loads backends that it finds in the current one, and with
    SIGPIPE ignored, without which an RPC server dies when a client goes away at the wrong moment.
    """
    return tied([str(program), *arguments], directory=files.directory)


def locate(directory: Path) -> EngineFiles:
    """Return the files of the engine in ``directory``, or in its ``bin`` or ``build/bin``.

    Raises:
        UsageError: If it is no directory, or one of the two binaries is not there or cannot be run.
    """
    root = paths.expanded(directory).absolute()
    if not root.is_dir():
        what = "is a file, not a directory" if root.exists() else "does not exist"
        raise UsageError(f"{root} {what}", hint="name the directory that llama-server and rpc-server are in")
    places = [place for tree in BUILD_TREES if _program(place := paths.resolved(root / tree), LLAMA_SERVER) is not None]
    if not places:
        raise UsageError(
            f"there is no {LLAMA_SERVER} in {root}, nor in its bin or build/bin",
            hint="name the directory that it was built or installed into",
        )
    for place in places:
        servers = (_program(place, name) for name in RPC_SERVERS)
        if (rpc_server := next((server for server in servers if server is not None), None)) is not None:
            llama_server = place / LLAMA_SERVER
            _refuse_unrunnable(llama_server, rpc_server)
            return EngineFiles(
                directory=place, llama_server=llama_server, rpc_server=rpc_server, libraries=_libraries(place)
            )
    raise UsageError(
        f"there is no {' or '.join(RPC_SERVERS)} beside {places[0] / LLAMA_SERVER}",
        hint="build llama.cpp with -DGGML_RPC=ON, or run: synaptic engine install",
    )


def identify(files: EngineFiles, rpc_version: str) -> str:
    """Return the identity of an engine: a digest over its binaries, its libraries and its RPC protocol version.

    It does not depend on where the files are, so a copy on another machine has the same one.

    Raises:
        OSError: If a file cannot be read.
    """
    digest = hashlib.sha256(f"rpc {rpc_version}\n".encode())
    for file in sorted(files.everything, key=lambda file: file.name):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def fingerprint(files: EngineFiles) -> str:
    """Return what changes when a file of the engine may have changed; it reads no file.

    The machine's name is in it: what an engine says of itself depends on the machine, and caches may be shared.

    Raises:
        OSError: If a file is gone.
    """
    digest = hashlib.sha256(platform.node().encode())
    for file in files.everything:
        status = file.stat()
        digest.update(f"\n{file} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _program(directory: Path, name: str) -> Path | None:
    path = directory / name
    return path if path.is_file() else None


def _refuse_unrunnable(*programs: Path) -> None:
    for program in programs:
        if not os.access(program, os.X_OK):
            raise UsageError(f"{program} may not be executed", hint=f"run: chmod +x {program}")


def _libraries(directory: Path) -> tuple[Path, ...]:
    """Return the libraries, each file once and under the shortest of its names."""
    found: dict[Path, Path] = {}
    for place in (directory, directory.parent / "lib"):
        files = sorted(place.iterdir()) if place.is_dir() else []
        for file in sorted(filter(is_library, files), key=lambda file: len(file.name)):
            found.setdefault(paths.resolved(file), file)
    return tuple(sorted(found.values()))


def is_library(file: Path) -> bool:
    """Return whether a file is one of llama.cpp's libraries."""
    named = file.name.startswith(LIBRARY_NAMES) and any(suffix in file.name for suffix in LIBRARY_SUFFIXES)
    return named and file.is_file()


ENGINE_LIBRARIES: Final = ("libllama.", "llama.")


def check_engine_knows(path: Path, architecture: str, engine: EngineFiles) -> None:
    """Refuse an architecture that this very engine was built without.

    The names are text constants in ``libllama``, or in ``llama-server`` where that is linked statically. One that is
    not there is surely not known; a short one may be there by chance, and then the engine itself will refuse.
    Reads a few megabytes: call it in a thread.

    Raises:
        ModelFileError: If the engine does not know it.
    """
    places = [file for file in engine.libraries if file.name.startswith(ENGINE_LIBRARIES)] or [engine.llama_server]
    try:
        known = _has_text(architecture, places)
    except OSError as error:
        raise ModelFileError(f"the engine cannot be read: {reason_of(error)}") from error
    if not known:
        raise ModelFileError(
            f"{path} has the architecture {architecture!r}, which the engine in {engine.directory} does not know",
            hint="use a newer engine (synaptic engine install), on every machine alike",
        )


def knows_option(option: str, engine: EngineFiles) -> bool:
    """Return whether an engine has an option of the command line: a build of a person's own may be an older one.

    Reads a few megabytes: call it in a thread.
    """
    places = [engine.llama_server, *(file for file in engine.libraries if SERVER_PART in file.name)]
    try:
        return _has_text(option, places)
    except OSError:
        return False


def _has_text(text: str, places: Sequence[Path]) -> bool:
    """Return whether a text is among the constants of one of these files."""
    wanted = text.encode() + b"\0"
    return any(wanted in place.read_bytes() for place in places)
