"""The SSH server that is opened on a Ray node, without Ray: it runs commands, whole, and each ends with its channel."""

import asyncio
from collections.abc import AsyncIterator

import asyncssh
import pytest

from synaptic.cluster.door import KEY
from synaptic.cluster.ray_door import open_door


@pytest.fixture
async def guest() -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection through the door."""
    own, host = asyncssh.generate_private_key(KEY), asyncssh.generate_private_key(KEY)
    door = await open_door("127.0.0.1", host, own.export_public_key().decode())
    known: tuple[list[asyncssh.SSHKey], ...] = ([host.convert_to_public()], [], [])
    async with (
        door,
        asyncssh.connect(
            "127.0.0.1", door.get_port(), config=None, client_keys=[own], known_hosts=known, encoding=None
        ) as connection,
    ):
        yield connection


@pytest.mark.parametrize("to", ["1", "2"])
async def test_all_that_a_command_writes_comes_before_its_exit(guest: asyncssh.SSHClientConnection, to: str) -> None:
    for _ in range(20):  # a connection that one of them breaks has none of the others
        done = await guest.run(f"head -c 300000 /dev/zero >&{to}; exit 3")
        written = done.stdout if to == "1" else done.stderr
        assert (len(written or b""), done.exit_status) == (300_000, 3)


@pytest.mark.parametrize(("first", "other"), [("1", "2"), ("2", "1")])
async def test_a_stream_that_ends_before_the_other_does_not_end_that(
    guest: asyncssh.SSHClientConnection, first: str, other: str
) -> None:
    for _ in range(3):
        done = await guest.run(f"exec {first}>&-; sleep 0.2; head -c 300000 /dev/zero >&{other}")
        written = done.stdout if other == "1" else done.stderr
        assert len(written or b"") == 300_000


async def test_what_a_command_leaves_behind_does_not_keep_its_channel_open(guest: asyncssh.SSHClientConnection) -> None:
    async with asyncio.timeout(20):
        done = await guest.run("sleep 1000 & sleep 0.3; echo started")
    assert done.stdout == b"started\n"


async def test_what_comes_for_a_command_that_has_ended_breaks_nothing(guest: asyncssh.SSHClientConnection) -> None:
    for _ in range(20):
        done = await guest.run("exit 4", input=bytes(300_000))
        assert done.exit_status == 4


async def test_a_command_gets_all_that_comes_for_it(guest: asyncssh.SSHClientConnection) -> None:
    given = bytes(range(256)) * 5000
    assert (await guest.run("cat", input=given)).stdout == given


async def test_only_the_loopback_is_reached_through_it(guest: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await guest.open_connection("127.0.0.2", 9)
