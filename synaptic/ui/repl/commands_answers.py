"""Commands about what is on the screen and what is typed: ``/raw``, ``/copy``, ``/edit``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Final

from synaptic.errors import UsageError
from synaptic.text import plural
from synaptic.ui.repl.conversation import Asked, numbered_turn
from synaptic.ui.screen import copy_text, edit, editor_command

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl
    from synaptic.ui.repl.slash_commands import Call

_CODE: Final = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


async def raw_command(repl: Repl, call: Call) -> None:
    """Turn the rendering of answers off, or on again."""
    call.words(0)
    rendered = not repl.settings.markdown
    repl.change("markdown", "true" if rendered else "false")
    repl.screen.note(f"answers are shown {'as rendered Markdown' if rendered else 'as the model writes them'}")


async def copy_command(repl: Repl, call: Call) -> None:
    """Copy an answer, or the code in it."""
    words = call.words(1)
    if not repl.conversation:
        raise UsageError("there is no answer to copy yet")
    what = words[0] if words else ""
    turn = repl.conversation[-1] if what in {"", "code"} else numbered_turn(call, repl.conversation, what)
    text = last_code(turn.answer) if what == "code" else turn.answer.strip()
    if not text:
        raise UsageError("there is no code in the last answer" if what == "code" else "this turn has no answer")
    where = await copy_text(text, repl.screen.out)
    if not where:
        raise UsageError("there is no clipboard here", hint="/save FILE writes the conversation to a file")
    repl.screen.note(f"copied {plural(len(text), 'character')} ({', '.join(where)})")


async def edit_command(repl: Repl, call: Call) -> None:
    """Let the person write a question in an editor, and ask it."""
    command = editor_command()
    if command is None:
        raise UsageError("neither $VISUAL nor $EDITOR is set", hint="for example: export EDITOR=nano")
    if not repl.screen.live:
        raise UsageError("an editor needs a terminal")
    draft = call.rest or (repl.conversation[-1].question if repl.conversation else "")
    question = (await edit(draft, command, suffix=".md", terminal=sys.stdin.fileno())).strip()
    if not question:
        repl.screen.note("nothing was written, so nothing is asked")
        return
    repl.screen.say(question, bold=True)
    await repl.ask(Asked(question))


def last_code(answer: str) -> str:
    """Return the last block of code in an answer, without its fence; "" where there is none."""
    return next((match["code"].rstrip("\n") for match in reversed(list(_CODE.finditer(answer)))), "")
