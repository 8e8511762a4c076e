"""One line carried out under Ctrl-C; the same for every way in which lines come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from synaptic.ui.repl.interrupts import Interrupted, interruptible, not_pressed, without_echo

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.ui.repl.repl import Repl

LEAVE_HINT: Final = "Ctrl-C once more, or Ctrl-D, leaves."


async def carry_out(repl: Repl, line: str, early: Callable[[], bool] = not_pressed) -> bool:
    """Carry out a line and return whether it came to its end: Ctrl-C cancels it, and nothing else.

    ``early`` tells of a Ctrl-C that came with the line, as :func:`interruptible` has it.
    """
    turns = len(repl.conversation)
    try:
        with without_echo(sys.stdin):
            await interruptible(repl.handle(line), early)
    except Interrupted:
        kept = len(repl.conversation) > turns and repl.conversation[-1].answer
        repl.screen.note("the answer so far is part of the conversation" if kept else "interrupted")
        return False
    return True
