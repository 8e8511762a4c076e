"""What an RPC server is built from on a machine of another kind: ggml and one file, a small part of llama.cpp."""

from __future__ import annotations

import asyncio
import io
import shutil
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.backends.distributed.engine.progress import ignore_progress
from synaptic.backends.distributed.engine.source import LLAMA_CPP, check_archive, fetch
from synaptic.errors import EngineUnavailable
from synaptic.processes import own_folder, replace_file
from synaptic.text import reason_of

if TYPE_CHECKING:
    from synaptic.backends.distributed.engine.progress import EngineReporter
    from synaptic.backends.distributed.engine.source import EngineSource

RECIPE: Final = 1
"""Raised when what is built of it changes: it is part of its name."""
TARGET: Final = "ggml-rpc-server"
_PROGRAM: Final = PurePosixPath("tools/rpc/rpc-server.cpp")
_GGML: Final = "ggml"
_BACKENDS: Final = ("ggml-cpu", "ggml-rpc", "ggml-metal", "ggml-blas")
"""Of the folders of ggml's backends those that a build for the machine itself may want."""
_CMAKE: Final = f"""\
cmake_minimum_required(VERSION 3.14)
project(worker C CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}})
add_subdirectory(ggml)
add_executable({TARGET} rpc-server.cpp)
target_link_libraries({TARGET} PRIVATE ggml)
"""


def worker_source_key(source: EngineSource = LLAMA_CPP) -> str:
    """Return the name of what is built: version, content, recipe."""
    return f"{source.key}-w{RECIPE}"


async def worker_source(
    report: EngineReporter = ignore_progress, *, source: EngineSource = LLAMA_CPP, archive: Path | None = None
) -> Path:
    """Return an archive (``.tar.gz``) of what an RPC server is built from; it is made once and kept in the cache.

    Args:
        report: Told how far the source is that has to be fetched for it.
        source: Of which llama.cpp.
        archive: The source distribution, where it was fetched already.

    Raises:
        EngineUnavailable: If the source cannot be fetched, or is not what was expected.
    """
    kept = paths.engine_dir() / f"worker-{worker_source_key(source)}.tar.gz"
    if kept.is_file():
        return kept
    own_folder(paths.engine_dir())
    staging = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=".worker-source-", dir=paths.engine_dir()))
    began = time.monotonic()
    try:
        archive = archive or await fetch(source, staging, report, lambda: time.monotonic() - began)
        await check_archive(source, archive)
        await asyncio.to_thread(_take, source, archive, kept)
    except OSError as error:
        raise EngineUnavailable(f"the source for another machine cannot be kept: {reason_of(error)}") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return kept


def _take(source: EngineSource, archive: Path, target: Path) -> None:
    """Write the part of an archive that is needed into one of its own."""
    root = PurePosixPath(source.tree)
    output = io.BytesIO()
    with tarfile.open(archive) as whole, tarfile.open(fileobj=output, mode="w:gz") as part:
        for member in whole:
            path = PurePosixPath(member.name)
            if not member.isfile() or not path.is_relative_to(root):
                continue
            inner = path.relative_to(root)
            if inner == _PROGRAM or _wanted(inner):
                member.name = inner.name if inner == _PROGRAM else str(inner)
                part.addfile(member, whole.extractfile(member))
        rules = tarfile.TarInfo("CMakeLists.txt")
        rules.size = len(_CMAKE)
        part.addfile(rules, io.BytesIO(_CMAKE.encode()))
    replace_file(target, output.getvalue())


def _wanted(inner: PurePosixPath) -> bool:
    """Whether a file of the tree is ggml's, and of no backend that is not built."""
    top, *rest = inner.parts
    if top != _GGML or ".." in rest:
        return False
    is_backend = len(rest) > 2 and rest[0] == "src" and rest[1].startswith("ggml-")
    return not is_backend or rest[1] in _BACKENDS
