"""``synaptic doctor`` where distributed inference is switched on."""

import pytest
from engine_support import real_engine  # noqa: F401 - a fixture

from synaptic.backends.distributed.engine.engine import Engine
from synaptic.ui import cli

ONLY_WORKERS = ("--set", "distributed_inference_enabled=true", "--set", "task_distribution_enabled=false")


def doctor(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.run(("doctor", *ONLY_WORKERS, *arguments))
    return capfd.readouterr().out


def test_without_an_engine_it_says_how_to_get_one_and_contacts_no_node(capfd):
    text = doctor(capfd, "--set", 'nodes=["http://127.0.0.1:1"]', "--set", 'rpc_backends=["127.0.0.1:1"]')

    assert "missing llama.cpp: no engine is installed" in text
    assert "fix: run: synaptic engine install" in text
    assert "127.0.0.1:1" not in text


def test_engine_workers_and_model_are_looked_at(capfd, real_engine: Engine):  # noqa: F811 - the fixture
    assert cli.run(("engine", "use", str(real_engine.files.directory))) == 0

    text = doctor(capfd, "--set", 'rpc_backends=["127.0.0.1:1"]', "--set", "model=none:7b")
    local = doctor(capfd, "--set", "local_workers=2")

    assert f"ok      llama.cpp: {real_engine.files.directory}" in text
    assert "missing workers: 127.0.0.1:1 refuses the connection" in text
    assert "missing model: there is no model 'none:7b'" in text
    assert "ok      workers: 2 of this machine will be started" in local
