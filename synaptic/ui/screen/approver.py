"""Asks a person on the terminal to accept, edit or refuse a step's prompt or output, or to answer a question."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeAlias

from synaptic.errors import OutputInvalid
from synaptic.runtime import Approval, approve_all
from synaptic.text import cut, printable
from synaptic.ui.screen.asking import ask
from synaptic.ui.screen.editor import EditorFailed, edit, editor_command
from synaptic.ui.screen.keyboard import Keyboard, persons_keyboard
from synaptic.ui.screen.output import as_text
from synaptic.ui.screen.wrap import for_person

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from synaptic.runtime import ApprovalRequest, Approver

Paused: TypeAlias = "Callable[[], AbstractContextManager[None]]"
"""Returns a context in which the terminal belongs to the one who entered it."""

QUESTION: Final = "[a]ccept, [e]dit or [r]efuse? "
UNANSWERED: Final = "nothing was typed; type a, e or r"
_SHOWN: Final = 40
_MARGIN: Final = "    "
_END: Final = "."
_ANSWERS: Final = {
    "a": "accept",
    "accept": "accept",
    "e": "edit",
    "edit": "edit",
    "r": "refuse",
    "refuse": "refuse",
}


def make_approver(*, accept_all: bool, paused: Paused = nullcontext) -> Approver | None:
    """Return who decides: everything is accepted, or the person at the terminal; ``None`` without a terminal.

    Args:
        accept_all: What ``--yes`` says.
        paused: Keeps the view of the run off the terminal for as long as a question is asked.
    """
    if accept_all:
        return approve_all
    keyboard = persons_keyboard()
    return None if keyboard is None else TerminalApprover(sys.stderr, keyboard, paused)


class TerminalApprover:
    """Shows what is to be approved and asks; one question at a time, however many steps wait for an answer."""

    def __init__(self, out: TextIO, keyboard: Keyboard, paused: Paused = nullcontext) -> None:
        self._out = out
        self._keyboard = keyboard
        self._paused = paused
        self._turn = asyncio.Lock()

    async def __call__(self, request: ApprovalRequest) -> Approval:
        """Return the person's decision. A terminal that is closed means: refused."""
        with self._paused():
            async with self._turn:
                with self._keyboard.ready():
                    return await (self._question(request) if request.what == "answer" else self._ask(request))

    async def _question(self, request: ApprovalRequest) -> Approval:
        try:
            return await ask(request, self._keyboard, self._say, outline(request.value))
        except asyncio.CancelledError:
            self._say()
            raise

    async def _ask(self, request: ApprovalRequest) -> Approval:
        draft = as_text(request.value)
        self._say(f"{request.path}: may the run go on with this {request.what}?")
        self._say("\n".join(_MARGIN + line for line in outline(request.value)))
        try:
            while True:
                self._say(QUESTION, end="")
                line = await self._keyboard.line()
                choice = "closed" if line is None else _ANSWERS.get(line.strip().lower())
                if choice == "accept":
                    return Approval("accepted")
                if choice == "refuse":
                    self._say("why? (Enter: no reason) ", end="")
                    return Approval("refused", reason=(await self._keyboard.line() or "").strip())
                if choice == "closed":
                    self._say()
                    return Approval("refused", reason="nobody answered")
                if choice is None:
                    self._say(f"{cut(line or '', _SHOWN)!r} is no answer here; type a, e or r" if line else UNANSWERED)
                if choice == "edit":
                    draft = await self._edited(draft, request)
                    value, wrong = check(draft, request)
                    if wrong is None:
                        return Approval("edited", value)
                    self._say(wrong)
        except asyncio.CancelledError:
            self._say()
            raise

    async def _edited(self, draft: str, request: ApprovalRequest) -> str:
        """Return what the person makes of ``draft``; the same where that fails, after saying why."""
        command = editor_command()
        if command is None:
            return await self._typed(draft, data=not isinstance(request.value, str))
        suffix = ".md" if isinstance(request.value, str) else ".json"
        try:
            return await edit(draft, command, suffix=suffix, terminal=self._keyboard.descriptor)
        except EditorFailed as exc:
            self._say(exc.message)
            return draft

    async def _typed(self, draft: str, *, data: bool) -> str:
        if data:
            self._say("as JSON, this is:")
            self._say("\n".join(_MARGIN + line for line in draft.splitlines()))
        new = "all of it anew, as JSON" if data else "the new text"
        self._say(f"type {new}; a line with nothing but {_END} ends it ($EDITOR, if set, is opened instead)")
        lines: list[str] = []
        while (line := await self._keyboard.line()) is not None and line != _END:
            lines.append(line)
        return "\n".join(lines) or draft

    def _say(self, text: str = "", *, end: str = "\n") -> None:
        self._out.write(for_person(printable(text), self._out) + end)
        self._out.flush()


def check(draft: str, request: ApprovalRequest) -> tuple[Any, str | None]:
    """Return the value that an edited text stands for, and what is wrong with it, if anything."""
    if draft.rstrip("\n") == as_text(request.value).rstrip("\n"):
        return None, "nothing was changed"
    if isinstance(request.value, str):
        return draft, None if draft.strip() else "the text is empty"
    try:
        value = json.loads(draft)
    except (ValueError, RecursionError) as exc:
        return None, f"this is no JSON: {exc}; edit it again, or accept it as it was"
    if request.shape is None:
        return value, None
    try:
        return request.shape.validate(value), None
    except OutputInvalid as exc:
        return None, f"{exc.message}; edit it again, or accept it as it was"


def outline(value: Any) -> list[str]:
    """Return a value as lines for reading: text as it is, records as ``key: value``, lists with ``-``."""
    if isinstance(value, dict):
        return [line for key, entry in value.items() for line in _entry(f"{key}:", entry)] or ["{}"]
    if isinstance(value, list):
        return [line for entry in value for line in _entry("-", entry)] or ["[]"]
    if isinstance(value, str):
        return value.splitlines() or [""]
    return [json.dumps(value, ensure_ascii=False, default=str)]


def _entry(head: str, value: Any) -> list[str]:
    lines = outline(value)
    if len(lines) == 1 and not (isinstance(value, (dict, list)) and value):
        return [f"{head} {lines[0]}"]
    if head == "-":
        return [f"{'-' if index == 0 else ' '} {line}" for index, line in enumerate(lines)]
    return [head, *(f"  {line}" for line in lines)]
