"""``synaptic distributed`` as a person runs it: real services of the real engine, and every mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from cli_support import MAIN, PATIENCE, run_here, run_process, wait_until
from distributed_support import LOADING, READY
from engine_support import real_files
from repl_terminal import CTRL_C, open_terminal

from synaptic import paths
from synaptic.backends.distributed.service.record import (
    ServiceRecord,
    new_record,
    read_records,
    record_of,
    service_log,
    services_dir,
    write,
)
from synaptic.backends.distributed.workers.registry import WorkerRegistry
from synaptic.models.download import ModelStore
from synaptic.ui.screen.coordinator_view import ASCII, UNICODE
from synaptic.ui.screen.service_view import LoadView, glyphs, step_line

if TYPE_CHECKING:
    from collections.abc import Iterator


# So small that the model does not fit into one of them.
WORKERS = ("--set", "local_workers=2", "--set", "local_worker_memory_gib=0.12", "--set", "local_worker_threads=1")
LIGHT = (*WORKERS, "--set", "distributed_context=512")


@pytest.fixture
def model() -> Iterator[str]:
    """The path of the real model, with the real engine in place; whatever was started for it is ended after."""
    store = ModelStore()
    if not store.has_model():
        pytest.skip("the embedded model is not here (synaptic models pull)")
    real = real_files().directory
    paths.engine_dir().mkdir(parents=True)
    (paths.engine_dir() / real.name).symlink_to(real)
    yield str(store.path.resolve())
    for record in read_records():
        os.kill(record.pid, signal.SIGKILL)


@pytest.fixture
def service() -> Iterator[ServiceRecord]:
    """A process with the record of a service that is ready; it does nothing, and ends as any process does."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    record = replace(new_record("big", process.pid), status=READY, api_key="secret")
    write(record)
    yield record
    process.kill()
    process.communicate()


