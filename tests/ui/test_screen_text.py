"""What is put on a screen: numbers, clean text, lines broken between words."""

import pytest

from synaptic.text.words import one_line, plural, printable, seconds, size
from synaptic.ui.screen.wrap import WordWrapper


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (0.94, "0.9 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (125, "2 min 5 s"), (-1, "0.0 s")],
)
def test_durations(value: float, text: str):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (94_400_000, "94 MB"), (4_700_000_000, "4.7 GB")]
)
def test_sizes(count: int, text: str):
    assert size(count) == text


def test_text_for_the_screen():
    assert printable("a\x1b[1mb\x9bc\x07\r\nd\te") == "a[1mbc\nd\te"
    assert one_line("a\n  b") == "a b"
    assert one_line("x" * 300).endswith("x…")
    assert plural(1, "call") == "1 call"


def wrapped(text: str, width: int | None, pieces: int) -> str:
    wrapper = WordWrapper(lambda: width)
    parts = [text[start : start + pieces] for start in range(0, len(text), pieces)]
    return "".join(wrapper.feed(part) for part in parts) + wrapper.flush()


@pytest.mark.parametrize("pieces", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("one two three", 8, "one two\nthree"),
        ("one two three", None, "one two three"),
        ("one two  \nthree ", 80, "one two  \nthree "),
        ("unbreakable words", 5, "unbreakable\nwords"),
        ("a\n\n  b", 80, "a\n\n  b"),
        ("    code that is longer", 10, "    code that is longer"),
        ("```\ncode that is longer\n```\nprose is wrapped", 10, "```\ncode that is longer\n```\nprose is\nwrapped"),
        ("| a table | row |", 8, "| a table | row |"),
        ("全角文字", 4, "全角\n文字"),
    ],
)
def test_answers_are_wrapped_between_words(text: str, width: int | None, shown: str, pieces: int):
    assert wrapped(text, width, pieces) == shown


def test_wrapping_changes_nothing_but_white_space():
    text = "The quick brown fox\njumps  over the lazy dog. " * 5

    assert wrapped(text, 17, 2).split() == text.split()
    assert max(len(line) for line in wrapped(text, 17, 2).splitlines()) <= 17
