"""Which workers hold which layers: examples of every reason, and properties against brute force over all placements."""

import time
from dataclasses import replace
from itertools import combinations, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placement_support import GIB, MEASURED, MIB, make_offer, make_shape

from synaptic.backends.distributed.placement import predict
from synaptic.backends.distributed.placement.decide import place
from synaptic.backends.distributed.placement.search import EXACT_DEVICES, SearchDevice, fits_alone, search
from synaptic.backends.distributed.placement.types import Offer, Placement, ServingNeeds
from synaptic.backends.distributed.workers.measure import Measurement
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.errors import ExitCode, NoPlacement, UsageError
from synaptic.models.layers import LayerShape, ModelShape

WANTED = ServingNeeds(context=4096, slots=2)


def reasons(placement: Placement) -> dict[str, str]:
    return {f"{verdict.endpoint.host[-1]}{verdict.device or ''}": verdict.reason for verdict in placement.verdicts}


def spread(placement: Placement) -> list[tuple[str, int]]:
    return [(share.endpoint.host[-1], share.layers) for share in placement.shares]


# Which workers


def test_one_worker_that_fits_has_it_all():
    placement = place(make_shape(), [make_offer(1, 8), make_offer(2, 8), make_offer(3, 8)], WANTED)
    assert spread(placement) == [("1", 32)]
    assert placement.endpoints == (Endpoint("10.0.0.1", 50052),)
    (share,) = placement.shares
    assert share.output
    assert share.embeddings
    assert reasons(placement) == {
        "1": "layers 0 to 31, the token embeddings and the output: it holds all of it",
        "2": "not needed: 10.0.0.1:50052 holds all of it",
        "3": "not needed: 10.0.0.1:50052 holds all of it",
    }


def test_the_fastest_that_fits_is_taken_and_the_others_hear_how_much_slower_they_are():
    offers = [make_offer(1, 8, reading=10e9), make_offer(2, 8, reading=40e9), make_offer(3, 2)]
    placement = place(make_shape(), offers, WANTED)
    assert spread(placement) == [("2", 32)]
    assert "10.0.0.2:50052 is 3.8 times as fast" in reasons(placement)["1"]
    assert reasons(placement)["3"] == "not needed: 10.0.0.2:50052 holds all of it"


def test_no_more_workers_than_are_needed_and_the_fastest_ones():
    offers = [make_offer(1, 4, reading=10e9), make_offer(2, 4), make_offer(3, 4), make_offer(4, 0.1)]
    placement = place(make_shape(), offers, WANTED)
    assert sorted(number for number, _ in spread(placement)) == ["2", "3"]
    names = " and ".join(str(endpoint) for endpoint in placement.endpoints)
    assert reasons(placement)["1"] == f"not needed: {names} hold all of it, and each further stage costs a round trip"
    assert reasons(placement)["4"].startswith("too small: of its 102 MiB 92 MiB may be used, and a layer with")


def test_two_fast_workers_together_are_better_than_a_slow_one_that_fits_alone():
    slow = make_offer(1, 16, reading=2e9)
    placement = place(make_shape(), [slow, make_offer(2, 4), make_offer(3, 4)], WANTED)
    assert sorted(number for number, _ in spread(placement)) == ["2", "3"]
    assert "it could hold all of it, but" in reasons(placement)["1"]
    # One that fits alone never shares the model.
    assert spread(place(make_shape(), [slow, make_offer(2, 4)], WANTED)) == [("1", 32)]


def test_the_worker_that_sends_fastest_has_the_output():
    offers = [make_offer(number, 3) for number in (1, 2, 3)]
    offers[1] = replace(offers[1], measurement=replace(MEASURED, download=1.2e9))
    assert place(make_shape(), offers, WANTED).shares[-1].endpoint.host == "10.0.0.2"


def test_the_worker_that_receives_fastest_is_the_first():
    offers = [make_offer(number, 3) for number in (1, 2, 3)]
    offers[1] = replace(offers[1], measurement=replace(MEASURED, upload=1.2e9))
    assert place(make_shape(), offers, WANTED).shares[0].endpoint.host == "10.0.0.2"


