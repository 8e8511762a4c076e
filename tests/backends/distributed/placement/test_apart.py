"""Which workers each replica of a model gets: as many replicas as are asked for or fit, none sharing a worker."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from placement_support import make_offer, make_shape

from synaptic.backends.distributed.placement.apart import place_apart
from synaptic.backends.distributed.placement.types import Offer, Placement, ServingNeeds
from synaptic.errors import NoPlacement

WANTED = ServingNeeds(context=4096, slots=2)


def workers_of(placement: Placement) -> str:
    return "".join(sorted(endpoint.host[-1] for endpoint in placement.endpoints))


def offers_of(*gib: float) -> list[Offer]:
    return [make_offer(number, size) for number, size in enumerate(gib, start=1)]


@pytest.mark.parametrize(
    ("gib", "count", "expected"),
    [
        ((8,), 1, ["1"]),
        ((8,), 2, ["1"]),
        ((8, 8), 2, ["1", "2"]),
        ((8, 8, 8), 2, ["1", "2"]),
        ((4, 4, 4, 4), 2, ["12", "34"]),
        ((4, 4, 4), 2, ["12"]),
        ((8, 4, 4), 3, ["1", "23"]),
        ((4, 4, 4, 4), 4, ["12", "34"]),
    ],
)
def test_as_many_as_are_asked_for_or_fit(gib: tuple[float, ...], count: int, expected: list[str]):
    found = place_apart(make_shape(), offers_of(*gib), WANTED, count)
    assert [workers_of(placement) for placement in found] == expected


def test_workers_are_dealt_out_where_the_fastest_together_would_leave_too_little():
    # The two large ones are the fastest pair, and the two small ones do not hold the model.
    offers = [
        make_offer(1, 5, reading=40e9),
        make_offer(2, 5, reading=40e9),
        make_offer(3, 2.2, reading=5e9),
        make_offer(4, 2.2, reading=5e9),
    ]
    assert [workers_of(one) for one in place_apart(make_shape(), offers, WANTED, 1)] == ["12"]
    found = place_apart(make_shape(), offers, WANTED, 2)
    assert [workers_of(placement) for placement in found] == ["13", "24"]
    reasons = {verdict.endpoint.host[-1]: verdict.reason for verdict in found[0].verdicts}
    assert "left to another replica" in reasons["2"]


def test_orders_are_obeyed_by_the_replica_that_has_those_workers():
    offers = [make_offer(1, 8, layers=20), make_offer(2, 8, layers=12), make_offer(3, 8)]
    first, second = place_apart(make_shape(), offers, WANTED, 2)
    assert {share.endpoint.host[-1]: share.layers for share in first.shares} == {"1": 20, "2": 12}
    assert workers_of(second) == "3"


def test_a_worker_that_cannot_be_used_is_no_replicas():
    held = replace(make_offer(1, 8), refusal="it is held")
    found = place_apart(make_shape(), [held, *offers_of(0, 8, 8)[1:]], WANTED, 3)
    assert [workers_of(placement) for placement in found] == ["2", "3"]


def test_where_not_even_one_fits_that_is_the_error():
    with pytest.raises(NoPlacement):
        place_apart(make_shape(), offers_of(2, 2), WANTED, 2)


@given(st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=6), st.integers(min_value=1, max_value=4))
def test_no_worker_is_of_two_replicas_and_none_is_lost_by_asking_for_more(gib: list[int], count: int):
    try:
        found = place_apart(make_shape(layers=8), offers_of(*gib), WANTED, count)
    except NoPlacement:
        return
    taken = [endpoint for placement in found for endpoint in placement.endpoints]
    assert len(taken) == len(set(taken))
    assert len(place_apart(make_shape(layers=8), offers_of(*gib), WANTED, count + 1)) >= len(found)
    assert len(found) <= count
