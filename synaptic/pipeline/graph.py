"""The compiled form of steps: what the executor runs. Plain dicts; nothing here is looked up twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from synaptic.messages import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.agents import Agent, Shape
    from synaptic.pipeline.loader import Pipeline
    from synaptic.pipeline.spec import BudgetSpec, Join, Overflow, RetryCause, Select
    from synaptic.pipeline.templates import Expression, Template
    from synaptic.pipeline.tools import Tool

WorkKind: TypeAlias = Literal["agent", "choose", "tool", "pipeline", "repeat"]
"""What a step does, once for each item of its map."""
StepKind: TypeAlias = WorkKind | Literal["map", "samples"]
"""What an event tells of: a step's work, or what holds several of them together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """What is done around a call; equal policies share their wrappers.

    Attributes:
        backend: The backend that the step names; ``None`` is the one that the run was routed to.
        attempts: Most requests a model, the first included; ``None`` takes the settings'.
        retry_on: Causes to try again after; ``None`` is every failure that may pass.
        fallback_models: Asked in this order once the model before has failed for good.
        cache_seconds: How long an answer to the same request holds; 0 is no cache.
        overflow: What happens to a prompt that does not fit the model's context.

    """

    backend: str | None = None
    attempts: int | None = None
    retry_on: frozenset[RetryCause] | None = None
    fallback_models: tuple[str, ...] = ()
    cache_seconds: float = 0.0
    overflow: Overflow = "error"


PLAIN = CallPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCall:
    """One agent's call: everything but the values that fill the prompt.

    Attributes:
        model: What the step, the settings, the agent or the pipeline's defaults name; ``None`` is the run's own.
        model_origin: Which of them it was; "" where it is the run's own.
        timeouts: Bounds that are ``None`` come from the settings.
        repairs: How often an output of the wrong shape is asked for again; ``None`` is the usual once.

    """

    agent: Agent
    prompt: Template
    shape: Shape | None = None
    model: str | None = None
    model_origin: Literal["", "step", "agent_models", "agent", "defaults"] = ""
    temperature: float | None = None
    max_tokens: int | None = None
    num_ctx: int | None = None
    timeouts: Timeouts = Timeouts()
    repairs: int | None = None
    policy: CallPolicy = PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSamples:
    """Several answers to one prompt, and how one comes of them.

    Attributes:
        judge: Rates one candidate for ``best`` (its output has a number ``score``), or writes the merged answer of
            ``merge``; the prompt sees ``prompt`` (text) and ``candidate``, or ``candidates``. ``None`` for ``vote``.

    """

    count: int
    select: Select
    judge: CompiledCall | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRepeat:
    """A bounded loop.

    Attributes:
        itself: Whether the body is the step's own call, so that the kept round's output is the step's output.

    """

    body: Graph
    until: Expression | None
    score: Expression | None
    max: int | Expression
    keep: Literal["best", "last"]
    plateau: int | None = None
    itself: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledChoose:
    """A classifying call. Its shape is one enum, ``choice``; the step's output is the chosen label."""

    call: CompiledCall
    options: Mapping[str, tuple[str, ...]]


