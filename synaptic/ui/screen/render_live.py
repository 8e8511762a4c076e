"""A run as a live tree on a terminal. The last state of the tree stays in the scrollback."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from synaptic.messages import BackendProgress
from synaptic.runtime import (
    BackendReported,
    ConversationShortened,
    InputDivided,
    RunFinished,
    RunStarted,
    StepFinished,
    TokenDelta,
)
from synaptic.text import printable, seconds, size
from synaptic.ui.screen.render_plain import PlainStatus, measurements, route_line
from synaptic.ui.screen.resizable import ResizableLive
from synaptic.ui.screen.run_view import RunView, StepView
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, RenderableType

    from synaptic.runtime import Event

FRAMES_PER_SECOND: Final = 8
MOST_CHILDREN: Final = 8
_GAP: Final = "  "
_BAR_CELLS: Final = 24
# Columns that may go where the terminal is narrow, the dearest last.
_DROP_ORDER: Final = (4, 2, 1, 3)
_WHERE: Final = 2
_LEAST_WHERE: Final = 14
_MOST_REMARK: Final = 40  # what a remark may take from the columns before it
_DIM: Final = frozenset({"waiting", "skipped", "not reached"})
_NUMBERS: Final = frozenset({3, 4, 5})
_STYLES: Final = {
    "running": "cyan",
    "answering": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cut off": "yellow",
    "asking": "yellow",
}
_WORDS: Final = {
    "answering": "answers below",
    "asking": "waits for approval",
    "succeeded": "",
    "running": "",
    "cancelled": "interrupted",
}


@dataclass(frozen=True, slots=True)
class StateGlyphs:
    """The signs that a terminal can show."""

    spinner: str
    waiting: str
    succeeded: str
    failed: str
    skipped: str
    answering: str
    asking: str
    branch: str
    last: str

    def of(self, state: str, now: float) -> str:
        """Return the sign of a state; that of a running step turns."""
        signs = {
            "running": self.spinner[int(now * FRAMES_PER_SECOND) % len(self.spinner)],
            "answering": self.answering,
            "asking": self.asking,
            "waiting": self.waiting,
            "not reached": self.waiting,
            "succeeded": self.succeeded,
            "skipped": self.skipped,
        }
        return signs.get(state, self.failed)


UNICODE: Final = StateGlyphs("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "·", "✓", "✗", "–", "▸", "?", "├ ", "└ ")
ASCII: Final = StateGlyphs("|/-\\", ".", "+", "x", "-", ">", "?", "|-", "`-")


class LiveStatus(PlainStatus):
    """The tree of steps, redrawn by a thread of its own, so that a token costs no drawing."""

    def __init__(self, console: Console, *, verbose: bool) -> None:
        super().__init__(console, verbose=verbose)
        self._glyphs = ASCII if console.options.ascii_only else UNICODE
        self._lock = threading.Lock()
        self._downloads: dict[str, BackendProgress] = {}
        self._downloaded: set[str] = set()
        self._live: ResizableLive | None = None
        self._over = False
        self._paused = False

    def update(self, event: Event) -> None:
        """Take note of an event; the tree shows it at its next frame."""
        if type(event) is TokenDelta:
            with self._lock:
                self.view.apply(event)
        elif isinstance(event, RunStarted):
            self._begin(event)
        elif isinstance(event, BackendReported) and isinstance(event.report, BackendProgress):
            self._download(event.report)
        elif isinstance(event, RunFinished):
            self.ended(event.result)
        elif self._over or isinstance(event, (BackendReported, ConversationShortened, InputDivided)):
            if not isinstance(event, StepFinished) or event.result.id != self.view.answer_step:
                super().update(event)
        else:
            with self._lock:
                self.view.apply(event)

    def hold(self) -> None:
        """Stop the tree, which stays on the screen, and keep lines back: the answer is being written."""
        if not self.holds:
            self._stop()
            self._console.print()
            super().hold()

    def release(self) -> None:
        """Print what was kept back, below the answer."""
        if self.holds:
            self._console.print()
        super().release()

    def pause(self) -> None:
        """Take the tree off the screen; events still change it, and lines are kept back."""
        live, self._live, self._paused = self._live, None, True
        if live is not None:
            live.transient = True
            live.stop()
        super().pause()

    def resume(self) -> None:
        """Draw the tree again, below whatever was written meanwhile."""
        self._paused = False
        super().resume()
        if not self._over and self.view.steps:
            self._start()

    def settle(self, event: RunFinished) -> None:
        """Show the last state of the tree, for good."""
        with self._lock:
            self.view.apply(event)
        self._stop()

    def close(self) -> None:
        """Stop drawing, whatever state the run is in."""
        self._stop()
        super().close()

    def lines(self, width: int, now: float) -> list[Text]:
        """Return the tree as lines of at most ``width`` cells."""
        with self._lock:
            return layout([_row(step, guide, now, self) for guide, step in self._walk()], width)

    def glyph(self, step: StepView, now: float) -> str:
        """Return the sign of a step's state."""
        return self._glyphs.of(step.state, now)

    def _begin(self, event: RunStarted) -> None:
        with self._lock:
            self.view = RunView()
            self.view.apply(event)
        self._over = False
        self.warn(event.plan.compiled.warnings)
        if self.verbose:
            self.say(route_line(self.view), "dim")
        self._start()

    def _download(self, report: BackendProgress) -> None:
        done = report.total is not None and report.done >= report.total
        with self._lock:
            self._downloads.pop(report.label, None)
            if not done:
                self._downloads[report.label] = report
        if not done:
            self._downloaded.discard(report.label)
            if not self._over:
                self._start()
        elif report.label not in self._downloaded:
            self._downloaded.add(report.label)
            self.say(f"{report.label}: {size(report.done)}", "dim")

    def _start(self) -> None:
        if self._live is None and not self._paused:
            self._live = ResizableLive(
                console=self._console,
                get_renderable=self._frame,
                refresh_per_second=FRAMES_PER_SECOND,
                redirect_stderr=True,
                vertical_overflow="ellipsis",
            )
            self._live.start(refresh=True)

    def _stop(self) -> None:
        live, self._live, self._over = self._live, None, True
        with self._lock:
            self._downloads.clear()
        if live is not None:
            live.stop()

    def _frame(self) -> RenderableType:
        with self._lock:
            downloads = list(self._downloads.values())
        return Group(*self.lines(self._console.width, steady_time()), *map(bar, downloads))

    def _walk(self) -> Iterator[tuple[str, StepView]]:
        for step in list(self.view.steps.values()):
            yield "", step
            yield from self._below(step, "")

    def _below(self, step: StepView, indent: str) -> Iterator[tuple[str, StepView]]:
        """Yield the children of a step; of very many, the ones that matter now."""
        children = list(step.children.values())
        shown = children if len(children) <= MOST_CHILDREN else _most_telling(children)
        hidden = len(children) - len(shown)
        for index, child in enumerate(shown):
            last = index == len(shown) - 1 and not hidden
            yield indent + (self._glyphs.last if last else self._glyphs.branch), child
            yield from self._below(child, indent + "  ")
        if hidden:
            more = StepView(f"{hidden} more", state="succeeded")
            yield indent + self._glyphs.last, more


