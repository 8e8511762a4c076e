"""``synaptic run``: one question, which is also what a question without a command is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from synaptic.ui.one_shot import ask
from synaptic.ui.options import question_options, with_options

if TYPE_CHECKING:
    from synaptic.ui.options import Options


@click.command("run", epilog="The answer goes to standard output, everything else to standard error.")
@click.argument("question", nargs=-1)
@question_options
@with_options
def run(options: Options, question: tuple[str, ...]) -> int:
    """Ask one question.

    Several words are one question. Text that is piped in goes after it, or is the question where there are no words.
    """
    return ask(question, options)
