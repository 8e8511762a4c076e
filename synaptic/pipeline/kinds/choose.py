"""A step with ``choose``: a classifying call, whose output is the label of one of its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from synaptic.pipeline.graph import Work
from synaptic.pipeline.kinds.kind import Kind, Picture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.pipeline.graph import CompiledCall


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledChoose(Work):
    """A classifying call. Its shape is one enum, ``choice``; the step's output is the chosen label.

    Attributes:
        options: Each label with the steps that run only if it (or another that lists them) is chosen.

    """

    kind: ClassVar[str] = "choose"
    call: CompiledCall
    options: Mapping[str, tuple[str, ...]]


class ChooseKind(Kind):
    """The kind ``choose``."""

    name = "choose"
    picture = Picture(label="choose: ", fill="#fdf0c8", outline="hexagon", mermaid=("{{", "}}"), dot="shape=hexagon")
