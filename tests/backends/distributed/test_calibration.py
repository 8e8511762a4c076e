"""What a call teaches of the workers' speed."""

import pytest
from placement_support import make_offer, make_shape

from synaptic.backends.distributed.placement.calibration import MOST, corrected, learn, reading_factor
from synaptic.backends.distributed.placement.decide import place
from synaptic.backends.distributed.placement.types import Placement, ServingNeeds
from synaptic.backends.distributed.workers.probe import WorkerFacts
from synaptic.backends.distributed.workers.protocol import ProtocolVersion
from synaptic.backends.distributed.workers.worker_facts import recall, remember

WANTED = ServingNeeds(context=1024, slots=1)


def placed(*readings: float) -> tuple[Placement, dict]:
    offers = [make_offer(number, 3, reading=reading) for number, reading in enumerate(readings, 1)]
    readings_by_device = {(offer.endpoint, 0): reading for offer, reading in zip(offers, readings, strict=True)}
    return place(make_shape(), offers, WANTED), readings_by_device


def test_a_call_as_predicted_teaches_nothing():
    placement, readings = placed(20e9, 10e9)
    assert placement.tokens_per_second is not None
    assert reading_factor(placement, readings, 1 / placement.tokens_per_second) == pytest.approx(1.0)


def test_workers_that_are_twice_as_fast_make_the_prediction_right():
    slow, readings = placed(20e9, 10e9)
    fast, _ = placed(40e9, 20e9)
    assert fast.tokens_per_second is not None
    assert [share.layers for share in slow.shares] == [share.layers for share in fast.shares]
    assert reading_factor(slow, readings, 1 / fast.tokens_per_second) == pytest.approx(2.0)


def test_no_call_is_believed_without_bounds():
    placement, readings = placed(20e9, 10e9)
    assert reading_factor(placement, readings, 1e-9) == MOST
    assert reading_factor(placement, readings, 1e9) == 1 / MOST


def test_what_is_kept_comes_nearer_with_every_call():
    kept = 2.5e9
    for _ in range(8):
        kept = corrected(kept, 2.5e9, 2.4)
    assert kept == pytest.approx(6e9, rel=0.01)


def test_what_is_kept_is_corrected_where_that_is_worth_it():
    placement, readings = placed(20e9, 10e9)
    keys = {endpoint: endpoint for endpoint in placement.endpoints}
    for share in placement.shares:
        offer = make_offer(int(share.endpoint.host.rpartition(".")[2]), 3, reading=readings[share.endpoint, 0])
        facts = WorkerFacts(version=ProtocolVersion(7, 0, 0), devices=(), round_trip=1e-3)
        remember(share.endpoint, facts, offer.measurement)
    assert placement.tokens_per_second is not None
    before = {endpoint: recall(endpoint) for endpoint in placement.endpoints}
    learn(placement, readings, keys, 1 / placement.tokens_per_second)
    assert {endpoint: recall(endpoint) for endpoint in placement.endpoints} == before
    learn(placement, readings, keys, 2 / placement.tokens_per_second)
    for endpoint in placement.endpoints:
        known = recall(endpoint)
        assert known is not None
        assert known.measurement is not None
        assert known.measurement.weight_reading[0] < 0.8 * readings[endpoint, 0]
        assert known.measurement.round_trip == before[endpoint].measurement.round_trip


def test_what_was_never_measured_is_not_learned():
    placement, readings = placed(20e9, 10e9)
    learn(placement, readings, {endpoint: endpoint for endpoint in placement.endpoints}, 1.0)
    assert all(recall(endpoint) is None for endpoint in placement.endpoints)
