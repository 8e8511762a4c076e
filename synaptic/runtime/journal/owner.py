"""Which process works on a run, and whether it still lives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Self

from synaptic.processes import number_space, process_mark


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of a machine.

    Attributes:
        host: What the machine was called then; a laptop is called otherwise in another network.
        mark: Tells it from an earlier one with its number.
        numbers: Where its number counts: the running system and its namespace of processes; "" where that is not known.
    """

    host: str
    pid: int
    mark: str
    numbers: str = ""

    @classmethod
    @cache
    def here(cls) -> Self:
        """Return this process."""
        pid = os.getpid()
        return cls(os.uname().nodename, pid, process_mark(pid) or "", number_space())

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what :meth:`written` wrote."""
        where, pid, mark = text.split(" ", 2)
        host, _, numbers = where.partition("@")
        return cls(host, int(pid), mark, numbers)

    def written(self) -> str:
        """Return the owner as one text."""
        where = f"{self.host}@{self.numbers}" if self.numbers else self.host
        return f"{where} {self.pid} {self.mark}"

    @property
    def alive(self) -> bool | None:
        """Whether the process still lives; ``None`` for one of another machine, of which nothing is known."""
        here = Owner.here()
        if self.host != here.host and (not self.numbers or self.numbers != here.numbers):
            return None
        return process_mark(self.pid) == self.mark

    @property
    def is_here(self) -> bool:
        """Whether it is this process."""
        return self == Owner.here()
