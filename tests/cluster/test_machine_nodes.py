"""The Ollama of a machine, which listens on its loopback only, as a node of the pool."""

import json
import os
import subprocess
import sys

import pytest
from machine_site import ROOT, Site, three_hosts  # noqa: F401 - one is a fixture
from network_hosts import NEEDS_HOSTS
from ssh_server import NEEDS_SSHD

pytestmark = [NEEDS_HOSTS, NEEDS_SSHD, pytest.mark.real_model]

OLLAMA_PORT = 11434


def serve_on(site: Site, number: int) -> None:
    """Have something that speaks Ollama's API on the loopback of a host."""
    serving = site.hosts.start(
        number,
        *(sys.executable, "-m", "synaptic", "serve", "--backend", "embedded", "--no-pipelines", "--threads", "1"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    assert serving.stderr is not None
    while "serving at " not in serving.stderr.readline():
        assert serving.poll() is None


@pytest.mark.usefixtures("own_home")
def test_it_is_used_through_the_connection_and_never_exposed(site: Site):
    code, text = site.add_only(2, "--no-worker")
    assert code == 3
    assert "no Ollama answers on m2 at 127.0.0.1:11434" in text
    serve_on(site, 2)
    code, text = site.add_only(2, "--no-worker")
    assert code == 0, text
    assert "at port 11434 there" in text
    url = json.loads(site.run("machines", "list", "--json")[1])[0]["node_port"]
    code, text = site.run("nodes", "check")
    assert code == 0, text
    assert f"http://127.0.0.1:{url}" in text
    assert all(at.startswith(("127.0.0.1:", "[::1]:")) or at.endswith(":22") for at in site.listening(2))

    asked = ("-q", "--json", "-p", "answer", "Say yes.")
    for task_distribution in ("true", "false"):
        code, text = site.run("--set", f"task_distribution_enabled={task_distribution}", *asked)
        assert code == 0, text
        assert {step["node"] for step in json.loads(text)["steps"]} == {"m2"}

    site.hosts.pull(2)
    code, text = site.run("nodes", "check")
    assert code == 3
    site.hosts.plug(2)
    code, text = site.run("machines", "check")
    assert code == 0, text

    assert "removed m2" in site.run("machines", "remove", "m2")[1]
    assert json.loads(site.run("nodes", "list", "--json")[1]) == []
