"""The parts of the pipeline file as data: what may be written, and of which type; agents and models are names here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Field

from synaptic.pipeline.spec.short_forms import (
    Approve,
    CacheSeconds,
    Expected,
    Failing,
    Identifier,
    Listed,
    OnError,
    OnErrorSpec,
    Seconds,
    Strict,
    Texts,
    Timeout,
    TimeoutSpec,
    WrittenText,
)
from synaptic.shared_bounds import LONGEST_CONTEXT, Overflow

InputType: TypeAlias = Literal["string", "integer", "number", "boolean", "list", "file", "files"]
Join: TypeAlias = Literal["all", "any", "first"]
Select: TypeAlias = Literal["best", "vote", "merge"]
RetryCause: TypeAlias = Literal["unavailable", "busy", "server", "stream", "timeout", "crash"]

ReplyFailure: TypeAlias = Literal["unavailable", "busy", "server", "stream", "timeout", "crash", "rejected", "output"]
"""How a scripted reply of a model may fail: what ``retry.on`` names, and two that no further request mends."""

AgentName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
Context: TypeAlias = Annotated[int, Field(ge=1, le=LONGEST_CONTEXT)]
Temperature: TypeAlias = Annotated[float, Field(ge=0, le=2)]

FAILS = "fails"
MAX_SAMPLES = 64
MAX_ATTEMPTS = 20


class InputSpec(Strict):
    """One input of the pipeline.

    Attributes:
        choices: The only values that are allowed, of a string.
        type: ``file`` and ``files`` are read when the run begins; each is a mapping of ``name`` and ``text``.
    """

    type: InputType = "string"
    description: str = ""
    required: bool = False
    default: Any = None
    choices: list[WrittenText] | None = Field(default=None, min_length=1)
    minimum: float | None = None
    maximum: float | None = None


class RetrySpec(Strict):
    """How often a call is tried.

    Attributes:
        attempts: Most requests for one call and one model, the first one included.
        on: After which failures; left out: after those that may pass.
        repairs: How often an output of the wrong shape is asked for again; a budget of its own.
    """

    attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] | None = None
    on: list[RetryCause] | None = None
    repairs: Annotated[int, Field(ge=0, le=MAX_ATTEMPTS)] | None = None


class DefaultsSpec(Strict):
    """What holds for every step of the pipeline that does not say otherwise itself, nor does its agent."""

    model: str | None = None
    temperature: Temperature | None = None
    max_tokens: Count | None = None
    num_ctx: Context | None = None
    timeout: Timeout = TimeoutSpec()
    retry: RetrySpec = RetrySpec()
    overflow: Overflow | None = None


class AgentSpec(Strict):
    """An agent of this pipeline alone; the fields are those of an agent's Markdown file."""

    prompt: str
    description: str = ""
    model: str | None = None
    temperature: Temperature | None = None
    max_tokens: Count | None = None
    output: dict[str, Any] | None = None


class BudgetSpec(Strict):
    """What one run may use at most; reaching it ends the run with what there is.

    Attributes:
        tokens: Prompt and completion together.
        calls: Requests, retries and repairs included.
    """

    tokens: Count | None = None
    calls: Count | None = None
    seconds: Seconds | None = None


class ExpectSpec(Strict):
    """What a test expects of its run. Where it expects nothing, the run has to give an answer.

    Attributes:
        result: The whole answer: text, or a mapping where the pipeline's result is one.
        contains: Text that stands in the answer, or a list of texts.
        that: Condition that holds after the run, or a list of them; sees ``result``, ``steps``, ``inputs``, ``run``.
        fails: Words of the error that ends the run; true: any error.
    """

    result: Expected = None
    contains: Texts = Field(default_factory=list)
    that: Texts = Field(default_factory=list)
    fails: Failing = None


class CaseSpec(Strict):
    """One test: a run without a model, in which steps answer what is written here.

    Attributes:
        inputs: What the run is given. A path of a file is relative to the pipeline's folder.
        replies: Step -> its reply: text, a mapping of its fields, or ``{fails: busy}``; a list has one for each call.
        expect: What has to come of it.
    """

    inputs: dict[str, Any] = Field(default_factory=dict)
    replies: dict[str, Any] = Field(default_factory=dict)
    expect: ExpectSpec = ExpectSpec()


class RepeatSpec(Strict):
    """A bounded loop over its own steps, or over the step itself; it always ends with a result.

    Attributes:
        itself: Repeat the step's own call, written ``self: true``.
        until: Condition, evaluated after each round; true ends the loop.
        max: Most rounds; a number, or an expression.
        score: Expression that rates a round; with ``keep: best`` the highest-rated round is the result.
        plateau: End after so many rounds in a row without a better score.
    """

    steps: dict[Identifier, StepSpec] | None = Field(default=None, min_length=1)
    itself: bool = Field(default=False, alias="self")
    until: str | None = None
    max: int | str = 3
    score: str | None = None
    plateau: Count | None = None
    keep: Literal["best", "last"] = "last"


class StepKeys(Strict):
    """The keys of a step that are not those of one kind alone; ``spec.StepSpec`` adds those.

    Attributes:
        inputs: Inputs of ``use``, arguments of ``tool``; written ``with``.
        foreach: Expression that gives a list, or the list itself; the step runs once per item, in parallel.
        item_name: What the item is called in the prompt, beside ``item``.
        concurrency: Most items of the map at once.
        when: Condition; where it is false the step is skipped. One that speaks of the item of a map is asked for each
            item, and leaves out those that it is false for.
        needs: Steps to wait for that are not referred to.
        join: Wait for all that it needs, for any one, or for the first and cancel the others.
        output: Output shape, in place of the agent's own.
        samples: Ask so many times and select: the best by a judge, the most frequent, or a merged one.
        judge: The agent that rates the samples of ``select: best``; its output has a number ``score``.
        cache: Seconds that an answer to the same request is kept; 0 is off.
        approve: What a person confirms or edits before the run goes on.
    """

    description: str = ""
    inputs: dict[str, Any] | None = Field(default=None, alias="with")
    repeat: RepeatSpec | None = None
    when: str | None = None
    needs: list[str] = Field(default_factory=list)
    join: Join = "all"
    foreach: Listed | None = None
    item_name: Identifier | None = Field(default=None, alias="as")
    concurrency: Count | None = None
    output: dict[str, Any] | None = None
    model: str | None = None
    backend: str | None = None
    fallback_models: list[str] = Field(default_factory=list)
    temperature: Temperature | None = None
    max_tokens: Count | None = None
    timeout: Timeout = TimeoutSpec()
    retry: RetrySpec = RetrySpec()
    overflow: Overflow | None = None
    samples: Annotated[int, Field(ge=2, le=MAX_SAMPLES)] | None = None
    select: Select | None = None
    judge: str | None = None
    cache: CacheSeconds = 0.0
    approve: Approve = ""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    on_error: OnError = OnErrorSpec()


if TYPE_CHECKING:
    from synaptic.agents import Shape

    StepSpec: TypeAlias = StepKeys  # with the keys of every kind; ``spec.spec`` makes it


def is_failure(reply: Any, shape: Shape | None) -> bool:
    """Return whether a scripted reply is an error, ``{fails: busy}``, and not a value of the step's shape."""
    return isinstance(reply, dict) and set(reply) == {FAILS} and (shape is None or FAILS not in shape.field_names())
