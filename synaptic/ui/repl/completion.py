"""Completion of slash commands and their arguments, and of files that a question names."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion

from synaptic.errors import SynapticError
from synaptic.text import one_line, printable
from synaptic.ui.repl.arguments import quoted, word_at_end
from synaptic.ui.repl.candidates import OF_COMMAND, files
from synaptic.ui.repl.mentions import path_being_typed
from synaptic.ui.repl.slash_commands import ESCAPED_PREFIX, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prompt_toolkit.document import Document

    from synaptic.ui.repl.repl import Repl


class CommandCompleter(Completer):
    """Completes what stands before the cursor, if it is a command."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield the completions of the word at the cursor."""
        del complete_event
        text = document.text_before_cursor.lstrip()
        if not is_command(text):
            yield from _files(text)
            return
        name, space, rest = text.partition(" ")
        if not space:
            yield from self._names(name)
            return
        # A broken agent or pipeline file is reported when it is used, not while a person types.
        with contextlib.suppress(SynapticError):
            yield from self._arguments(name, rest)

    def _names(self, word: str) -> Iterator[Completion]:
        for name, command in self._repl.registry.names().items():
            full = PREFIX + name
            if full.startswith(word.lower()) and full != word:
                meta = command.help if name == command.name else f"{PREFIX}{command.name}"
                yield Completion(full, -len(word), display_meta=meta)

    def _arguments(self, name: str, rest: str) -> Iterator[Completion]:
        command = self._repl.registry.names().get(name.removeprefix(PREFIX).lower())
        if command is None or command.name not in OF_COMMAND:
            return
        before, word, typed = word_at_end(rest)
        for candidate in list(OF_COMMAND[command.name](self._repl, before, word)):
            if candidate.text.lower().startswith(word.lower()) and candidate.text != word:
                meta = one_line(candidate.about, 60)
                shown = candidate.text if candidate.more else quoted(candidate.text)
                yield Completion(shown, -typed, display=printable(candidate.text), display_meta=meta)


def _files(text: str) -> Iterator[Completion]:
    """Yield what a path behind ``@`` may become."""
    word = path_being_typed(text)
    for candidate in () if word is None else files(word):
        if word is not None and candidate.text.lower().startswith(word.lower()) and candidate.text != word:
            blank = " " in candidate.text and not text[: -len(word) or None].endswith('"')
            shown = f'"{candidate.text}{"" if candidate.more else chr(34)}' if blank else candidate.text
            yield Completion(shown, -len(word), display=printable(candidate.text), display_meta=candidate.about)


def is_command(text: str) -> bool:
    """Return whether ``text`` is the beginning of a command on one line."""
    return text.startswith(PREFIX) and not text.startswith(ESCAPED_PREFIX) and "\n" not in text