def test_a_worker_that_cannot_be_used_is_not_and_says_why():
    held = replace(make_offer(1, 16), refusal="it is held by the coordinator of other:7b")
    placement = place(make_shape(), [held, make_offer(2, 8)], WANTED)
    assert spread(placement) == [("2", 32)]
    assert reasons(placement)["1"] == "it is held by the coordinator of other:7b"
    ordered = place(make_shape(), [replace(held, layers=5), make_offer(2, 8)], WANTED)
    assert "you asked for 5 layers there; others have them" in reasons(ordered)["1"]


def test_no_more_than_fifteen_devices():
    offers = [make_offer(number, 0.6) for number in range(1, 30)]
    small = make_shape(28, output_bytes=64 * MIB)
    placement = place(small, offers, WANTED)
    assert len(placement.shares) <= 15
    with pytest.raises(NoPlacement, match="does not fit"):
        place(make_shape(64), offers, WANTED)
    # Large ones behind fifteen fast ones are found all the same.
    mixed = [*(make_offer(number, 0.5, reading=50e9) for number in range(1, 16)), make_offer(20, 4), make_offer(21, 4)]
    placement = place(make_shape(), mixed, WANTED)
    assert {"10.0.0.20", "10.0.0.21"} & {share.endpoint.host for share in placement.shares}
    assert len(placement.shares) <= 15


def test_fifteen_are_said_to_be_the_most():
    offers = [make_offer(number, 0.6) for number in range(1, 30)]
    count = next(count for count in range(60, 10, -1) if _fits(make_shape(count, output_bytes=64 * MIB), offers))
    placement = place(make_shape(count, output_bytes=64 * MIB), offers, WANTED)
    assert len(placement.shares) == 15
    assert any("llama.cpp takes 15 devices at most" in verdict.reason for verdict in placement.verdicts)


def _fits(shape: ModelShape, offers: list[Offer]) -> bool:
    try:
        place(shape, offers, WANTED)
    except NoPlacement:
        return False
    return True


def test_several_devices_of_a_worker_are_told_apart():
    offers = [make_offer(1, 4), make_offer(1, 4, device=1)]
    placement = place(make_shape(), offers, WANTED)
    assert {share.device for share in placement.shares} == {0, 1}
    assert len(placement.endpoints) == 1
    alone = place(make_shape(), [make_offer(1, 0.1), make_offer(1, 8, device=1)], WANTED)
    assert [share.device for share in alone.shares] == [1]


def test_equal_workers_get_equal_parts_in_the_order_of_their_names():
    """The output counts as what it weighs, here two layers."""
    assert spread(place(make_shape(40), [make_offer(number, 4) for number in (3, 1, 2)], WANTED)) == [
        ("1", 21),
        ("2", 19),
    ]
    three = [make_offer(number, 2.6) for number in (3, 1, 2)]
    assert spread(place(make_shape(40), three, WANTED)) == [("1", 14), ("2", 14), ("3", 12)]


def test_orders_that_leave_no_room_for_the_others():
    """Forty layers fit these three only as 14, 14, and 12 with the output."""
    three = [make_offer(number, 2.6) for number in (3, 1, 2)]
    ordered = [three[0], replace(three[1], layers=12), three[2]]
    assert spread(place(make_shape(40), ordered, WANTED))[-1] == ("1", 12)
    with pytest.raises(NoPlacement, match=r"the numbers of layers that were asked for: 10.0.0.1:50052=13") as caught:
        place(make_shape(40), [three[0], replace(three[1], layers=13), three[2]], WANTED)
    assert "leave a number out" in str(caught.value.hint)


# Memory


def test_token_embeddings_stay_with_the_coordinator_where_the_head_shares_them():
    for tied, has_room in ((True, True), (False, True), (False, False)):
        shape = make_shape(tied=tied)
        need = sum(predict.layer_bytes(layer, WANTED) for layer in shape.layers) + shape.output_bytes
        need += predict.compute_bytes(shape, WANTED, last=True)
        memory = need / GIB / 0.9 + (1 if has_room else 0.01)
        placement = place(shape, [make_offer(1, memory)], WANTED)
        assert placement.shares[0].embeddings == (has_room and not tied)
        held = placement.coordinator_bytes > shape.input_bytes
        assert held != placement.shares[0].embeddings
    assert placement.shares[0].memory_bytes <= predict.room_bytes(int(memory * GIB))


