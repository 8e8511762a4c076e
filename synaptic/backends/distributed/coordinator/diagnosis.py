"""Why a ``llama-server`` ended, from how it ended and what it said last: pure text.

Its words are those of llama.cpp's ``ggml-rpc.cpp``, ``arg.cpp``, ``llama-model-loader.cpp`` and ``server-http.cpp``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from synaptic.processes import cause_of, describe_exit, plain_line

if TYPE_CHECKING:
    from collections.abc import Sequence


class Cause(Enum):
    """What kind of end it was."""

    WORKER = "a worker was lost"
    VERSION = "a worker speaks another version of the RPC protocol"
    PORT = "its port was taken"
    MEMORY = "a device had no room"
    MODEL = "the model cannot be loaded"
    ARGUMENTS = "it was started wrongly"
    INSTRUCTION = "the processor lacks an instruction"
    KILLED = "it was killed"
    STOPPED = "it was stopped"
    OTHER = "it ended"

    @property
    def may_pass(self) -> bool:
        """Whether another attempt, with the workers as they are then, may do better."""
        return self in {Cause.WORKER, Cause.PORT, Cause.KILLED, Cause.STOPPED, Cause.OTHER}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a server ended.

    Attributes:
        how: How the process ended: ``was killed by SIGABRT``.
        line: The line of its log that tells most, "" if none does.
        worker: The address that line names; "" if it names none.
    """

    cause: Cause
    how: str
    line: str
    worker: str = ""

    def __str__(self) -> str:
        return f"llama-server {self.how}" + (f": {self.line}" if self.line else "")


_PATTERNS: Final = (
    (Cause.VERSION, re.compile(r"RPC server version mismatch")),
    (Cause.WORKER, re.compile(r"(?:Failed to connect to|RPC handshake failed for) (?P<worker>[^\s']+)")),
    (Cause.WORKER, re.compile(r"Remote RPC server crashed|failed to find RPC device|RPC.*connection")),
    (Cause.PORT, re.compile(r"couldn't bind|address already in use", re.IGNORECASE)),
    (
        Cause.MEMORY,
        re.compile(r"failed to allocate|unable to allocate|out of memory|alloc_tensor_range: failed", re.IGNORECASE),
    ),
    (Cause.ARGUMENTS, re.compile(r"error: (?:invalid argument|unknown|while parsing)|invalid value for")),
    (
        Cause.MODEL,
        re.compile(
            r"unknown model architecture|error loading model|failed to load model|invalid magic|"
            r"tensor .* data is not within the file bounds|corrupted or incomplete"
        ),
    ),
)
_LONGEST: Final = 240
_RECENT: Final = 8  # lines; what was said long before the end was about other calls
_SIGNALS: Final = {-4: Cause.INSTRUCTION, -9: Cause.KILLED, -15: Cause.KILLED}


def diagnose(returncode: int, tail: Sequence[str], *, stopped: bool = False) -> Diagnosis:
    """Return why a server ended.

    ``returncode`` is negative for a signal, ``tail`` the end of its standard error, ``stopped`` whether we killed it.
    """
    how = describe_exit(returncode, stopped=stopped)
    lines = [plain_line(line) for line in tail]
    if (cause := Cause.STOPPED if stopped else _SIGNALS.get(returncode)) is not None:
        return Diagnosis(cause, how, "")
    for cause, pattern in _PATTERNS:
        for line in lines:
            if (match := pattern.search(line)) is not None:
                # That a model cannot be loaded is said at each level; why, at the first.
                told = cause_of(tail) if cause is Cause.MODEL else line[:_LONGEST]
                return Diagnosis(cause, how, told, match.groupdict().get("worker") or "")
    return Diagnosis(Cause.OTHER, how, cause_of(tail[-_RECENT:]))
