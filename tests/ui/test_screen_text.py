"""What is put on a screen: numbers, clean text, lines broken between words."""

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from synaptic.errors import UsageError
from synaptic.text.unseen import printable, printable_json, visible
from synaptic.text.words import (
    ago,
    cut,
    gib,
    latency,
    one_line,
    plural,
    rough_seconds,
    seconds,
    size,
    whole_seconds,
)
from synaptic.ui.repl.screen import Screen
from synaptic.ui.root import execute
from synaptic.ui.screen.approver import TerminalApprover
from synaptic.ui.screen.console import show_bug, show_error, show_hint, stderr_console
from synaptic.ui.screen.keyboard import Keyboard
from synaptic.ui.screen.output import write_paragraph, write_table, write_text
from synaptic.ui.screen.render import AnswerWriter
from synaptic.ui.screen.wrap import WordWrapper, in_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04, "0.0 s"),
        (0.94, "0.9 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (125, "2 min 5 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (-1, "0.0 s"),
    ],
)
def test_durations(value: float, text: str):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1, "0 s"), (0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (90, "1 min 30 s"), (7500, "2 h 5 min")],
)
def test_durations_to_the_second(value: float, text: str):
    assert whole_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "10 s"), (14, "10 s"), (44, "40 s"), (61, "1 min"), (200, "3 min"), (3 * 3600, "3 h"), (12 * 86400, "12 d")],
)
def test_guessed_durations_have_one_unit(value: float, text: str):
    assert rough_seconds(value) == text
    assert ago(value) == ("now" if value < 60 else f"{text} ago")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (28e-6, "28 µs"),
        (0.00031, "0.31 ms"),
        (0.014, "14 ms"),
        (0.999, "999 ms"),
        (0.9999, "1.0 s"),
        (3.14, "3.1 s"),
        (125.0, "2 min 5 s"),
    ],
)
def test_latencies_have_two_digits(value: float, text: str):
    assert latency(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(34 << 20, "34 MiB"), (350 << 20, "0.34 GiB"), (3 << 30, "3.0 GiB"), (80 << 30, "80.0 GiB")]
)
def test_sizes_of_memory(count: int, text: str):
    assert gib(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (94_400_000, "94 MB"), (4_700_000_000, "4.7 GB")]
)
def test_sizes(count: int, text: str):
    assert size(count) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("a\x9b1mb", "a\\x9b1mb", id="C1"),
        pytest.param("if \u202ebad\u2069", "if \\u202ebad\\u2069", id="bidi"),
        pytest.param("one\u200btwo\ufeff\u2060\xad", "one\\u200btwo\\ufeff\\u2060\\xad", id="zero width"),
        pytest.param("hi\U000e0041\U000e007f", "hi\\U000e0041\\U000e007f", id="tags"),
        pytest.param("a\ufe00\ufe01 b\U000e0100", "a\\ufe00\\ufe01 b\\U000e0100", id="selectors that hide bytes"),
        pytest.param("a\ufe00b\ufe0e 7\ufe05ж\ufe02", "a\\ufe00b\\ufe0e 7\\ufe05ж\\ufe02", id="one selector a letter"),
        pytest.param("a\u034fb \u180b1\u180f", "a\\u034fb \\u180b1\\u180f", id="other selectors and joiners"),
        pytest.param("жи\u200dщ\u200cлю", "жи\\u200dщ\\u200cлю", id="joiners between other letters"),
        pytest.param("1\ufe0f\u20e3 ⚠\ufe0e 0\ufe00 ᠠ\u180b 中\ufe00", "", id="selectors that select"),
        pytest.param("pass\u200dword\u200c\u200c", "pass\\u200dword\\u200c\\u200c", id="joiners between letters"),
        pytest.param("a\u2028b\u3164", "a\\u2028b\\u3164", id="lines and fillers"),
        pytest.param("👩\u200d💻 ❤\ufe0f می\u200cکنم 葛\U000e0100 naïve", "", id="what emoji and scripts need"),
    ],
)
def test_what_hides_is_shown_as_what_it_is(text: str, shown: str):
    assert printable(text) == (shown or text)
    assert visible(f"\x1b[1m{text}\x1b[0m") == f"\x1b[1m{shown or text}\x1b[0m"
    document = json.dumps({text: [text]}, ensure_ascii=False, indent=2)
    assert json.loads(printable_json(document)) == {text: [text]}
    assert (printable_json(document) == document) is not bool(shown)


