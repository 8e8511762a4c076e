"""Machines on which our engine does not run, over a real sshd of this host; the build tools there are scripted."""

import asyncio
import contextlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cli_support import run_here
from engine_support import real_files
from real_distributed import engine_in_home  # noqa: F401 - a fixture
from ssh_server import NEEDS_SSHD, SshServer, near_server

from synaptic import cluster, paths
from synaptic.backends.distributed import current_engine
from synaptic.backends.distributed.engine.source import EngineSource
from synaptic.backends.distributed.engine.worker_source import worker_source, worker_source_key
from synaptic.cluster.machine_list import machine
from synaptic.errors import BackendUnavailable, EngineUnavailable
from synaptic.processes import sha256_of

pytestmark = [NEEDS_SSHD, pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]

OTHER = '[ "$1" = -s ] && echo Other || echo other64'
CMAKE = 'mkdir -p build; echo "$*" >>build/configured'
PATIENCE = 60.0


@pytest.fixture
def near(tmp_path: Path, own_home: Path) -> Iterator[SshServer]:
    with near_server(tmp_path / "near") as server:
        yield server


@pytest.fixture
def other(near: SshServer) -> SshServer:
    """A machine of another kind, with tools that "build" a program which is the real RPC server of this one."""
    near.has_program("uname", OTHER)
    near.has_program("cmake", CMAKE)
    builds(near)
    source = paths.engine_dir() / f"worker-{worker_source_key()}.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        rules = tarfile.TarInfo("CMakeLists.txt")
        archive.addfile(rules, io.BytesIO())
    return near


def builds(server: SshServer, before: str = "") -> None:
    """Have a build succeed, after something."""
    real = real_files().rpc_server
    program = f'#!/bin/sh\\nLD_LIBRARY_PATH={real.parent} exec {real} "$@"'
    server.has_program(
        "ninja",
        f"""cd "$2"; echo '[1/4] one'; {before}
        printf '{program}' >ggml-rpc-server; chmod +x ggml-rpc-server; echo '[2/4] two'; echo '[4/4] four'""",
    )


def add(server: SshServer) -> str:
    ended = run_here("machines", "add", *server.words, "--name", "near", "--threads", "1", "--no-ollama")
    assert ended.code == 0, ended.err
    return ended.out + ended.err


def test_on_another_kind_of_machine_the_engine_is_built_once(other: SshServer):
    said = add(other)
    assert "sending the source of the engine" in said
    assert "near: building the engine there, 50%" in said
    assert "near: Other other64" in said
    assert "round trip" in said
    again = run_here("machines", "check").out + run_here("machines", "check").err
    assert "building" not in again
    upgraded = run_here("machines", "upgrade")
    assert upgraded.code == 0
    assert "had it already" in upgraded.out
    assert "ok      machines: near: Other" in run_here("doctor", "--set", "distributed_inference_enabled=true").out


def test_a_binary_that_does_not_run_there_is_built_there(other: SshServer):
    other.has_program("uname", 'exec /bin/uname "$@"')
    other.has_program("tar", '/bin/tar "$@"; code=$?; [ -f ggml-rpc-server ] && : >libggml-base.so; exit $code')
    # What was sent is not what is there: a disk that is full, or worse.
    ended = run_here("machines", "add", *other.words, "--name", "near", "--no-ollama")
    assert ended.code == 3
    assert "has other bytes in the engine's files than were sent" in ended.err
    other.has_program("tar", 'exec /bin/tar "$@"')
    # The loader there does not know such a program.
    unrunnable = 'for file; do case "$file" in *rpc-server) chmod -x "$file";; esac; done; '
    other.has_program("sha256sum", f'{unrunnable} exec /usr/bin/sha256sum "$@"')
    said = add(other)
    assert "cannot run the engine of this machine (" in said
    assert "it is built there" in said
    assert "sending" not in run_here("machines", "check").err


def test_what_fails_there_is_told(other: SshServer):
    other.has_program("ninja", "echo 'ggml.c:1:1: error: out of luck'; exit 1")
    ended = run_here("machines", "add", *other.words, "--name", "near", "--no-ollama")
    assert ended.code == 3
    assert "near did not build the engine: " in ended.err
    assert "out of luck" in ended.err
    assert "what was built so far is kept there" in ended.err


