"""A person's host and others that have nothing but an SSH server, each in a network of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest
from network_hosts import Hosts
from ssh_server import SshServer, as_client

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
PORT: Final = 22


class Site:
    """Host 1 is the person's; the others have nothing but an SSH server."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts = hosts
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.env.pop("SSH_AUTH_SOCK", None)
        key = as_client(Path(os.environ["HOME"]))
        self.servers = {
            number: SshServer(folder / f"host{number}", hosts.address(number), PORT, key) for number in (2, 3)
        }
        for number, server in self.servers.items():
            log = hosts.start(number, *server.command, env=os.environ, stderr=subprocess.PIPE)
            assert log.stderr is not None
            while "listening on" not in log.stderr.readline():
                pass

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command on the person's host; return its exit code and all that it printed."""
        process = self.hosts.start(
            1,
            *(sys.executable, str(ROOT / "main.py"), *arguments),
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        text, _ = process.communicate(timeout=120)
        return process.returncode, text

    def add(self, number: int, *more: str) -> str:
        """Add a host as a machine with one thread; return what was printed."""
        code, text = self.add_only(number, "--threads", "1", *more)
        assert code == 0, text
        return text

    def add_only(self, number: int, *more: str) -> tuple[int, str]:
        """Try to add a host; return the exit code and what was printed."""
        address = f"{os.environ.get('USER', 'root')}@{self.hosts.address(number)}"
        fingerprint = ("--fingerprint", self.servers[number].fingerprint)
        return self.run("machines", "add", address, "--name", f"m{number}", *fingerprint, *more)

    def workers(self) -> list[psutil.Process]:
        """Return the workers that run from an account of one of the machines."""
        homes = tuple(str(server.home) for server in self.servers.values())
        found = []
        for process in psutil.process_iter(["name", "cmdline", "environ"]):
            home = (process.info["environ"] or {}).get("HOME", "")
            if home in homes and any("rpc-server" in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found

    def connected_to(self, number: int) -> bool:
        """Return whether the person's host holds a connection to the SSH server of another one."""
        shown = self.hosts.start(1, "ss", "-Htn", env=os.environ, stdout=subprocess.PIPE)
        text, _ = shown.communicate(timeout=20)
        return f" {self.hosts.address(number)}:{PORT}" in text

    def listening(self, number: int) -> set[str]:
        """Return the addresses that something on a host listens at."""
        shown = self.hosts.start(number, "ss", "-Htln", env=os.environ, stdout=subprocess.PIPE)
        text, _ = shown.communicate(timeout=20)
        return {line.split()[3] for line in text.splitlines()}


@pytest.fixture(name="site")
def three_hosts(tmp_path: Path) -> Iterator[Site]:
    with Hosts(3) as hosts:
        yield Site(hosts, tmp_path)


def until_gone(site: Site, within: float) -> None:
    end = time.monotonic() + within
    while site.workers():
        assert time.monotonic() < end, site.workers()
        time.sleep(0.2)
