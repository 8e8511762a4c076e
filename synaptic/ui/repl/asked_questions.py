"""A question as it is recorded: when it is asked, before what answers it is loaded, so that no kill loses it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from synaptic import runtime
from synaptic.errors import JournalError
from synaptic.ui.repl.other_programs import goes_on_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.runtime import AskedQuestion
    from synaptic.settings import Settings
    from synaptic.ui.repl.conversation import Turn


class KeptQuestion(NamedTuple):
    """A question that is recorded, where it can be.

    Attributes:
        kept_as: The conversation that it is part of: its own, where another program asked at the same moment.
    """

    question: AskedQuestion
    kept_as: str | None


def record_question(
    question: AskedQuestion, turns: Sequence[Turn], settings: Settings, *, instead: Turn | None = None
) -> KeptQuestion:
    """Record what is asked behind the turns that there are; ``instead`` stays unless there is another answer."""
    from synaptic.backends import pool  # noqa: PLC0415 - while the first question is typed

    kept_as = question.descent.session
    if settings.journal != "off":
        with suppress(JournalError), runtime.Journal() as journal:  # its run says what is wrong
            after = goes_on_from(journal, turns)
            replaced = None if instead is None else goes_on_from(journal, [instead])
            question = replace(question, descent=replace(question.descent, after=after, instead=replaced))
            kept_as = journal.ask(question, pool.known_secrets(settings.nodes, os.environ))
    return KeptQuestion(question, kept_as)


def forget_question(recorded: KeptQuestion) -> None:
    """Remove a question of which the run did not begin."""
    with suppress(JournalError), runtime.Journal() as journal:
        journal.forget_question(recorded.question.run_id)
