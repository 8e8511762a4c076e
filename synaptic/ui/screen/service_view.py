"""How services of distributed inference are shown while they load and after: in place on a terminal, else as lines."""

from __future__ import annotations

import contextlib
import os
import time
from typing import IO, TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from synaptic.backends.distributed import CoordinatorState, service
from synaptic.text import printable, whole_seconds
from synaptic.ui.screen.coordinator_view import (
    ASCII,
    UNICODE,
    BarGlyphs,
    holder_words,
    model_words,
    picture,
    progress_words,
    status_document,
)
from synaptic.ui.screen.resizable import ResizableLive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from synaptic.backends.distributed import Holder, ServiceRecord

HOLDER_HEADERS: Final = ("worker", "held for", "by")
_REFRESHES: Final = 4.0  # a second
_QUARTER: Final = 25


class LoadView:
    """Shows how a service loads: its picture, drawn in place, on a terminal; elsewhere a line for each step."""

    def __init__(self, err: TextIO | None, *, quiet: bool = False, last_line: str = "") -> None:
        """Take a stream; ``last_line`` is drawn below the picture."""
        self._last_line = last_line
        self._err = None if quiet else err
        self.drawn_in_place = not quiet and err is not None and err.isatty() and os.environ.get("TERM") != "dumb"
        self._record: ServiceRecord | None = None
        self._live: ResizableLive | None = None
        self._said: tuple[str, int] | None = None

    def __call__(self, record: ServiceRecord) -> None:
        """Show a service as it is now."""
        self._record = record
        if self._err is None:
            return
        if self.drawn_in_place:
            self._draw()
            return
        fraction = 0.0 if record.status is None or record.status.progress is None else record.status.progress.fraction
        percent = int(100 * fraction) if record.state is CoordinatorState.LOADING else 0
        step = (record.state.value, percent - percent % _QUARTER)
        if step != self._said:
            self._said = step
            print(printable(step_line(record)), file=self._err, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was, without the picture."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        if self._live is None:
            console = Console(file=self._err, highlight=False)
            self._live = ResizableLive(
                console=console,
                get_renderable=lambda: self._text(console),
                refresh_per_second=_REFRESHES,
                transient=True,
            )
            self._live.start()

    def _text(self, console: Console) -> Text:
        drawn_with = glyphs(console.file)
        lines = [] if self._record is None else record_lines(self._record, console.width, time.time(), drawn_with)
        return _text([*lines, *([self._last_line] if self._last_line else [])])


def watch_services(out: TextIO) -> None:
    """Show all services on a terminal, redrawn until Ctrl-C; what was last seen stays."""
    console, drawn_with = Console(file=out, highlight=False), glyphs(out)

    def text() -> Text:
        groups = [record_lines(record, console.width, time.time(), drawn_with) for record in service.read_records()]
        return _text([line for group in groups for line in group] or ["no service runs"])

    live = ResizableLive(console=console, get_renderable=text, auto_refresh=False)
    with live, contextlib.suppress(KeyboardInterrupt):
        while True:
            live.refresh()
            time.sleep(1 / _REFRESHES)


def _text(lines: Sequence[str]) -> Text:
    return Text("\n".join(printable(line) for line in lines), no_wrap=True, overflow="ellipsis")


def glyphs(out: IO[str]) -> BarGlyphs:
    """Return what a bar is drawn with, on a stream that may take nothing but ASCII."""
    encoding = getattr(out, "encoding", None)
    if encoding is None:  # text that is kept and not encoded
        return UNICODE
    with contextlib.suppress(LookupError, UnicodeError):
        "".join(UNICODE).encode(encoding)
        return UNICODE
    return ASCII


def step_line(record: ServiceRecord) -> str:
    """Return where a service is in one line: ``llama3.1:70b: loading: 42 % (18.2 GiB of 43.0 GiB)``."""
    status, model = record.status, model_words(record.model)
    if status is None:
        return f"{model}: starting (process {record.pid})"
    if status.state is CoordinatorState.LOADING and status.progress is not None:
        return f"{model}: {status.state}: {progress_words(status.progress)}"
    reason = f": {' '.join(status.reason.split())}" if status.reason else ""
    return f"{model}: {status.state}{reason}"


def record_lines(record: ServiceRecord, width: int, now: float, drawn_with: BarGlyphs) -> list[str]:
    """Return the lines that show a service.

    ``width`` is in cells, ``now`` in seconds since the epoch.
    """
    where = "in the foreground" if record.foreground else "in the background"
    runs = f"  process {record.pid}, {where}, started {whole_seconds(max(now - record.started_at, 0.0))} ago"
    if record.status is None:
        lines = [f"{model_words(record.model)}: {'failed' if record.failure else 'starting'}"]
    else:
        lines = picture(record.status, width, now, drawn_with, api_key=record.api_key is not None)
    if record.failure is not None:
        lines += [f"  {record.failure.message}", *([f"  {record.failure.hint}"] if record.failure.hint else [])]
    return [*lines, runs]


def record_document(record: ServiceRecord) -> dict[str, Any]:
    """Return a service as a JSON object for programs; its key is in the file that ``record`` names."""
    return {
        "model": record.model,
        "state": str(record.state),
        "ready": record.ready,
        "url": record.url,
        "pid": record.pid,
        "started_at": record.started_at,
        "foreground": record.foreground,
        "log_file": str(record.log_file),
        "record": str(record.file),
        "failure": None if record.failure is None else record.failure.message,
        "coordinator": None if record.status is None else status_document(record.status),
    }


def holder_rows(holders: Sequence[Holder], now: float) -> Iterator[tuple[str, ...]]:
    """Yield a row for each worker that is held.

    ``now`` is in seconds since the epoch.
    """
    for holder in holders:
        yield f"{holder.host}:{holder.port}", whole_seconds(max(now - holder.since, 0.0)), holder_words(holder)


def holder_document(holder: Holder) -> dict[str, Any]:
    """Return who holds a worker as a JSON object."""
    return {
        "worker": f"{holder.host}:{holder.port}",
        "by": holder.by,
        "pid": holder.pid,
        "machine": holder.machine,
        "since": holder.since,
    }
