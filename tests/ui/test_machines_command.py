"""``synaptic machines`` as far as no machine is reached."""

import json
from pathlib import Path

import pytest
from cli_support import run_here

from synaptic.cluster.machine_list import Machine, keep
from synaptic.paths import machines_file

DESK = Machine(name="desk", host="10.0.0.4", user="ada", memory_gib=4.0, threads=2, local_port=20_001)

pytestmark = pytest.mark.usefixtures("own_home")


def test_machines_are_listed_and_removed():
    assert "no machine is lent yet" in run_here("machines", "list").out
    keep(DESK)
    listed = run_here("machines", "list").out
    assert [line.split() for line in listed.splitlines()][1] == ["desk", "ada@10.0.0.4:22", "4", "GiB", "2"]
    assert json.loads(run_here("machines", "list", "--json").out)[0]["host"] == "10.0.0.4"
    assert run_here("machines", "remove", "desk").out == "desk is not used any more\n"
    assert json.loads(run_here("machines", "list", "--json").out) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check",), "no machine is lent yet"),
        (("check", "nowhere"), "there is no machine 'nowhere'"),
        (("remove", "nowhere"), "there is no machine 'nowhere'"),
        (("add", "a b"), "'a b' is no address of a machine"),
        (("add", "ada@desk", "--name", "a/b"), "'a/b' is no name of a machine"),
        (("add", "ada@desk", "--identity", "nowhere"), "nowhere"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], said: str):
    ended = run_here("machines", *words)
    assert ended.code == 2
    assert said in ended.err


def test_a_name_is_one_machines():
    keep(DESK)
    ended = run_here("machines", "add", "ada@10.0.0.5", "--name", "desk")
    assert (ended.code, ended.out) == (2, "")
    assert "another machine is called desk: ada@10.0.0.4" in ended.err


def test_a_machine_that_is_not_reached_is_told_and_not_kept():
    ended = run_here("machines", "add", "nobody@127.0.0.1:9", "--name", "m")
    assert ended.code == 3
    assert "m (nobody@127.0.0.1, port 9) is not reached" in ended.err
    assert "ssh nobody@127.0.0.1" in ended.err
    assert json.loads(run_here("machines", "list", "--json").out) == []


def test_of_several_machines_each_is_told():
    for number in (1, 2):
        keep(Machine(name=f"m{number}", host="127.0.0.1", port=9, local_port=20_000 + number))
    ended = run_here("machines", "check")
    assert ended.code == 3
    assert ended.err.count("is not reached") == 2


def test_known_hosts_is_written_as_ssh_does(own_home: Path):
    from synaptic.cluster.ssh import UnknownHostKey, trust

    known = own_home / ".ssh" / "known_hosts"
    trust(UnknownHostKey(DESK, "SHA256:x", "10.0.0.4 ssh-ed25519 AAAA"))
    known.write_text(known.read_text().rstrip())
    trust(UnknownHostKey(DESK, "SHA256:y", "10.0.0.5 ssh-ed25519 BBBB"))
    assert known.read_text().splitlines() == ["10.0.0.4 ssh-ed25519 AAAA", "10.0.0.5 ssh-ed25519 BBBB"]
    assert known.stat().st_mode & 0o777 == 0o600


def test_doctor_tells_which_machine_is_not_reached_where_large_models_would_use_it():
    keep(Machine(name="m1", host="127.0.0.1", port=9, local_port=20_001))
    assert "machines:" not in run_here("doctor").out
    told = run_here("doctor", "--set", "distributed_inference_enabled=true")
    assert "missing machines: m1 (127.0.0.1, port 9) is not reached" in told.out
    machines_file().write_text("{")
    told = run_here("doctor", "--set", "distributed_inference_enabled=true")
    assert "problem machines:" in told.out


def test_a_machine_that_is_not_there_has_no_layers():
    ended = run_here("distributed", "plan", "none:7b", "--layers", "desk=x")
    assert "--layers 'desk=x' is not HOST:PORT=N" in ended.err