def behind(download: float, reading: float = 5e9) -> list[Offer]:
    return [
        replace(make_offer(number, 6), measurement=replace(MEASURED, download=download, weight_reading=(reading,)))
        for number in (1, 2)
    ]


def test_the_output_stays_with_the_coordinator_where_logits_would_take_longer():
    many = replace(WANTED, slots=8)
    slow = place(make_shape(tied=True), behind(50e6), many)
    assert slow.output_here
    assert not any(share.output for share in slow.shares)
    # A fast way back, one call only, a worker with a graphics card: the worker has it.
    for offers, wanted in (
        (behind(1e9), many),
        (behind(117e6), replace(WANTED, slots=1)),
        (behind(117e6, reading=400e9), replace(many, slots=2)),
    ):
        assert not place(make_shape(tied=True), offers, wanted).output_here
    # What was never measured is no reason.
    unmeasured = [replace(offer, measurement=None) for offer in behind(50e6)]
    assert not place(make_shape(tied=True), unmeasured, many).output_here


def test_an_output_that_stays_makes_many_calls_faster_and_is_in_the_prediction():
    many = replace(WANTED, slots=8)
    shape = make_shape(tied=True)
    placement = place(shape, behind(50e6), many)
    here = predict.head_seconds(shape, predict.READING_HERE)
    shares = sum(share.seconds_per_token for share in placement.shares)
    assert placement.tokens_per_second == pytest.approx(1 / (shares + here + predict.COORDINATOR_SECONDS))
    last = predict.speed_of(behind(50e6)[-1])
    assert predict.output_seconds(shape, last, 8, here=True) < predict.output_seconds(shape, last, 8, here=False)


def test_an_output_stays_only_if_the_coordinator_stays_thin():
    many = replace(WANTED, slots=8)
    thin, thick = make_shape(output_bytes=128 * MIB), make_shape(output_bytes=1500 * MIB)
    placement = place(thin, behind(5e6), many)
    assert placement.output_here
    assert placement.coordinator_bytes <= 0.15 * thin.weight_bytes
    assert not place(thick, behind(5e6), many).output_here
    little = replace(many, coordinator_memory=placement.coordinator_bytes - MIB)
    assert not place(thin, behind(5e6), little).output_here


def test_a_coordinator_with_little_memory_gives_the_embeddings_away_or_is_refused():
    offers = [make_offer(1, 3.5), make_offer(2, 3.5)]
    shape = make_shape()
    small = replace(WANTED, coordinator_memory=200 * MIB)
    assert place(shape, offers, small).shares[0].embeddings
    assert place(shape, offers, small).coordinator_bytes <= 200 * MIB
    with pytest.raises(NoPlacement, match=r"may take 0.20 GiB"):
        place(make_shape(tied=True), offers, small)
    with pytest.raises(NoPlacement, match="the coordinator of big:8b needs"):
        place(shape, offers, replace(WANTED, coordinator_memory=MIB))


def test_what_does_not_fit_is_said_in_gib_with_what_each_worker_offers():
    with pytest.raises(NoPlacement) as caught:
        place(make_shape(), [make_offer(1, 1), make_offer(2, 2), make_offer(3, 0.5, layers=2)], WANTED)
    error = caught.value
    assert error.exit_code is ExitCode.NO_BACKEND
    assert not error.retryable
    assert error.missing_bytes > GIB
    assert "about 2.7 GiB are missing. It needs 5.4 GiB: 4.2 GiB of weights, 1.0 GiB for keys and values of" in str(
        error
    )
    assert "2 calls of 4096 tokens" in str(error)
    assert "10.0.0.1:50052 0.90 GiB of 1.0 GiB" in str(error)
    assert "10.0.0.3:50052 0.45 GiB of 0.50 GiB for 2 of its layers, as ordered" in str(error)
    assert error.hint is not None
    assert all(word in error.hint for word in ("--context", "--slots", "quantisation", "memory_gib", "add a worker"))


