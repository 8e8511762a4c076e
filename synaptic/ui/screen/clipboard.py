"""The clipboard: of the terminal that a person sits at, also over SSH, and of this machine's desktop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST_BYTES: Final = 74_994
"""Longer texts are not taken by the terminals that know OSC 52: its sequence has 100,000 bytes at most."""

SECONDS: Final = 5.0

_PROGRAMS: Final = (
    ("TMUX", ("tmux", "load-buffer", "-w", "-")),
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--input", "--clipboard")),
    ("WSL_DISTRO_NAME", ("clip.exe",)),
    ("", ("pbcopy",)),
)
"""The variable that tells of a clipboard ("": none is needed), and the program that writes to it."""


def programs(environ: Mapping[str, str], which: Callable[[str], str | None]) -> list[tuple[str, ...]]:
    """Return the programs that write to clipboards here, at most one for each kind."""
    found: dict[str, tuple[str, ...]] = {}
    for sign, command in _PROGRAMS:
        if (not sign or environ.get(sign)) and which(command[0]):
            found.setdefault(sign, command)
    return list(found.values())


def osc52(text: str) -> str:
    """Return the sequence that makes a terminal take a text; "" where it is too long."""
    data = text.encode(errors="replace")
    return f"\x1b]52;c;{base64.b64encode(data).decode()}\x07" if len(data) <= MOST_BYTES else ""


async def copy_text(text: str, out: TextIO) -> list[str]:
    """Copy a text and return where it went, in words; nothing where no clipboard could be reached.

    A stream that is no terminal gets nothing.
    """
    where = []
    sequence = osc52(text)
    if sequence and out.isatty() and os.environ.get("TERM") != "dumb":
        out.write(sequence)
        out.flush()
        where.append("the terminal's clipboard")
    for command in programs(os.environ, shutil.which):
        with contextlib.suppress(OSError, TimeoutError):
            if await _gave(command, text.encode(errors="replace")):
                where.append(command[0])
    return where


async def _gave(command: Sequence[str], data: bytes) -> bool:
    """Return whether a program took what it was given."""
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=nowhere, stderr=nowhere
    )
    try:
        async with asyncio.timeout(SECONDS):
            await process.communicate(data)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    return process.returncode == 0
