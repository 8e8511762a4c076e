"""A real sshd for a test: its own keys, its own home, one account (ours) that a key of the test lets in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE: Final = 20.0
SSHD: Final = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)
NEEDS_SSHD: Final = pytest.mark.skipif(SSHD is None, reason="needs sshd (Debian: openssh-server)")

_CONFIGURATION: Final = """\
ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv HOME={folder}/home PATH={folder}/bin:{path}
"""


class SshServer:
    """What a machine has: a server, and a home that nothing else writes to.

    Args:
        folder: For its files; made.
        address: Where it listens.
        port: Likewise.
        key: The public key that is let in.
        path: Where it finds programs; where this process does, without it.
    """

    def __init__(self, folder: Path, address: str, port: int, key: str, *, path: Path | None = None) -> None:
        self.folder = folder
        self.address = address
        self.port = port
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self._programs = folder / "bin"
        self._programs.mkdir()
        make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(key)
        text = _CONFIGURATION.format(address=address, port=port, folder=folder, path=path or os.environ["PATH"])
        (folder / "sshd_config").write_text(text)

    def has_program(self, name: str, script: str) -> None:
        """Give the machine a program that comes before the system's: a shell script."""
        file = self._programs / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    @property
    def words(self) -> tuple[str, ...]:
        """What ``machines add`` needs to be told."""
        return f"{os.environ.get('USER', 'root')}@{self.address}:{self.port}", "--fingerprint", self.fingerprint

    @property
    def command(self) -> list[str]:
        """What starts it, in the foreground."""
        assert SSHD is not None
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before a login; Debian's service makes it
        return [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]

    @property
    def fingerprint(self) -> str:
        """Of its key."""
        shown = subprocess.run(
            ["ssh-keygen", "-lf", str(self.folder / "host_key.pub")], capture_output=True, text=True, check=True
        )
        return shown.stdout.split()[1]


def make_key(file: Path) -> str:
    """Make a key pair without a passphrase and return the public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return Path(f"{file}.pub").read_text()


def wait_until_it_listens(address: str, port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((address, port), 1).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)
        else:
            return


def as_client(home: Path) -> str:
    """Give a home the key that the tests log in with; return the public half. An agent of the person does not count."""
    os.environ.pop("SSH_AUTH_SOCK", None)
    (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
    return make_key(home / ".ssh" / "id_ed25519")


@contextmanager
def near_server(folder: Path, *, path: Path | None = None) -> Iterator[SshServer]:
    """Run a server at the loopback, for what needs no network of its own; the home of the test has the key."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    server = SshServer(folder, "127.0.0.1", port, as_client(Path(os.environ["HOME"])), path=path)
    with running(server):
        yield server


@contextmanager
def running(server: SshServer) -> Iterator[None]:
    """Run a server for the time of a block."""
    process = subprocess.Popen(server.command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_it_listens(server.address, server.port)
        yield
    finally:
        process.terminate()
        process.wait()
