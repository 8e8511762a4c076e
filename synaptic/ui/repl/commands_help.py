"""``/help``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.ui.repl.slash_commands import PREFIX, Call, Command

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl

KEYS: Final = (
    ("Enter", "send"),
    ("Alt-Enter, \\ Enter", "a new line"),
    ("Tab", "complete"),
    ("Up, Ctrl-R", "what was typed before"),
    ("Ctrl-X Ctrl-E", "write the line in $EDITOR"),
    ("Ctrl-C", "cancel what runs, else clear the line; twice on an empty line: leave"),
    ("Ctrl-D", "leave"),
)


async def help_command(repl: Repl, call: Call) -> None:
    """Print the commands, or one in detail."""
    words = call.words(1)
    if words:
        explain(repl, repl.registry.find(words[0]))
        return
    repl.screen.say("Whatever you type is a question, unless it begins with a slash.")
    repl.screen.say("A question that begins with one is written with two: //etc is what?")
    repl.screen.say()
    repl.screen.table([(_usage(entry), entry.help) for entry in repl.registry])
    repl.screen.say()
    repl.screen.table(KEYS)


def explain(repl: Repl, entry: Command) -> None:
    """Print all there is to know of a command."""
    repl.screen.say(entry.usage, bold=True)
    repl.screen.say(f"  {entry.help}.")
    for line in entry.details.splitlines():
        repl.screen.say(f"  {line}")
    if entry.aliases:
        repl.screen.say(f"  Also {', '.join(PREFIX + alias for alias in entry.aliases)}.")
    repl.screen.say(f"  Example: {entry.example}")


def _usage(entry: Command) -> str:
    return ", ".join([entry.usage, *(PREFIX + alias for alias in entry.aliases)])
