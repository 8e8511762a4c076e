"""How Markdown looks on a terminal: rich's, with headings on the left, code without a ground, and nothing hidden."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from markdown_it import MarkdownIt
from rich.console import Console
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.syntax import Syntax
from rich.theme import Theme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from rich.console import ConsoleOptions, RenderResult

Look: TypeAlias = Literal["auto", "light", "dark", "none"]

_PARSER: Final = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")
"""Elements of HTML and XML in an answer are text: a terminal shows them, or they would be lost."""

_SHAPES: Final = {
    "markdown.h1": "bold underline",
    "markdown.h2": "bold",
    "markdown.h3": "bold",
    "markdown.h4": "bold italic",
    "markdown.h5": "italic",
    "markdown.h6": "italic",
    "markdown.block_quote": "italic",
    "markdown.link": "underline",
    "markdown.link_url": "underline",
    "markdown.table.header": "bold",
    "markdown.table.border": "dim",
    "markdown.hr": "dim",
    "markdown.item.bullet": "bold",
    "markdown.item.number": "bold",
    "markdown.code": "bold",
    "markdown.code_block": "none",
}
_COLOURS: Final[Mapping[str, Mapping[str, str]]] = {
    "none": {},
    "light": {"markdown.code": "blue", "markdown.h1": "bold underline blue", "markdown.h2": "bold blue"},
    "dark": {"markdown.code": "cyan", "markdown.h1": "bold underline cyan", "markdown.h2": "bold cyan"},
}
CODE_THEMES: Final = {"none": "bw", "light": "ansi_light", "dark": "ansi_dark"}

_TRAILING: Final = re.compile(r"[ \t]+((?:\x1b\[[0-9;]*m)*)$")


def actual_look(look: Look, environ: Mapping[str, str] = os.environ) -> Literal["light", "dark", "none"]:
    """Return the look that ``auto`` is: what the terminal says of its background, where it says so; else dark."""
    if environ.get("NO_COLOR"):
        return "none"
    if look != "auto":
        return look
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in {"7", "15"} else "dark"


class _LeftHeading(Heading):
    """A heading where the text begins, without a box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _PlainCode(CodeBlock):
    """Code as it is copied: without a ground and without blanks around it; long lines go on in the next."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip("\n")
        yield Syntax(code, self.lexer_name, theme=self.theme, background_color="default", word_wrap=True)


class AnswerMarkdown(Markdown):
    """An answer, rendered."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
        "fence": _PlainCode,
        "code_block": _PlainCode,
    }

    def __init__(self, text: str, look: str) -> None:
        super().__init__("", code_theme=CODE_THEMES[look], hyperlinks=False)  # an address that is hidden may be any
        self.markup = text
        self.parsed = _PARSER.parse(text)
        for child in (child for token in self.parsed for child in token.children or ()):
            if child.type == "softbreak":  # a poem, an address: models write lines where they mean lines
                child.type = "hardbreak"


def answer_console(out: TextIO, look: str) -> Console:
    """Return a console that draws answers."""
    styles = {**_SHAPES, **_COLOURS[look]}
    return Console(file=out, theme=Theme(styles), highlight=False, no_color=look == "none" or None)


def rendered(console: Console, text: str, look: str) -> str:
    """Return Markdown as the console writes it: no blanks at the ends of lines, no empty lines around it."""
    with console.capture() as captured:
        console.print(AnswerMarkdown(text, look))
    lines = [_TRAILING.sub(r"\1", line) for line in captured.get().splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def complete_blocks(text: str) -> int:
    """Return how much of a growing text is blocks that will not change any more: all but the last one.

    The line that is being written is not looked at: ``2`` may become the next item of a list.
    """
    text = text[: text.rfind("\n") + 1]
    tokens: list[Any] = [
        token for token in _PARSER.parse(text) if token.level == 0 and token.map and token.nesting >= 0
    ]
    if len(tokens) < 2:
        return 0
    line = tokens[-1].map[0]
    return sum(len(each) for each in text.splitlines(keepends=True)[:line])
