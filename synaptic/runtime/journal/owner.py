"""Which process works on a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Self

from synaptic.processes import MarkedProcess


@dataclass(frozen=True, slots=True)
class Owner(MarkedProcess):
    """A process as the journal writes it."""

    @classmethod
    @cache
    def this(cls) -> Self:
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what :meth:`written` wrote."""
        where, pid, mark = text.split(" ", 2)
        machine, _, numbers = where.partition("@")
        return cls(machine, int(pid), mark, numbers)

    def written(self) -> str:
        """Return the owner as one text."""
        where = f"{self.machine}@{self.numbers}" if self.numbers else self.machine
        return f"{where} {self.pid} {self.mark}"

    @property
    def is_this(self) -> bool:
        """Whether it is this process."""
        return self == Owner.this()
