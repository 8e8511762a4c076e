"""Which addresses a worker may have, and that one with another is neither listened at nor contacted."""

import pytest
from rpc_support import QUICK
from rpc_worker import RpcWorker

from synaptic.backends.distributed.workers import probe
from synaptic.backends.distributed.workers.private_address import is_private, public_ones
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.distributed.workers.worker_check import WorkerState, check_worker
from synaptic.errors import UsageError
from synaptic.ui.actions.serve_worker import check_listens_in_private

PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.4",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.178.20",
    "169.254.7.7",
    "100.64.0.1",
    "100.127.255.255",
    "::1",
    "fd7a:115c:a1e0::1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:10.0.0.4",
]
PUBLIC = [
    "172.15.255.255",
    "172.32.0.1",
    "192.169.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "0.0.0.0",
    "8.8.8.8",
    "203.0.113.7",
    "198.18.0.1",
    "240.0.0.1",
    "224.0.0.1",
    "::",
    "2001:db8::1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
]
"""The neighbours of the private networks, what is reserved, what stands for all networks, and what is public."""


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC])
def test_what_is_private(address: str):
    private = address in PRIVATE
    assert is_private(address) is private
    assert public_ones("desk.lan", (address,), ()) == (() if private else (address,))
    assert public_ones("desk.lan", (address,), ("desk.lan",)) == ()
    assert public_ones("desk.lan", (address,), (address,)) == ()


def test_a_host_with_one_public_address_is_public():
    assert public_ones("desk", ("10.0.0.4", "203.0.113.7"), ("other",)) == ("203.0.113.7",)


async def test_a_worker_with_a_public_address_is_not_contacted_unless_the_settings_allow_it(
    monkeypatch: pytest.MonkeyPatch,
):
    """Loopback stands for a public address here: nothing may leave this machine."""
    monkeypatch.setattr("synaptic.backends.distributed.workers.private_address._PRIVATE", ())
    with RpcWorker() as worker:
        named, literal = Endpoint("localhost", worker.port), Endpoint("127.0.0.1", worker.port)
        for endpoint in (named, literal):
            look = await check_worker(endpoint, limits=QUICK)
            assert look.state is WorkerState.PUBLIC
            assert "is not in a private network, so it is not contacted" in look.reason
            assert f"synaptic config set public_workers '[\"{endpoint.host}\"]'" in (look.hint or "")
        with pytest.raises(probe.PublicWorker, match=r"localhost:\d+ \(127.0.0.1\)"):
            await probe.resolve(named)
        assert worker.connections == 0
        for endpoint, allowed in ((named, "localhost"), (named, "127.0.0.1"), (literal, "127.0.0.1")):
            assert (await check_worker(endpoint, allowed=(allowed,), limits=QUICK)).well


@pytest.mark.parametrize(
    ("host", "words"), [("203.0.113.7", "is in no private network"), ("0.0.0.0", "stands for all networks")]
)
def test_a_worker_does_not_listen_to_the_public_unless_the_settings_allow_it(host: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        check_listens_in_private(host, ())
    assert f"synaptic config set public_workers '[\"{host}\"]'" in (caught.value.hint or "")
    check_listens_in_private(host, (host,))
    check_listens_in_private("10.0.0.4", ())
