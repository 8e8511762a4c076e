"""Lines from a pipe, a file, or a terminal that cannot move its cursor: the same commands, without an editor."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, BinaryIO

from synaptic.errors import ExitCode, UsageError
from synaptic.text import is_unicode, legible
from synaptic.ui.repl.arguments import ends_with_continuation
from synaptic.ui.repl.interrupts import LEAVE_HINT, DoublePress, carry_out
from synaptic.ui.streams import failure_of

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl

PROMPT = "> "
_CURE = "save it as UTF-8; if it is from Windows, iconv -f WINDOWS-1252 -t UTF-8 FILE converts it"


def converse_plainly(repl: Repl, source: BinaryIO, *, person: bool) -> ExitCode:
    """Carry out the lines of ``source`` until its end, or until what they print cannot be written any more.

    Args:
        repl: What carries them out.
        source: Bytes; a line that is no UTF-8 is refused, and the others are carried out.
        person: Whether a person types: then there is a prompt, and Ctrl-C cancels only what runs.

    Returns:
        How the last line that failed ended; 0 for a person, who has seen it.

    Raises:
        OSError: If ``source`` cannot be read.
    """
    code = ExitCode.ANSWERED
    presses = DoublePress()
    with asyncio.Runner() as runner:
        try:
            while not repl.leaving and failure_of(repl.screen.out) is None:
                try:
                    line = _next_line(source, person=person)
                except KeyboardInterrupt:
                    print(file=sys.stderr)
                    if not person:
                        return ExitCode.INTERRUPTED
                    if presses.again():
                        break
                    repl.screen.note(LEAVE_HINT)
                    continue
                if line is None:
                    break
                presses.forget()
                if not is_unicode(line):
                    repl.fail(UsageError(f"standard input is not UTF-8 text, not asked: {legible(line)}", hint=_CURE))
                    code = repl.last_exit
                    continue
                if not _carried_out(runner, repl, line) and not person:
                    return ExitCode.INTERRUPTED
                if repl.last_exit is not ExitCode.ANSWERED:
                    code = repl.last_exit
        finally:
            runner.run(repl.aclose())
    return ExitCode.ANSWERED if person else code


def _carried_out(runner: asyncio.Runner, repl: Repl, line: str) -> bool:
    """Carry out a line and return whether it came to its end."""
    try:
        return runner.run(carry_out(repl, line))
    except KeyboardInterrupt:  # in the moment before the run hears Ctrl-C itself
        repl.screen.note("interrupted")
        return False


def _next_line(source: BinaryIO, *, person: bool) -> str | None:
    """Return the next line, with those that it is continued by; ``None`` at the end."""
    lines: list[str] = []
    while True:
        if person:
            sys.stderr.write("  " if lines else PROMPT)
            sys.stderr.flush()
        data = source.readline()
        if not data and not lines:
            return None
        text = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
        if not data or not ends_with_continuation(text):
            return "\n".join([*lines, text])
        lines.append(text[:-1])