@pytest.mark.parametrize("gib", [0.01, 1, 3, 5])
def test_what_is_said_to_be_missing_is_enough_for_one_worker(gib: float):
    shape = make_shape()
    with pytest.raises(NoPlacement) as caught:
        place(shape, [make_offer(1, gib)], WANTED)
    more = (gib * GIB + caught.value.missing_bytes / 0.9 + 2) / GIB
    assert place(shape, [make_offer(1, more)], WANTED)
    with pytest.raises(NoPlacement):
        place(shape, [make_offer(1, more - 0.01)], WANTED)


def test_whole_layers_that_find_no_place_are_missing_although_there_would_be_bytes():
    shape = make_shape(3, layer_bytes=GIB, output_bytes=MIB, input_bytes=0)
    with pytest.raises(NoPlacement) as caught:
        place(shape, [make_offer(number, 1.9) for number in (1, 2)], WANTED)
    assert caught.value.missing_bytes >= GIB


def test_without_a_worker():
    with pytest.raises(NoPlacement, match="there is no worker") as none:
        place(make_shape(), [], WANTED)
    assert "rpc_backends" in str(none.value.hint)
    gone = replace(make_offer(1, 8), refusal="nothing listens at 10.0.0.1:50052")
    with pytest.raises(NoPlacement, match=r"nothing listens at .*; 10.0.0.2:50052 was given no layers"):
        place(make_shape(), [gone, make_offer(2, 8, layers=0)], WANTED)


@pytest.mark.parametrize("offers", [[], [make_offer(1, 0.1)]])
def test_why_a_machine_is_not_reached_is_part_of_why_there_is_no_placement(offers: list[Offer]):
    with pytest.raises(NoPlacement, match=r"used.*: near: no route to host"):
        place(make_shape(), offers, WANTED, unreached=["near: no route to host"])


def test_the_margin_is_a_gib_but_never_more_than_a_tenth():
    assert predict.margin_bytes(2 * GIB) == 2 * GIB // 10
    assert predict.margin_bytes(64 * GIB) == GIB


# A person's orders


def test_orders_are_obeyed_exactly_and_labelled():
    offers = [make_offer(1, 16, layers=5), make_offer(2, 16), make_offer(3, 16, layers=0)]
    placement = place(make_shape(), offers, WANTED)
    assert sorted(spread(placement)) == [("1", 5), ("2", 27)]
    assert {share.endpoint.host: share.overridden for share in placement.shares} == {
        "10.0.0.1": True,
        "10.0.0.2": False,
    }
    assert "as many as you asked for" in reasons(placement)["1"]
    assert reasons(placement)["3"] == "left out, as you asked for"


def test_all_layers_ordered_on_one_worker():
    offers = [make_offer(1, 16, reading=1e9, layers=32), make_offer(2, 16)]
    assert spread(place(make_shape(), offers, WANTED)) == [("1", 32)]
    # With no room for the output beside them, another has that.
    shape = make_shape(output_bytes=4 * GIB)
    small = [make_offer(1, 6.5, layers=32), make_offer(2, 7)]
    assert spread(place(shape, small, WANTED)) == [("1", 32), ("2", 0)]


def test_orders_for_all_workers():
    offers = [make_offer(number, 4, layers=layers) for number, layers in ((1, 10), (2, 11), (3, 11))]
    assert sorted(spread(place(make_shape(), offers, WANTED))) == [("1", 10), ("2", 11), ("3", 11)]


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ([20, 13], "10.0.0.1:50052=20, 10.0.0.2:50052=13: that is 33 layers, and big:8b has 32"),
        ([40, None], "10.0.0.1:50052=40: that is 40 layers, and big:8b has 32"),
        ([20, 11], "that is 31 layers, big:8b has 32, and there is no other worker for the rest"),
        ([1] * 16, "16 devices are given layers, and llama.cpp takes 15 at most"),
    ],
)
def test_orders_that_contradict_themselves_are_wrong_usage(orders: list[int | None], message: str):
    offers = [make_offer(number, 16, layers=layers) for number, layers in enumerate(orders, start=1)]
    if len(orders) > 15:
        offers.append(make_offer(99, 16))
    with pytest.raises(UsageError) as caught:
        place(make_shape(), offers, WANTED)
    assert message in caught.value.message
    assert caught.value.hint


