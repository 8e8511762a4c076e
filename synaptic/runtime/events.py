"""The events of a run: one tagged union of frozen dataclasses.

Renderers, ``--json`` and journals read events and nothing else. A step is named by its path:
``plan``, ``research[2]`` (the third instance of a map), ``refine[1].critique`` (a step inside the first
round of a loop). Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, TypeAlias, overload

from synaptic import pipeline as pipelines
from synaptic.messages import BackendReport, ChatRequest, FinishReason, Timings, Usage
from synaptic.quick_init import quick_init
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from synaptic.pipeline import LongInput, Plan, StepKind
    from synaptic.runtime.approval import Decision, Subject

StepStatus = Literal["succeeded", "failed", "skipped", "cancelled"]
RunStatus = Literal["succeeded", "stopped", "failed", "cancelled"]
"""``stopped``: a budget was used up; the answer is the best there was until then."""


Answer: TypeAlias = str | dict[str, Any]
"""What a pipeline's ``result`` is: text, or a mapping of JSON-like values."""


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How one step ended.

    Attributes:
        id: The step's path.
        attempts: Calls that were made, the first one included; 0 for a step that calls no model itself
            and did not try again.
        output: Text, or a value of the output shape; of a cancelled or failed step, the text so far.
        stop_reason: Why the output ends where it ends (``stop``, ``length``; of a loop: ``until``, ``max``,
            ``plateau``; of a map: how many items its condition left out; of a skipped step: ``when``, ``not chosen``,
            ``not needed``, ``lost the race``; of what the run itself cut off: ``budget: calls``, ``timeout``,
            ``lost the race``, ``draft failed``).
        cached: Whether the answer came from the cache, and no model was asked.
        key: Names what decides the output, where the run is recorded and this is a leaf of it: what has the same key
            need not be done again.
        reused: Whether the output is the one of an earlier run, and nothing was done.
        first_token_seconds: From sending the request to the first token.
    """

    id: str
    kind: StepKind
    agent: str | None
    status: StepStatus
    model: str | None = None
    backend: str | None = None
    node: str | None = None
    attempts: int = 0
    usage: Usage = Usage()
    timings: Timings = Timings()
    first_token_seconds: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    output: Any = None
    error: str | None = None
    stop_reason: str | None = None
    cached: bool = False
    key: str | None = None
    reused: bool = False


class EndedSteps(tuple[StepResult, ...]):
    """Steps in the order in which they ended; ``steps["plan"]`` is the one with that path.

    ``"plan" in steps`` asks whether it ended, ``steps.get("plan")`` gives ``None`` where it did not.
    """

    __slots__ = ()

    @overload
    def __getitem__(self, key: SupportsIndex | str, /) -> StepResult: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[StepResult, ...]: ...
    def __getitem__(self, key: SupportsIndex | str | slice, /) -> StepResult | tuple[StepResult, ...]:
        """Return a step by its place or its path, or several by their places.

        Raises:
            KeyError: If no step has that path; the message names the nearest.
        """
        if not isinstance(key, str):
            return super().__getitem__(key)
        found = self.get(key)
        if found is None:
            raise KeyError(f"no step {key!r} ended; {did_you_mean(key, [step.id for step in self])}")
        return found

    def __contains__(self, key: object, /) -> bool:
        """Return whether a step, or one with that path, is there."""
        return self.get(key) is not None if isinstance(key, str) else super().__contains__(key)

    def get(self, path: str) -> StepResult | None:
        """Return the step with a path, ``None`` if none has it."""
        return next((step for step in reversed(self) if step.id == path), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How one run ended: the answer, every step, the tokens used.

    Attributes:
        answer: The pipeline's result: text, or a dict where ``result`` is a mapping; of a run that was
            stopped, cancelled or failed, as much of the result as is there, maybe "".
        stop_reason: ``completed``, ``length`` (the answer hit its token limit), ``budget: tokens`` (or ``calls``,
            ``seconds``), ``cancelled`` or ``failed``.
        error: What made the run fail; the path of the step is its ``step``.
        steps: In the order in which they ended; also by path, as in ``steps["plan"]``.
    """

    run_id: str
    pipeline: str
    status: RunStatus
    answer: Answer
    steps: EndedSteps
    usage: Usage
    stop_reason: str
    started_at: float
    ended_at: float
    error: Exception | None = None

    @property
    def text(self) -> str:
        """The answer as it is printed: of a dict, a line or a paragraph for each value."""
        return pipelines.present(self.answer)

    def _repr_html_(self) -> str:
        """Return the result as a notebook shows it."""
        found: str = import_module("synaptic.runtime.result_html").html_of(self)
        return found

    def raise_for_status(self) -> RunResult:
        """Return self, or raise what made the run fail.

        Raises:
            SynapticError: If the run failed.
        """
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True, slots=True)
class Descent:
    """Where a run comes from.

    Attributes:
        parent: The run that it goes on from, or repeats a part of.
        forked_at: The step from which on it differs from its parent.
        session: The conversation that it is a turn of.
        after: The run that was the turn before it.
        title: What stands for the question in that conversation; "" is the question itself.
        instead: The run of the same turn, whose place it takes in the conversation once it has an answer.
        files: What every question of that conversation is about: absolute paths and patterns.
        last: The run that was begun last in that conversation when it was looked at; ``None`` where it was not. Where
            another one was begun since, the run begins a conversation of its own.
        conversation: Earlier turns as text, as the pipeline sees them.
        model: That the person named for the whole run.
        defaults: What held for a call where nothing else said otherwise.
    """

    parent: str | None = None
    forked_at: str | None = None
    session: str | None = None
    after: str | None = None
    title: str = ""
    instead: str | None = None
    files: tuple[str, ...] = ()
    last: str | None = None
    conversation: str = ""
    model: str | None = None
    defaults: ChatRequest | None = None

    def of_turn(self) -> dict[str, Any]:
        """Return what ``Session.run`` takes of it, so that the run is the same turn of the conversation."""
        names = ("session", "after", "title", "instead", "files", "last", "model")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The plan is made and the first steps are about to start."""

    run_id: str
    plan: Plan
    at: float
    descent: Descent = Descent()


@quick_init
@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step has all it needs and begins. A map says how many instances it has in ``width``."""

    path: str
    kind: StepKind
    agent: str | None
    backend: str | None
    model: str | None
    at: float
    width: int | None = None


