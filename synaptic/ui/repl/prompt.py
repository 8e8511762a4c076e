"""The line editor: keys, history file, completion, and the bar that says where questions go."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from synaptic.processes import own_folder
from synaptic.text import one_line, open_regular, plural, printable
from synaptic.ui.repl.arguments import ends_with_continuation
from synaptic.ui.repl.completion import CommandCompleter, is_command
from synaptic.ui.repl.mentions import path_being_typed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synaptic.ui.repl.repl import Repl

PROMPT: Final = "> "
CONTINUATION: Final = "  "
_HISTORY_FILE: Final = "history"
_BUFFER: Final = "DEFAULT_BUFFER"
_NAME_CELLS: Final = 40
_ANY_WIDTH: Final = 10_000

# Only attributes and reverse video: both are readable on any background, and need no colour.
STYLE: Final = Style.from_dict(
    {
        "prompt": "bold",
        "bottom-toolbar": "reverse",
        "completion-menu": "noinherit reverse",
        "completion-menu.completion.current": "noinherit bold underline",
        "completion-menu.meta.completion.current": "noinherit bold",
    }
)


class LineEditor:
    """Reads what a person types."""

    def __init__(self, repl: Repl, history: History, *, on_ready: Callable[[], None]) -> None:
        self._repl = repl
        self._session: PromptSession[str] = PromptSession(
            message=FormattedText([("class:prompt", PROMPT)]),
            multiline=True,
            prompt_continuation=CONTINUATION,
            history=history,
            completer=CommandCompleter(repl),
            complete_while_typing=Condition(_completes_while_typing),
            search_ignore_case=True,
            enable_open_in_editor=True,
            enable_suspend=True,
            tempfile_suffix=".md",
            key_bindings=key_bindings(),
            style=STYLE,
            bottom_toolbar=lambda: [("class:bottom-toolbar", f" {status_line(repl, _columns() - 2)} ")],
        )
        self._session.app.after_render += lambda _: on_ready()

    async def read(self) -> str:
        """Return what was typed.

        Raises:
            KeyboardInterrupt: On Ctrl-C, where there is nothing to clear.
            EOFError: On Ctrl-D on an empty line, or when the terminal is gone.
        """
        vi = self._repl.settings.editing == "vi"
        self._session.editing_mode = EditingMode.VI if vi else EditingMode.EMACS
        return await self._session.prompt_async()

    def interrupted(self) -> bool:
        """Return whether Ctrl-C was pressed behind the line that was read last; what is behind that stays typed.

        It is a key here and no signal where it was pressed before the terminal left the prompt's mode.
        """
        source = self._session.app.input
        with source.raw_mode():
            keys = [*get_typeahead(source), *source.read_keys()]
        last = max((place for place, key in enumerate(keys) if key.key is Keys.ControlC), default=-1)
        store_typeahead(source, keys[last + 1 :])
        return last >= 0


def key_bindings() -> KeyBindings:
    """Return the keys in which this prompt differs from others."""
    bindings = KeyBindings()
    typing = has_focus(_BUFFER)

    @bindings.add("enter", filter=typing)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
            buffer.complete_state = None
        elif ends_with_continuation(buffer.document.text_before_cursor):
            buffer.delete_before_cursor()
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @bindings.add("tab", filter=typing)
    def _complete(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None:
            buffer.complete_next()
            return
        # At once, where there is only one: the menu comes a moment later, and Enter may be faster.
        completions = list(buffer.completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
        if len(completions) == 1:
            buffer.apply_completion(completions[0])
        else:
            buffer.start_completion(insert_common_part=True)

    @bindings.add("escape", "enter", filter=typing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @bindings.add("c-c", filter=typing)
    @bindings.add(Keys.SIGINT)
    def _interrupt(event: KeyPressEvent) -> None:
        buffer = event.app.layout.get_buffer_by_name(_BUFFER)
        if buffer is not None and buffer.text:
            buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    return bindings


def _columns() -> int:
    return get_app().output.get_size().columns


def status_line(repl: Repl, width: int = _ANY_WIDTH) -> str:
    """Return what the bar says: pipeline, model, backend, turns, tokens, and how full the context was.

    What does not fit in ``width`` cells is left out, from the end, and never cut.
    """
    route = repl.sessions.route
    model = repl.settings.model or (route.model if route else None)
    parts = [
        one_line(repl.pipeline_name, _NAME_CELLS),
        one_line(model, _NAME_CELLS) if model else "",
        one_line(route.backend, _NAME_CELLS) if route else "",
        plural(len(repl.conversation), "turn") if repl.conversation else "",
        plural(repl.usage.total_tokens, "token") if repl.usage and repl.usage.total_tokens else "",
        _context_used(repl),
    ]
    told = [printable(part) for part in (*parts, "/help") if part]
    while len(told) > 1 and get_cwidth(" · ".join(told)) > width:
        told.pop()
    return " · ".join(told)


def _context_used(repl: Repl) -> str:
    """Return how much of the model's context the largest call of the last run took; "" where that is not known."""
    if repl.last_run is None or not repl.context:
        return ""
    calls = (step.usage.total_tokens for step in repl.last_run.steps if step.attempts == 1)
    most = max(calls, default=0)
    return f"context {min(most / repl.context, 1):.0%}" if most else ""


def open_history(directory: Path) -> tuple[History, str | None]:
    """Return the history kept in ``directory``, for the user's eyes only; and what to say where there is none."""
    path = directory / _HISTORY_FILE
    try:
        own_folder(directory, 0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0), 0o600)
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        open_regular(path).close()
    except OSError as exc:
        return InMemoryHistory(), f"what you type is not remembered: {path}: {exc.strerror or exc}"
    return _LastingHistory(path), None


class _LastingHistory(FileHistory):
    """A history file that may become unwritable; the prompt goes on without it."""

    def store_string(self, string: str) -> None:
        """Append a line to the file."""
        with contextlib.suppress(OSError):
            super().store_string(string)


def _completes_while_typing() -> bool:
    document = get_app().current_buffer.document
    return is_command(document.text) or path_being_typed(document.text_before_cursor) is not None
