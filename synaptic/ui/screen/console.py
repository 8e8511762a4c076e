"""The one console, on stderr, and what every part of the interface prints on it."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from synaptic.errors import SynapticError, UsageError
from synaptic.text import one_line, printable
from synaptic.ui.screen.wrap import for_person

if TYPE_CHECKING:
    from collections.abc import Iterable


def stderr_console(err: TextIO | None = None) -> Console:
    """Return the console for everything but the answer: standard error, or another stream.

    Colours follow the terminal and ``NO_COLOR``.
    """
    return Console(file=err, stderr=err is None, highlight=False)


def show_error(console: Console, error: SynapticError) -> None:
    """Print an error: what is wrong, one line each, and what to do about it."""
    texts = [str(problem) for problem in error.problems] if isinstance(error, UsageError) else []
    for text in texts or [error.headline]:
        _labelled(console, "error", text, "bold red")
    if error.hint:
        _labelled(console, "hint", error.hint, "dim")


def show_bug(error: BaseException, *, verbose: bool) -> None:
    """Print a bug of ours on standard error, or, if ``verbose``, its traceback first. The console may be the bug."""
    if verbose:
        told = "".join(traceback.format_exception(error))
        sys.stderr.write(printable(told) if sys.stderr.isatty() else told)
    print(for_person(f"error: {bug_message(error)}", sys.stderr), file=sys.stderr)
    if not verbose:
        hint = "hint: run it again with -v for the traceback, and please report it"
        print(for_person(hint, sys.stderr), file=sys.stderr)


def bug_message(error: BaseException) -> str:
    """Return what a person is told of an exception that nothing in the program expects."""
    return f"this is a bug: {type(error).__name__}: {one_line(str(error), 500)}"


def show_notices(console: Console, notices: Iterable[str]) -> None:
    """Print what a person should know but need not act on."""
    for notice in notices:
        _labelled(console, "notice", notice, "yellow")


def show_hint(console: Console, text: str) -> None:
    """Print a piece of advice."""
    _labelled(console, "hint", text, "dim")


def _labelled(console: Console, label: str, text: str, style: str) -> None:
    # Text objects: brackets in a message, or in what a server said, are no markup.
    line = Text(f"{label}:", style).append(f" {printable(text)}", "dim" if style == "dim" else "default not bold")
    console.print(line, soft_wrap=not console.is_terminal)
