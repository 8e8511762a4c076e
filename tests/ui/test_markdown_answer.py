"""Answers as rendered Markdown while they stream: what stays on the screen, and that nothing of them is lost."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from render_support import ROWS, Terminal, make_plan, run_finished, show, started
from rich.console import Console

from synaptic.runtime.events import RunStarted, StepThought, TokenDelta
from synaptic.ui.screen import markdown_look
from synaptic.ui.screen.markdown_answer import MOST_GROWING, MarkdownWriter
from synaptic.ui.screen.markdown_look import actual_look, answer_console, complete_blocks, rendered
from synaptic.ui.screen.render import make_renderer

ANSWER = """\
# Heat pumps

A **heat pump** moves heat; it is a *refrigerator* the other way round, and `cop` is how good it is.

1. It evaporates.

2. It is compressed.

| season | COP |
|---|---|
| winter | 2.8 |

```python
def cop(heat, work):

    return heat / work
```

<analysis>kept</analysis> and [a link](https://example.com/page).

> Quoted.

- one
- two
"""

SHOWN = """\
Heat pumps

A heat pump moves heat; it is a refrigerator the other way round, and cop is how good it is.

 1 It evaporates.
 2 It is compressed.

 season  COP
 ───────────
 winter  2.8

def cop(heat, work):

    return heat / work

<analysis>kept</analysis> and a link (https://example.com/page).

▌ Quoted.

 • one
 • two"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the terminals of this file, which have no size of their own, one."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", str(ROWS))
    monkeypatch.setenv("TERM", "xterm-256color")


def written(text: str, size: int, look: str = "none") -> Terminal:
    """Return the terminal after an answer that came in pieces of so many characters."""
    terminal = Terminal()
    writer = MarkdownWriter(terminal, look)  # type: ignore[arg-type]
    for start in range(0, len(text), size):
        writer.add(text[start : start + size])
    writer.end_line()
    return terminal


def lines_of(text: str) -> list[str]:
    """Return the lines that say something, without blanks around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_an_answer_looks_the_same_however_it_comes(size: int):
    screen = written(ANSWER, size).screen(60)

    assert lines_of("\n".join(screen)) == lines_of(SHOWN)


def test_lines_of_plain_text_stay_lines():
    assert lines_of("\n".join(written("Roses are red\nViolets are blue\n", 3).screen())) == [
        "Roses are red",
        "Violets are blue",
    ]


def test_code_is_copied_as_it_was_written():
    screen = written(ANSWER, 11).screen(60)

    start = screen.index("def cop(heat, work):")
    assert screen[start : start + 3] == ["def cop(heat, work):", "", "    return heat / work"]


def test_what_is_higher_than_the_terminal_is_whole_in_the_end():
    answer = "```\n" + "".join(f"line {number}\n" for number in range(60)) + "```\nDone.\n"

    screen = written(answer, 9).screen(90)

    assert lines_of("\n".join(screen)) == [*(f"line {number}" for number in range(60)), "Done."]


def test_only_blocks_that_will_not_change_are_complete():
    done = [ANSWER[: complete_blocks(ANSWER[:end])] for end in range(len(ANSWER) + 1)]

    assert all(later.startswith(earlier) for earlier, later in pairwise(done))
    assert {"", "# Heat pumps\n\n"} <= set(done)
    assert not any(text.endswith("evaporates.\n\n") for text in done), "a list with blank lines is one list"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_cut(width: int):
    text = "Refrigerators evaporate refrigerants, which is remarkable. " * 8
    console = answer_console(Terminal(), "none")
    console.width = width

    shown = rendered(console, text, "none")

    assert max(map(len, shown.splitlines())) <= width
    assert shown.split() == text.split()


@pytest.mark.parametrize(
    ("chosen", "environ", "expected"),
    [
        ("auto", {}, "dark"),
        ("auto", {"COLORFGBG": "0;15"}, "light"),
        ("auto", {"COLORFGBG": "15;0"}, "dark"),
        ("light", {"COLORFGBG": "15;0"}, "light"),
        ("dark", {"NO_COLOR": "1"}, "none"),
        ("none", {}, "none"),
    ],
)
def test_the_look_follows_what_the_person_and_the_terminal_say(chosen: str, environ: dict[str, str], expected: str):
    assert actual_look(chosen, environ) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("look", ["none", "light", "dark"])
def test_without_colours_there_are_none(look: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = answer_console(Terminal(), look)
    colours = re.findall(r"\x1b\[[\d;]*?(?:3|9)[0-7]m", rendered(console, ANSWER, look))

    assert bool(colours) == (look != "none")


def test_control_characters_of_a_model_do_nothing():
    shown = written("Hello \x1b[2Jworld\x07, **bold\x1b]52;c;eA==\x07**\n", 5).getvalue()

    assert "\x1b[2J" not in shown and "\x1b]52" not in shown and "\x07" not in shown


def test_a_run_writes_its_answer_once():
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=100)
    renderer = make_renderer(console=console, out=terminal, look="none")
    plan = make_plan()
    thought = "Let me think **hard**."
    events = [
        RunStarted("r", plan, 1.0),
        started("write", agent="writer"),
        TokenDelta("write", thought),
        StepThought("write"),
        TokenDelta("write", "# So\n\nBecause of "),
        TokenDelta("write", "**physics**."),
    ]

    show(renderer, [*events, replace_answer("# So\n\nBecause of **physics**.")])

    text = "\n".join(terminal.screen(60))
    assert text.count("Because of physics.") == 1
    assert text.count("So\n") == 1
    assert "the text above was thinking" in text


def replace_answer(text: str):
    event = run_finished(text)
    return replace(event, result=replace(event.result, answer=text))


@pytest.mark.parametrize("line", ["a", "1. a"])
def test_many_short_lines_are_not_all_read_again_for_each(line: str, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []

    def counted(text: str) -> int:
        read.append(len(text))
        return complete_blocks(text)

    monkeypatch.setattr(markdown_look, "complete_blocks", counted)
    text = f"{line}\n" * 300
    written(text, len(line) + 1)
    assert read
    assert sum(read) <= 12 * len(text), "150 times as much, if each line had all before it read"


def test_a_block_without_an_end_is_written_as_it_comes():
    block = "".join(f"{number}\n" for number in range(MOST_GROWING // 4))
    assert len(block) > MOST_GROWING

    shown = written(f"# Title\n\n{block}last", 2000).getvalue()

    assert "Title" in shown
    assert shown.endswith(f"{block}last\n")
