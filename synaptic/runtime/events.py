"""The events of a run: one tagged union of frozen dataclasses.

Renderers, ``--json`` and journals read events and nothing else. A step is named by its path:
``plan``, ``research[2]`` (the third instance of a map), ``refine[1].critique`` (a step inside the first
round of a loop). Times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from synaptic.messages import BackendReport, Timings, Usage
from synaptic.pipeline import present
from synaptic.quick_init import quick_init

if TYPE_CHECKING:
    from synaptic.pipeline import LongInput, Plan, StepKind
    from synaptic.runtime.approval import Subject

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How one run ended: the answer, every step, the tokens used.

    Attributes:
        answer: The pipeline's result: text, or a dict where ``result`` is a mapping; of a run that was
            stopped, cancelled or failed, as much of the result as is there, maybe "".
        stop_reason: ``completed``, ``length`` (the answer hit its token limit), ``budget: tokens`` (or ``calls``,
            ``seconds``), ``cancelled`` or ``failed``.
        error: What made the run fail; the path of the step is its ``step``.

    """

    run_id: str
    pipeline: str
    status: RunStatus
    answer: Answer
    steps: tuple[StepResult, ...]
    usage: Usage
    stop_reason: str
    started_at: float
    ended_at: float
    error: Exception | None = None

    @property
    def text(self) -> str:
        """The answer as it is printed: of a dict, a line or a paragraph for each value."""
        return present(self.answer)

    def raise_for_status(self) -> RunResult:
        """Return self, or raise what made the run fail.

        Raises:
            SynapticError: If the run failed.

        """
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The plan is made and the first steps are about to start."""

    run_id: str
    plan: Plan
    at: float


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


@dataclass(frozen=True, slots=True)
class StepRepaired:
    """The output was empty or had the wrong shape and the model is asked once more; text so far is void."""

    path: str
    reason: str


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
class InputDivided:
    """An input is too long for the prompts that it goes into: it is read in parts before the first step."""

    input: LongInput


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """The run waits for a person: to confirm or edit a step's prompt or output, or to answer its ``question``."""

    path: str
    what: Subject
    question: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalGiven:
    """The person has decided."""

    path: str
    what: Subject
    decision: Literal["accepted", "edited", "refused"]


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
    | TokenDelta
    | StepThought
    | StepRetried
    | StepContinued
    | StepRepaired
    | PromptShortened
    | InputDivided
    | ApprovalAsked
    | ApprovalGiven
    | StepFinished
    | BackendReported
    | RunFinished
)
EventHandler: TypeAlias = Callable[[Event], None]
