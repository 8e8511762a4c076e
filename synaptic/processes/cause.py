"""Why a program that we started failed, from what it said: the line that names the cause, not the last one. Pure.

A program says its cause once, and then at each level above it that something failed: llama.cpp ends with "exiting due
to model loading error", ninja with "build stopped", Python with the frames of a traceback, pip with "No matching
distribution". So of the lines that name a cause the first counts, then the first error, then what a traceback ends
with, then the last line that is no decoration. The words are those of llama.cpp, ggml, glibc, the Linux kernel's
errors, CMake, ninja, GCC, Clang, Python, pip, uv and OpenSSH.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from synaptic.processes.child import describe_exit
from synaptic.text import cut

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LONGEST: Final = 300
"""Characters of a cause that are shown; the whole line is in the log."""

_FROM_OUTSIDE: Final = frozenset({-9, -15})
"""SIGKILL and SIGTERM come from outside: what the program said before has nothing to do with it."""

_STAMP: Final = re.compile(r"^(?:[0-9.]+ (?P<level>[A-Z]) )?(?:\S+/(?=[\w-]+\.(?:cpp|cu|h):\d+: ))?")

_NAMED: Final = re.compile(
    r"corrupted or incomplete|not within the file bounds|unknown (?:model|pre-tokenizer) |invalid magic|bad magic"
    r"|failed to read (?:header|magic|key|tensor|the)|unsupported (?:file|GGUF|model)|wrong number of tensors"
    r"|missing tensor|key not found in model|has wrong (?:shape|type)"
    r"|GGML_ASSERT|CUDA error|vk::\w+Error|what\(\): |std::bad_alloc|stack smashing"
    r"|failed to allocate|unable to allocate|[Oo]ut of memory|alloc_tensor_range: failed|[Cc]annot allocate memory"
    r"|No space left on device|Read-only file system|Disk quota exceeded|Too many open files"
    r"|couldn't bind|[Aa]ddress already in use"
    r"|error while loading shared libraries|version `[^']+' not found|Exec format error|command not found"
    r"|undefined (?:reference|symbol)|Killed signal|Illegal instruction|Segmentation fault"
    r"|Failed to connect to|handshake failed|version mismatch|Remote RPC server crashed"
    r"|Connection (?:refused|timed out|reset)|Could not resolve host|[Nn]ame resolution|Name or service not known"
    r"|Network is unreachable|No route to host|Host key verification failed|REMOTE HOST IDENTIFICATION"
    r"|CERTIFICATE_VERIFY_FAILED|certificate verify failed"
)
"""Words that are said only where that is the cause."""

_ERROR: Final = re.compile(
    r"\berror(?:\[\w+\])?:|\bfatal(?: error)?:|^error\b|^CMake Error|^ninja: fatal|^panic:|\bnot found$", re.IGNORECASE
)
_CONSEQUENCE: Final = re.compile(
    r"^ninja: (?:error: )?build stopped|^make(?:\[\d+\])?: \*\*\*|^FAILED\b|^collect2: error|linker command failed"
    r"|exiting due to|^ERROR: No matching distribution|failed to load model",
    re.IGNORECASE,
)
_HARMLESS: Final = re.compile(r"\bwarn(?:ing)?\b|^-- |^\[[\d/]+\] ", re.IGNORECASE)
_SYSTEM: Final = re.compile(
    r"permission denied|no such file or directory|operation not permitted|input/output error|is a directory|timed out",
    re.IGNORECASE,
)
_RAISED: Final = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Iteration)\b(?::|$)")
_TRACEBACK: Final = "Traceback (most recent call last)"


def describe_failure(returncode: int, lines: Sequence[str], *, stopped: bool = False) -> str:
    """Return how a program ended and why: ``exited with status 1: ... model is corrupted or incomplete``.

    ``returncode`` is negative for a signal; ``stopped`` says whether it was killed because it had been stopped.
    """
    how = describe_exit(returncode, stopped=stopped)
    cause = "" if returncode in _FROM_OUTSIDE else cause_of(lines)
    return f"{how}: {cause}" if cause else how


def cause_of(lines: Iterable[str]) -> str:
    """Return the line that names the cause of a failure, without its time and place in a source; "" if none does."""
    said = list(_told(lines))
    sound = [(text, grave) for text, grave in said if not _HARMLESS.search(text)]
    errors = [text for text, grave in sound if grave or _ERROR.search(text)]
    choices = (
        (text for text, _ in sound if _NAMED.search(text)),
        (text for text in errors if not _CONSEQUENCE.search(text)),
        (text for text, _ in sound if _SYSTEM.search(text)),
        (text for text, _ in reversed(sound) if _RAISED.search(text)),
        errors,
        (text for text, _ in reversed(sound or said)),
    )
    found = next((text for texts in choices for text in texts), "")
    if found.startswith("CMake Error"):  # its text is in the line after it
        texts = [text for text, _ in said]
        found = " ".join(texts[texts.index(found) :][:2])
    return cut(found, LONGEST)


def plain_line(line: str) -> str:
    """Return a line of a log without llama.cpp's time stamp, its level and the path of its source."""
    return _STAMP.sub("", line).strip()


def _told(lines: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield each line that says something, and whether llama.cpp calls it an error; no frames, no rules, no carets."""
    frames = False
    for line in lines:
        match = _STAMP.match(line)
        text = plain_line(line)
        if text.startswith(_TRACEBACK):
            frames = True
        elif frames and line[:1].isspace():
            continue
        elif any(character.isalnum() for character in text):
            frames = False
            yield text, match is not None and match["level"] == "E"