def test_tools_that_are_missing_there_are_named(tmp_path: Path, own_home: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("sh", "cat", "sed", "awk", "df", "getconf", "paste", "head", "ninja", "cc", "apt-get"):
        (bare / name).symlink_to(shutil.which(name) or "/bin/true")
    with near_server(tmp_path / "near", path=bare) as server:
        server.has_program("uname", OTHER)
        ended = run_here("machines", "add", *server.words, "--name", "near", "--no-ollama")
    assert ended.code == 3
    assert "near has to build the engine, and lacks cmake, c++" in ended.err
    assert "there, run: sudo apt-get install cmake g++" in ended.err


async def test_a_build_that_is_broken_off_ends_and_goes_on_later(other: SshServer, tmp_path: Path):
    go = tmp_path / "go"
    builds(other, f"while [ ! -e {go} ]; do sleep 0.1; done")
    host, port = other.address, other.port
    near = cluster.Machine(name="near", host=host, port=port, user="root", local_port=20_777, threads=1)
    with pytest.raises(cluster.UnknownHostKey) as unknown:
        async with cluster.connected(near):
            pass
    cluster.trust(unknown.value)
    engine = await current_engine()
    building = asyncio.Event()

    def say(text: str) -> None:
        if "building" in text:
            building.set()

    task = asyncio.create_task(cluster.upgrade(near, engine, say))
    async with asyncio.timeout(PATIENCE):
        await building.wait()
        pid = other.home / ".cache/synapticllamas/engines" / f"built-{worker_source_key()}.part" / "pid"
        while not (pid.exists() and pid.read_text().strip()):
            await asyncio.sleep(0.05)
    tool = psutil.Process(int(pid.read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(tool.wait, PATIENCE)

    # A connection that is gone is told, too; the next attempt ends what is left of this one, and goes on.
    task = asyncio.create_task(cluster.upgrade(near, engine, say))
    async with asyncio.timeout(PATIENCE):
        while not pid.exists() or pid.read_text().strip() in {"", str(tool.pid)}:
            await asyncio.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if _is_door(process):
                process.kill()
    with pytest.raises((BackendUnavailable, EngineUnavailable)):
        await task
    go.touch()
    heard: list[str] = []
    done = await cluster.upgrade(near, engine, heard.append)
    assert not any("sending" in text for text in heard), heard
    assert done.sent_bytes
    assert (await cluster.upgrade(near, engine, heard.append)).sent_bytes == 0


def _is_door(process: psutil.Process) -> bool:
    """Whether it is what sshd has for one connection that is logged in."""
    return process.name().startswith("sshd") and process.ppid() != os.getpid()


def test_upgrade_brings_what_changed_and_removes_the_rest(near: SshServer):
    add(near)
    engines = near.home / ".cache/synapticllamas/engines"
    (now,) = engines.iterdir()
    now.rename(engines / "rpc-0123")
    (engines / "mine").mkdir()
    ended = run_here("machines", "upgrade", "near")
    assert ended.code == 0
    assert "has it now; 1 older folder removed" in ended.out
    assert sorted(engines.iterdir()) == [engines / "mine", now]
    logged = run_here("machines", "logs", "near", "-n", "3")
    assert logged.code == 0
    assert logged.out.startswith("near | ")
    assert len(logged.out.splitlines()) == 3
    assert machine("near").log_file.exists()


async def test_the_source_for_a_machine_is_a_small_part_of_the_tree(tmp_path: Path):
    whole = tmp_path / "whole.tar.gz"
    names = ("ggml/CMakeLists.txt", "ggml/src/ggml-cpu/a.c", "ggml/src/ggml-cuda/b.cu", "src/c")
    names += ("tools/rpc/rpc-server.cpp",)
    with tarfile.open(whole, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"top/llama.cpp/{name}"), io.BytesIO())
    source = EngineSource(
        name="some", version="1", commit="c", archive_bytes=1, sha256=sha256_of(whole), tree="top/llama.cpp"
    )
    part = await worker_source(source=source, archive=whole)
    with tarfile.open(part) as archive:
        assert sorted(archive.getnames()) == [
            "CMakeLists.txt",
            "ggml/CMakeLists.txt",
            "ggml/src/ggml-cpu/a.c",
            "rpc-server.cpp",
        ]
    assert await worker_source(source=source) == part
