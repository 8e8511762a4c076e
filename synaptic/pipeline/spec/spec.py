"""The pipeline file as data: its parts, and steps with the keys of every kind of step."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pydantic import Field, create_model

from synaptic.pipeline.kinds import KINDS
from synaptic.pipeline.spec.parts import (
    AgentName,
    AgentSpec,
    BudgetSpec,
    CaseSpec,
    Count,
    DefaultsSpec,
    InputSpec,
    RepeatSpec,
    StepKeys,
)
from synaptic.pipeline.spec.short_forms import Identifier, Result, Strict, Version

KIND_KEYS = tuple(kind.key for kind in KINDS.values())

if TYPE_CHECKING:
    StepSpec: TypeAlias = StepKeys
else:
    _own = tuple(kind.keys for kind in KINDS.values() if kind.keys is not None)
    StepSpec = create_model("StepSpec", __base__=(*reversed(_own), StepKeys), __module__=__name__)
    _works = ", ".join(f"``{key}``" for key in KIND_KEYS)
    StepSpec.__doc__ = f"One step: exactly one of {_works}; the rest modifies it."


class PipelineSpec(Strict):
    """A pipeline file, version 1.

    Attributes:
        conversation: Whether earlier turns go before every prompt that asks the question (the input ``query``) and does
            not place ``run.conversation`` itself; false: only where one does, and not into pipelines that it uses.
        concurrency: Most calls of this pipeline at once.
        result: Template of the answer; or a mapping whose values are templates and data, which gives programs an object
            with values of their own types.
    """

    version: Version
    name: Identifier
    description: str = ""
    inputs: dict[Identifier, InputSpec] = Field(default_factory=dict)
    defaults: DefaultsSpec = DefaultsSpec()
    agents: dict[AgentName, AgentSpec] = Field(default_factory=dict)
    budget: BudgetSpec = BudgetSpec()
    concurrency: Count | None = None
    conversation: bool = True
    steps: dict[Identifier, StepSpec] = Field(min_length=1)
    result: Result
    tests: dict[Identifier, CaseSpec] = Field(default_factory=dict)


if not TYPE_CHECKING:
    RepeatSpec.model_rebuild(_types_namespace={"StepSpec": StepSpec})
    StepSpec.model_rebuild(force=True)
    PipelineSpec.model_rebuild(force=True)
