"""Which workers hold which layers of a model. Pure: what is offered and wanted goes in, a placement comes out.

The fewest and fastest devices that fit: the predicted time of a token (:mod:`predict`) is minimised under the memory
of each, and each further stage costs a round trip. A device that fits alone never shares the model with others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.backends.distributed import predict
from synaptic.backends.distributed.placement_search import MOST_DEVICES, Candidate, Found, search
from synaptic.backends.distributed.placement_types import Placement, Share
from synaptic.backends.distributed.placement_verdicts import no_room, no_workers, usable_offers, verdicts
from synaptic.errors import NoPlacement, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.distributed.placement_types import Offer, Wanted
    from synaptic.backends.distributed.shape import ModelShape


def place(shape: ModelShape, offers: Sequence[Offer], wanted: Wanted) -> Placement:
    """Return which devices hold which layers.

    A person's orders (``Offer.layers``) are obeyed exactly; those of workers that cannot be used count for nothing.
    Token embeddings go to the first worker where the head does not share them and there is room, so that the
    coordinator holds nothing of the model; shared ones stay with the coordinator (two graphs of one device would
    displace each other, and each token would send both anew).

    Args:
        shape: The model.
        offers: What there is, in any order.
        wanted: Context and slots.

    Raises:
        NoPlacement: If it does not fit; it says what is missing.
        UsageError: If the orders contradict themselves: too many layers, or too few and nobody for the others.

    """
    usable = usable_offers(offers)
    if not usable:
        raise no_workers(shape, offers)
    _refuse_orders(shape, usable)
    away = shape.input_bytes if _embeddings_must_go(shape, wanted) else 0
    layer_bytes = [predict.layer_bytes(layer, wanted) for layer in shape.layers]
    candidates = [_candidate(shape, offer, wanted, away) for offer in usable]
    found = search(candidates, layer_bytes)
    if found is None:
        raise no_room(shape, offers, wanted, away)
    shares = _shares(shape, usable, wanted, found, must_go=away > 0)
    seconds, loading = _predictions(shares, usable)
    placement = Placement(
        shape=shape,
        wanted=wanted,
        shares=shares,
        coordinator_bytes=predict.coordinator_bytes(shape, wanted, embeddings=not shares[0].embeddings),
        tokens_per_second=None if seconds is None else 1 / seconds,
        load_seconds=loading,
        verdicts=(),
    )
    return replace(placement, verdicts=verdicts(placement, offers))


def _candidate(shape: ModelShape, offer: Offer, wanted: Wanted, away: int) -> Candidate:
    """Return a device as the search sees it; ``away`` is what the first one has to hold in addition, in bytes."""
    speed = predict.speed_of(offer)
    room = predict.room_bytes(offer.memory_bytes)
    middle = room - predict.compute_bytes(shape, wanted, last=False)
    last = room - predict.compute_bytes(shape, wanted, last=True) - shape.output_bytes
    return Candidate(
        layer_cost=tuple(predict.layer_seconds(layer, speed) for layer in shape.layers),
        fixed=predict.stage_seconds(shape, speed),
        first=predict.first_seconds(shape, speed),
        last=predict.last_seconds(shape, speed),
        room=middle,
        room_first=middle - away,
        room_last=last,
        room_alone=last - away,
        exact=offer.layers,
    )


def _embeddings_must_go(shape: ModelShape, wanted: Wanted) -> bool:
    """Return whether the coordinator has no room for the token embeddings.

    Raises:
        NoPlacement: If it has too little even without them, or cannot do without.

    """
    limit = wanted.coordinator_memory
    if limit is None or predict.coordinator_bytes(shape, wanted, embeddings=True) <= limit:
        return False
    least = predict.coordinator_bytes(shape, wanted, embeddings=shape.tied)
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
    shape: ModelShape, usable: Sequence[Offer], wanted: Wanted, found: Found, *, must_go: bool
) -> tuple[Share, ...]:
    """Return what was found, with bytes and seconds."""
    shares: list[Share] = []
    start = 0
    for number, stage in enumerate(found.stages):
        offer = usable[stage.candidate]
        speed = predict.speed_of(offer)
        layers = shape.layers[start : start + stage.layers]
        first, last = number == 0, number == len(found.stages) - 1
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
            kv_bytes=sum(predict.layer_kv_bytes(layer, wanted) for layer in layers),
            compute_bytes=predict.compute_bytes(shape, wanted, last=last),
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
    speeds = {(offer.endpoint, offer.device): predict.speed_of(offer) for offer in usable}
    used = [(share.weight_bytes, speeds[share.endpoint, share.device]) for share in shares]
    if not all(speed.measured for _, speed in used):
        return None, None
    seconds = predict.COORDINATOR_SECONDS + sum(share.seconds_per_token for share in shares)
    return seconds, predict.load_seconds(used)