Binding: TypeAlias = "Expression | Template | Any"
"""What an argument is filled from: ``"{{ steps.a }}"`` alone gives the value itself, other text a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTool:
    """A call of a Python function; ``shape``, where given, is what its output is checked against."""

    tool: Tool
    arguments: Mapping[str, Binding]
    shape: Shape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledUse:
    """Another pipeline with its inputs. The output is its result: a sole reference gives the value itself."""

    pipeline: CompiledPipeline
    inputs: Mapping[str, Binding]


@dataclass(frozen=True, slots=True)
class Feed:
    """Where a map's items come from while their list is still being written: ``steps.<step>.<field>``."""

    step: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """One step. Exactly one of ``call``, ``choose``, ``tool``, ``use`` and ``repeat`` is set.

    Attributes:
        needs: Steps of the same scope that this one waits for.
        gates: Steps with ``choose`` that list this one, with the labels that let it run; any one is enough.
        feed: Set where the map may start before the step that writes its list has ended.
        on_demand: Runs only when a step that names it in ``on_error: {use: …}`` has failed.
        fallback: The step whose output takes the place of this one's, if it fails.
        timeout: Bound on the whole step in seconds, for work that is not one call.

    """

    id: str
    kind: WorkKind
    needs: tuple[str, ...] = ()
    call: CompiledCall | None = None
    choose: CompiledChoose | None = None
    tool: CompiledTool | None = None
    use: CompiledUse | None = None
    repeat: CompiledRepeat | None = None
    samples: CompiledSamples | None = None
    foreach: Expression | None = None
    item_name: str | None = None
    concurrency: int | None = None
    feed: Feed | None = None
    when: Expression | None = None
    gates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    join: Join = "all"
    on_error: Literal["fail", "skip", "use"] = "fail"
    fallback: str | None = None
    on_demand: bool = False
    approve: Literal["", "prompt", "output", "both"] = ""
    timeout: float | None = None
    priority: int = 0

    @property
    def agent_name(self) -> str | None:
        """The agent that is called, if the step calls one."""
        call = self.call or (self.choose.call if self.choose else None)
        return call.agent.name if call else None

    @property
    def is_plain_call(self) -> bool:
        """Whether the step is one call of an agent, and nothing else."""
        modified = self.foreach or self.samples or self.repeat
        return self.call is not None and not modified


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps with their dependencies inside one scope (the pipeline, or the body of a loop).

    Attributes:
        ranks: For each step the number of calls in the longest chain from it to the end, itself included (its upward
            rank; Topcuoglu et al., "Performance-effective and low-complexity task scheduling", 2002).

    """

    steps: Mapping[str, CompiledStep]
    dependents: Mapping[str, tuple[str, ...]]
    ranks: Mapping[str, int]

    @classmethod
    def of(cls, steps: Mapping[str, CompiledStep]) -> Graph:
        """Return the graph; every step's ``needs`` must be in ``steps``, without a cycle."""
        dependents: dict[str, list[str]] = {name: [] for name in steps}
        for step in steps.values():
            for need in step.needs:
                dependents[need].append(step.id)
        after = {name: tuple(names) for name, names in dependents.items()}
        ranks: dict[str, int] = {}
        for name in TopologicalSorter(after).static_order():
            ranks[name] = _weight(steps[name]) + max((ranks[later] for later in after[name]), default=0)
        return cls(steps, after, ranks)

    @property
    def length(self) -> int:
        """Calls in the longest chain."""
        return max(self.ranks.values(), default=0)

    def stages(self) -> dict[str, int]:
        """Return for each step the length of the longest chain of steps before it."""
        found: dict[str, int] = {}
        for name in TopologicalSorter({step.id: step.needs for step in self.steps.values()}).static_order():
            found[name] = max((found[need] + 1 for need in self.steps[name].needs), default=0)
        return found

    def critical_path(self) -> tuple[str, ...]:
        """Return the chain with the most calls; of equal ones, the one that comes first in the file."""
        path: list[str] = []
        names: Any = self.steps
        while names:
            current = max(names, key=lambda name: self.ranks[name])
            path.append(current)
            names = self.dependents[current]
        return tuple(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPipeline:
    """What the executor runs: the graph, the result's template, and the bounds.

    Attributes:
        needed: The steps that the result refers to.

    """

    pipeline: Pipeline
    graph: Graph
    result: Template
    needed: frozenset[str]
    budget: BudgetSpec
    concurrency: int | None


def _weight(step: CompiledStep) -> int:
    """Return the number of calls that the step makes one after the other, as far as that is known."""
    if step.repeat is not None:
        rounds = step.repeat.max if isinstance(step.repeat.max, int) else 1
        return max(1, rounds * step.repeat.body.length)
    if step.use is not None:
        return max(1, step.use.pipeline.graph.length)
    return 2 if step.samples is not None and step.samples.judge is not None else 1