def _most_telling(children: Sequence[StepView]) -> list[StepView]:
    """Return the children that failed or run; then the latest of the others, as many as there is room."""
    order = {"failed": 0, "asking": 0, "running": 1, "waiting": 2}
    ranked = sorted(enumerate(children), key=lambda pair: (order.get(pair[1].state, 3), -pair[0]))
    return [child for _, child in sorted(ranked[: MOST_CHILDREN - 1], key=lambda pair: pair[0])]


class LiveRow(NamedTuple):
    """One line of the tree before it is laid out. ``columns`` are name, agent, where, tokens, rate, elapsed, remark."""

    state: str
    sign_at: int
    columns: list[str]


def _row(step: StepView, guide: str, now: float, status: LiveStatus) -> LiveRow:
    tokens, rate, elapsed = step.total_tokens, step.rate(now), step.elapsed(now)
    name = " ".join(part for part in (step.path, step.count()) if part)
    state = "waits for an answer" if step.state == "asking" and step.question else _WORDS.get(step.state, step.state)
    remark = [state, measurements(step) if status.verbose else "", step.note]
    columns = [
        f"{guide}{status.glyph(step, now)} {name}",
        step.what,
        step.where,
        f"{tokens} tok" if tokens else "",
        f"{rate:.0f} tok/s" if rate else "",
        seconds(elapsed) if elapsed is not None else "",
        ", ".join(part for part in remark if part),
    ]
    return LiveRow(step.state, len(guide), [printable(cell) for cell in columns])


def layout(table: Sequence[LiveRow], width: int) -> list[Text]:
    """Return the rows as lines with aligned columns, each at most ``width`` cells wide."""
    if not table:
        return []
    sizes = [max(cell_len(row.columns[index]) for row in table) for index in range(6)]
    remark = min(max(cell_len(row.columns[6]) for row in table), _MOST_REMARK)
    _fit(sizes, width - (remark and remark + len(_GAP)))
    lines = []
    for state, sign_at, columns in table:
        parts = [_pad(columns[index], cells, index) for index, cells in enumerate(sizes) if cells]
        line = Text(_GAP.join([*parts, columns[6]]).rstrip(), no_wrap=True, overflow="ellipsis")
        if state in _DIM:
            line.stylize("dim")
        else:
            line.stylize(_STYLES[state], sign_at, sign_at + 1)
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines


def _fit(sizes: list[int], width: int) -> None:
    """Make columns narrower, then drop them, until they fit into ``width`` cells."""

    def excess() -> int:
        return sum(sizes) + len(_GAP) * (sum(map(bool, sizes)) - 1) - width

    if excess() > 0 and sizes[_WHERE] > _LEAST_WHERE:
        sizes[_WHERE] = max(sizes[_WHERE] - excess(), _LEAST_WHERE)
    for column in _DROP_ORDER:
        if excess() > 0:
            sizes[column] = 0


def _pad(cell: str, cells: int, column: int) -> str:
    if cell_len(cell) > cells:
        return set_cell_size(cell, cells - 1) + "…"
    return " " * (cells - cell_len(cell)) + cell if column in _NUMBERS else set_cell_size(cell, cells)


def bar(report: BackendProgress) -> RenderableType:
    """Return the progress of a download as one line."""
    label = Text(printable(report.label), no_wrap=True, overflow="ellipsis")
    if not report.total:
        return label.append(f"  {size(report.done)}")
    share = min(report.done / report.total, 1.0)
    line = Table.grid(padding=(0, len(_GAP)))
    how_far = f"{size(report.done)} of {size(report.total)}  {share:.0%}"
    line.add_row(label, ProgressBar(report.total, report.done, width=_BAR_CELLS), Text(how_far, no_wrap=True))
    return line
