"""A worker's cable is pulled and put back: answers are complete, and the worker can be used afterwards."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from network_hosts import NEEDS_HOSTS, Hosts
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    Local,
    engine_in_home,
    local_answers,
    memory_for,
    real_shape,
)
from split_model_talk import PROMPT, Talk, ask

pytestmark = [NEEDS_HOSTS, pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

ROOT = Path(__file__).parents[3]
PORT = 50_101


class Site:
    """A coordinator's host, number 1, and workers on the others."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1"}

    def worker(self, host: int) -> Talk:
        """Have a worker started on a host, as a person does; return once it listens."""
        command = [sys.executable, str(ROOT / "main.py"), "workers", "start", "--host", self.hosts.address(host)]
        command += ["--port", str(PORT + host), "--threads", "1", "--memory", "2"]
        process = self.hosts.start(
            host, *command, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        talk = Talk(process)
        talk.until(lambda line: "a worker listens at" in line)
        return talk

    def ask(self, *workers: int, gib: float | None = None, **settings: Any) -> Talk:
        """Have the prompt answered by a split model."""
        backends = [
            {"host": self.hosts.address(host), "port": PORT + host, **({} if gib is None else {"memory_gib": gib})}
            for host in workers
        ]
        return Talk(ask(self.hosts, backends, env=self.env, **settings))


@pytest.fixture
def site() -> Iterator[Site]:
    with Hosts(3) as hosts:
        yield Site(hosts)


async def test_a_worker_whose_client_died_behind_a_pulled_cable_is_free_again(site: Site, local: Local):
    worker = site.worker(2)
    asking = site.ask(2)
    asking.until(lambda line: '"piece"' in line)
    site.hosts.pull(2)
    os.killpg(asking.process.pid, signal.SIGKILL)
    worker.until(lambda line: "free again" in line)
    site.hosts.plug(2)

    assert site.ask(2).answer() == {
        "answer": local.says(PROMPT),
        "breaks": 0,
        "workers": [f"{site.hosts.address(2)}:{PORT + 2}"],
    }


async def test_a_call_waits_until_the_cable_is_back_and_goes_on(site: Site, local: Local):
    site.worker(2)
    site.worker(3)
    asking = site.ask(2, 3, gib=memory_for(await real_shape(), 2), worker_return_wait=0.5)
    asking.until(lambda line: '"piece"' in line)
    site.hosts.pull(3)
    asking.until(lambda line: "calls wait up to" in line)
    site.hosts.plug(3)
    ended = asking.answer()

    assert ended["answer"] == local.says(PROMPT)
    assert ended["breaks"] == 1
    assert len(ended["workers"]) == 2
