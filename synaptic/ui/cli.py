"""The entry of the process: the only place that ends it, and the only one where every error arrives.

Nothing is imported at the top but what the interpreter has loaded anyway: Ctrl-C in the middle of an import ends the
program like any other Ctrl-C.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from synaptic.ui.streams import failure_of, lost_letters, settled, unwritten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FAILED = 1
INTERRUPTED = 130
MADE_BY_A_START = 150_000
"""Objects, about: the prompt has 81,000 when it shows, none of them garbage. To look through them again and again while
they are made was a sixth of a start."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        _collect_no_garbage_yet()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while the streams were set up, or put back
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error has then been shown."""
    with settled():
        try:
            from synaptic.ui.root import execute  # noqa: PLC0415 - see the top; it imports all the rest

            code = execute(arguments)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = INTERRUPTED
        if (lost := lost_letters(sys.stdout)) is not None:
            print(f"hint: {lost}", file=sys.stderr)
        failure = failure_of(sys.stdout)
        # A reader that left early, as in `synaptic ... | head -1`, has what it wanted.
        if failure is None or isinstance(failure, BrokenPipeError):
            return code
        print(f"error: {unwritten(failure)}", file=sys.stderr)
        return code or FAILED


def _collect_no_garbage_yet() -> None:
    """Have Python look for garbage once the program has started, and from then on as usual."""
    usual = gc.get_threshold()

    def begins(phase: str, _: Mapping[str, int]) -> None:
        if phase == "start":
            gc.set_threshold(*usual)
            gc.callbacks.remove(begins)

    gc.callbacks.append(begins)
    gc.set_threshold(MADE_BY_A_START, *usual[1:])