@dataclass(frozen=True, slots=True)
class StepAsked:
    """What a leaf of a run that is recorded is about to ask: a model, with a ``request``; or a ``tool``.

    Attributes:
        key: As that of its `StepResult`.
        digest: What identifies the content of the model, not only its name; ``None`` where that is not known.
        changed: In what the question differs from the one that this step asked in the run before.
        again: Whether it is a tool that may have been called before, and a person said that it is called again.
    """

    path: str
    key: str
    request: ChatRequest | None = None
    digest: str | None = None
    tool: str | None = None
    arguments: Mapping[str, Any] | None = None
    changed: tuple[str, ...] = ()
    again: bool = False


@quick_init
@dataclass(frozen=True, slots=True)
class TokenDelta:
    """A piece of a step's text. The text of a step that is repaired or retried starts again after its event."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class StepThought:
    """A step's text so far was the model's thinking; it is void, and the answer begins now."""

    path: str


@dataclass(frozen=True, slots=True)
class StepThinking:
    """What a model has thought, where its server tells that apart: in parts, and before the answer goes on."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class StepRetried:
    """A call failed and is sent again after ``delay`` seconds, maybe to another ``model``; text so far is void."""

    path: str
    attempt: int
    error: str
    delay: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class StepContinued:
    """A call broke in mid-stream and goes on at another node; text so far stays."""

    path: str
    reason: str
    node: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableReply:
    """A whole reply that the model is asked again because of: a run that goes on need not have it made once more.

    Attributes:
        model: That was asked, by the name that it was asked by.
        attempts: Requests of the call up to now.
        usage: Of the call up to now.
        thinking: Pieces of thinking in the reply.
        tool: What the model called instead of answering.
    """

    content: str
    model: str | None = None
    finish_reason: FinishReason | None = None
    attempts: int = 1
    usage: Usage = Usage()
    thinking: int = 0
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class StepRepaired:
    """The output was empty or had the wrong shape and the model is asked once more; text so far is void."""

    path: str
    reason: str
    reply: UnusableReply | None = None


@dataclass(frozen=True, slots=True)
class StepSummarised:
    """A part of a prompt that did not fit was summarised; the prompt is not sent before all of them are.

    Attributes:
        key: Of what was asked: a run that goes on does not ask it again.
    """

    path: str
    key: str
    content: str
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class PromptShortened:
    """A prompt did not fit the model's context and was shortened, as its step says; counts are tokens.

    ``how`` is "server" where the server itself cut it.
    """

    path: str
    how: Literal["truncate_oldest", "summarise", "server"]
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class ConversationShortened:
    """The conversation is too long for the prompts that ask the question: they get the latest turns.

    Attributes:
        turns: Questions with their answers that there were.
        kept: How many of them prompts get.
        cut: How many of these with their beginnings only.
    """

    turns: int
    kept: int
    cut: int


@dataclass(frozen=True, slots=True)
class InputDivided:
    """An input is too long for the prompts that it goes into: it is read in parts before the first step."""

    input: LongInput


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """The run waits for a person: to confirm or edit a step's prompt or output, or to answer its ``question``.

    Attributes:
        value: What the person is shown: the prompt, the output, the answer that is proposed.
        key: Names the decision, where the run is recorded.
    """

    path: str
    what: Subject
    question: str = ""
    value: Any = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalGiven:
    """The person has decided.

    Attributes:
        value: What the run goes on with; ``None`` of what was refused.
        key: As that of what was asked.
        reused: Whether the decision is the one of an earlier run, and nobody was asked.
    """

    path: str
    what: Subject
    decision: Decision
    value: Any = None
    key: str | None = None
    reused: bool = False


@quick_init
@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step ended, one way or another."""

    result: StepResult


@dataclass(frozen=True, slots=True)
class BackendReported:
    """A backend has something to say: progress of a download, a restarted engine."""

    report: BackendReport


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last event of every run, also of one that failed or was cancelled."""

    result: RunResult


Event: TypeAlias = (
    RunStarted
    | StepStarted
    | StepAsked
    | TokenDelta
    | StepThought
    | StepThinking
    | StepRetried
    | StepContinued
    | StepRepaired
    | StepSummarised
    | PromptShortened
    | ConversationShortened
    | InputDivided
    | ApprovalAsked
    | ApprovalGiven
    | StepFinished
    | BackendReported
    | RunFinished
)
EventHandler: TypeAlias = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Let an event pass."""
