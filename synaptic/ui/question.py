"""What is asked: the words of the command line, and what was piped in."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from synaptic.errors import Problem, UsageError
from synaptic.pipeline import FromFile, Repeated, read_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_PIPED_BYTES = 4 << 20
"""A longer text takes hours to read; the person meant something else."""

PATIENCE_SECONDS = 2.0
"""How long a silent pipe is waited for before a line says so."""


def documents(piped: str, patterns: Sequence[str]) -> list[dict[str, str]]:
    """Return what the question is about: the piped text, then the files that ``-f`` names.

    Raises:
        UsageError: With every file that cannot be read.

    """
    if "-" in patterns and not Path("-").exists():
        raise UsageError("-f takes no -", hint="leave it out: what is piped in is read without -f")
    found = [{"name": "", "path": "", "text": piped.strip()}] if piped.strip() else []
    if not patterns:
        return found
    try:
        return found + read_files(list(patterns))
    except ValueError as exc:
        problems = []
        for message in exc.args:
            what, _, suggestion = str(message).partition("; ")
            problems.append(Problem(what, "-f", suggestion=suggestion or None))
        raise UsageError.of(problems) from exc


def parse_inputs(pairs: Iterable[str]) -> dict[str, str | Repeated]:
    """Return the inputs in ``KEY=VALUE`` arguments; of several with one key, all that were given.

    Raises:
        UsageError: With every argument that is no pair.

    """
    inputs: dict[str, str | Repeated] = {}
    problems: list[Problem] = []
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if separator and key.strip():
            before = inputs.get(key.strip())
            given = _value(value)
            inputs[key.strip()] = given if before is None else Repeated((*_all(before), given))
        else:
            problems.append(Problem(f"{pair!r} is no input", "-i", suggestion="write KEY=VALUE, as in rounds=2"))
    if problems:
        raise UsageError.of(problems)
    return inputs


def _value(text: str) -> str:
    """Return a value as it was meant: ``@PATH`` is the text of a file, ``@@`` a text that begins with ``@``."""
    if text.startswith("@@"):
        return text[1:]
    return FromFile(text[1:]) if text.startswith("@") else text


def _all(value: str | Repeated) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def piped_text(on_wait: Callable[[], None], patience: float = PATIENCE_SECONDS, *, beside_words: bool = False) -> str:
    """Return what is piped into this process; "" where standard input is a terminal, a device or closed.

    A pipe is read to its end, like ``cat`` does it.

    Args:
        on_wait: Called once if nothing has come after ``patience`` seconds.
        patience: In seconds.
        beside_words: Whether there is a question without it. A file of which something was read before is then left
            to the program that reads it, as in ``while read q; do synaptic "$q"; done < questions.txt``.

    Raises:
        UsageError: If it is too long, or no UTF-8 text.
        OSError: If it cannot be read.

    """
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return ""
    if beside_words and stat.S_ISREG(mode) and os.lseek(descriptor, 0, os.SEEK_CUR) > 0:
        return ""
    if not select.select([descriptor], [], [], patience)[0]:
        on_wait()
    return decode(_read(sys.stdin.buffer))


def _read(stream: BinaryIO) -> bytes:
    data = stream.read(MAX_PIPED_BYTES + 1)
    if len(data) > MAX_PIPED_BYTES:
        raise UsageError(f"standard input is longer than {MAX_PIPED_BYTES >> 20} MiB", hint="pipe in less of it")
    return data


def decode(data: bytes) -> str:
    """Return piped bytes as text.

    Raises:
        UsageError: If they are no UTF-8.

    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise UsageError(f"standard input is not UTF-8 text (line {line})", hint="convert it, or pipe text") from exc
