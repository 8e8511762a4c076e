"""Hosts of their own network namespaces, each with an address and a cable that can be pulled. Linux, as root."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Final, Self

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

NETWORK: Final = "10.213.77"


def _may_make_hosts() -> bool:
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"synaptic-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        _ip("netns", "del", name)
    return made


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _remove_left_behind() -> None:
    """Remove the hosts of programs that were killed, and end what they ran there."""
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name, maker in re.findall(r"^(synaptic-(\d+)-\w+)", told, re.MULTILINE):
        if psutil.pid_exists(int(maker)):
            continue
        there = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
        for pid in map(int, there.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


NEEDS_HOSTS: Final = pytest.mark.skipif(
    not _may_make_hosts(), reason="network namespaces need Linux, root and iproute2 (CAP_SYS_ADMIN in a container)"
)


class Hosts:
    """So many hosts at one switch; the number of a host is the last of its address.

    Args:
        count: How many; they are numbered from 1.

    """

    def __init__(self, count: int) -> None:
        self._prefix = f"synaptic-{os.getpid()}"
        self._numbers = range(1, count + 1)
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        _remove_left_behind()
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for name in (self._switch, *map(self._name, self._numbers)):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    @property
    def _switch(self) -> str:
        return f"{self._prefix}-switch"

    def _name(self, host: int) -> str:
        return f"{self._prefix}-{host}"

    def _make(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for host in self._numbers:
            name = self._name(host)
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip(
                "-n", name, "link", "add", "cable", "type", "veth", "peer", "name", f"host{host}", "netns", self._switch
            )
            _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")
            _ip("-n", self._switch, "link", "set", f"host{host}", "master", "switch")
            _ip("-n", self._switch, "link", "set", f"host{host}", "up")

    def address(self, host: int) -> str:
        """Return the IPv4 address of a host."""
        return f"{NETWORK}.{host}"

    def command(self, host: int, *command: str) -> list[str]:
        """Return the command that runs a program on a host."""
        return ["ip", "netns", "exec", self._name(host), *command]

    def start(self, host: int, *command: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
        """Start a program on a host, in a session of its own; it ends with the hosts."""
        process = subprocess.Popen(
            self.command(host, *command),
            env=dict(env),
            text=True,
            start_new_session=True,
            **options,
        )
        self._started.append(process)
        return process

    def pull(self, host: int) -> None:
        """Pull the cable of a host at the switch: what is sent is lost, and neither end hears of it."""
        _ip("-n", self._switch, "link", "set", f"host{host}", "down")

    def plug(self, host: int) -> None:
        """Put the cable back."""
        _ip("-n", self._switch, "link", "set", f"host{host}", "up")

    def forget_neighbours(self, host: int) -> None:
        """Have a host ask anew who has which address, as it does after a while by itself."""
        _ip("-n", self._name(host), "neigh", "flush", "all")
