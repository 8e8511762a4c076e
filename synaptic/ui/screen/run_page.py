"""Recorded runs and conversations as a terminal shows them: a run with its steps as a tree, answers rendered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree

from synaptic.text import one_line, printable
from synaptic.ui.screen.markdown_look import CODE_THEMES, AnswerMarkdown, actual_look, answer_console
from synaptic.ui.screen.output import as_text
from synaptic.ui.screen.run_view import parent
from synaptic.ui.screen.runs_view import head_lines, step_summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from rich.console import RenderableType

    from synaptic.runtime import RunAccount, StepAccount

_STYLES: Final = {"succeeded": "green", "failed": "red", "skipped": "dim", None: "yellow"}
_INDENT: Final = 4
_TRAILING: Final = re.compile(r"[ \t]+((?:\x1b\[[0-9;]*m)*)$", re.MULTILINE)


def account_page(account: RunAccount, only: str | None, out: TextIO) -> str:
    """Return a run in full, or one step of it, with the colours of a terminal; ``NO_COLOR`` takes them off."""
    look = actual_look("auto")
    return _page(_parts(account, only, look), look, out)


def talk_page(turns: Iterable[tuple[str, str, str]], name: str, out: TextIO) -> str:
    """Return a conversation, with the colours of a terminal; ``NO_COLOR`` takes them off.

    A turn is its question, its answer, and how it ended where that was not well.
    """
    look = actual_look("auto")
    return _page(_turns(turns, name, look), look, out)


def _page(parts: Iterable[RenderableType], look: str, out: TextIO) -> str:
    console = answer_console(out, look)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return _TRAILING.sub(r"\1", captured.get()).strip("\n")


def _turns(turns: Iterable[tuple[str, str, str]], name: str, look: str) -> Iterator[RenderableType]:
    yield Text(printable(name), "bold")
    for question, answer, remark in turns:
        yield ""
        yield Text(printable(f"> {question}"), "bold")
        if answer:
            yield ""
            yield _said(answer.strip(), look)
        if remark:
            yield Text(printable(f"\n({remark})"), "yellow")


def _parts(account: RunAccount, only: str | None, look: str) -> Iterator[RenderableType]:
    if only is None:
        yield from _head(account, look)
    for step in account.steps:
        if only is None or step.path == only:
            yield from _step(step, look)
    if only is None and account.result is not None:
        yield Text("\nanswer", "bold")
        yield _block(_said(account.result.text, look))


def _head(account: RunAccount, look: str) -> Iterator[RenderableType]:
    first, *others = head_lines(account)
    yield Text(printable(first), "bold")
    for line in others:
        yield Text(printable(line), "red" if line.startswith("  error:") else "dim")
    for name, value in account.beginning.inputs.items():
        yield Text(f"  {printable(name)}")
        yield _block(Text(printable(value)) if isinstance(value, str) else _data(value, look))
    if account.steps:
        yield ""
        yield _tree(account)


def _tree(account: RunAccount) -> Tree:
    """Return the steps below those that they belong to, with how each ended."""
    root = Tree(Text("steps", "bold"), guide_style="dim")
    rows: dict[str, Tree] = {}
    for step in account.steps:
        above = parent(step.path)
        while above is not None and above not in rows:
            above = parent(above)
        rows[step.path] = (root if above is None else rows[above]).add(_title(step))
    return root


def _title(step: StepAccount) -> Text:
    result = step.result
    style = _STYLES.get(result.status if result else None, "yellow")
    return Text.assemble((printable(step.path), "bold"), "  ", (one_line(step_summary(step)), style))


def _step(step: StepAccount, look: str) -> Iterator[RenderableType]:
    yield ""
    yield _title(step)
    for trouble in step.troubles:
        yield Text(f"  {one_line(trouble)}", "yellow")
    for message in step.messages:
        yield from _section(f"asked ({message.role})", Text(printable(message.content)))
    if step.asked is not None and step.asked.tool is not None:
        yield from _section(f"called {step.asked.tool}", _data(dict(step.asked.arguments or {}), look))
    if step.thought:
        yield from _section("thought", Text(printable(step.thought), "italic dim"))
    if step.result is None:
        if step.said:
            yield from _section("had said", _said(step.said, look))
    elif step.result.output is not None:
        yield from _section("said", _said(step.result.output, look))


def _section(label: str, body: RenderableType) -> Iterator[RenderableType]:
    yield Text(f"  {printable(label)}", "dim")
    yield _block(body)


def _block(body: RenderableType) -> Padding:
    return Padding(body, (0, 0, 0, _INDENT), expand=False)


def _said(output: Any, look: str) -> RenderableType:
    """Return text as Markdown, and data as JSON."""
    return AnswerMarkdown(printable(output), look) if isinstance(output, str) else _data(output, look)


def _data(data: Any, look: str) -> RenderableType:
    text = printable(as_text(data))
    return Syntax(text, "json", theme=CODE_THEMES[look], background_color="default", word_wrap=True)
