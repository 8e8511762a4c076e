"""What a model is to be served with, as the settings have it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement.types import ServingNeeds
from synaptic.backends.drafts import LONGEST
from synaptic.errors import UsageError

if TYPE_CHECKING:
    from synaptic.models import ModelShape
    from synaptic.settings import Settings


FEWEST: Final = 4
MOST: Final = 16
"""Calls that a coordinator serves at once: they share each round trip to the workers, and each takes memory."""


def slot_count(settings: Settings, width: int = 0) -> int:
    """Return the calls at once: as set, else as many as a pipeline is wide, within bounds.

    Args:
        settings: ``distributed_parallel`` goes before everything else.
        width: Calls that the pipeline makes at once; 0 where that is not known.
    """
    return settings.distributed_parallel or max(FEWEST, min(width, MOST))


def serving_needs(
    shape: ModelShape, settings: Settings, *, context: int | None = None, slots: int | None = None, width: int = 0
) -> ServingNeeds:
    """Return what the model is to be served with; what is not given comes from the settings.

    Args:
        shape: The model.
        settings: ``distributed_context``, ``distributed_parallel`` and ``drafts``.
        context: Tokens of one call.
        slots: Calls at once.
        width: Calls that the pipeline makes at once; 0 where that is not known.

    Raises:
        UsageError: If more context is given than the model was trained for.
    """
    most = shape.trained_context
    if context is not None and 0 < most < context:
        raise UsageError(
            f"--context {context}: {shape.name} was trained for {most} tokens", hint=f"write --context {most} or less"
        )
    tokens = context or settings.distributed_context
    return ServingNeeds(
        context=min(tokens, most) if most else tokens,
        slots=slots or slot_count(settings, width),
        draft=LONGEST if settings.drafts else 0,
    )
