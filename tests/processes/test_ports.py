"""Free ports: ones that nobody else is given by the system."""

import socket
from pathlib import Path

import pytest

from synaptic.errors import BackendUnavailable, UsageError
from synaptic.processes.ports import ephemeral_ports, free_port, is_free, span


def test_a_free_port_is_none_that_the_system_hands_out():
    first, last = ephemeral_ports()
    port = free_port()
    assert is_free("127.0.0.1", port)
    assert not first <= port <= last


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        ((32768, 60999), (20000, 32767)),
        ((1024, 60999), (61000, 65535)),
        ((1024, 65535), (20000, 65535)),
        ((20500, 64900), (20000, 65535)),
    ],
)
def test_where_ports_are_chosen_from(ephemeral: tuple[int, int], expected: tuple[int, int]):
    assert span(ephemeral) == expected


@pytest.mark.parametrize("text", [None, "", "many few"])
def test_a_system_that_does_not_tell_is_taken_for_a_usual_one(tmp_path: Path, text: str | None):
    file = tmp_path / "range"
    if text is not None:
        file.write_text(text)
    assert ephemeral_ports(file) == (32768, 60999)


def test_a_port_that_something_listens_at_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(BackendUnavailable, match=r"no free port was found at 127\.0\.0\.1"):
            free_port(choose=lambda first, last: port)
    assert is_free("127.0.0.1", port)
    others = range(port - 99, port)  # another program may take some of them meanwhile
    tries = iter((port, *others))
    assert free_port(avoid={port}, choose=lambda first, last: next(tries)) in others


def test_what_is_left_of_a_connection_does_not_count():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert is_free("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_an_address_of_another_machine_is_refused(host: str):
    with pytest.raises(UsageError, match="is not an IPv4 address of this machine"):
        is_free(host, 5000)


@pytest.mark.parametrize(
    ("number", "message"), [(13, "port 80 is for the administrator alone"), (22, "nothing can listen at 127.0.0.1:80")]
)
def test_what_else_the_system_refuses_is_told(monkeypatch: pytest.MonkeyPatch, number: int, message: str):
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(number, "refused")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(UsageError, match=message):
        is_free("127.0.0.1", 80)
