"""``synaptic chat``: the REPL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synaptic.errors import UsageError
from synaptic.ui.commands.support import load
from synaptic.ui.options import chat_options, with_options
from synaptic.ui.repl import open_repl

if TYPE_CHECKING:
    from synaptic.ui.options import Options


@click.command("chat", epilog="Type /help at the prompt for what can be done there.")
@chat_options
@with_options
def chat(options: Options) -> int:
    """Talk with the agents; later questions know the earlier ones. Piped lines are typed one by one."""
    if options.json or options.plan or options.inputs:
        raise UsageError("--json, --plan and -i are for one question, not for a chat", hint="add the question")

    return open_repl(
        load(options),
        config_path=options.config_path,
        overrides=list(options.overrides),
        flags=options.flags,
        verbose=options.verbose,
        tools=options.tools,
        accept_all=options.yes,
        go_on=options.go_on,
        session=options.session,
        files=options.files,
    )
