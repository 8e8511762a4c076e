"""The emulated link of the benchmarks: what goes through it, and how an end looks from the other side."""

import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from sides.links import Link

PATIENCE = 60.0
MEGABYTE = 1_000_000


@contextmanager
def joined(**kind):
    """Yield both ends of one connection through a link, and the link."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Link("127.0.0.1", server.getsockname()[1], **kind) as link,
        socket.create_connection(("127.0.0.1", link.port), timeout=PATIENCE) as near,
    ):
        server.settimeout(PATIENCE)
        far, _ = server.accept()
        with far:
            far.settimeout(PATIENCE)
            yield near, far, link


def read(end, size):
    found = bytearray()
    while len(found) < size and (piece := end.recv(size - len(found))):
        found += piece
    return bytes(found)


@pytest.mark.parametrize("kind", [{}, {"mbit": 10_000, "rtt_ms": 1}, {"mbit": 1000}])
def test_bytes_arrive_whole_and_in_order_both_ways_and_are_counted(kind):
    up, down = bytes(range(256)) * 20_000, bytes(reversed(range(256))) * 3_000
    with joined(**kind) as (near, far, link):
        near.settimeout(PATIENCE)
        near.sendall(up)
        assert read(far, len(up)) == up
        far.sendall(down)
        assert read(near, len(down)) == down
        counts = link.ask()
    assert (counts["up"], counts["down"], counts["connections"], counts["accepted"]) == (len(up), len(down), 1, 1)


def test_a_round_trip_takes_no_less_than_the_link_says_and_a_new_connection_one_more():
    with joined(mbit=1000, rtt_ms=80) as (near, far, _):
        begin = time.monotonic()
        near.sendall(b"ping")
        assert read(far, 4) == b"ping"
        there = time.monotonic() - begin
        begin = time.monotonic()
        far.sendall(b"pong")
        assert read(near, 4) == b"pong"
        back = time.monotonic() - begin
    # Less what the proxy itself costs, which is taken off the delay.
    assert there > 0.1
    assert back > 0.035


def test_bytes_come_no_faster_than_the_rate():
    with joined(mbit=100) as (near, far, _):
        begin = time.monotonic()
        near.sendall(b"x" * MEGABYTE)
        assert len(read(far, MEGABYTE)) == MEGABYTE
        assert time.monotonic() - begin > MEGABYTE * 8 / 100e6


def test_a_half_closed_stream_still_answers():
    with joined(rtt_ms=2) as (near, far, _):
        near.sendall(b"all of it")
        near.shutdown(socket.SHUT_WR)
        assert read(far, 100) == b"all of it"
        far.sendall(b"answer")
        far.close()
        assert read(near, 100) == b"answer"


def test_an_end_that_is_reset_resets_the_other_after_what_came_before():
    with joined(rtt_ms=10) as (near, far, link):
        far.sendall(b"last words")
        assert read(near, 10) == b"last words"
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        far.close()
        with pytest.raises(ConnectionResetError):
            near.recv(1)
        assert link.ask()["connections"] == 0


def test_writing_to_an_end_that_was_closed_comes_back_as_a_reset():
    with joined(rtt_ms=2) as (near, far, _):
        far.close()
        assert near.recv(1) == b""
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            for _ in range(1000):
                near.sendall(b"x" * 1000)
                time.sleep(0.01)


def test_a_refused_connection_is_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        Link("127.0.0.1", port, rtt_ms=2) as link,
        socket.create_connection(("127.0.0.1", link.port), timeout=PATIENCE) as near,
        pytest.raises(ConnectionResetError),
    ):
        near.recv(1)


def test_a_link_that_is_held_lets_nothing_pass_until_it_goes_on():
    with joined() as (near, far, link):
        link.ask(held=True)
        near.sendall(b"later")
        far.settimeout(0.2)
        with pytest.raises(TimeoutError):
            far.recv(1)
        link.ask(held=False)
        far.settimeout(PATIENCE)
        assert read(far, 5) == b"later"


def test_a_link_that_is_cut_resets_both_ends_and_takes_new_connections():
    with joined() as (near, far, link):
        near.sendall(b"one")
        assert read(far, 3) == b"one"
        assert link.ask(cut=True)["connections"] == 0
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        with socket.create_connection(("127.0.0.1", link.port)) as again:
            again.sendall(b"two")
            assert link.ask(mbit=100, rtt_ms=1)["accepted"] >= 1


def test_the_link_ends_with_its_owner():
    link = Link("127.0.0.1", 1)
    link.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", link.port))
