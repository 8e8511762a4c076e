"""The clipboard: which ones there are, and what they get."""

import base64
import io
import stat
from pathlib import Path

import pytest

from synaptic.ui.repl.commands_answers import last_code
from synaptic.ui.screen.clipboard import MOST_BYTES, copy_text, osc52, programs

EVERY = frozenset({"tmux", "wl-copy", "xclip", "xsel", "clip.exe", "pbcopy"})


@pytest.mark.parametrize(
    ("environ", "there", "expected"),
    [
        ({}, EVERY - {"pbcopy"}, []),
        ({}, EVERY, ["pbcopy"]),
        ({"DISPLAY": ":0"}, {"xclip", "xsel"}, ["xclip"]),
        ({"DISPLAY": ":0"}, {"xsel"}, ["xsel"]),
        ({"WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}, {"wl-copy", "xclip"}, ["wl-copy", "xclip"]),
        ({"TMUX": "/tmp/t"}, EVERY, ["tmux", "pbcopy"]),
        ({"WSL_DISTRO_NAME": "Debian"}, {"clip.exe"}, ["clip.exe"]),
        ({"DISPLAY": ":0"}, set(), []),
    ],
)
def test_the_programs_that_are_there_and_have_a_clipboard(
    environ: dict[str, str], there: set[str], expected: list[str]
):
    found = programs(environ, lambda name: name if name in there else None)

    assert [command[0] for command in found] == expected


def test_the_terminal_gets_the_text_unless_it_is_too_long():
    assert base64.b64decode(osc52("Größe")[7:-1]).decode() == "Größe"
    assert osc52("x" * MOST_BYTES)
    assert osc52("x" * (MOST_BYTES + 1)) == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clipboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one program for its clipboard, which keeps what it gets in a file."""
    program = tmp_path / "xclip"
    program.write_text(f'#!/bin/sh\ncat > "{tmp_path}/got"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for name in ("TMUX", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "got"


async def test_the_desktop_gets_the_text(clipboard: Path):
    out = Terminal()

    where = await copy_text("Größe\n", out)

    assert where == ["the terminal's clipboard", "xclip"]
    assert clipboard.read_text() == "Größe\n"
    assert out.getvalue() == osc52("Größe\n")


async def test_a_file_gets_no_sequence_and_a_program_that_fails_is_not_named(clipboard: Path):
    (clipboard.parent / "xclip").write_text("#!/bin/sh\nexit 1\n")
    out = io.StringIO()

    assert await copy_text("x", out) == []
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("No code.", ""),
        ("```python\na = 1\n```\nand\n~~~\nb\n~~~\n", "b"),
        ("```\na\n\n  b\n```", "a\n\n  b"),
        ("```\nnever closed", ""),
    ],
)
def test_the_code_that_is_copied_is_the_last_block(answer: str, code: str):
    assert last_code(answer) == code
