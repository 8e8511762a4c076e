"""Who is let in and who has to leave, row by row."""

import resource

import pytest

from synaptic.server.limits import ServerLimits
from synaptic.server.limits.admission import Phase, Place, admit, allowed, brought, client_of, is_over
from synaptic.server.limits.server_limits import MOST_CONNECTIONS, connections_for

LIMITS = ServerLimits(connections=4)  # three of one client
NOW = 100.0


def place(client="a", phase=Phase.HEADERS, age=0.0, **options):
    return Place(client, phase, NOW - age, NOW - age + allowed(phase, LIMITS), **options)


def test_while_there_is_room_everybody_is_let_in():
    found = admit("a", [place("a", age=9), place("a"), place("b")], LIMITS, NOW)

    assert (found.allowed, found.leaves) == (True, ())


@pytest.mark.parametrize(
    ("client", "places", "leaves"),
    [
        pytest.param("a", [place(age=1), place(age=3), place(age=2)], 1, id="the one that has waited longest"),
        pytest.param("a", [place(phase=Phase.BODY, age=9), place(age=2), place(phase=Phase.IDLE)], 1, id="least time"),
        pytest.param("a", [place(phase=Phase.NEW), place(phase=Phase.IDLE), place(age=0)], 2, id="nobody who is new"),
        pytest.param("c", [place(age=9), place("b"), place("b"), place("b")], 1, id="who has most makes room"),
        pytest.param(
            "c",
            [place(age=9), *[place("b", Phase.ANSWERING)] * 3],
            0,
            id="who has most of those that can leave",
        ),
        pytest.param("a", [place(phase=Phase.ANSWERING)] * 3, None, id="nobody who is answered"),
        pytest.param("a", [place(phase=Phase.IDLE, unsent=1)] * 3, None, id="nobody who is still sent to"),
        pytest.param("c", [place("b", Phase.ANSWERING)] * 4, None, id="full"),
    ],
)
def test_who_makes_room(client, places, leaves):
    found = admit(client, places, LIMITS, NOW)

    assert found.allowed is (leaves is not None)
    assert list(found.leaves) == ([] if leaves is None else [places[leaves]])


@pytest.mark.parametrize(
    ("one", "over"),
    [
        (place(age=9.9), False),
        (place(age=10), True),
        (place(phase=Phase.IDLE, age=19.9), False),
        (place(phase=Phase.IDLE, age=20), True),
        (place(phase=Phase.ANSWERING, age=100_000), False),
        (place(phase=Phase.BODY, age=100_000), False),  # its reader says so, with words
        (place(phase=Phase.ANSWERING, unsent=1, unsent_since=NOW - 59), False),
        (place(phase=Phase.ANSWERING, unsent=1, unsent_since=NOW - 60), True),
        (place(phase=Phase.IDLE, age=30, unsent=1, unsent_since=NOW - 30), False),
    ],
)
def test_whose_time_is_over(one, over):
    assert is_over(one, LIMITS, NOW) is over


def test_of_many_a_few_leave_at_once():
    places = [place(age=number / 100) for number in range(768)]

    assert list(admit("a", places, ServerLimits(), NOW).leaves) == places[: 768 - 49 : -1]


def test_nobody_leaves_before_a_request_had_time_to_come():
    assert admit("a", [place(phase=Phase.NEW, age=0.01)] * 3, LIMITS, NOW).wait == pytest.approx(0.04)
    assert admit("a", [place(phase=Phase.NEW, age=0.05)] * 3, LIMITS, NOW).wait == 0


def test_a_body_may_take_as_long_as_it_keeps_its_pace_and_pause_for_the_time_of_a_short_one():
    until = 20.0
    for second in range(1, 1000):
        until = brought(until, 500, LIMITS, second)
    assert until == 1019.0
    assert brought(until, 32_000_000, LIMITS, 1000) == 1020.0
    assert brought(20.0, 1, LIMITS, 19.0) == pytest.approx(20.002)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_client_is_an_address_or_the_network_of_one_machine(address, client):
    assert client_of(address) == client


@pytest.mark.parametrize(("files", "connections"), [(256, 96), (1024, 480), (10**6, 1024), (-1, 1024), (3, 1)])
def test_connections_leave_files_for_everything_else(files, connections):
    assert connections_for(files) == connections <= MOST_CONNECTIONS


def test_a_process_that_may_have_more_files_takes_as_many_as_it_needs():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        limits = ServerLimits.of_this_process()
        now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits.connections == connections_for(now)
    assert now == (
        64 + 2 * MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(64 + 2 * MOST_CONNECTIONS, hard)
    )
