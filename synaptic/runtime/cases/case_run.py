"""One test of a pipeline: a run on the scripted backend, as it is on every machine, and what differs afterwards.

Settings, the cache of replies and the waits between attempts of the person's own are left out of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from synaptic.backends import ScriptedBackend
from synaptic.errors import PipelineError
from synaptic.messages import ChatRequest, Route, Timeouts
from synaptic.pipeline import SKIPPED, Plan, bind_written
from synaptic.runtime.cases.case_script import CaseScript
from synaptic.runtime.cases.case_verdict import Mismatch, mismatches
from synaptic.runtime.executor import Executor
from synaptic.runtime.policies import Stacks
from synaptic.settings import Settings
from synaptic.waiting import Backoff

if TYPE_CHECKING:
    from synaptic.pipeline import CaseSpec, CompiledPipeline, Pipeline
    from synaptic.runtime.events import Event, RunResult

AT_ONCE: Final = Backoff((0.0,))


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """How one test ended.

    Attributes:
        mismatches: What is not as it should be; nothing where the test passed.
        result: How the run ended; ``None`` where it could not begin.
        seconds: How long it took.
    """

    name: str
    mismatches: tuple[Mismatch, ...]
    result: RunResult | None
    seconds: float


async def run_case(pipeline: Pipeline, compiled: CompiledPipeline, name: str) -> CaseOutcome:
    """Run the test called ``name`` of a pipeline and return what differs from what it expects."""
    case, started = pipeline.spec.tests[name], time.perf_counter()
    try:
        inputs = bind_written(pipeline, case.inputs)
    except PipelineError as exc:
        wrong = tuple(Mismatch("inputs", "what the pipeline declares", str(problem)) for problem in exc.problems)
        return CaseOutcome(name, wrong, None, time.perf_counter() - started)
    with TemporaryDirectory(prefix="synaptic-test-") as folder:
        result, found = await _run(pipeline, compiled, case, inputs, Path(folder))
    return CaseOutcome(name, found, result, time.perf_counter() - started)


async def _run(
    pipeline: Pipeline, compiled: CompiledPipeline, case: CaseSpec, inputs: dict[str, Any], folder: Path
) -> tuple[RunResult, tuple[Mismatch, ...]]:
    script, settings = CaseScript(case.replies, compiled.graph), Settings()
    backend = ScriptedBackend(script.answer)
    # It is never waited for: a reply that says "busy" is a failed attempt, as in front of a full pool.
    backend.capabilities = replace(backend.capabilities, keeps_deadlines=True)
    stacks = Stacks(backend, settings, cache_file=folder / "replies.sqlite", backoff=AT_ONCE)
    route = Route(backend.name, None, backend.model, "a test")
    timeouts = Timeouts(settings.first_token_timeout, settings.idle_timeout, settings.call_timeout)
    executor = Executor(
        Plan(pipeline=pipeline, compiled=compiled, inputs=inputs, route=route),
        stacks,
        ChatRequest(messages=(), model=backend.model, timeouts=timeouts),
        run_id="test",
        emit=_ignore,
        approver=script.decide,
        instead=script.instead,
        backoff=AT_ONCE,
    )
    try:
        result = await executor.run()
    finally:
        await stacks.aclose()
    if script.missing:
        return result, tuple(Mismatch("replies", "a reply for every call", line) for line in script.missing.values())
    seen = dict(executor.variables)
    seen["steps"] = {**dict.fromkeys(compiled.graph.steps, SKIPPED), **seen["steps"]}
    seen["run"] = {**seen["run"], "stop_reason": result.stop_reason, "calls": len(backend.requests)}
    seen["result"] = result.answer
    return result, tuple(mismatches(case.expect, result, seen))


def _ignore(event: Event) -> None:
    """Take no note: the result has all that a test is about."""
