"""Whether a failed start may go better the next time, and what is said once nothing helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.backends.distributed.coordinator.diagnosis import Cause
from synaptic.backends.distributed.coordinator.llama_process import LoadStalled, ServerEnded
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendUnavailable,
    CoordinatorFailed,
    EngineUnavailable,
    SynapticError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from synaptic.backends.distributed.workers import Endpoint

_HINTS = {
    Cause.WORKER: "look at the workers: synaptic workers check",
    Cause.VERSION: "give all machines the same llama.cpp build: synaptic engine install on each",
    Cause.MEMORY: "take a shorter distributed_context, fewer distributed_parallel, or set memory_gib of the worker",
    Cause.MODEL: "is the file complete, and is its architecture known to this llama.cpp (synaptic engine status)?",
    Cause.INSTRUCTION: "build the engine on this machine: synaptic engine install",
    Cause.KILLED: "was there enough memory on this machine?",
}


@dataclass(frozen=True, slots=True)
class Blame:
    """A worker, and what was said of it; "" where that is not known."""

    worker: str = ""
    line: str = ""


def may_pass(error: SynapticError) -> bool:
    """Return whether another attempt may do better."""
    if isinstance(error, ServerEnded):
        return error.diagnosis.cause.may_pass
    if isinstance(error, EngineUnavailable):
        return False
    return isinstance(error, LoadStalled | BackendUnavailable | BackendBusy)


def given_up(error: SynapticError, model: str, workers: Sequence[Endpoint], log_file: Path) -> SynapticError:
    """Return what is raised once nothing more is tried.

    Args:
        error: What the last attempt failed with.
        model: What was to be served.
        workers: Those that had its layers at that attempt; none before there was one.
        log_file: What ``llama-server`` said.
    """
    if not isinstance(error, BackendError):
        return error  # a mistake of the person's, not of the machines
    if isinstance(error, EngineUnavailable) and not isinstance(error, CoordinatorFailed):
        return error  # it says by itself what is wrong
    blame, hint = Blame(), error.hint
    if isinstance(error, ServerEnded):
        # llama.cpp often does not say which worker it was: of one there is no doubt.
        only = str(workers[0]) if len(workers) == 1 and error.diagnosis.cause is Cause.WORKER else ""
        blame = Blame(error.diagnosis.worker or only, error.diagnosis.line)
        hint = _HINTS.get(error.diagnosis.cause, hint)
    elif isinstance(error, CoordinatorFailed):
        blame = Blame(error.worker, error.log_line)
    names = blame.worker or ", ".join(str(worker) for worker in workers)
    about = f" ({names})" if names and names not in error.message else ""
    where = f"its log is {log_file}"
    return CoordinatorFailed(
        f"{model} cannot be served by its workers{about}: {error.message}",
        hint=f"{hint}; {where}" if hint else where,
        backend="distributed",
        worker=blame.worker,
        log_line=blame.line,
    )