def test_an_order_that_does_not_fit_says_how_many_layers_would():
    offers = [make_offer(1, 2, layers=20), make_offer(2, 16)]
    with pytest.raises(NoPlacement, match=r"cannot take 20 layers of big:8b") as caught:
        place(make_shape(), offers, WANTED)
    assert caught.value.hint is not None
    most = int(caught.value.hint.split("=")[1].split()[0])
    assert place(make_shape(), [replace(offers[0], layers=most), offers[1]], WANTED)
    with pytest.raises(NoPlacement):
        place(make_shape(), [replace(offers[0], layers=most + 1), offers[1]], WANTED)


# Predictions


def test_the_formula_of_a_token():
    """One worker: 4 hidden vectors of headers and masks up, logits down, weights at its speed."""
    shape = make_shape()
    placement = place(shape, [make_offer(1, 8)], WANTED)
    hidden = 4 * 4096
    layer = (128 * MIB + 4096 * 256) / 20e9 + predict.LAYER_SECONDS
    token = (
        32 * layer
        + 256 * MIB / 20e9
        + 0.2e-3
        + (3 * hidden + 2 * 256 + 2560) / 117e6
        + 4 * 128_256 / 117e6
        + predict.COORDINATOR_SECONDS
    )
    assert placement.tokens_per_second == pytest.approx(1 / token)
    weights = placement.shares[0].weight_bytes
    assert placement.load_seconds == pytest.approx(predict.START_SECONDS + weights / 1e9 + weights / 117e6)


def test_what_was_not_measured_is_assumed_and_then_nothing_is_promised():
    unmeasured = replace(make_offer(1, 8), measurement=None)
    placement = place(make_shape(), [unmeasured], WANTED)
    assert placement.tokens_per_second is None
    assert placement.load_seconds is None
    assert placement.shares[0].seconds_per_token > 0
    # One figure that is not known is no reason to say nothing.
    partly = replace(unmeasured, measurement=replace(MEASURED, weight_reading=(None,)))
    assert place(make_shape(), [partly], WANTED).tokens_per_second is not None
    # An unmeasured one that is not used does not matter.
    used = place(make_shape(), [make_offer(2, 8), replace(unmeasured, memory_bytes=MIB)], WANTED)
    assert used.tokens_per_second is not None


@pytest.mark.parametrize(("host", "managed"), [("127.0.0.1", False), ("localhost", False), ("10.0.0.1", True)])
def test_of_a_worker_of_this_machine_no_network_is_assumed(host: str, *, managed: bool):
    near = replace(make_offer(1, 8), endpoint=Endpoint(host, 50052), measurement=None, managed=managed)
    far = replace(make_offer(2, 8), measurement=None)
    assert predict.speed_of(near).round_trip < predict.speed_of(far).round_trip
    assert spread(place(make_shape(), [far, near], WANTED)) == [(host[-1], 32)]
    small = make_shape(2, layer_bytes=MIB, output_bytes=MIB)
    assert "as far as can be told" in place(small, [far, near], WANTED).verdicts[0].reason


def test_fifteen_workers_and_a_hundred_and_thirty_layers_take_no_minute():
    """A bound on waiting; how long it takes is measured in benchmarks/distributed.py."""
    random = Random(5)
    offers = [
        make_offer(number, 1 + 2 * random.random(), reading=1e9 * random.randint(2, 40)) for number in range(1, 16)
    ]
    began = time.monotonic()
    placement = place(make_shape(130), offers, ServingNeeds(context=2048, slots=1))
    assert time.monotonic() - began < 60
    assert sum(share.layers for share in placement.shares) == 130


# Properties

