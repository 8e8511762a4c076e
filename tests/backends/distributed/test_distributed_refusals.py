"""What cannot be served is refused before anything is started; the message says what is wrong, where, what to do."""

import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cli_support import run_process
from gguf_support import write_gguf
from real_distributed import (  # noqa: F401 - a fixture
    MODEL,
    Watched,
    copy_of,
    distributed,
    engine_in_home,
    externals,
    memory_for,
    real_model,
    real_shape,
    spread,
)
from rpc_support import free_port
from rpc_worker import RpcWorker

from synaptic import paths
from synaptic.backends.distributed.coordinator import bring_up
from synaptic.backends.distributed.coordinator.states import CoordinatorState as State
from synaptic.backends.distributed.engine.store import adopt
from synaptic.errors import (
    CoordinatorFailed,
    EngineUnavailable,
    ExitCode,
    ModelFileError,
    ModelNotFound,
    NoPlacement,
    SynapticError,
    UsageError,
)
from synaptic.waiting import Rules

pytestmark = [pytest.mark.real_model, pytest.mark.usefixtures("engine_here")]


def nothing_was_loaded(watched: Watched) -> bool:
    """Whether no llama-server was ever started."""
    return State.LOADING not in watched.states and not (paths.state_dir() / "logs").exists()


# --- workers

WRONG = {
    "6.0.0": {"version": (6, 0, 0)},
    "7.1.0": {"version": (7, 1, 0)},
    "7.0.9": {"version": (7, 0, 9)},
}


@pytest.mark.parametrize("version", WRONG)
async def test_a_worker_of_another_version_is_refused_with_both_versions_and_what_to_do(version: str):
    with RpcWorker(**WRONG[version]) as worker:
        async with distributed(rpc_backends=[worker.address]) as watched:
            with pytest.raises(NoPlacement) as caught:
                await watched.answer("Who are you?")

            assert nothing_was_loaded(watched)
    text = str(caught.value)
    assert version in text
    assert "7.0.0" in text
    assert worker.address in text
    assert "same" in text or "engine install" in text


SICK = {
    "garbage": {"faults": {"HELLO": "garbage"}},
    "silence": {"faults": {"HELLO": "silent"}},
    "hangs up": {"faults": {"ACCEPT": "close"}},
    "an HTTP server": {"faults": {"ACCEPT": "http"}},
    "an SSH server": {"faults": {"ACCEPT": "ssh"}},
    "half an answer": {"faults": {"HELLO": "short"}},
}


@pytest.mark.parametrize("sickness", SICK)
async def test_what_is_no_worker_is_refused_and_named(sickness: str):
    with RpcWorker(**SICK[sickness]) as worker:
        async with distributed(rpc_backends=[worker.address]) as watched:
            with pytest.raises(NoPlacement, match=worker.address):
                await watched.answer("Who are you?")

            assert nothing_was_loaded(watched)


async def test_a_port_that_refuses_is_named():
    nobody = f"127.0.0.1:{free_port()}"
    async with distributed(rpc_backends=[nobody]) as watched:
        with pytest.raises(NoPlacement, match=nobody):
            await watched.answer("Who are you?")

        assert nothing_was_loaded(watched)


@contextmanager
def bad_endpoint(kind: str) -> Iterator[int]:
    """The port of something that is no worker to use."""
    with ExitStack() as stack:
        if kind == "refused":
            yield free_port()
        else:
            options = {**WRONG, **SICK}[kind]
            yield stack.enter_context(RpcWorker(**options)).port


