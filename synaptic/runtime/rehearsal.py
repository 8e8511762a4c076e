"""Whether a run can go on with a changed pipeline and do nothing again: it is gone through, and nothing is called."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synaptic.errors import UsageError
from synaptic.runtime.leaves import Leaves
from synaptic.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from synaptic.runtime.approval import ApprovalRequest
    from synaptic.runtime.events import Event, StepAsked
    from synaptic.runtime.executor import Executor
    from synaptic.runtime.past import Done, Past

_SHOWN = 3


async def rehearse(make: Callable[[Callable[[Event], None]], Executor], past: Past) -> None:
    """Go through a run as far as its past goes.

    Args:
        make: Makes what runs it, and says what happens to whom it is given.
        past: What the run has done; it is used up by this.

    Raises:
        UsageError: If a step that has ended would be done again; says in what it is another one now.
    """
    executor = make(lambda _: None)
    leaves = _Rehearsed(past, executor)
    run = asyncio.create_task(executor.run())
    arrived = asyncio.create_task(leaves.arrived.wait())
    try:
        await asyncio.wait({run, arrived}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (run, arrived):
            task.cancel()
        await asyncio.gather(run, arrived, return_exceptions=True)
    if leaves.others:
        shown = "; ".join(leaves.others[:_SHOWN])
        more = len(leaves.others) - _SHOWN
        raise UsageError(
            f"what had ended would be done again: {shown}" + (f"; and {plural(more, 'more step')}" if more > 0 else ""),
            hint="without --force the run goes on with its pipeline as it was; -p FILE does again what changes reach",
        )


class _Rehearsed(Leaves):
    """Gives what is known, and never comes back from what is not.

    Attributes:
        others: Steps that had ended and are others now, each with in what.
        arrived: Set once all that is known was given.
    """

    def __init__(self, past: Past, executor: Executor) -> None:
        super().__init__(past, executor.ledger)
        executor.caller.leaves = self
        self.others: list[str] = []
        self.arrived = asyncio.Event()

    async def decision(self, request: ApprovalRequest) -> tuple[str, Done | None]:
        """Return what the person decided."""
        key, done = await super().decision(request)
        if done is None:
            await self._stay(request.path, "question", decided=True)
        return key, done

    async def _found(self, asked: StepAsked) -> Done | None:
        """Return what came of a leaf."""
        changed = self._past.changes(asked)
        done = await super()._found(asked)
        if done is None:
            await self._stay(asked.path, ", ".join(changed), decided=False)
        return done

    async def _stay(self, path: str, what: str, *, decided: bool) -> NoReturn:
        """Note a step that is not as it was; it comes behind all that is known, and so that has been given by now."""
        if self._past.has_ended(path, decided=decided):
            self.others.append(f"{path} (another {what})" if what else path)
        self.arrived.set()
        await asyncio.Event().wait()
        raise AssertionError("it is cancelled")