LAYERS = st.builds(
    LayerShape,
    weight_bytes=st.integers(1, 40).map(lambda n: n * 8 * MIB),
    active_bytes=st.integers(1, 40).map(lambda n: n * 8 * MIB),
    kv_bytes_per_token=st.sampled_from([0, 1024, 8192]),
    state_bytes=st.sampled_from([0, MIB]),
)
SHAPES = st.builds(
    lambda layers, tied, head: replace(make_shape(tied=tied), layers=tuple(layers), output_bytes=head),
    st.lists(LAYERS, min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([0, 64 * MIB, 500 * MIB]),
)
MEASUREMENTS = st.builds(
    Measurement,
    round_trip=st.sampled_from([1e-4, 1e-3, 5e-3, 0.05]),
    upload=st.sampled_from([1e6, 117e6, 1e9]),
    download=st.sampled_from([1e6, 117e6, 1e9]),
    weight_reading=st.tuples(st.sampled_from([1e9, 5e9, 20e9, 400e9])),
)
WANTS = st.builds(
    ServingNeeds, context=st.sampled_from([256, 4096]), slots=st.sampled_from([1, 4]), ubatch=st.just(128)
)


@st.composite
def offer_lists(draw: st.DrawFn, most: int = 4) -> list[Offer]:
    count = draw(st.integers(1, most))
    return [
        replace(
            make_offer(number, draw(st.integers(1, 60)) / 20, layers=draw(st.sampled_from([None] * 6 + [0, 1, 2]))),
            measurement=draw(MEASUREMENTS),
        )
        for number in range(1, count + 1)
    ]


def attempt(shape: ModelShape, offers: list[Offer], wanted: ServingNeeds) -> Placement | None:
    try:
        return place(shape, offers, wanted)
    except (NoPlacement, UsageError):
        return None


@settings(max_examples=300, deadline=None)
@given(SHAPES, offer_lists(), WANTS)
def test_every_layer_once_in_order_within_memory(shape: ModelShape, offers: list[Offer], wanted: ServingNeeds):
    placement = attempt(shape, offers, wanted)
    if placement is None:
        return
    by_device = {(offer.endpoint, offer.device): offer for offer in offers}
    at = 0
    for share in placement.shares:
        assert share.first == at
        assert share.layers >= 1 or share.output
        assert not (share.embeddings and placement.shape.tied)
        at += share.layers
        offer = by_device.pop((share.endpoint, share.device))
        assert offer.layers in (None, share.layers)
        assert share.memory_bytes + predict.margin_bytes(offer.memory_bytes) <= offer.memory_bytes
    assert at == len(shape.layers)
    output = [False] * (len(placement.shares) - 1) + [not placement.output_here]
    assert [share.output for share in placement.shares] == output
    assert not any(offer.layers for offer in by_device.values())
    # Nothing of the model is anywhere twice, and nothing is nowhere.
    weights = sum(share.weight_bytes for share in placement.shares)
    assert weights == sum(layer.weight_bytes for layer in shape.layers) + (
        (shape.input_bytes if placement.shares[0].embeddings else 0)
        + (0 if placement.output_here else shape.output_bytes)
    )
    assert [verdict.endpoint for verdict in placement.verdicts] == [offer.endpoint for offer in offers]
    assert all(verdict.reason for verdict in placement.verdicts)


def predicted(placement: Placement) -> float:
    return sum(share.seconds_per_token for share in placement.shares)


@settings(max_examples=300, deadline=None)
@given(SHAPES, offer_lists(), WANTS, st.randoms(use_true_random=False))
def test_the_order_of_the_offers_does_not_matter(
    shape: ModelShape, offers: list[Offer], wanted: ServingNeeds, random: Random
):
    mixed = random.sample(offers, len(offers))
    first, second = attempt(shape, offers, wanted), attempt(shape, mixed, wanted)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert first.shares == second.shares


@settings(max_examples=300, deadline=None)
@given(SHAPES, offer_lists(most=5), WANTS)
def test_a_further_worker_never_makes_it_slower(shape: ModelShape, offers: list[Offer], wanted: ServingNeeds):
    offers = [replace(offer, layers=None) for offer in offers]
    without, with_it = attempt(shape, offers[:-1], wanted), attempt(shape, offers, wanted)
    if without is not None:
        assert with_it is not None
        if with_it.output_here != without.output_here:
            return  # which is for the sake of many calls, and not of the one that is predicted
        assert predicted(with_it) <= predicted(without) * (1 + 1e-9)


@settings(max_examples=300, deadline=None)
@given(SHAPES, offer_lists(), WANTS)
def test_one_that_fits_alone_never_shares(shape: ModelShape, offers: list[Offer], wanted: ServingNeeds):
    offers = [replace(offer, layers=None) for offer in offers]
    placement = attempt(shape, offers, wanted)
    if placement is None or len(placement.shares) == 1:
        return
    used = {share.endpoint for share in placement.shares}
    assert not any(attempt(shape, [offer], wanted) for offer in offers if offer.endpoint in used)


# The search against all that there is


@st.composite
def candidates(draw: st.DrawFn, layers: int) -> SearchDevice:
    rate = draw(st.integers(1, 9))
    sizes = draw(st.lists(st.integers(1, 4), min_size=layers, max_size=layers))
    room = draw(st.integers(0, 12))
    return SearchDevice(
        layer_cost=tuple(float(rate * size) for size in sizes),
        fixed=draw(st.integers(0, 9)),
        first=draw(st.integers(0, 9)),
        last=draw(st.integers(-2, 9)),
        room=room,
        room_first=room - draw(st.integers(0, 2)),
        room_last=room - draw(st.integers(0, 3)),
        room_alone=room - draw(st.integers(3, 5)),
        exact=draw(st.sampled_from([None, None, None, 1, 2])),
    )


@st.composite
def problems(draw: st.DrawFn, most: int, *, alike: bool) -> tuple[list[SearchDevice], list[int]]:
    count = draw(st.integers(1, 5))
    sizes = (
        [draw(st.integers(1, 4))] * count
        if alike
        else draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    )
    found = draw(st.lists(candidates(count), min_size=1, max_size=most))
    if alike:
        found = [replace(one, layer_cost=(one.layer_cost[0],) * count) for one in found]
    return found, sizes


def brute_force(devices: list[SearchDevice], sizes: list[int]) -> float | None:
    """The cheapest of all sets, orders and cuts, by the same rules."""
    forced = {index for index, device in enumerate(devices) if device.exact is not None}
    costs = []
    for number in range(1, len(devices) + 1):
        for order in permutations(range(len(devices)), number):
            if not forced <= set(order):
                continue
            for inner in combinations(range(1, len(sizes) + 1), number - 1):
                cuts = [0, *inner, len(sizes)]
                cost = _cost(devices, sizes, order, cuts)
                if cost is not None and not _shares_needlessly(devices, sizes, order, forced):
                    costs.append(cost)
    return min(costs, default=None)


def _shares_needlessly(devices: list[SearchDevice], sizes: list[int], order: tuple[int, ...], forced: set[int]) -> bool:
    return len(order) > 1 and any(fits_alone(devices[index], sizes) and forced <= {index} for index in order)


def _cost(devices: list[SearchDevice], sizes: list[int], order: tuple[int, ...], cuts: list[int]) -> float | None:
    cost = 0.0
    for place_, index in enumerate(order):
        device, start, end = devices[index], cuts[place_], cuts[place_ + 1]
        first, last = place_ == 0, place_ == len(order) - 1
        room = (
            device.room_alone
            if first and last
            else device.room_first
            if first
            else device.room_last
            if last
            else device.room
        )
        if sum(sizes[start:end]) > room or device.exact not in (None, end - start):
            return None
        cost += device.fixed + first * device.first + last * device.last + sum(device.layer_cost[start:end])
    return cost


@settings(max_examples=600, deadline=None)
@given(problems(4, alike=False))
def test_the_search_finds_the_best_there_is(problem: tuple[list[SearchDevice], list[int]]):
    devices, sizes = problem
    found = search(devices, sizes)
    assert (None if found is None else found.cost) == pytest.approx(brute_force(devices, sizes))
    if found is not None:
        cuts = [0]
        for stage in found.stages:
            cuts.append(cuts[-1] + stage.layers)
        assert _cost(devices, sizes, tuple(stage.candidate for stage in found.stages), cuts) == pytest.approx(
            found.cost
        )


@settings(max_examples=200, deadline=None)
@given(problems(4, alike=True))
def test_beyond_the_exact_search_layers_that_are_alike_are_placed_best_as_well(
    problem: tuple[list[SearchDevice], list[int]],
):
    """With enough devices that nothing fits on, the search of the fixed order has to do it."""
    devices, sizes = problem
    useless = replace(devices[0], room=-1, room_first=-1, room_last=-1, room_alone=-1, exact=None)
    found = search([*[useless] * EXACT_DEVICES, *devices], sizes)
    assert (None if found is None else found.cost) == pytest.approx(brute_force(devices, sizes))
