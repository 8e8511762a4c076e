"""Tunnels to nodes, over a real sshd of this host: who opens them, what is told, and what they leave."""

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_support import ollama, run_here
from fault_server import hang
from ssh_server import NEEDS_SSHD, SshServer, near_server

from synaptic.backends.pool.node.inspection import inspect_nodes
from synaptic.backends.tunnels import Tunnels
from synaptic.cluster.machine_list import Machine, keep, machine
from synaptic.cluster.node_tunnel import NodeTunnels
from synaptic.messages import BackendNotice
from synaptic.settings import NodeSettings

pytestmark = NEEDS_SSHD


@pytest.fixture
def near(tmp_path: Path, own_home: Path) -> Iterator[SshServer]:
    with near_server(tmp_path / "near") as server:
        yield server


def test_what_is_no_ollama_is_no_node(near: SshServer):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        silent.close()
        ended = run_here("machines", "add", *near.words, "--name", "near", "--no-worker", "--ollama", port)
    assert ended.code == 3
    assert f"no Ollama answers on near at 127.0.0.1:{port}" in ended.err
    told = run_here("machines", "add", *near.words, "--no-worker", "--no-ollama")
    assert told.code == 2
    assert "leave nothing to use" in told.err


def test_an_ollama_there_is_a_node_here_until_the_machine_is_removed(near: SshServer):
    with ollama(hang) as there:
        port = there.url.rpartition(":")[2]
        words = ("machines", "add", *near.words, "--name", "near", "--no-worker", "--ollama", port)
        added = run_here(*words)
        assert added.code == 0, added.err
        assert f"near: Ollama 0.12.6 at port {port} there" in added.out
        url = machine("near").node_url
        assert url is not None
        assert run_here(*words).code == 0
        assert machine("near").node_url == url
        assert run_here("machines", "check").code == 0
        asyncio.run(_twice(url))
    assert run_here("nodes", "check").code == 3
    assert run_here("machines", "check").code == 3
    assert "removed near" in run_here("machines", "remove", "near").err
    assert json.loads(run_here("nodes", "list", "--json").out) == []


async def _twice(url: str) -> None:
    """Use a node as two programs of this machine do at the same time: the tunnel of the one serves the other."""
    node = NodeSettings(url=url)
    async with Tunnels([url]):
        (look,) = await inspect_nodes([node], {})
        assert look.version == "0.12.6"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_a_machine_that_is_not_reached_is_told_once_and_tried_again():
    lost = Machine(name="lost", host="127.0.0.1", port=9, local_port=20_001, ollama_port=11434, node_port=20_002)
    keep(lost)
    keep(replace(lost, name="other", node_port=None))
    said: list[object] = []
    tunnels = NodeTunnels(["http://127.0.0.1:20002"], said.append)
    assert tunnels.count() == 1
    assert Tunnels(["http://127.0.0.1:20002"]).needed
    assert not Tunnels(["http://127.0.0.1:20003", "http://10.0.0.1:20002"]).needed
    try:
        await tunnels.open()
    finally:
        await tunnels.aclose()
    (notice,) = said
    assert isinstance(notice, BackendNotice)
    assert "lost (127.0.0.1, port 9) is not reached" in notice.message
    assert "it is tried again" in notice.message
