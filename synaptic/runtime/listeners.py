"""Who hears of the runs of a session, and of its backend between them. Several runs at once do not hear each other."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from synaptic.messages import BackendNotice
from synaptic.runtime.events import BackendReported
from synaptic.runtime.given import refuse_others

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from synaptic.messages import BackendReport
    from synaptic.runtime.events import Event, EventHandler

_RUN: ContextVar[tuple[Listeners, list[EventHandler]] | None] = ContextVar("run", default=None)
"""Whose run a task works for, and who hears of that run alone."""


class Listeners:
    """Those who listen.

    Args:
        always: Hears everything.
    """

    def __init__(self, always: EventHandler | None) -> None:
        self._always = _handlers(always)
        self._of_runs: list[EventHandler] = []
        self._watchers: list[Callable[[], EventHandler]] = []
        self._mentioned: set[str] = set()

    def watch(self, begin: Callable[[], EventHandler]) -> None:
        """Have each run from now on heard by a listener of its own, which ``begin`` makes."""
        self._watchers.append(begin)

    @contextmanager
    def heard_by(self, handler: EventHandler | None) -> Iterator[None]:
        """Have one more listen to the run inside the ``with``, and those that the watchers make for it."""
        own = [*_handlers(handler), *(begin() for begin in self._watchers)]
        token = _RUN.set((self, own))
        try:
            with self._also(own):
                yield
        finally:
            _RUN.reset(token)

    def reported_to(self, handler: EventHandler | None) -> AbstractContextManager[None]:
        """Have one more listen inside the ``with``, where no run is."""
        return self._also(_handlers(handler))

    @contextmanager
    def _also(self, handlers: Sequence[EventHandler]) -> Iterator[None]:
        self._of_runs += handlers
        try:
            yield
        finally:
            for one in handlers:
                self._of_runs.remove(one)

    def emit(self, event: Event) -> None:
        """Tell an event of the run that this task works for; of none, tell everybody."""
        run = _RUN.get()
        own = self._of_runs if run is None or run[0] is not self else run[1]
        for handler in (*self._always, *own):
            handler(event)

    def report(self, report: BackendReport) -> None:
        """Tell everybody what a backend has to say."""
        event = BackendReported(report)
        for handler in (*self._always, *self._of_runs):
            handler(event)

    def to_mention(self, about: str, left_out: str) -> BackendNotice | None:
        """Return what is to be said of what a folder has that does not count, because it is not trusted: once."""
        if not left_out or left_out in self._mentioned:
            return None
        self._mentioned.add(left_out)
        return BackendNotice(about, left_out, "warning")


def _handlers(given: EventHandler | None) -> list[EventHandler]:
    refuse_others(on_event=given)
    return [] if given is None else [given]
