"""Which workers hold which layers of a model. Pure: what is offered and wanted goes in, a placement comes out.

The fewest and fastest devices that fit: the predicted time of a token (:mod:`predict`) is minimised under the memory
of each, and each further stage costs a round trip. A device that fits alone never shares the model with others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement import predict
from synaptic.backends.distributed.placement.search import MOST_DEVICES, Found, SearchDevice, search
from synaptic.backends.distributed.placement.types import Placement, Share
from synaptic.backends.distributed.placement.verdicts import no_room, no_workers, usable_offers, verdicts
from synaptic.errors import NoPlacement, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.distributed.placement.types import Offer, ServingNeeds, WorkerName
    from synaptic.models import ModelShape

THIN: Final = 0.15
"""The part of a model that its coordinator may hold for the sake of speed."""
WORTH_IT: Final = 0.95
"""The output is kept at the coordinator if that makes a token cheaper than this part of what it costs else."""


def place(
    shape: ModelShape, offers: Sequence[Offer], needs: ServingNeeds, *, unreached: Sequence[str] = ()
) -> Placement:
    """Return which devices hold which layers.

    A person's orders (``Offer.layers``) are obeyed exactly; those of workers that cannot be used count for nothing.
    Norm and head are the last worker's, unless calls as many as there are slots are answered clearly sooner with the
    head at the coordinator (:func:`_with_output`): over a slow link the logits take longer than all the rest.

    Token embeddings go to the first worker where the head does not share them and there is room, so that the
    coordinator holds nothing of the model; shared ones stay with the coordinator (two graphs of one device would
    displace each other, and each token would send both again).

    Args:
        shape: The model.
        offers: What each device of a worker has.
        needs: What the model is to be served with.
        unreached: Why workers are not among the offers; errors tell it.

    Raises:
        NoPlacement: If it does not fit; it says what is missing.
        UsageError: If the orders contradict themselves: too many layers, or too few and no worker for the others.
    """
    usable = usable_offers(offers)
    if not usable:
        raise no_workers(shape, offers, unreached)
    _refuse_orders(shape, usable)
    away = shape.input_bytes if _embeddings_must_go(shape, needs) else 0
    placement = _with_output(shape, usable, needs, away)
    if placement is None:
        raise no_room(shape, offers, needs, away, unreached)
    return replace(placement, verdicts=verdicts(placement, offers))


def _with_output(shape: ModelShape, usable: Sequence[Offer], needs: ServingNeeds, away: int) -> Placement | None:
    """Return the better of two placements: with the output at the last worker, or at the coordinator."""
    there = _arranged(shape, usable, needs, away, here=False)
    if there is None or there.tokens_per_second is None or not _may_stay(shape, needs):
        return there
    here = _arranged(shape, usable, needs, away, here=True)
    if here is None or here.tokens_per_second is None:
        return there
    return here if _together(here, usable) < _together(there, usable) * WORTH_IT else there


def _may_stay(shape: ModelShape, needs: ServingNeeds) -> bool:
    """Return whether the output may be at the coordinator, which is to stay thin."""
    if shape.tied:
        return True  # it has the same tensor for the token embeddings
    held = predict.coordinator_bytes(shape, needs, embeddings=True, output=True)
    limit = shape.weight_bytes * THIN
    return held <= (limit if needs.coordinator_memory is None else min(limit, needs.coordinator_memory))


def _together(placement: Placement, usable: Sequence[Offer]) -> float:
    """Return the seconds of a pass for as many calls at once as there are slots, layers counted as for one token.

    What further tokens cost in the layers is the same wherever the output is.
    """
    assert placement.tokens_per_second is not None
    shape, needs = placement.shape, placement.needs
    last = _speeds(usable)[placement.shares[-1].endpoint, placement.shares[-1].device]
    rows = predict.usual_rows(needs)
    one, all_ = (predict.output_seconds(shape, last, count, here=placement.output_here) for count in (1, rows))
    return 1 / placement.tokens_per_second + all_ - one


def _arranged(
    shape: ModelShape, usable: Sequence[Offer], needs: ServingNeeds, away: int, *, here: bool
) -> Placement | None:
    """Return the best placement with the output at one of the two ends, without verdicts; ``None`` if nothing fits."""
    layer_bytes = [predict.layer_bytes(layer, needs) for layer in shape.layers]
    candidates = [_candidate(shape, offer, needs, away, here=here) for offer in usable]
    found = search(candidates, layer_bytes)
    if found is None:
        return None
    shares = _shares(shape, usable, needs, found, must_go=away > 0, here=here)
    seconds, loading = _predictions(shares, usable)
    if seconds is not None and here:
        seconds += predict.head_seconds(shape, predict.READING_HERE)
    return Placement(
        shape=shape,
        needs=needs,
        shares=shares,
        coordinator_bytes=predict.coordinator_bytes(shape, needs, embeddings=not shares[0].embeddings, output=here),
        tokens_per_second=None if seconds is None else 1 / seconds,
        load_seconds=loading,
        verdicts=(),
        output_here=here,
        draft_cost=None if seconds is None else _row_seconds(shape, shares, usable, here=here) / seconds,
    )


def _candidate(shape: ModelShape, offer: Offer, needs: ServingNeeds, away: int, *, here: bool) -> SearchDevice:
    """Return a device as the search sees it.

    ``away`` is what the first one holds in addition, in bytes; ``here``, whether the output is at the coordinator.
    """
    speed = predict.speed_of(offer)
    room = predict.room_bytes(offer.memory_bytes)
    middle = room - predict.compute_bytes(shape, needs, last=False)
    last = middle if here else room - predict.compute_bytes(shape, needs, last=True) - shape.output_bytes
    return SearchDevice(
        layer_cost=tuple(predict.layer_seconds(layer, speed) for layer in shape.layers),
        fixed=predict.stage_seconds(shape, speed),
        first=predict.first_seconds(shape, speed),
        last=0.0 if here else predict.last_seconds(shape, speed),
        room=middle,
        room_first=middle - away,
        room_last=last,
        room_alone=last - away,
        exact=offer.layers,
    )


def _embeddings_must_go(shape: ModelShape, needs: ServingNeeds) -> bool:
    """Return whether the coordinator has no room for the token embeddings.

    Raises:
        NoPlacement: If it has too little even without them, or cannot do without.
    """
    limit = needs.coordinator_memory
    if limit is None or predict.coordinator_bytes(shape, needs, embeddings=True) <= limit:
        return False
    least = predict.coordinator_bytes(shape, needs, embeddings=shape.tied)
    if least > limit:
        raise NoPlacement(
            f"the coordinator of {shape.name} needs {least / predict.GIB:.2f} GiB on this machine, "
            f"and it may take {limit / predict.GIB:.2f} GiB",
            missing_bytes=least - limit,
            hint="ask for a shorter context or fewer slots, or free memory on this machine",
        )
    return True


def _refuse_orders(shape: ModelShape, usable: Sequence[Offer]) -> None:
    """Refuse orders that cannot be obeyed whatever the memory.

    Raises:
        UsageError: With what to write instead.
    """
    orders = [(offer.endpoint, offer.layers) for offer in usable if offer.layers is not None]
    total, count = sum(layers for _, layers in orders), len(shape.layers)
    text = ", ".join(f"{endpoint}={layers}" for endpoint, layers in orders)
    if total > count:
        raise UsageError(
            f"{text}: that is {total} layers, and {shape.name} has {count}",
            hint=f"ask for {count} in all, or leave one of the workers without a number",
        )
    if orders and total < count and len(orders) == len(usable):
        raise UsageError(
            f"{text}: that is {total} layers, {shape.name} has {count}, and there is no other worker for the rest",
            hint=f"ask for {count} in all, or leave one of the workers without a number",
        )
    if len(orders) > MOST_DEVICES:
        raise UsageError(
            f"{len(orders)} devices are given layers, and llama.cpp takes {MOST_DEVICES} at most",
            hint="leave some of them without layers",
        )


def _shares(
    shape: ModelShape, usable: Sequence[Offer], needs: ServingNeeds, found: Found, *, must_go: bool, here: bool
) -> tuple[Share, ...]:
    """Return what was found, with bytes and seconds."""
    shares: list[Share] = []
    start = 0
    for number, stage in enumerate(found.stages):
        offer = usable[stage.candidate]
        speed = predict.speed_of(offer)
        layers = shape.layers[start : start + stage.layers]
        first, last = number == 0, number == len(found.stages) - 1 and not here
        seconds = predict.stage_seconds(shape, speed) + sum(predict.layer_seconds(layer, speed) for layer in layers)
        seconds += predict.first_seconds(shape, speed) if first else 0
        seconds += predict.last_seconds(shape, speed) if last else 0
        share = Share(
            endpoint=offer.endpoint,
            device=offer.device,
            first=start,
            layers=stage.layers,
            output=last,
            embeddings=False,
            weight_bytes=sum(layer.weight_bytes for layer in layers) + (shape.output_bytes if last else 0),
            kv_bytes=sum(predict.layer_kv_bytes(layer, needs) for layer in layers),
            compute_bytes=predict.compute_bytes(shape, needs, last=last),
            seconds_per_token=seconds,
            overridden=offer.layers is not None,
        )
        wish = (
            first
            and not shape.tied
            and share.memory_bytes + shape.input_bytes <= predict.room_bytes(offer.memory_bytes)
        )
        if first and (must_go or wish):
            share = replace(share, embeddings=True, weight_bytes=share.weight_bytes + shape.input_bytes)
        shares.append(share)
        start += stage.layers
    return tuple(shares)


def _predictions(shares: Sequence[Share], usable: Sequence[Offer]) -> tuple[float, float] | tuple[None, None]:
    """Return the seconds of a token and of loading, or nothing where a worker that is used was never measured."""
    speeds = _speeds(usable)
    used = [(share.weight_bytes, speeds[share.endpoint, share.device]) for share in shares]
    if not all(speed.measured for _, speed in used):
        return None, None
    seconds = predict.COORDINATOR_SECONDS + sum(share.seconds_per_token for share in shares)
    return seconds, predict.load_seconds(used)


def _row_seconds(shape: ModelShape, shares: Sequence[Share], usable: Sequence[Offer], *, here: bool) -> float:
    """Return what one token more in a pass costs, in seconds."""
    speeds = _speeds(usable)
    stages = [(share, speeds[share.endpoint, share.device]) for share in shares]
    layers = sum(
        predict.row_seconds(shape, shape.layers[share.first : share.first + share.layers], speed)
        for share, speed in stages
    )
    one, two = (predict.output_seconds(shape, stages[-1][1], rows, here=here) for rows in (1, 2))
    return layers + two - one


def _speeds(usable: Sequence[Offer]) -> dict[tuple[WorkerName, int], predict.Speed]:
    return {(offer.endpoint, offer.device): predict.speed_of(offer) for offer in usable}
