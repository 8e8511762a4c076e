"""What is asked of a whole compiled pipeline before it runs, with what it uses and repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.graph import CompiledStep, Graph


def every_step(graph: Graph, prefix: str = "") -> Iterator[tuple[str, CompiledStep]]:
    """Yield each step with its path, those of loops and used pipelines included."""
    for name, step in graph.steps.items():
        path = prefix + name
        yield path, step
        inside = step.work.inside
        if inside is not None and inside.listed:
            yield from every_step(inside.graph, f"{path}.")


def named_models(graph: Graph) -> bool:
    """Return whether any step names a model of the run's own backend."""
    calls = (step.call for _, step in every_step(graph))
    return any(call and call.policy.backend is None and (call.model or call.policy.fallback_models) for call in calls)


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
    if approving:
        raise UsageError(
            f"a person has to approve {', '.join(approving)}, and nobody can be asked here",
            hint="run it on a terminal, accept everything with --yes, or give the session an approver",
        )
    asking = [path for path, step in steps if step.worker.work.unanswered]
    if asking:
        raise UsageError(
            f"a person has to answer {', '.join(asking)}, and no person can be asked here",
            hint="run it on a terminal without --yes, write a 'default', or give the session an approver",
        )
