"""The entry of the process: the only place that ends it, and the only one where every error arrives.

Nothing is imported at the top but what the interpreter has loaded anyway: Ctrl-C in the middle of an import ends the
program like any other Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error has then been shown."""
    try:
        from synaptic.ui.root import execute  # noqa: PLC0415 - see the top; it imports all the rest

        code = execute(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    return code


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's own flush at exit has somewhere to go."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
