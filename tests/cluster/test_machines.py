"""Machines over a real sshd on hosts of their own: they are added, hold a model, lose a cable, and are left clean."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from machine_site import PORT, Site, three_hosts, until_gone  # noqa: F401 - one is a fixture
from network_hosts import NEEDS_HOSTS
from real_distributed import (  # noqa: F401 - two are fixtures
    MODEL,
    Local,
    engine_in_home,
    local_answers,
    memory_for,
    real_shape,
)
from split_model_talk import PROMPT, Talk, ask
from ssh_server import NEEDS_SSHD

from synaptic.cluster.ssh import SILENCE

pytestmark = [NEEDS_HOSTS, NEEDS_SSHD, pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


async def test_two_machines_hold_a_model_and_a_pulled_cable_costs_no_word(site: Site, local: Local):
    gib = memory_for(await real_shape(), 2)
    first = site.add(2, "--memory", str(gib))
    site.add(3, "--memory", str(gib))
    assert "sending the engine" in first
    assert "round trip" in first
    assert "sending the engine" not in site.run("machines", "check", "m2")[1]
    until_gone(site, 5)

    asking = Talk(ask(site.hosts, [], env=site.env, local_workers=0, worker_return_wait=0.5))
    asking.until(lambda line: '"piece"' in line)
    assert sum(process.info["name"] == "ggml-rpc-server" for process in site.workers()) == 2
    for number in (1, 2, 3):
        assert all(re.match(r"127\.0\.0\.1:|\[::1\]:", at) or at.endswith(f":{PORT}") for at in site.listening(number))
    site.hosts.pull(3)
    asking.until(lambda line: "calls wait up to" in line)
    site.hosts.plug(3)
    ended = asking.answer()

    assert ended["answer"] == local.says(PROMPT)
    assert len(ended["workers"]) == 2
    asking.process.stdin.close()  # type: ignore[union-attr]
    until_gone(site, 10)


async def test_a_program_that_is_killed_leaves_no_worker_there(site: Site):
    gib = memory_for(await real_shape(), 2)
    site.add(2, "--memory", str(gib))
    site.add(3, "--memory", str(gib))
    asking = Talk(ask(site.hosts, [], env=site.env, local_workers=0))
    asking.until(lambda line: '"piece"' in line)
    site.hosts.pull(3)  # this one cannot be told
    os.killpg(asking.process.pid, signal.SIGKILL)

    until_gone(site, SILENCE + 10)


def test_a_key_that_is_not_known_or_has_changed_is_refused(site: Site):
    address = f"root@{site.hosts.address(2)}"
    code, text = site.run("machines", "add", address, "--name", "m2")
    assert code == 2
    assert f"is not known yet: {site.servers[2].fingerprint}" in text
    assert json.loads(site.run("machines", "list", "--json")[1]) == []

    site.add(2)
    known = Path(os.environ["HOME"]) / ".ssh" / "known_hosts"
    known.write_text(known.read_text().replace(site.hosts.address(2), site.hosts.address(3)))
    code, text = site.run("machines", "add", f"root@{site.hosts.address(3)}", "--name", "m3")
    assert code == 3
    assert "shows another key than the one that is known" in text


def test_a_machine_that_is_not_reached_or_lets_nobody_in_is_told(site: Site):
    site.add(2)
    (site.servers[2].folder / "authorized_keys").write_text("")
    code, text = site.run("machines", "check", "m2")
    assert code == 3
    assert "does not let root in" in text

    site.hosts.pull(2)
    code, text = site.run("machines", "check")
    assert code == 3
    assert "m2 (root@" in text
    assert "is it on" in text or "is not reached" in text


async def test_plan_and_doctor_know_machines(site: Site):
    gib = memory_for(await real_shape(), 2)
    for number in (2, 3):
        site.add(number, "--memory", str(gib))
    on = ("--set", "distributed_inference_enabled=true", "--set", "local_workers=0", "--set", f"model={MODEL}")
    on += ("--set", "distributed_context=512", "--set", "distributed_parallel=1")
    # A worker of the settings that is away does not stand in the way of those of machines.
    code, text = site.run("distributed", "plan", *on, "--set", 'rpc_backends=["127.0.0.1:1"]', "--layers", "m3=9")
    assert code == 0, text
    assert "(as ordered)" in text
    assert "is the machine m2" in text
    assert "is the machine m3" in text
    assert "not used  127.0.0.1:1" in text
    until_gone(site, 10)

    code, text = site.run("doctor", *on)
    assert "ok      machines: m2: Linux" in text
    shutil.rmtree(site.servers[2].home / ".cache")
    site.hosts.pull(3)
    code, text = site.run("doctor", *on)
    assert code == 1
    assert "note    machines: m2: Linux" in text
    assert "fix: now: synaptic machines upgrade m2" in text
    assert "missing machines: m3 (root@" in text