def offspring(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@contextmanager
def ended_after(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Give a process, and kill it if the block fails: no test may wait for it for ever."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


# -- real services -----------------------------------------------------------------------------------------------------


@pytest.mark.real_model
def test_the_life_of_a_service(model: str):
    """It starts, is found, is used by a run, is started twice in vain, shows its logs, and ends without a trace."""
    outcome = run_process("distributed", "start", model, *LIGHT)
    assert outcome.code == 0, outcome.err
    assert f"{Path(model).name}: loading" in outcome.err
    assert "loaded in " in outcome.err and f"stop it with: synaptic distributed stop {model}" in outcome.err
    record = record_of(model)
    assert record is not None and record.ready
    assert f"at {record.url} (with an API key)" in outcome.out
    assert record.api_key and record.api_key not in outcome.out + outcome.err
    assert record.status is not None and len(record.status.workers) == 2

    again = run_process("distributed", "start", model, *LIGHT, "--json")
    assert again.code == 0 and "already" in again.err
    assert json.loads(again.out)["pid"] == record.pid

    status = run_here("distributed", "status")
    assert status.code == 0 and "━" in status.out
    document = json.loads(run_here("distributed", "status", "--json").out)
    assert document["services"][0]["coordinator"]["placement"]["layers"] == 30
    ports = {worker.endpoint.port for worker in record.status.workers}
    assert {int(held["worker"].rpartition(":")[2]) for held in document["held"]} <= ports
    assert record.api_key not in json.dumps(document)

    use = ("--set", "distributed_inference_enabled=true", "--set", "task_distribution_enabled=false", "-m", model)
    answer = run_process("-p", "answer", *use, "What is a llama?")
    assert answer.code == 0, answer.err
    assert answer.out.strip()
    assert record_of(model) is not None

    logs = run_here("distributed", "logs", "-n", "50")
    assert logs.code == 0
    processes = {line.partition(" | ")[0].strip() for line in logs.out.splitlines()}
    assert "service" in processes and "coordinator" in processes

    children = offspring(record.pid)
    assert len(children) >= 3
    stopped = run_process("distributed", "stop")
    assert stopped.code == 0 and stopped.err == f"{model} is stopped\n"
    assert gone(children)
    assert WorkerRegistry().holders() == []
    assert list(services_dir().glob("*.json")) == []
    left = run_here("distributed", "logs", model)
    assert left.code == 0 and "the log of the last one" in left.err and "stopped" in left.out


@pytest.mark.real_model
def test_a_killed_service_leaves_nothing_behind(model: str):
    assert run_process("distributed", "start", model, *LIGHT, "-q").code == 0
    record = record_of(model)
    assert record is not None
    children = offspring(record.pid)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: gone(children), "the end of its children")
    assert run_here("distributed", "status").code == 3
    assert list(services_dir().glob("*.json")) == []


@pytest.mark.real_model
def test_foreground_until_sigterm(model: str):
    command = [sys.executable, MAIN, "distributed", "start", model, "--foreground", *LIGHT]
    with ended_after(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        wait_until(lambda: (record := record_of(model)) is not None and record.ready, "a service that is ready")
        record = record_of(model)
        assert record is not None and record.pid == process.pid and record.foreground
        second = run_process("distributed", "start", model, "--foreground", *LIGHT)
        assert second.code == 0 and "already" in second.err
        children = offspring(process.pid)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "at http://127.0.0.1:" in out and "Ctrl-C ends it" in err
    assert gone(children)
    assert list(services_dir().glob("*.json")) == []


@pytest.mark.real_model
def test_ctrl_c_while_it_loads_ends_the_service(model: str, own_home: Path):
    # A worker that nobody can load into within the time of this test would do, too; the first moments are enough.
    environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with open_terminal([MAIN, "distributed", "start", model, *LIGHT], own_home, environ, columns=90) as opened:
        opened.wait(Path(model).name[:20])
        opened.type(CTRL_C)
        assert opened.wait_for_end() == 130
        assert "interrupted" in opened.text
    assert read_records() == []
    assert list(services_dir().glob("*.json")) == []


@pytest.mark.real_model
def test_the_foreground_on_a_terminal_is_a_picture_until_ctrl_c(model: str, own_home: Path):
    environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    arguments = [MAIN, "distributed", "start", model, "--foreground", *LIGHT]
    with open_terminal(arguments, own_home, environ, columns=90) as opened:
        opened.wait("ready for", "Ctrl-C ends it", "┃━")
        opened.type(CTRL_C)
        assert opened.wait_for_end() == 0
    assert read_records() == []


@pytest.mark.parametrize("words", [(), ("--foreground",)])
def test_what_cannot_be_loaded_says_why_and_leaves_nothing(words: tuple[str, ...], tmp_path: Path):
    file = tmp_path / "no.gguf"
    file.write_bytes(b"this is no model")
    outcome = run_process("distributed", "start", str(file), *words)
    assert outcome.code in {2, 3}
    assert "error: " in outcome.err and "bug" not in outcome.err and str(file) in outcome.err
    assert list(services_dir().glob("*.json")) == []
    if words:
        assert "given up" in service_log(str(file)).read_text(encoding="utf-8")
    else:  # refused before a service is started
        assert not service_log(str(file)).exists()


def test_a_service_whose_starter_dies_before_it_says_what_for_ends(own_home: Path):
    from synaptic.processes.child import python_command

    command = python_command("synaptic.backends.distributed.service.service")
    assert subprocess.run(command, input=b'{"model": ', check=False, timeout=PATIENCE).returncode == 0
    assert not services_dir().exists() and own_home.exists()


# -- looking at them ---------------------------------------------------------------------------------------------------


def test_status_of_nothing():
    outcome = run_here("distributed", "status")
    assert outcome.code == 3 and outcome.out == ""
    assert "no service runs" in outcome.err
    assert json.loads(run_here("distributed", "status", "--json").out) == {"services": [], "held": []}


def test_status_of_some_that_are_ready(service: ServiceRecord):
    assert run_here("distributed", "status").code == 0
    write(replace(new_record("other", os.getpid()), status=replace(LOADING, model="other")))
    outcome = run_here("distributed", "status")
    assert outcome.code == 1
    assert "38 % (43 MiB of 0.11 GiB), about 40 s left" in outcome.out
    assert f"process {service.pid}" in outcome.out


def test_watch_is_drawn_anew_until_ctrl_c(service: ServiceRecord, own_home: Path):
    environ = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    with open_terminal([MAIN, "distributed", "status", "--watch"], own_home, environ, columns=90) as opened:
        opened.wait("big:latest: ready for")
        write(replace(service, status=LOADING))
        opened.wait("big:latest: loading for", "38 %")
        assert "ready for" not in opened.text
        opened.type(CTRL_C)
        assert opened.wait_for_end() == 3


def test_logs_follow_what_is_written(service: ServiceRecord):
    service.log_file.parent.mkdir(parents=True)
    service.log_file.write_text("before\n", encoding="utf-8")
    command = [sys.executable, MAIN, "distributed", "logs", "big", "-f"]
    with ended_after(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "service         | before\n"
        with service.log_file.open("a", encoding="utf-8") as log:
            log.write("after\n")
        assert process.stdout.readline() == "service         | after\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("start",), "no model is named"),
        (("start", " "), "the model's name is empty"),
        (("start", "a", "b"), "unexpected extra argument"),
        (("stop", "none"), "no service of none runs"),
        (("stop", "x", "--all"), "not both"),
        (("status", "--watch"), "needs a terminal"),
        (("status", "--watch", "--json"), "needs a terminal"),
        (("logs",), "no service runs"),
        (("logs", "none"), "no service of none runs"),
        (("logs", "-n", "many"), "many"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_mistakes(words: tuple[str, ...], said: str):
    outcome = run_here("distributed", *words)
    assert outcome.code == 2
    assert said in outcome.err and "bug" not in outcome.err
    assert outcome.out == ""


def test_a_model_that_is_written_wrongly_is_guessed(service: ServiceRecord):
    outcome = run_here("distributed", "stop", "bigg:latest")
    assert outcome.code == 2 and "did you mean 'big:latest'?" in outcome.err.replace(
        "mean big:latest", "mean 'big:latest'"
    )
    assert service.alive


def test_of_several_one_has_to_be_named(service: ServiceRecord):
    write(new_record("other", os.getpid()))
    for words in (("stop",), ("logs",)):
        outcome = run_here("distributed", *words)
        assert outcome.code == 2 and "2 services run: big:latest, other:latest" in outcome.err
    assert service.alive


def test_stop_where_nothing_runs():
    for words in ((), ("--all",)):
        outcome = run_here("distributed", "stop", *words)
        assert outcome.code == 0 and "no service runs" in outcome.err


def test_a_log_that_cannot_be_read(service: ServiceRecord):
    service.log_file.mkdir(parents=True)
    outcome = run_here("distributed", "logs")
    assert outcome.code == 2 and "cannot be read" in outcome.err


def test_records_that_cannot_be_written():
    services_dir().parent.mkdir(parents=True)
    services_dir().write_text("a file", encoding="utf-8")
    outcome = run_here("distributed", "start", "big", "--foreground")
    assert outcome.code == 2 and "XDG_STATE_HOME" in outcome.err


@pytest.mark.parametrize("name", ["start", "stop", "status", "logs"])
def test_help(name: str):
    assert f"synaptic distributed {name}" in run_here("distributed", name, "--help").out
    assert name in run_here("distributed", "--help").out


# -- lines where there is no terminal ----------------------------------------------------------------------------------


def test_steps_are_said_once_and_a_load_by_quarters(capsys: pytest.CaptureFixture[str]):
    view = LoadView(sys.stderr)
    record = new_record("big", os.getpid())
    assert LOADING.progress is not None
    for fraction in (0.0, 0.1, 0.25, 0.3, 0.99, 1.0):
        status = replace(LOADING, progress=replace(LOADING.progress, fraction=fraction))
        view(replace(record, status=status))
    view(replace(record, status=READY))
    view(replace(record, status=READY))
    view.close()
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": loading: ")[2][:5] for line in said[:-1]] == ["0 % (", "25 % ", "99 % ", "100 %"]
    assert said[-1] == "big:latest: ready"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]):
    view = LoadView(sys.stderr, quiet=True)
    view(new_record("big", os.getpid()))
    view.close()
    assert capsys.readouterr().err == ""


def test_a_line_of_a_step():
    record = new_record("big", os.getpid())
    assert step_line(record) == f"big:latest: starting (process {os.getpid()})"
    failed = replace(READY, reason="a worker\nis gone")
    assert step_line(replace(record, status=failed)) == "big:latest: ready: a worker is gone"


def test_what_takes_only_ascii(tmp_path: Path):
    with (tmp_path / "a").open("w", encoding="ascii") as ascii_stream:
        assert glyphs(ascii_stream) is ASCII
    with (tmp_path / "a").open("w", encoding="utf-8") as stream:
        assert glyphs(stream) is UNICODE
