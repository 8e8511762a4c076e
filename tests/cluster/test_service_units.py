"""The units of systemd: systemd reads them as they are meant, and they get to where they run."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import run_here
from ssh_server import NEEDS_SSHD, SshServer, near_server

from synaptic import cluster
from synaptic.cluster.machine_list import Machine, keep

ATTIC = Machine(name="attic", host="127.0.0.1", port=9, local_port=20_001, reverse="10.0.0.1:2200", reverse_key="k")
MODEL = ("--set", "model=llama3.1:70b")


@pytest.fixture
def near(tmp_path: Path, own_home: Path) -> Iterator[SshServer]:
    with near_server(tmp_path / "near") as server:
        yield server


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)")
def test_systemd_reads_both_units(tmp_path: Path):
    keep(ATTIC)
    here = run_here("machines", "install-service", "--print", *MODEL).out
    there = run_here("machines", "install-service", "attic", "--print").out
    odd = cluster.service_here(["/bin/echo", "50% of $HOME", 'a "b" \\ c'], {"A": 'x "y" %z'})
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    for name, unit in {cluster.HERE: here, cluster.unit_there(ATTIC): there, "odd.service": odd}.items():
        file = tmp_path / name
        file.write_text(unit)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=no", str(file)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert name not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr
    assert '"llama3.1:70b"' in here
    assert '"KnownHostsCommand=/bin/echo [10.0.0.1]:2200 ssh-ed25519 ' in there
    assert '"50%% of $$HOME" "a \\"b\\" \\\\ c"' in odd


def test_the_unit_of_this_machine_is_written_and_enabled(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    ended = run_here("machines", "install-service", *MODEL)
    assert ended.code == 2
    assert "systemd is not there" in ended.err
    unit = own_home / ".config/systemd/user" / cluster.HERE
    assert "--foreground" in unit.read_text()

    systemctl = programs / "systemctl"
    systemctl.write_text("#!/bin/sh\necho no bus; exit 1\n")
    systemctl.chmod(0o755)
    ended = run_here("machines", "install-service", *MODEL)
    assert (ended.code, "systemd does not start the unit: no bus" in ended.err) == (2, True)
    systemctl.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n')
    ended = run_here("machines", "install-service", *MODEL)
    assert ended.code == 0
    assert (tmp_path / "asked").read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable --now {cluster.HERE}",
    ]
    unit.unlink()
    unit.mkdir()
    assert "cannot be written" in run_here("machines", "install-service", *MODEL).err


def test_which_machine_needs_none_is_told():
    keep(Machine(name="desk", host="127.0.0.1", port=9, local_port=20_001))
    ended = run_here("machines", "install-service", "desk")
    assert ended.code == 2
    assert "desk needs no service" in ended.err
    assert "no model is named" in run_here("machines", "install-service").err


@NEEDS_SSHD
def test_the_unit_of_a_machine_gets_there(near: SshServer, tmp_path: Path):
    near.has_program("systemctl", f'echo "$*" >>{tmp_path}/asked')
    keep(Machine(name="attic", host="127.0.0.1", port=near.port, local_port=20_001, reverse=f"127.0.0.1:{near.port}"))
    # The door's port is taken, as where another program of this machine has the door open: what leads there is used.
    refused = run_here("machines", "install-service", "attic")
    assert "is not known yet" in refused.err
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(f"[127.0.0.1]:{near.port} {(near.folder / 'host_key.pub').read_text()}")
    done = run_here("machines", "install-service", "attic")
    assert done.code == 0, done.err
    unit = near.home / cluster.UNITS / "synaptic-lends-attic.service"
    assert '"ssh" "-N" "-p"' in unit.read_text()
    assert (tmp_path / "asked").read_text().splitlines()[-1] == f"--user enable --now {unit.name}"
    near.has_program("systemctl", "echo no bus; exit 1")
    failed = run_here("machines", "install-service", "attic")
    assert failed.code == 3
    assert "attic does not start the unit: no bus" in failed.err
    assert json.loads(run_here("machines", "list", "--json").out)[0]["name"] == "attic"
