"""Why each worker is part of a placement or not, and why there is no placement. Pure, and in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synaptic.backends.distributed.placement import predict
from synaptic.backends.distributed.placement.search import MOST_DEVICES
from synaptic.backends.distributed.placement.types import DeviceVerdict, PlannedWorker
from synaptic.errors import NoPlacement
from synaptic.text import gib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.distributed.placement.types import Offer, Placement, ServingNeeds, Share, WorkerName
    from synaptic.models import ModelShape

_CLEARLY = 1.05
_HINT = (
    "ask for a shorter context (--context) or fewer calls at once (--slots), take a smaller quantisation of the model, "
    "or add a worker; where a worker has more memory than it says, write memory_gib beside it in the settings"
)


def verdicts(placement: Placement, offers: Sequence[Offer]) -> tuple[DeviceVerdict, ...]:
    """Return why each device is part of a placement or not, in the order in which they were offered."""
    shares = {(share.endpoint, share.device): share for share in placement.shares}
    return tuple(
        DeviceVerdict(endpoint=offer.endpoint, device=offer.device, used=share is not None, reason=reason)
        for offer in offers
        for share in [shares.get((offer.endpoint, offer.device))]
        for reason in [_why_not(placement, offer) if share is None else _why(placement, share)]
    )


def device_name(endpoint: WorkerName, device: int) -> str:
    """Return how a device is called: by its worker alone, if it is its first; ``local-1`` if it does not run yet."""
    return f"{endpoint} device {device}" if device else str(endpoint)


def usable_offers(offers: Sequence[Offer]) -> list[Offer]:
    """Return the devices that may be used, in an order that does not depend on the one they came in."""
    usable = [offer for offer in offers if not offer.refusal and offer.layers != 0]
    return sorted(usable, key=lambda offer: (isinstance(offer.endpoint, PlannedWorker), offer.endpoint, offer.device))


def no_workers(shape: ModelShape, offers: Sequence[Offer], unreached: Sequence[str] = ()) -> NoPlacement:
    """Return the error of a placement for which there is no worker."""
    if not offers and not unreached:
        return NoPlacement(
            f"there is no worker that could hold {shape.name}",
            hint="name one: synaptic config set rpc_backends '[\"10.0.0.4:50052\"]', or start some here: "
            "synaptic config set local_workers 2",
        )
    refusals = (offer.refusal or f"{device_name(offer.endpoint, 0)} was given no layers" for offer in offers)
    reasons = dict.fromkeys((*refusals, *unreached))
    return NoPlacement(
        f"no worker can be used for {shape.name}: {'; '.join(reasons)}",
        hint="see to one of them, or name another: synaptic workers check",
    )


class _Need(NamedTuple):
    """What a model needs on its workers, in bytes."""

    weights: int
    kv: int
    compute: int


def no_room(
    shape: ModelShape, offers: Sequence[Offer], needs: ServingNeeds, away: int, unreached: Sequence[str] = ()
) -> NoPlacement:
    """Return the error of a model that does not fit its workers: what it needs, what there is, what is missing.

    Args:
        shape: The model.
        offers: The devices, of which at least one may be used.
        needs: What it is to be served with.
        away: What of it the workers have to hold besides layers and output, in bytes.
        unreached: Why workers are not among the offers.
    """
    usable = usable_offers(offers)
    too_much = _order_too_large(shape, usable, needs)
    if too_much is not None:
        return too_much
    need = _Need(
        weights=sum(layer.weight_bytes for layer in shape.layers) + shape.output_bytes + away,
        kv=sum(predict.layer_kv_bytes(layer, needs) for layer in shape.layers),
        compute=predict.compute_bytes(shape, needs, last=True),
    )
    largest = sorted(usable, key=lambda offer: offer.memory_bytes, reverse=True)[:MOST_DEVICES]
    missing = _left_over(shape, largest, needs) + away
    orders = ", ".join(f"{offer.endpoint}={offer.layers}" for offer in usable if offer.layers is not None)
    if not missing and orders:
        return NoPlacement(
            f"{shape.name} does not fit with the numbers of layers that were asked for: {orders}",
            hint="ask for fewer layers there, or leave a number out; the last worker has the output besides its layers",
        )
    # Enough in bytes, but layers are whole and stay in their order: one of them finds no place.
    missing = missing or min(predict.layer_bytes(layer, needs) for layer in shape.layers)
    calls = "one call" if needs.slots == 1 else f"{needs.slots} calls"
    offered = ", ".join(
        f"{device_name(offer.endpoint, offer.device)} {gib(predict.room_bytes(offer.memory_bytes))}"
        f" of {gib(offer.memory_bytes)}"
        + (f" for {offer.layers} of its layers, as ordered" if offer.layers is not None else "")
        for offer in usable
    )
    refusals = dict.fromkeys((*(offer.refusal for offer in offers if offer.refusal), *unreached))
    offered += f"; others cannot be used: {'; '.join(refusals)}" if refusals else ""
    return NoPlacement(
        f"{shape.name} does not fit: about {gib(missing)} are missing. It needs {gib(sum(need))}: "
        f"{gib(need.weights)} of weights, {gib(need.kv)} for keys and values of {calls} of {needs.context} tokens, "
        f"and {gib(need.compute)} of scratch memory on each worker. A margin apart, the workers offer: {offered}",
        missing_bytes=missing,
        hint=_HINT,
    )


def _order_too_large(shape: ModelShape, usable: Sequence[Offer], needs: ServingNeeds) -> NoPlacement | None:
    """Return the error of a device that was ordered to take more layers than it has room for, if there is one."""
    sizes = sorted(predict.layer_bytes(layer, needs) for layer in shape.layers)
    compute = predict.compute_bytes(shape, needs, last=False)
    for offer in usable:
        room = predict.room_bytes(offer.memory_bytes) - compute
        least = sum(sizes[: offer.layers or 0])
        if offer.layers is None or least <= room:
            continue
        most = _most_layers(sizes, room)
        name = device_name(offer.endpoint, offer.device)
        return NoPlacement(
            f"{name} cannot take {offer.layers} layers of {shape.name}: they need {gib(least + compute)} there, "
            f"and of its {gib(offer.memory_bytes)} {gib(room + compute)} may be used",
            missing_bytes=least - room,
            hint=f"write {offer.endpoint}={most} or less, or more memory_gib where the worker has more than it says",
        )
    return None


def _most_layers(sizes: Sequence[int], room: int) -> int:
    """Return how many layers fit, the smallest ones first."""
    count = 0
    for size in sizes:
        if size > room:
            break
        room -= size
        count += 1
    return count


def _left_over(shape: ModelShape, largest: Sequence[Offer], needs: ServingNeeds) -> int:
    """Return the bytes of what finds no place if devices are filled in order of their size, the output first.

    Whole layers are placed, so that it is what lacks even where bytes would do.
    """
    sizes = [predict.layer_bytes(layer, needs) for layer in reversed(shape.layers)]
    head = shape.output_bytes + predict.compute_bytes(shape, needs, last=True)
    compute = predict.compute_bytes(shape, needs, last=False)
    room = 0
    for number, offer in enumerate(largest):
        room = predict.room_bytes(offer.memory_bytes) - (compute if number else head)
        if number == 0 and room < 0:
            return sum(sizes) - room
        count = len(sizes) if offer.layers is None else offer.layers
        while sizes and count and sizes[0] <= room:
            room -= sizes.pop(0)
            count -= 1
    return sum(sizes) - max(room, 0) if len(largest) == 1 else sum(sizes)


def _why(placement: Placement, share: Share) -> str:
    """Return what a device is used for."""
    end = share.first + share.layers
    parts = []
    if share.layers:
        word = "layer" if share.layers == 1 else "layers"
        span = f"{share.first}" if share.layers == 1 else f"{share.first} to {end - 1}"
        parts.append(f"{word} {span}")
    if share.embeddings:
        parts.append("the token embeddings")
    if share.output:
        parts.append("the output")
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    if share.overridden:
        return f"{text}; as many as you asked for"
    if len(placement.shares) == 1:
        return f"{text}: it holds all of it"
    return text


def _why_not(placement: Placement, offer: Offer) -> str:
    shape, needs = placement.shape, placement.needs
    if offer.refusal:
        ordered = f" (you asked for {offer.layers} layers there; others have them)" if offer.layers else ""
        return offer.refusal + ordered
    if offer.layers == 0:
        return "left out, as you asked for"
    middle = predict.compute_bytes(shape, needs, last=False)
    last = middle if placement.output_here else predict.compute_bytes(shape, needs, last=True) + shape.output_bytes
    layers = [predict.layer_bytes(layer, needs) for layer in shape.layers]
    room = predict.room_bytes(offer.memory_bytes)
    least = min(last, middle + min(layers))
    if room < least:
        return (
            f"too small: of its {gib(offer.memory_bytes)} {gib(room)} may be used, and a layer with its keys, values "
            f"and scratch memory needs {gib(least)}"
        )
    holders = [device_name(share.endpoint, share.device) for share in placement.shares]
    alone = room >= last + sum(layers)
    if len(holders) == 1:
        slower = _slower_alone(placement, offer) if alone else ""
        return slower or f"not needed: {holders[0]} holds all of it"
    if len(holders) == MOST_DEVICES:
        return f"not needed: llama.cpp takes {MOST_DEVICES} devices at most, and others are faster or larger"
    if alone:
        return _slower_alone(placement, offer) or "not needed: others are faster together"
    names = f"{', '.join(holders[:-1])} and {holders[-1]}"
    return f"not needed: {names} hold all of it, and each further stage costs a round trip"


def _slower_alone(placement: Placement, offer: Offer) -> str:
    """Return how much slower a device that could hold everything would be; "" where it would not be."""
    shape = placement.shape
    speed = predict.speed_of(offer)
    used = sum(share.seconds_per_token for share in placement.shares)
    its = sum(predict.layer_seconds(layer, speed) for layer in shape.layers)
    its += predict.stage_seconds(shape, speed) + predict.first_seconds(shape, speed)
    its += 0 if placement.output_here else predict.last_seconds(shape, speed)
    if its <= used * _CLEARLY:
        return ""
    guess = "" if speed.measured else ", as far as can be told without measuring it"
    pronoun = "it" if len(placement.shares) == 1 else "they"
    names = " and ".join(device_name(share.endpoint, share.device) for share in placement.shares)
    verb = "is" if pronoun == "it" else "are"
    return f"not needed: it could hold all of it, but {names} {verb} {its / used:.2g} times as fast{guess}"
