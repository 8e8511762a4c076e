"""The compiled form of steps: what the executor runs. Plain dicts; nothing here is looked up twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from synaptic.messages import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.agents import Agent, Shape
    from synaptic.errors import Problem
    from synaptic.pipeline.inputs import PipelineFile
    from synaptic.pipeline.spec import BudgetSpec, Join, RetryCause, Select
    from synaptic.pipeline.templates import Expression, Structure, Template
    from synaptic.shared_bounds import Overflow

QUESTION: Final = "query"
"""The input that a person's question goes into."""

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""(start, end) of pieces of a text."""

_BETWEEN: Final = "\n\n"

WorkKind: TypeAlias = str
"""What a step does, once for each item of its map: a name in the table of kinds."""
StepKind: TypeAlias = str
"""What an event tells of: a step's work, or ``map`` or ``samples``, which hold several of them together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """What is done around a call; equal policies share their wrappers.

    Attributes:
        backend: The backend that the step names; ``None`` is the one that the run was routed to.
        attempts: Most requests a model, the first included; ``None`` takes the settings'.
        retry_on: Causes to try again after; ``None`` is every failure that may pass.
        fallback_models: Asked in this order once the model before has failed for good.
        cache_seconds: How long an answer to the same request holds; 0 is no cache.
        overflow: What happens to a prompt that does not fit the model's context; ``None`` takes the settings'.
    """

    backend: str | None = None
    attempts: int | None = None
    retry_on: frozenset[RetryCause] | None = None
    fallback_models: tuple[str, ...] = ()
    cache_seconds: float = 0.0
    overflow: Overflow | None = None


PLAIN = CallPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledCall:
    """One agent's call: everything but the values that fill the prompt.

    Attributes:
        model: What the step, the settings, the agent or the pipeline's defaults name; ``None`` is the run's own.
        model_origin: Which of them it was; "" where it is the run's own.
        usual_tokens: The limit of a shipped agent that writes prose: it holds where the settings name none.
        timeouts: Bounds that are ``None`` come from the settings.
        repairs: How often an output of the wrong shape is asked for again; ``None`` is the usual once.
        hears: Whether earlier turns of the conversation go before the prompt: it asks the question, and does not place
            them itself.
    """

    agent: Agent
    prompt: Template
    shape: Shape | None = None
    model: str | None = None
    model_origin: Literal["", "step", "agent_models", "agent", "defaults"] = ""
    temperature: float | None = None
    max_tokens: int | None = None
    usual_tokens: int | None = None
    num_ctx: int | None = None
    timeouts: Timeouts = Timeouts()
    repairs: int | None = None
    policy: CallPolicy = PLAIN
    hears: bool = False

    def message(self, variables: Mapping[str, Any], *, where: str) -> tuple[str, Spans]:
        """Return the prompt, behind the earlier turns where it asks the question; and the spans of it that are data.

        Raises:
            PipelineError: If a reference of the template leads nowhere.
        """
        text, spans = self.prompt.render_message(variables, where=where)
        earlier = variables["run"]["conversation"] if self.hears and variables["inputs"].get(QUESTION) else ""
        if not earlier:
            return text, spans
        before = len(earlier) + len(_BETWEEN)
        return f"{earlier}{_BETWEEN}{text}", (
            (0, len(earlier)),
            *((start + before, end + before) for start, end in spans),
        )


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


Binding: TypeAlias = "Expression | Template | Any"
"""What an argument is filled from: ``"{{ steps.a }}"`` alone gives the value itself, other text a text."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Steps inside a step: the body of a loop, or those of another pipeline.

    Attributes:
        inputs: What is known of their pipeline's inputs before the run; ``None`` where it is the pipeline around.
        concurrency: Most calls at once; ``None`` is no bound.
        listed: Whether plans and drawings show them.
        hear: Whether earlier turns of the conversation reach them.
    """

    graph: Graph
    inputs: Mapping[str, Any] | None = None
    concurrency: int | None = None
    listed: bool = True
    hear: bool = True


class Work:
    """What a step does, compiled. Every kind of step has a class of its own, in its file in ``kinds``."""

    __slots__ = ()
    kind: ClassVar[str]

    @property
    def call(self) -> CompiledCall | None:
        """The call of a model that the work is; ``None`` where it is none itself."""
        return None

    @property
    def name(self) -> str:
        """The agent, the tool or the pipeline that is called; "" where nothing is."""
        return self.call.agent.name if self.call is not None else ""

    @property
    def length(self) -> int:
        """Calls that it makes one after the other, as far as that is known."""
        return 1

    @property
    def inside(self) -> Inside | None:
        """The steps that it consists of."""
        return None

    @property
    def demanded(self) -> Mapping[str, Binding]:
        """The values under ``with`` that it cannot do without: the output of a skipped step will not do."""
        return {}

    def inputs_inside(self, _variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the inputs that the steps inside get, as far as the variables of the step decide them."""
        return {}

    @property
    def repeated(self) -> CompiledStep | None:
        """The step whose work it does in rounds; ``None`` where it is not a loop over itself."""
        return None

    @property
    def options(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of a choice, each with the steps that run only if it is chosen."""
        return {}

    @property
    def structured(self) -> bool:
        """Whether a model writes the output as JSON."""
        return False

    @property
    def unanswered(self) -> bool:
        """Whether only a person can give its output: it asks, and proposes no answer."""
        return False

    @property
    def answer(self) -> str | None:
        """The path, below the step's own, of the text that its output is, once written; "" is the step itself."""
        return None

    @property
    def rounds(self) -> tuple[str, ...]:
        """What ends its rounds and which of them is kept, a line each; () where it is no loop."""
        return ()

    def times(self, _inputs: Mapping[str, Any]) -> str:
        """Return how often it is done, as ``≤ 3``; "" where that is once."""
        return ""


@dataclass(frozen=True, slots=True)
class Feed:
    """Where a map's items come from while their list is still being written: ``steps.<step>.<field>``."""

    step: str
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """One step.

    Attributes:
        needs: Steps of the same scope that this one waits for.
        item_when: Condition of each item of the map: those that it is false for are left out.
        gates: Steps with ``choose`` that list this one, with the labels that let it run; any one is enough.
        feed: Set where the map may start before the step that writes its list has ended.
        on_demand: Runs only when a step that names it in ``on_error: {use: …}`` has failed.
        fallback: The step whose output takes the place of this one's, if it fails.
        timeout: Bound on the whole step in seconds, for work that is not one call.
    """

    id: str
    work: Work
    description: str = ""
    needs: tuple[str, ...] = ()
    samples: CompiledSamples | None = None
    foreach: Expression | Structure | None = None
    item_name: str | None = None
    concurrency: int | None = None
    feed: Feed | None = None
    when: Expression | None = None
    item_when: Expression | None = None
    gates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    join: Join = "all"
    on_error: Literal["fail", "skip", "use"] = "fail"
    fallback: str | None = None
    on_demand: bool = False
    approve: Literal["", "prompt", "output", "both"] = ""
    timeout: float | None = None
    priority: int = 0

    @property
    def kind(self) -> WorkKind:
        """The kind of its work."""
        return self.work.kind

    @property
    def call(self) -> CompiledCall | None:
        """The call of a model that its work is; ``None`` where it is none itself."""
        return self.work.call

    @property
    def agent_name(self) -> str | None:
        """The agent that is called, if the step calls one."""
        call = self.work.call
        return None if call is None else call.agent.name

    @property
    def worker(self) -> CompiledStep:
        """The step whose work is done: of a loop over itself, its body."""
        return self.work.repeated or self


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
    """What the executor runs: the graph, the result, and the bounds.

    Attributes:
        needed: The steps that the result refers to.
        warnings: What a person should look at in the file and in those that it uses, and may run all the same.
    """

    pipeline: PipelineFile
    graph: Graph
    result: Template | Structure
    needed: frozenset[str]
    budget: BudgetSpec
    concurrency: int | None
    warnings: tuple[Problem, ...] = ()

    @property
    def answer(self) -> str | None:
        """The path of the step whose text is the pipeline's result, and stays so; ``None`` where there is none."""
        reference = self.result.sole_reference
        if reference is None or reference.root != "steps" or len(reference.path) != 1:
            return None
        return self.text_of(reference.path[0])

    def text_of(self, name: str) -> str | None:
        """Return the path of the step whose text is the output of a step, and stays so once it is written.

        ``None`` where anything may still change or replace that text: an output shape, a map, samples, a loop, a
        person who approves it, a step that takes its place, a race that it may lose.
        """
        step = self.graph.steps.get(name)
        if step is None or _may_change(step) or _may_lose(step, self.graph):
            return None
        inner = step.work.answer
        return inner if inner is None else f"{step.id}.{inner}".removesuffix(".")


def _weight(step: CompiledStep) -> int:
    """Return the number of calls that the step makes one after the other, as far as that is known."""
    judged = step.samples is not None and step.samples.judge is not None
    return max(1, step.work.length) + judged


def _may_change(step: CompiledStep) -> bool:
    many = step.foreach is not None or step.samples is not None
    return many or step.approve in {"output", "both"} or step.on_error == "use" or step.on_demand


def _may_lose(step: CompiledStep, graph: Graph) -> bool:
    """Return whether the step may be cancelled because another one was faster."""
    return any(graph.steps[later].join == "first" for later in graph.dependents[step.id])