@pytest.mark.parametrize(
    ("kind", "position"),
    [
        *(("7.0.9", position) for position in range(3)),
        *(("refused", position) for position in range(3)),
        *(("silence", 0), ("garbage", 1), ("an HTTP server", 2)),
    ],
)
async def test_wherever_a_bad_worker_stands_it_is_named_where_it_is_needed_and_left_out_where_it_is_not(
    kind: str, position: int
):
    shape = await real_shape()
    with externals(2) as workers, bad_endpoint(kind) as port:

        def listed(gib: float) -> list[dict[str, object]]:
            backends = [worker.settings(gib) for worker in workers]
            backends.insert(position, {"host": "127.0.0.1", "port": port, "memory_gib": gib})
            return backends

        async with distributed(rpc_backends=listed(memory_for(shape, 3))) as watched:
            with pytest.raises(NoPlacement, match=f"127.0.0.1:{port}"):
                await watched.backend.load(MODEL)

            assert nothing_was_loaded(watched)
        if position == 1:
            async with distributed(rpc_backends=listed(memory_for(shape, 2))) as watched:
                status = await watched.backend.load(MODEL)

            assert {one.endpoint for one in status.workers} == {worker.endpoint for worker in workers}
            (left_out,) = [verdict for verdict in status.placement.verdicts if not verdict.used]
            assert left_out.endpoint.port == port
            assert left_out.reason
            reason = left_out.reason.split(" — ")[0]
            assert watched.said.count(f"it does without 1 worker: {reason}") == 1


# --- models


async def test_a_model_larger_than_all_memory_says_how_much_is_missing():
    async with distributed(local_workers=2, local_worker_memory_gib=0.02) as watched:
        with pytest.raises(NoPlacement, match=r"[0-9.]+ [GM]iB are missing") as caught:
            await watched.backend.load(MODEL)

        assert nothing_was_started_but_workers(watched)
    assert caught.value.missing_bytes
    assert caught.value.hint


def nothing_was_started_but_workers(watched: Watched) -> bool:
    return State.LOADING not in watched.states and all("rpc" in child.name() for child in watched.children())


