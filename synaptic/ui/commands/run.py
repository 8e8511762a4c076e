"""``synaptic run``: one question, which is also what a question without a command is."""

from __future__ import annotations

from typing import Any

import click

from synaptic.ui.one_shot import ask
from synaptic.ui.options import given, question_options


@click.command("run", epilog="The answer goes to standard output, everything else to standard error.")
@click.argument("question", nargs=-1)
@question_options
@click.pass_context
def run(context: click.Context, /, question: tuple[str, ...], **values: Any) -> int:
    """Ask one question.

    Several words are one question. Text that is piped in goes after it, or is the question where there are no words.
    """
    return ask(question, given(context, **values))
