"""What steps that are not one call of a model share: a bound on the whole step, approval, and the events of its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import BudgetExceeded, StepTimeout, SynapticError
from synaptic.runtime.failure import StepFailed, why_cut, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.pipeline import CompiledStep
    from synaptic.runtime.events import StepStatus
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.runner import StepRunner
    from synaptic.runtime.scope import StepContext


async def run_whole(
    runner: StepRunner,
    step: CompiledStep,
    context: StepContext,
    work: Callable[[], Awaitable[Any]],
    *,
    so_far: Callable[[], Any] = lambda: None,
) -> Any:
    """Do the step's ``work`` within its timeout and return the output.

    Args:
        runner: Runs steps.
        step: What is done.
        context: Where in the run.
        work: Does it.
        so_far: Gives the output as far as it is whole, if a bound is reached before the work is done; else ``None``.

    Raises:
        StepFailed: If it failed; its event says so.
        BudgetExceeded: If a budget around the step was used up.
    """
    ledger, path = runner.ledger, context.path
    started = ledger.started(path, step.kind)
    try:
        output, reason = await _within_bounds(ledger, step, context, work, so_far)
        output = await runner.caller.approved_output(step, path, output)
    except asyncio.CancelledError:
        ledger.ended(path, step.kind, "cancelled", so_far(), started=started, stop_reason=why_cut(ledger, context))
        raise
    except BudgetExceeded as exc:
        if _is_around(exc, context):
            kept = so_far()
            ledger.ended(path, step.kind, "cancelled", kept, started=started, stop_reason=f"budget: {exc.what}")
            raise
        failed = StepFailed(path, exc)
        failed.__cause__ = exc
    except StepFailed as exc:
        failed = exc
    except SynapticError as exc:
        failed = StepFailed(path, exc)
        failed.__cause__ = exc
    else:
        ledger.ended(path, step.kind, "succeeded", output, started=started, stop_reason=reason)
        return output
    status: StepStatus = "skipped" if step.on_error == "skip" else "failed"
    ledger.ended(path, step.kind, status, started=started, error=failed.cause)
    raise failed


async def _within_bounds(
    ledger: Ledger,
    step: CompiledStep,
    context: StepContext,
    work: Callable[[], Awaitable[Any]],
    so_far: Callable[[], Any],
) -> tuple[Any, str | None]:
    """Return the output, and which bound of the step's own ended the work, if one did."""
    try:
        async with within(step.timeout, context.path, ledger):
            return await work(), None
    except (BudgetExceeded, StepTimeout) as exc:
        kept = None if _is_around(exc, context) else so_far()
        if kept is None:
            raise
        return kept, "timeout" if isinstance(exc, StepTimeout) else f"budget: {exc.what}"


def _is_around(error: SynapticError, context: StepContext) -> bool:
    """Return whether a budget is used up that is not the step's own, but one around it."""
    return isinstance(error, BudgetExceeded) and error.meter in context.scope.bounds.meter.chain
