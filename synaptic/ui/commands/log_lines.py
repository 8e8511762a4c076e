"""Lines of logs, on standard output: those that are there, and those that come."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from synaptic.backends.distributed import service
from synaptic.errors import UsageError
from synaptic.ui.screen import write_text
from synaptic.ui.streams import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def show_logs(find: Callable[[], Sequence[service.Log]], lines: int, *, follow: bool) -> None:
    """Print the last lines of each log, and those that come, where a person wants to follow them.

    Args:
        find: Tells which logs there are.
        lines: Of each.
        follow: Until Ctrl-C, or nobody reads them any more.

    Raises:
        UsageError: If a log cannot be read.
    """
    try:
        reader = service.LogReader(find)
        width = max((len(log.process) for log in reader.logs), default=0)
        for line in reader.there(lines):
            _print_line(line, width)
        if follow:
            asyncio.run(_follow(reader, width))
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror or error}") from error


async def _follow(reader: service.LogReader, width: int) -> None:
    sys.stdout.flush()
    async for line in reader.coming():
        _print_line(line, width)
        if failure_of(sys.stdout) is not None:
            return


def _print_line(line: service.Line, width: int) -> None:
    write_text(f"{line.process:<{width}} | {line.text}")
