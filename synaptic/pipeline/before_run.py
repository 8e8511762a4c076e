"""What is asked of a whole compiled pipeline before it runs, with what it uses and repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.graph import CompiledCall, CompiledStep, Graph


def every_step(graph: Graph, prefix: str = "") -> Iterator[tuple[str, CompiledStep]]:
    """Yield each step with its path, those of loops and used pipelines included."""
    for name, step in graph.steps.items():
        path = prefix + name
        yield path, step
        inside = step.worker.work.inside
        if inside is not None:
            yield from every_step(inside.graph, f"{path}.")


def calls_models(graph: Graph) -> bool:
    """Return whether any step calls a model of the run's own backend."""
    return any(True for _ in _own_calls(graph))


def named_models(graph: Graph) -> bool:
    """Return whether any step names a model of the run's own backend."""
    return any(call.model or call.policy.fallback_models for call in _own_calls(graph))


def _own_calls(graph: Graph) -> Iterator[CompiledCall]:
    """Yield what is called at the run's own backend."""
    for _, step in every_step(graph):
        judge = None if step.worker.samples is None else step.worker.samples.judge
        yield from (call for call in (step.worker.call, judge) if call is not None and call.policy.backend is None)


def refuse_unattended(graph: Graph, *, accepted: bool) -> None:
    """Refuse a pipeline that needs a person where no person can be asked.

    Args:
        graph: The steps.
        accepted: Whether everything is accepted unseen; what remains are questions without a proposed answer.

    Raises:
        UsageError: Naming the steps; nothing was called.
    """
    steps = list(every_step(graph))
    approving = [] if accepted else [path for path, step in steps if step.approve]
    asking = [path for path, step in steps if step.worker.work.unanswered]
    if not approving and not asking:
        return
    tasks = [f"approve {', '.join(approving)}"] if approving else []
    ways = ["run it on a terminal without --yes" if accepted else "run it on a terminal"]
    if asking:
        tasks.append(f"answer {', '.join(asking)}")
        default = f"write a 'default' for {', '.join(asking)}"
        ways.append(default if not approving else f"{default} and accept everything with --yes")
    else:
        ways.append("accept everything with --yes")
    raise UsageError(
        f"a person has to {' and '.join(tasks)}, and no person can be asked here",
        hint=f"{', or '.join(ways)} (a program in Python: Session(approver=…))",
    )
