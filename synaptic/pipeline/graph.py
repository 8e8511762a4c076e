"""The compiled form of steps: what the executor runs. Plain dicts; nothing here is looked up twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.agents import Agent
    from synaptic.pipeline.expressions import Expression, Template
    from synaptic.shape import Shape

StepKind = Literal["agent", "map", "repeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCall:
    """One agent's call: everything but the values that fill the prompt.

    Attributes:
        model: What the step, the settings or the agent name; ``None`` is the backend's own choice.

    """

    agent: Agent
    prompt: Template
    shape: Shape | None
    model: str | None
    temperature: float | None
    max_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRepeat:
    """A bounded loop."""

    body: Graph
    until: Expression | None
    score: Expression | None
    max: int | Expression
    keep: Literal["best", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """One step. Exactly one of ``call`` and ``repeat`` is set; ``foreach`` makes a map of the call."""

    id: str
    kind: StepKind
    needs: tuple[str, ...]
    call: CompiledCall | None = None
    repeat: CompiledRepeat | None = None
    foreach: Expression | None = None
    item_name: str | None = None
    when: Expression | None = None
    skip_on_error: bool = False

    @property
    def agent_name(self) -> str | None:
        """The agent that is called, if the step calls one."""
        return self.call.agent.name if self.call else None


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps with their dependencies inside one scope (the pipeline, or the body of a loop)."""

    steps: Mapping[str, CompiledStep]
    dependents: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, steps: Mapping[str, CompiledStep]) -> Graph:
        """Return the graph; every step's ``needs`` must be in ``steps``."""
        dependents: dict[str, list[str]] = {name: [] for name in steps}
        for step in steps.values():
            for need in step.needs:
                dependents[need].append(step.id)
        return cls(steps, {name: tuple(after) for name, after in dependents.items()})

    def stages(self) -> dict[str, int]:
        """Return for each step the length of the longest chain of steps before it."""
        found: dict[str, int] = {}
        waiting = {name: len(step.needs) for name, step in self.steps.items()}
        ready = [name for name, count in waiting.items() if count == 0]
        for name in ready:
            found[name] = max((found[need] + 1 for need in self.steps[name].needs), default=0)
            for after in self.dependents[name]:
                waiting[after] -= 1
                if waiting[after] == 0:
                    ready.append(after)
        return found

    def critical_path(self) -> tuple[str, ...]:
        """Return the longest chain of steps; of equal ones, the one that comes first in the file."""
        stages = self.stages()
        path: list[str] = []
        current = max(stages, key=lambda name: stages[name], default=None)
        while current is not None:
            path.append(current)
            needs = self.steps[current].needs
            current = max(needs, key=lambda name: stages[name], default=None)
        return tuple(reversed(path))


def find_cycle(needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the steps of one cycle, the first one repeated at the end, or ``None``. Iterative: any depth."""
    done: set[str] = set()
    for root in needs:
        stack: list[tuple[str, Iterator[str]]] = [(root, iter(needs[root]))]
        trail: dict[str, Any] = {root: None}
        while stack and root not in done:
            name, following = stack[-1]
            after = next((need for need in following if need not in done), None)
            if after is None:
                done.add(name)
                trail.pop(name)
                stack.pop()
            elif after in trail:
                chain = list(trail)
                return (*chain[chain.index(after) :], after)
            else:
                trail[after] = None
                stack.append((after, iter(needs[after])))
    return None
