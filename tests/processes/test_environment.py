"""What a child gets of our environment, and who may read what it says."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

import pytest

from synaptic.backends.distributed.coordinator.llama_process import environment
from synaptic.processes import ChildProcess, child_environment

if TYPE_CHECKING:
    from pathlib import Path

SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "HF_TOKEN",
    "LLAMA_CLOUD_API_KEY",
    "NVIDIA_API_KEY",
    "OPENAI_API_KEY",
    "SSH_AUTH_SOCK",
    "MY_PASSWORD",
)
PRINT = [sys.executable, "-c", "import os; print(sorted(os.environ))"]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "a secret")
    for name in ("CUDA_VISIBLE_DEVICES", "LC_TIME", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


@pytest.mark.usefixtures("secrets")
async def test_a_child_gets_what_it_needs_and_no_secret() -> None:
    child = await ChildProcess.start(PRINT)
    line = await child.read_line()
    await child.stop()

    assert line is not None
    assert {"PATH", "HOME", "CUDA_VISIBLE_DEVICES", "LC_TIME", "OMP_NUM_THREADS"} <= set(ast.literal_eval(line))
    assert [name for name in SECRETS if name in line] == []
    assert "PIP_INDEX_URL" not in line


@pytest.mark.usefixtures("secrets")
def test_an_installer_has_its_own_configuration_and_llama_server_the_key_we_made() -> None:
    installer, server = child_environment({"NINJA_STATUS": "%p"}, installs=True), environment("the key")

    assert installer["PIP_INDEX_URL"] == "a secret"
    assert installer["NINJA_STATUS"] == "%p"
    assert server["LLAMA_API_KEY"] == "the key"
    for given in (installer, server):
        assert [name for name in SECRETS if name in given] == []


async def test_only_its_user_may_read_what_a_child_says(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o755)
    log = folder / "child.log"
    child = await ChildProcess.start(
        [sys.executable, "-c", "import sys; print('a prompt', file=sys.stderr)"], log_file=log
    )
    await child.wait()
    await child.stop()

    assert "a prompt" in log.read_text("utf-8")
    assert (folder.stat().st_mode & 0o777, log.stat().st_mode & 0o777) == (0o700, 0o600)
