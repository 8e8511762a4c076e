"""What a person names and is no regular file: it is refused at once, and never waited for."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from prompt_toolkit.history import InMemoryHistory

from synaptic.agents.definition import Agent
from synaptic.errors import AgentError, ConfigError, PipelineError, SynapticError
from synaptic.models.download import check_model_file
from synaptic.models.model_source import find_model
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.tools import discover_tools
from synaptic.processes.state_file import read_json
from synaptic.settings.authorities import authorities_file
from synaptic.settings.file import back_up, read_settings_file
from synaptic.text.regular_file import NotRegularFile, open_regular, read_regular
from synaptic.ui.repl.prompt import open_history

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Return a pipe without a writer: to open it is to wait."""
    path = tmp_path / "x.md"
    os.mkfifo(path)
    return path


def test_a_regular_file_is_read_up_to_one_byte_more_than_its_limit(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "x", 5) == b"12345"
    assert read_regular(tmp_path / "link", 3) == b"1234"
    with open_regular(tmp_path / "x") as file:
        assert file.seek(0, 2) == 5


def test_a_pipe_a_socket_a_device_and_a_directory_are_named(pipe: Path, tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        for path, what in ((pipe, "a pipe"), (tmp_path / "s", "a socket"), (tmp_path / "zero", "a device")):
            if path.name == "zero":
                path.symlink_to("/dev/zero")
            with pytest.raises(NotRegularFile, match=f"it is {what}, not a regular file"):
                read_regular(path, 10)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 10)


@pytest.mark.parametrize(
    ("read", "error"),
    [
        pytest.param(Agent.load, AgentError, id="agent"),
        pytest.param(Pipeline.load, PipelineError, id="pipeline"),
        pytest.param(read_settings_file, ConfigError, id="settings"),
        pytest.param(back_up, ConfigError, id="backup of the settings"),
        pytest.param(lambda path: authorities_file(str(path)), ConfigError, id="certificates"),
        pytest.param(lambda path: check_model_file(str(path)), ConfigError, id="model"),
        pytest.param(lambda path: read_json(path, missing=None), OSError, id="state"),
    ],
)
def test_every_reader_refuses_a_pipe(pipe: Path, read: Callable[[Path], Any], error: type[Exception]):
    with pytest.raises(error, match="it is a pipe") as caught:
        read(pipe)
    assert not isinstance(caught.value, SynapticError) or str(pipe) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        pytest.param("x.md", Agent.load, id="agent"),
        pytest.param("x.yaml", Pipeline.load, id="pipeline"),
        pytest.param("x.py", lambda path: discover_tools([str(path)]), id="tools"),
        pytest.param("x.gguf", lambda path: find_model(str(path), {}), id="model"),
    ],
)
def test_a_link_to_nothing_is_called_that(name: str, read: Callable[[Path], Any], tmp_path: Path):
    """And not: there is no such file, did you mean that file."""
    (tmp_path / name).symlink_to("elsewhere")
    with pytest.raises(SynapticError) as caught:
        read(tmp_path / name)
    assert "it is a link to elsewhere, which is not there" in str(caught.value)


def test_a_history_that_is_a_pipe_is_not_kept(tmp_path: Path):
    os.mkfifo(tmp_path / "history")
    history, why = open_history(tmp_path)
    assert isinstance(history, InMemoryHistory)
    assert "it is a pipe" in (why or "")
