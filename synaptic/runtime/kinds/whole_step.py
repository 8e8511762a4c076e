"""What steps that are not one call of a model share: a bound on the whole step, approval, and the events of its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, SynapticError
from synaptic.runtime.failure import StepFailed, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.events import StepStatus
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run_whole(
    runner: StepRunner, step: CompiledStep, context: StepContext, work: Callable[[], Awaitable[Any]]
) -> Any:
    """Do the step's ``work`` within its timeout and return the output.

    Raises:
        StepFailed: If it failed; its event says so.
        BudgetExceeded: If a budget around the step was used up.

    """
    ledger, path = runner.ledger, context.path
    started = ledger.started(path, step.kind)
    try:
        async with within(step.timeout, path):
            output = await work()
        output = await runner.caller.approved_output(step, path, output)
    except asyncio.CancelledError:
        ledger.ended(path, step.kind, "cancelled", started=started)
        raise
    except BudgetExceeded as exc:
        if exc.meter in context.scope.bounds.meter.chain:
            ledger.ended(path, step.kind, "cancelled", started=started)
            raise
        failed = StepFailed(path, exc)
        failed.__cause__ = exc
    except StepFailed as exc:
        failed = StepFailed(path, exc.cause)
        failed.__cause__ = exc
    except SynapticError as exc:
        failed = StepFailed(path, exc)
        failed.__cause__ = exc
    else:
        ledger.ended(path, step.kind, "succeeded", output, started=started)
        return output
    status: StepStatus = "skipped" if step.on_error == "skip" else "failed"
    ledger.ended(path, step.kind, status, started=started, error=failed.cause)
    raise failed
