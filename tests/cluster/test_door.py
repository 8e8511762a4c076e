"""Machines that connect to us, with a real ssh and a real sshd, on hosts of their own and on this one."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from machine_site import PORT, ROOT, Site, three_hosts  # noqa: F401 - one is a fixture
from network_hosts import NEEDS_HOSTS
from real_distributed import engine_in_home  # noqa: F401 - a fixture
from rpc_support import free_port
from ssh_server import NEEDS_SSHD, SshServer, make_key, near_server

from synaptic.cluster.door import reverse_command, through_door
from synaptic.cluster.machine_list import Machine
from synaptic.errors import BackendUnavailable, UsageError

pytestmark = [NEEDS_SSHD, pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

PATIENCE = 30.0


@pytest.fixture
def near(tmp_path: Path, own_home: Path) -> Iterator[SshServer]:
    with near_server(tmp_path / "near") as server:
        yield server


@NEEDS_HOSTS
def test_a_machine_that_cannot_be_reached_connects_with_one_command_and_lends_its_worker(site: Site, tmp_path: Path):
    """Its SSH server listens on its loopback: all that is done there goes through the connection that it made."""
    own = SshServer(
        tmp_path / "attic", "127.0.0.1", 2022, (Path(os.environ["HOME"]) / ".ssh/id_ed25519.pub").read_text()
    )
    log = site.hosts.start(2, *own.command, env=os.environ, stderr=subprocess.PIPE)
    assert log.stderr is not None
    while "listening on" not in log.stderr.readline():
        pass
    make_key(tmp_path / "key")
    address = f"{os.environ.get('USER', 'root')}@attic:2022"
    words = ("--name", "attic", "--threads", "1", "--no-ollama", "--fingerprint", own.fingerprint)
    adding = site.hosts.start(
        1,
        *(sys.executable, str(ROOT / "main.py"), "machines", "add", address, *words),
        *("--reverse", f"{site.hosts.address(1)}:2200"),
        env=site.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert adding.stdout is not None
    lines = []
    while not (line := adding.stdout.readline()).startswith("while :; do ssh"):
        lines.append(line)
        assert line, lines
    door = f"{site.hosts.address(1)}:2200"
    assert [at for at in site.listening(1) if not at.startswith("127.")] == [door]
    # ssh would take the key from the home of the account, which all hosts of a test share.
    site.hosts.start(2, "sh", "-c", line.replace("ssh -N", f"ssh -F none -i {tmp_path / 'key'} -N"), env=os.environ)
    text, _ = adding.communicate(timeout=120)
    assert adding.returncode == 0, text
    assert "attic is lent" in text
    (kept,) = json.loads(site.run("machines", "list", "--json")[1])
    assert kept["reverse_key"].startswith("ssh-ed25519 ")
    # It comes again by itself, and is let in by its key.
    code, text = site.run("machines", "check")
    assert code == 0, text
    assert all("127.0.0.1" in at or "[::1]" in at or at.endswith(f":{PORT}") for at in site.listening(2))


async def _ssh(command: str, **changes: str) -> tuple[int | None, str]:
    for before, after in changes.items():
        command = command.replace(before, after)
    process = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PATIENCE):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


async def test_only_the_invited_comes_in_and_gets_nothing_but_the_one_port(near: SshServer, own_home: Path):
    one = Machine(
        name="attic",
        host="127.0.0.1",
        port=free_port(),
        local_port=free_port(),
        reverse=f"127.0.0.1:{free_port()}",
        reverse_port=near.port,
    )
    key = f"-i {own_home}/.ssh/id_ed25519 -F none"
    async with through_door(one, token="secret", within=0) as door:
        assert door is not None
        right = door.command(again=False).replace("ssh -N", f"ssh {key} -N")
        code, said = await _ssh(right.replace(".secret@", ".wrong@"))
        assert (code, door.key) == (255, None)
        assert "Permission denied" in said
        # Another port of ours, a port beyond loopback, a way to one of ours, a shell: none of it, also for the invited.
        for other in ("127.0.0.1:1:", f"0.0.0.0:{one.port}:"):
            code, said = await _ssh(right.replace(f"-R 127.0.0.1:{one.port}:", f"-R {other}"))
            assert (code, "remote port forwarding failed" in said) == (255, True)
        code, said = await _ssh(re.sub(r"-N (.*)-R \S+ ", rf"\1-W 127.0.0.1:{near.port} ", right))
        assert code == 255
        code, said = await _ssh(re.sub(r"-N (.*)-R \S+ ", r"\1", right) + " id")
        assert code != 0
        pinned = door.key
        assert pinned is not None
        linking = await asyncio.create_subprocess_shell(f"exec {right}")
        await door.linked(PATIENCE)
        async with through_door(one) as again:  # a second connection of this program
            assert again is door
    assert await linking.wait() == 255

    other = make_key(own_home / "other")
    assert other
    known = replace(one, reverse_key=pinned)
    async with through_door(known, token="secret", within=0) as door:
        code, said = await _ssh(right.replace(key, f"-i {own_home}/other -F none -o IdentitiesOnly=yes"))
        assert "Permission denied" in said
    with pytest.raises(BackendUnavailable, match="attic has not connected to") as caught:
        async with through_door(known, within=0.2):
            pass
    assert reverse_command(known) in (caught.value.hint or "")


async def test_a_door_that_another_program_has_is_left_to_it_and_one_that_cannot_be_is_told():
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    one = Machine(name="attic", host="127.0.0.1", port=port, local_port=1, reverse=f"127.0.0.1:{port}")
    async with taken, through_door(one) as door:
        assert door is not None
        assert not await door.listening
    with pytest.raises(UsageError, match="attic cannot be let in at 203"):
        async with through_door(replace(one, reverse="203.0.113.1:2200")):
            pass
