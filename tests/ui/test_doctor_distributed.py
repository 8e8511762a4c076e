"""``synaptic doctor`` where distributed inference is switched on."""

import pytest
from engine_support import real_engine  # noqa: F401 - a fixture

from synaptic.backends.distributed.engine.engine import Engine
from synaptic.ui import cli

ONLY_WORKERS = ("--set", "distributed_inference_enabled=true", "--set", "task_distribution_enabled=false")


def doctor(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.run(("doctor", *ONLY_WORKERS, *arguments))
    return capfd.readouterr().out


def test_without_an_engine_all_that_is_missing_is_said_and_no_node_is_contacted(capfd):
    text = doctor(capfd, "--set", 'nodes=["http://127.0.0.1:2"]', "--set", 'rpc_backends=["127.0.0.1:1"]')

    assert "missing llama.cpp: no engine is installed" in text
    assert "fix: run: synaptic engine install" in text
    assert "missing workers: 127.0.0.1:1 refuses the connection" in text
    assert "127.0.0.1:2" not in text


@pytest.mark.parametrize("command", [("--plan", "hi"), ("hi",), ("distributed", "plan"), ("distributed", "start")])
def test_all_that_stands_in_the_way_is_said_at_once(capfd, command: tuple[str, ...]):
    code = cli.run((*ONLY_WORKERS, "--set", 'rpc_backends=["127.0.0.1:1"]', "--set", "model=none:7b", *command))
    said = capfd.readouterr()

    assert (code, said.out) == (3, "")
    assert "3 things stand in the way of distributed inference" in said.err
    assert "no engine is installed" in said.err
    assert "there is no model 'none:7b'" in said.err
    assert "127.0.0.1:1 refuses the connection" in said.err
    assert "this is a bug" not in said.err


def test_engine_workers_and_model_are_looked_at(capfd, real_engine: Engine):  # noqa: F811 - the fixture
    assert cli.run(("engine", "use", str(real_engine.files.directory))) == 0

    text = doctor(capfd, "--set", 'rpc_backends=["127.0.0.1:1"]', "--set", "model=none:7b")
    local = doctor(capfd, "--set", "local_workers=2")

    assert f"ok      llama.cpp: {real_engine.files.directory}" in text
    assert "missing workers: 127.0.0.1:1 refuses the connection" in text
    assert "missing model: there is no model 'none:7b'" in text
    assert "ok      workers: 2 of this machine will be started" in local
