"""Which workers each replica of a model gets. Pure: what is offered and wanted goes in, placements come out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement.decide import place
from synaptic.errors import NoPlacement, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from synaptic.backends.distributed.placement.types import Offer, Placement, ServingNeeds, WorkerName
    from synaptic.models import ModelShape

ANOTHERS: Final = "it is left to another replica"


def place_apart(
    shape: ModelShape, offers: Sequence[Offer], needs: ServingNeeds, count: int, *, unreached: Sequence[str] = ()
) -> list[Placement]:
    """Return placements that share no worker: ``count`` of them, or as many as fit, at least one.

    Each takes the best of what the ones before it left; where that yields too few, the workers are dealt out first,
    the largest first, each to the replica that has least so far.

    Raises:
        NoPlacement: If not even one fits.
        UsageError: If a person's orders contradict themselves.
    """
    one_by_one = [place(shape, offers, needs, unreached=unreached)]
    while len(one_by_one) < count and (further := _further(shape, offers, needs, one_by_one)) is not None:
        one_by_one.append(further)
    for number in range(count, len(one_by_one), -1):
        if dealt := _dealt(shape, offers, needs, number):
            return dealt
    return one_by_one


def _further(
    shape: ModelShape, offers: Sequence[Offer], needs: ServingNeeds, placed: Sequence[Placement]
) -> Placement | None:
    """Return a placement over the workers that the others left."""
    taken = {share.endpoint for placement in placed for share in placement.shares}
    return _within(shape, offers, needs, {offer.endpoint for offer in offers} - taken)


def _dealt(shape: ModelShape, offers: Sequence[Offer], needs: ServingNeeds, number: int) -> list[Placement]:
    """Return so many placements over workers that were dealt out, or none."""
    sizes: dict[WorkerName, int] = {}
    for offer in offers:
        if not offer.refusal:
            sizes[offer.endpoint] = sizes.get(offer.endpoint, 0) + offer.memory_bytes
    hands: list[set[WorkerName]] = [set() for _ in range(number)]
    for worker in sorted(sizes, key=lambda worker: -sizes[worker]):
        min(hands, key=lambda hand: sum(sizes[one] for one in hand)).add(worker)
    found = [_within(shape, offers, needs, hand) for hand in hands]
    return [placement for placement in found if placement is not None] if None not in found else []


def _within(
    shape: ModelShape, offers: Sequence[Offer], needs: ServingNeeds, workers: AbstractSet[WorkerName]
) -> Placement | None:
    """Return a placement over these workers, ``None`` if they do not hold it; the verdicts tell of the others, too."""
    left = [
        offer if offer.endpoint in workers or offer.refusal else replace(offer, refusal=ANOTHERS) for offer in offers
    ]
    try:
        return place(shape, left, needs)
    except (NoPlacement, UsageError):
        return None