async def test_a_truncated_model_is_refused(tmp_path: Path):
    whole = real_model().read_bytes()
    for size in (3, 20, 1000, len(whole) // 2, len(whole) - 1):
        file = tmp_path / f"{size}.gguf"
        file.write_bytes(whole[:size])
        async with distributed(model=str(file)) as watched:
            with pytest.raises(ModelFileError, match=f"{size}.gguf"):
                await watched.answer("Who are you?")

            assert watched.children() == []
            assert watched.states == []


async def test_what_is_no_model_is_refused(tmp_path: Path):
    text = tmp_path / "notes.gguf"
    text.write_text("Dear diary, " * 1000)
    empty = tmp_path / "empty.gguf"
    empty.touch()
    unknown = write_gguf(tmp_path / "unknown.gguf", architecture="nosuchthing")
    encoder = write_gguf(tmp_path / "encoder.gguf", architecture="bert")
    for file in (text, empty, unknown, encoder, tmp_path):
        async with distributed(model=str(file)) as watched:
            with pytest.raises(ModelFileError if file != tmp_path else SynapticError) as caught:
                await watched.answer("Who are you?")

            assert watched.children() == []
        assert str(file) in str(caught.value)


async def test_a_model_that_is_not_there_is_not_found(tmp_path: Path):
    for name in (str(tmp_path / "nothing.gguf"), "nosuchmodel:7b"):
        async with distributed(model=name) as watched:
            with pytest.raises(ModelNotFound, match=name):
                await watched.answer("Who are you?")

            assert watched.children() == []


async def test_an_architecture_that_llama_cpp_refuses_after_all_ends_with_its_words(tmp_path: Path):
    """Its name is known, and its tensors are not those that llama.cpp wants: only the engine can tell."""
    odd = write_gguf(tmp_path / "odd.gguf", architecture="llama", others={"output_norm.weight": ()})
    async with distributed(**await spread(1), model=str(odd)) as watched:
        with pytest.raises(CoordinatorFailed) as caught:
            await watched.answer("Who are you?")

        assert watched.states.count(State.LOADING) == 1  # another attempt would not help
    assert "output_norm" in str(caught.value)
    assert "coordinator-odd.gguf.log" in str(caught.value)


# --- the machine


async def test_a_port_that_is_taken_in_between_is_exchanged_for_another(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr(bring_up, "free_port", lambda _: ports.pop() if ports else free_port())
        async with distributed(**await spread(1)) as watched:
            answer = await watched.answer("What is a port?", tokens=5)

        assert watched.states.count(State.LOADING) == 2
    assert answer.ends


async def test_a_port_that_is_taken_for_good_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Rules, "COORDINATOR", replace(Rules.COORDINATOR, delays=(0.0, 0.1)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(bring_up, "free_port", lambda _: port)
        async with distributed(**await spread(1)) as watched:
            with pytest.raises(CoordinatorFailed, match="bind"):
                await watched.answer("What is a port?", tokens=5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, full to the last byte."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            return


async def test_a_full_disk_for_the_state_is_said_so(small_disk: Path):
    fill(small_disk)
    paths.state_dir().parent.mkdir(parents=True)
    paths.state_dir().symlink_to(small_disk)
    async with distributed(**await spread(1)) as watched:
        with pytest.raises(SynapticError, match=r"No space left on device|workers\.json"):
            await watched.answer("What is a disk?")


async def test_a_full_disk_for_the_logs_costs_the_logs_only(small_disk: Path):
    paths.state_dir().mkdir(parents=True)
    (paths.state_dir() / "logs").symlink_to(small_disk)
    fill(small_disk)
    async with distributed(**await spread(1)) as watched:
        answer = await watched.answer("What is a diary?", tokens=5)

    assert answer.ends


async def test_a_disk_that_is_full_for_the_tensor_cache_costs_the_cache_only(small_disk: Path):
    if paths.tensor_cache_dir().exists():
        paths.tensor_cache_dir().rename(small_disk.parent / "compiled")
    paths.tensor_cache_dir().symlink_to(small_disk)
    async with distributed(**await spread(1)) as watched:
        answer = await watched.answer("What is a book?", tokens=5)

    assert answer.ends


# --- the engine

OTHER_RPC_SERVER = """#!/bin/sh
# Says what the real one says, and speaks another version.
while [ $# -gt 0 ]; do case "$1" in -p|--port) port="$2" ;; esac; shift; done
echo "Starting RPC server v{version}"
exec {python} -u {worker} --version {version} --port "$port"
"""


@pytest.fixture
def two_halves(engine_here: Path, tmp_path: Path) -> Path:
    """An engine whose RPC server is of another version than its llama-server."""
    directory = copy_of(engine_here, tmp_path / "halves")
    program = next(directory / name for name in ("ggml-rpc-server", "rpc-server") if (directory / name).exists())
    program.unlink()
    worker = Path(__file__).parents[2] / "support" / "rpc_worker.py"
    text = OTHER_RPC_SERVER.format(version="6.0.0", python=shlex.quote(sys.executable), worker=shlex.quote(str(worker)))
    program.write_text(text)
    program.chmod(0o755)
    return directory


async def test_an_engine_whose_programs_differ_is_not_adopted(two_halves: Path):
    with pytest.raises(EngineUnavailable, match=r"do not agree.*6\.0\.0") as caught:
        await adopt(two_halves)

    assert caught.value.hint
    assert "same build" in caught.value.hint


async def test_an_engine_whose_programs_differ_starts_nothing(two_halves: Path):
    paths.engine_choice_file().parent.mkdir(parents=True)
    paths.engine_choice_file().write_text(f'{{"directory": "{two_halves}"}}')
    async with distributed(**await spread(2)) as watched:
        with pytest.raises(EngineUnavailable, match=r"do not agree.*6\.0\.0"):
            await watched.answer("What is a half?")

        assert watched.children() == []
        assert State.LOADING not in watched.states


def test_without_an_engine_the_program_says_what_to_run(engine_here: Path):
    (paths.engine_dir() / engine_here.name).unlink()
    options = ("distributed_inference_enabled=true", "task_distribution_enabled=false", f"model={MODEL}")
    outcome = run_process("Hello?", *(part for option in options for part in ("--set", option)))

    assert outcome.code == ExitCode.NO_BACKEND
    assert "synaptic engine install" in outcome.err
    assert outcome.out == ""


async def test_without_an_engine_a_backend_starts_nothing(engine_here: Path):
    (paths.engine_dir() / engine_here.name).unlink()
    async with distributed(**await spread(1)) as watched:
        with pytest.raises(EngineUnavailable, match="no engine is installed"):
            await watched.answer("What is an engine?")

        assert watched.children() == []


async def test_orders_that_contradict_themselves_are_refused():
    with externals(2) as workers:
        backends = [{**worker.settings(), "layers": 29} for worker in workers]
        async with distributed(rpc_backends=backends) as watched:
            with pytest.raises(UsageError, match="58 layers"):
                await watched.backend.load(MODEL)

            assert nothing_was_loaded(watched)
