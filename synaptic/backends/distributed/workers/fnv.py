"""FNV-1a with 64 bits, the digest by which llama.cpp names tensors in its cache.

It goes byte by byte, so Python would need a minute for what C does in 50 ms. The ten lines of C are compiled once, with
the compiler that an engine is built with, too; the result is kept beside the cache.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from synaptic.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

OFFSET_BASIS: Final = 0xCBF29CE484222325
PRIME: Final = 0x100000001B3

_COMPILE_SECONDS: Final = 60.0
_SOURCE: Final = """\
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#define BLOCK (1 << 20)
/* Continues *digest with bytes of a file; returns how many there were, -1 after an error. */
int64_t synaptic_fnv1a(int fd, int64_t offset, int64_t size, uint64_t *digest) {
    unsigned char *block = malloc(BLOCK);
    int64_t done = 0;
    uint64_t h = *digest;
    if (!block) return -1;
    while (done < size) {
        size_t want = size - done < BLOCK ? (size_t)(size - done) : BLOCK;
        ssize_t got = pread(fd, block, want, (off_t)(offset + done));
        if (got < 0) { free(block); return -1; }
        if (got == 0) break;
        for (ssize_t i = 0; i < got; i++) h = (h ^ block[i]) * 0x100000001b3ULL;
        done += got;
    }
    free(block);
    *digest = h;
    return done;
}
"""


class Fnv:
    """The digest, compiled."""

    def __init__(self, directory: Path, environment: Mapping[str, str] = os.environ) -> None:
        """Load it from ``directory``, or compile it into there.

        Raises:
            EngineUnavailable: If there is no C compiler, or what it makes does not work here.
            OSError: If ``directory`` cannot be written.

        """
        mark = hashlib.sha256(f"{_SOURCE}{platform.machine()}{platform.system()}".encode()).hexdigest()[:12]
        library = directory / f"fnv-{mark}.so"
        if not library.exists():
            _compile(library, environment)
        try:
            self._function = ctypes.CDLL(str(library)).synaptic_fnv1a
        except (OSError, AttributeError) as error:
            raise _unusable(str(error)) from error
        self._function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_uint64))
        self._function.restype = ctypes.c_int64
        if self.of_range(library, 0, library.stat().st_size) != fnv1a(library.read_bytes()):
            raise _unusable("it computes something else")

    def of_range(self, file: Path, offset: int, size: int) -> str | None:
        """Return the digest of a part of a file as 16 hexadecimal digits, ``None`` if the file ends before.

        Raises:
            OSError: If it cannot be read.

        """
        digest = ctypes.c_uint64(OFFSET_BASIS)
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = self._function(descriptor, offset, size, ctypes.byref(digest))
        finally:
            os.close(descriptor)
        if done < 0:
            raise OSError(5, "cannot be read", str(file))
        return f"{digest.value:016x}" if done == size else None


def fnv1a(data: bytes) -> str:
    """Return the digest of a few bytes, slowly."""
    digest = OFFSET_BASIS
    for byte in data:
        digest = ((digest ^ byte) * PRIME) & 0xFFFF_FFFF_FFFF_FFFF
    return f"{digest:016x}"


def _compile(library: Path, environment: Mapping[str, str]) -> None:
    from shutil import which  # noqa: PLC0415

    from synaptic.backends.distributed.engine import find_tool, search_path  # noqa: PLC0415

    path = search_path(environment)
    compiler = find_tool("cc", environment, lambda name: which(name, path=path))
    if compiler is None:
        raise EngineUnavailable(
            "the tensor cache needs a C compiler once, to verify what it holds, and cc cannot be found",
            hint="install one (gcc, clang), or set tensor_cache_gib to 0",
        )
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fnv-", dir=library.parent) as place:
        source, made = Path(place) / "fnv.c", Path(place) / "fnv.so"
        source.write_text(_SOURCE, encoding="ascii")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(source)]
        try:
            done = subprocess.run(  # noqa: S603 - the compiler that the person has, on our own source
                command, capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise _unusable(str(error)) from error
        if done.returncode or not made.exists():
            raise _unusable((done.stderr.strip().splitlines() or [f"{compiler} failed"])[-1])
        made.replace(library)


def _unusable(reason: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"what verifies the tensor cache cannot be compiled or loaded: {reason}", hint="set tensor_cache_gib to 0"
    )
