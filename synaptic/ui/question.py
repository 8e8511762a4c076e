"""What is asked: the words of the command line, and what was piped in."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from synaptic import pipeline
from synaptic.errors import Problem, UsageError
from synaptic.text import NotTextError, decoded, is_unicode, legible, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from synaptic.pipeline import Repeated

MAX_PIPED_BYTES = 4 << 20
"""A longer text takes hours to read; the person meant something else."""

_SHELLS = frozenset({"ash", "bash", "busybox", "dash", "fish", "ksh", "mksh", "sh", "zsh"})

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
    return found + read_documents(patterns, "-f")


def read_documents(patterns: Sequence[str], option: str = "@") -> list[dict[str, str]]:
    """Return the files that paths, folders and patterns name.

    ``option`` is where they were written.

    Raises:
        UsageError: With every file that cannot be read.
    """
    try:
        found = pipeline.read_files(list(patterns)) if patterns else []
        pipeline.refuse_blank(found, patterns)
    except ValueError as exc:
        problems = []
        for message in exc.args:
            what, _, suggestion = str(message).partition("; ")
            problems.append(Problem(what, option, suggestion=suggestion or None))
        raise UsageError.of(problems) from exc
    return found


def read_again(patterns: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Return the files that a conversation is about, as far as they can be read now, and what is wrong with others."""
    found: list[dict[str, str]] = []
    wrong: list[str] = []
    for pattern in patterns:
        try:
            found += [each for each in read_documents([pattern]) if each not in found]
        except UsageError as exc:
            reason = exc.problems[0].message.removeprefix(f"names {pattern}, which ")
            wrong.append(f"{pattern}, which the conversation was about, is left out: it {reason}")
    return found, wrong


def refuse_no_text(words: Sequence[str]) -> None:
    """Refuse a question that is no text: a terminal of another encoding typed it.

    Raises:
        UsageError: If it is none.
    """
    if not all(map(is_unicode, words)):
        raise UsageError("the question is not UTF-8 text", hint="write it in UTF-8, or save it so and pipe it in")


def parse_inputs(pairs: Iterable[str]) -> dict[str, str | Repeated]:
    """Return the inputs in ``KEY=VALUE`` arguments; of several with one key, all that were given.

    Raises:
        UsageError: With every argument that is no pair.
    """
    inputs: dict[str, str | Repeated] = {}
    problems: list[Problem] = []
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not is_unicode(pair) and not value.startswith("@"):
            shown = legible(key)
            problems.append(Problem(f"the value of {shown} is not UTF-8 text", "-i", suggestion="write it in UTF-8"))
        elif separator and key.strip():
            before = inputs.get(key.strip())
            given = _value(value)
            inputs[key.strip()] = given if before is None else pipeline.Repeated((*_all(before), given))
        else:
            problems.append(Problem(f"{pair!r} is no input", "-i", suggestion="write KEY=VALUE, as in rounds=2"))
    if problems:
        raise UsageError.of(problems)
    return inputs


def _value(text: str) -> str:
    """Return a value as it was meant: ``@PATH`` is the text of a file, ``@@`` a text that begins with ``@``."""
    if text.startswith("@@"):
        return text[1:]
    return pipeline.FromFile(text[1:]) if text.startswith("@") else text


def _all(value: str | Repeated) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def piped_text(say: Callable[[str], None], patience: float = PATIENCE_SECONDS, *, beside_words: bool = False) -> str:
    """Return what is piped into this process; "" where standard input is a terminal, a device or closed.

    A pipe is read to its end, like ``cat`` does it.

    Args:
        say: Called with what a person wants to know: that nothing has come after ``patience`` seconds, that nothing
            came at all, that the loop of a shell may have wanted what was read.
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
        say("waiting for standard input (Ctrl-D ends it)")
    text = decode(_read(sys.stdin.buffer))
    if beside_words and not text.strip() and not stat.S_ISSOCK(mode):
        say("standard input was empty: the question is asked alone")
    if beside_words and text.strip() and _is_parents(descriptor):
        lines = plural(len(text.splitlines()), "line")
        say(f"read beside the question: {lines} of standard input; in a loop over a pipe, add </dev/null")
    return text


def _is_parents(descriptor: int) -> bool:
    """Return whether our standard input is also that of the shell that started us, as in its loop over a pipe."""
    parent = Path(f"/proc/{os.getppid()}")
    try:
        ours, parents, name = os.fstat(descriptor), (parent / "fd" / "0").stat(), (parent / "comm").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return False
    return name in _SHELLS and (ours.st_dev, ours.st_ino) == (parents.st_dev, parents.st_ino)


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
        return decoded(data)
    except NotTextError as exc:
        raise UsageError(f"standard input {exc.with_line()}", hint=exc.hint) from None
