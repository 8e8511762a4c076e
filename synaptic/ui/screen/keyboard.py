"""Lines that a person types at the terminal while a run goes on: read without blocking the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK: Final = 4096
_LINE_MODE: Final = termios.ECHO | termios.ICANON | termios.ISIG
_INPUT_FLAGS: Final = 0
_LOCAL_FLAGS: Final = 3


class Keyboard:
    """A terminal's keyboard. The terminal itself edits the line, and makes Ctrl-C a signal, as in any program.

    Args:
        descriptor: Of a terminal that can be read.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Show what is typed inside the ``with``; what was typed before is forgotten: it was no answer to this."""
        before = termios.tcgetattr(self.descriptor)
        plain = [*before]
        plain[_INPUT_FLAGS] |= termios.ICRNL
        plain[_LOCAL_FLAGS] |= _LINE_MODE
        termios.tcsetattr(self.descriptor, termios.TCSAFLUSH, plain)
        try:
            yield
        finally:
            with contextlib.suppress(termios.error):  # the terminal may be gone by now
                termios.tcsetattr(self.descriptor, termios.TCSANOW, before)

    async def line(self) -> str | None:
        """Return the next line without its end; ``None`` at the end of input (Ctrl-D, or no terminal any more)."""
        data = b""
        while not data.endswith(b"\n"):
            await self._readable()
            try:
                chunk = os.read(self.descriptor, _CHUNK)
            except OSError:
                return None
            if not chunk:
                return data.decode("utf-8", "replace") if data else None
            data += chunk
        return data.decode("utf-8", "replace").rstrip("\r\n")

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def there() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self.descriptor, there)
        try:
            await ready
        finally:
            loop.remove_reader(self.descriptor)


def persons_keyboard() -> Keyboard | None:
    """Return the keyboard of the person who sees standard error; ``None`` where no terminal shows it.

    Text may be piped in: then the terminal that controls the process is read, not standard input.
    """
    if not sys.stderr.isatty():
        return None
    if sys.stdin.isatty():
        return Keyboard(sys.stdin.fileno())
    try:
        return Keyboard(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return None
