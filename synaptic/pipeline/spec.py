"""The pipeline file as data: what may be written, and of which type. It knows nothing of agents or models."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

InputType = Literal["string", "integer", "number", "boolean", "list"]
Identifier: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class InputSpec(_Strict):
    """One input of the pipeline."""

    type: InputType = "string"
    description: str = ""
    required: bool = False
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None


class RepeatSpec(_Strict):
    """A bounded loop over its own steps; it always ends with a result.

    Attributes:
        until: Condition, evaluated after each round; true ends the loop.
        max: Most rounds; a number, or an expression over ``inputs``.
        score: Expression that rates a round; with ``keep: best`` the highest-rated round is the result.

    """

    steps: dict[Identifier, StepSpec] = Field(min_length=1)
    until: str | None = None
    max: int | str = 3
    score: str | None = None
    keep: Literal["best", "last"] = "last"


class StepSpec(_Strict):
    """One step: an agent's call, a map of such calls over a list, or a bounded loop of steps.

    Attributes:
        foreach: Expression that gives a list; the step runs once per item, in parallel.
        item_name: What the item is called in the prompt, beside ``item``.
        when: Condition; where it is false the step is skipped and its output is empty.
        needs: Steps to wait for that are not referred to.
        output: Output shape, in place of the agent's own.
        on_error: Whether a failure of this step fails the run, or skips the step (or the item of a map).

    """

    agent: str | None = None
    prompt: str | None = None
    description: str = ""
    foreach: str | None = None
    item_name: Identifier | None = Field(default=None, alias="as")
    when: str | None = None
    needs: list[str] = []
    repeat: RepeatSpec | None = None
    output: dict[str, Any] | None = None
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    on_error: Literal["fail", "skip"] = "fail"


class PipelineSpec(_Strict):
    """A pipeline file, version 1."""

    version: Literal[1]
    name: Identifier
    description: str = ""
    inputs: dict[Identifier, InputSpec] = {}
    steps: dict[Identifier, StepSpec] = Field(min_length=1)
    result: str


RepeatSpec.model_rebuild()
