"""The prompt on a terminal: one event loop, one line after another, until the person leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic import paths
from synaptic.errors import ExitCode
from synaptic.ui.repl.interrupts import LEAVE_HINT, DoublePress, Moment, carry_out
from synaptic.ui.repl.prompt import LineEditor, open_history

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl


async def converse(repl: Repl) -> ExitCode:
    """Read and carry out lines until ``/exit``, Ctrl-D, or Ctrl-C twice on an empty line."""
    history, notice = open_history(paths.state_dir())
    if notice:
        repl.screen.warn(notice)
    editor = LineEditor(repl, history, on_ready=lambda: repl.sessions.warm(repl.settings))
    presses, moment = DoublePress(), Moment()

    def early() -> bool:
        return any((moment.taken(), editor.interrupted()))  # both are asked: each forgets what it tells

    try:
        with moment.heeded():
            while not repl.leaving:
                moment.taken()  # what came behind a run had nothing left to cancel
                try:
                    line = await editor.read()
                except EOFError:
                    break
                except KeyboardInterrupt:
                    if presses.again():
                        break
                    repl.screen.note(LEAVE_HINT)
                    continue
                presses.forget()
                await carry_out(repl, line, early)
    finally:
        await repl.aclose()
    return ExitCode.ANSWERED
