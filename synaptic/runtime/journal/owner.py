"""Which process works on a run, and whether it still lives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Self

from synaptic.processes import process_mark


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of a machine; ``mark`` tells it from an earlier one with its number."""

    host: str
    pid: int
    mark: str

    @classmethod
    @cache
    def here(cls) -> Self:
        """Return this process."""
        pid = os.getpid()
        return cls(os.uname().nodename, pid, process_mark(pid) or "")

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what :meth:`written` wrote."""
        host, pid, mark = text.split(" ", 2)
        return cls(host, int(pid), mark)

    def written(self) -> str:
        """Return the owner as one text."""
        return f"{self.host} {self.pid} {self.mark}"

    @property
    def alive(self) -> bool | None:
        """Whether the process still lives; ``None`` for one of another machine, of which nothing is known."""
        if self.host != os.uname().nodename:
            return None
        return process_mark(self.pid) == self.mark

    @property
    def is_here(self) -> bool:
        """Whether it is this process."""
        return self == Owner.here()
