"""Programs that a signal kills or stops while they start, as often as a test says; then they are what they were."""

from collections.abc import Sequence
from pathlib import Path

from engine_support import write_program

_HURT = 'n=$(cat "{count}" 2>/dev/null || echo 0); echo $((n + 1)) >"{count}"; [ $n -ge {times} ] || kill -{signal} $$'
ALWAYS = 99


class Hurt:
    """What happens to a program at its start.

    Args:
        directory: Where the starts are counted.
        signal: ``KILL`` or ``STOP``.
        times: At how many of its first starts.

    """

    def __init__(self, directory: Path, signal: str, times: int) -> None:
        self._file = directory / "starts-of-what-is-hurt"
        self._script = _HURT.format(count=self._file, times=times, signal=signal)

    @property
    def starts(self) -> int:
        """How often it was started."""
        return int(self._file.read_text()) if self._file.exists() else 0

    def command(self, command: Sequence[str]) -> list[str]:
        """The command, hurt."""
        return ["sh", "-c", f'{self._script}; exec "$@"', "sh", *command]

    def script(self, program: Path) -> str:
        """The text of a program that is hurt, and then becomes another one."""
        return f'#!/bin/sh\n{self._script}\nexec "{program}" "$@"\n'

    def program(self, path: Path) -> None:
        """Hurt a program where it lies."""
        kept = path.rename(path.with_name(f"{path.name}.kept"))
        write_program(path, self.script(kept))
