"""Looking for nodes: what a network means, and that exactly its addresses are contacted, bounded in number and time."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from fault_server import FaultServer, before_headers, hang, html, json_reply, respond
from hypothesis import given
from hypothesis import strategies as st

from synaptic.backends.pool.node.node_discovery import MAX_ADDRESSES, FoundNode, addresses, scan
from synaptic.errors import UsageError

VERSION = {"/api/version": json_reply({"version": "0.12"})}


@pytest.mark.parametrize(
    ("cidr", "shown", "count", "first"),
    [
        ("192.168.1.0/24", "192.168.1.0/24", 254, "192.168.1.1"),
        ("192.168.1.77/24", "192.168.1.0/24", 254, "192.168.1.1"),
        (" 10.0.0.0/22 ", "10.0.0.0/22", 1022, "10.0.0.1"),
        ("10.0.0.4/30", "10.0.0.4/30", 2, "10.0.0.5"),
        ("10.0.0.4/31", "10.0.0.4/31", 2, "10.0.0.4"),
        ("10.0.0.4/32", "10.0.0.4", 1, "10.0.0.4"),
        ("10.0.0.4", "10.0.0.4", 1, "10.0.0.4"),
        ("fd00::10", "fd00::10", 1, "[fd00::10]"),
        ("[fd00::10]", "fd00::10", 1, "[fd00::10]"),
        ("fd00::/126", "fd00::/126", 4, "[fd00::]"),
        ("fd00::/118", "fd00::/118", 1024, "[fd00::]"),
    ],
)
def test_a_network_and_how_many_addresses_it_has(cidr: str, shown: str, count: int, first: str):
    found_in = addresses(cidr)
    assert (str(found_in), len(found_in)) == (shown, count)
    assert next(iter(found_in)) == first
    assert len(list(found_in)) == count


@pytest.mark.parametrize(
    ("cidr", "instead"),
    [
        ("10.0.0.0/21", "10.0.0.0/24"),
        ("10.1.2.3/8", "10.1.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/24"),
        ("fd00::/117", "fd00::/120"),
        ("::/0", "::/120"),
    ],
)
def test_a_large_network_is_refused_with_its_size_and_a_part_of_it(cidr: str, instead: str):
    with pytest.raises(
        UsageError, match=r"has [\d,]+ addresses, and more than 1,024 \(/\d+\) are not contacted"
    ) as said:
        addresses(cidr)
    assert instead in str(said.value.hint)


@pytest.mark.parametrize(
    "cidr",
    ["", "desk", "10.0.0", "10.0.0.0/33", "10.0.0.1-10.0.0.9", "224.0.0.0/24", "0.0.0.0/24", "1.2.3.4/x", "::/128"],
)
def test_what_is_no_network_is_refused_with_an_example(cidr: str):
    with pytest.raises(UsageError) as caught:
        addresses(cidr)
    assert "192.168.1.0/24" in str(caught.value.hint)


def test_public_addresses_are_told_from_ones_own():
    assert addresses("8.8.8.0/24").is_public
    assert not any(addresses(own).is_public for own in ("192.168.0.0/24", "10.0.0.0/24", "127.0.0.1", "fd00::1"))


@given(st.text(max_size=20) | st.from_regex(r"[0-9a-f:.]{1,20}(/[0-9]{1,3})?", fullmatch=True))
def test_any_text_is_a_small_network_or_an_error_of_ours(text: str):
    try:
        found_in = addresses(text)
    except UsageError:
        return
    assert 1 <= len(list(found_in)) == len(found_in) <= MAX_ADDRESSES


# -- contacting --------------------------------------------------------------------------------------------------------


async def found(hosts: list[str], port: int, **options: object) -> list[FoundNode]:
    return [node async for node in scan(hosts, port, **options)]  # type: ignore[arg-type]


@asynccontextmanager
async def listening(*hosts: str) -> AsyncIterator[tuple[int, dict[str, int]]]:
    """Listen at one port of several loopback addresses and count who comes; nothing is ever answered."""
    came: dict[str, int] = dict.fromkeys(hosts, 0)
    async with AsyncExitStack() as stack:
        port = 0
        for host in hosts:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = host) -> None:
                came[host] += 1
                await reader.read()
                writer.close()

            server = await asyncio.start_server(serve, host, port)
            port = server.sockets[0].getsockname()[1]
            stack.callback(server.close)
        yield port, came


async def test_a_node_is_found_among_addresses_that_refuse():
    async with FaultServer(VERSION) as server:
        asked: list[int] = []
        network = list(addresses("127.0.0.0/24"))
        nodes = await found(network, server.port, on_progress=asked.append)
        await server.wait_until_idle()
        assert [request.path for request in server.requests] == ["/api/version"]
    assert nodes == [FoundNode(server.url, "0.12")]
    assert asked == list(range(1, 255))


async def test_exactly_the_addresses_of_the_network_are_contacted():
    async with listening("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4") as (port, came):
        assert await found(list(addresses("127.0.0.0/30")), port, within=0.2) == []
        assert came == {"127.0.0.1": 1, "127.0.0.2": 1, "127.0.0.3": 0, "127.0.0.4": 0}


@pytest.mark.parametrize("reply", [html(), json_reply({"name": "x"}), json_reply({"version": 3}), respond(404, b"{}")])
async def test_something_else_at_the_port_is_no_node(reply):
    async with FaultServer(reply) as server:
        assert await found(["127.0.0.1"], server.port) == []


async def test_a_node_that_asks_for_credentials_is_found_without_its_version():
    async with FaultServer(respond(401, b"{}")) as server:
        assert await found(["127.0.0.1"], server.port) == [FoundNode(server.url, None, "asks for credentials")]


async def test_an_address_that_never_answers_costs_its_second_and_no_more():
    async with FaultServer(before_headers(hang)) as server:
        began = time.monotonic()
        assert await found(["127.0.0.1"], server.port, within=0.3) == []
        assert time.monotonic() - began < 10
        await server.wait_until_idle()


async def test_no_more_are_asked_at_once_than_allowed():
    async with FaultServer(before_headers(hang)) as server:
        searching = asyncio.create_task(found(["127.0.0.1"] * 20, server.port, concurrency=5, within=0.3))
        await server.wait_for(lambda: server.open_connections == 5)
        highest = 0
        while not searching.done():
            highest = max(highest, server.open_connections)
            await asyncio.sleep(0.01)
        assert await searching == []
        assert (highest, server.connections) == (5, 20)


async def test_a_search_that_is_left_contacts_nobody_any_more():
    async with FaultServer([json_reply({"version": "1"}), before_headers(hang)]) as server:
        async for _ in (search := scan(["127.0.0.1"] * 50, server.port, concurrency=2, within=5.0)):
            break
        await search.aclose()
        await server.wait_until_idle()
        assert server.connections <= 4


async def test_an_ipv6_address():
    server = await asyncio.start_server(lambda *_: None, "::1", 0) if socket.has_ipv6 else None
    if server is None:
        pytest.skip("this machine has no IPv6")
    port = server.sockets[0].getsockname()[1]
    server.close()
    assert await found(list(addresses("::1")), port) == []


async def test_nothing_named_is_nothing_done():
    assert await found([], 11434) == []