def test_text_for_the_screen():
    assert printable("a\x1b[1mbc\x07\r\nd\te") == "a[1mbc\nd\te"
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two three four", "one two\nthree four"),
        ("one two  three\n\nx", "one two\nthree\n\nx"),
        ("  one two three", "  one two\n  three"),
        ("one unbreakablewords", "one\nunbreakablewords"),
        ("全角文字 全角文字", "全角文字\n全角文字"),
        ("asked (y/n)? ", "asked\n(y/n)? "),
        ("         deep", "         deep"),
        ("", ""),
    ],
)
def test_messages_are_broken_between_words(text: str, shown: str):
    assert in_words(text, 10) == shown


@contextmanager
def narrow(columns: int) -> Iterator[tuple[TextIO, Callable[[], list[str]]]]:
    """Give a terminal to write to, and what reads the lines that were written."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(follower, "w", encoding="utf-8") as out, os.fdopen(leader, "rb", buffering=0) as far_end:

        def lines() -> list[str]:
            print(END, file=out, flush=True)
            data = b""
            while END not in data.decode(errors="replace"):
                data += far_end.read(1 << 16)
            return data.decode().replace("\r", "").partition(END)[0].rstrip("\n").split("\n")

        yield out, lines


END = "(the end)"
TALE = "nothing answers at http://127.0.0.1:11434, the extraordinarily patient neighbour said"


def as_error(out: TextIO) -> None:
    show_error(stderr_console(out), UsageError(TALE, hint=TALE))


WRITERS: dict[str, Callable[[TextIO], object]] = {
    "text": lambda out: write_text(TALE, out),
    "paragraph": lambda out: write_paragraph("label", TALE, out),
    "table": lambda out: write_table(("NAME", "WHAT"), [("desk", TALE)], out),
    "error": as_error,
    "hint": lambda out: show_hint(stderr_console(out), TALE),
    "said at the prompt": lambda out: Screen(out, out, live=True).say(TALE),
    "noted at the prompt": lambda out: Screen(out, out, live=True).note(TALE),
    "warned at the prompt": lambda out: Screen(out, out, live=True).warn(TALE),
    "error at the prompt": lambda out: Screen(out, out, live=True).error(UsageError(TALE, hint=TALE)),
    "question": lambda out: TerminalApprover(out, Keyboard(0))._say(TALE),
    "answer": lambda out: AnswerWriter(out).add(f"{TALE} \n"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_no_word_is_cut_at_the_edge_of_a_terminal(write: Callable[[TextIO], object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "32")  # rich asks the standard streams alone, and they are none here
    with narrow(32) as (out, lines):
        write(out)
        found = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines()]

    assert len(found) > 2
    assert max(map(len, found)) <= 33  # a label and the address, which is longer than the rest
    assert set(TALE.split()) <= {word for line in found for word in line.split()}


ENDS = {"usage": lambda: execute(["--bogus"]), "bug": lambda: show_bug(ValueError(TALE), verbose=False)}


@pytest.mark.parametrize("write", ENDS.values(), ids=ENDS)
def test_what_ends_the_program_is_not_cut_either(write: Callable[[], object], monkeypatch: pytest.MonkeyPatch):
    with narrow(20) as (out, lines):
        monkeypatch.setattr(sys, "stderr", out)
        write()
        found = lines()

    assert len(found) > 2
    assert all(len(line) <= 20 or " " not in line for line in found)
