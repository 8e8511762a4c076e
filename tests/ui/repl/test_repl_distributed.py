"""``/coordinator`` and ``/rpc``: over a backend that has coordinators, over services, over nothing; on a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from coordinators_driver import CoordinatorsBackend
from distributed_support import NEAR, READY
from repl_talk import Talk, make_talk
from repl_terminal import CTRL_C, ENTER, ROOT, environment, open_terminal

from synaptic.backends.distributed.service.record import new_record, read_records, write
from synaptic.backends.distributed.workers.registry import Worker, WorkerRegistry
from synaptic.errors import ExitCode
from synaptic.runtime.session import Session
from synaptic.ui.repl.commands import REGISTRY
from synaptic.ui.repl.repl import Repl, Sources
from synaptic.ui.repl.screen import Screen
from synaptic.ui.repl.sessions import SessionHolder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

DRIVER = str(ROOT / "tests" / "support" / "coordinators_driver.py")


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    """Give a program whose backend has no coordinators."""
    made = make_talk()
    yield made
    await made.repl.aclose()


@pytest.fixture
async def spread() -> AsyncIterator[Talk]:
    """Give a program whose backend has one coordinator."""
    backend = CoordinatorsBackend(READY)
    out, err = io.StringIO(), io.StringIO()
    sources = Sources(None, ("pipeline=answer", "retries=0", 'rpc_backends=["127.0.0.1:9"]'), {}, {})
    repl = Repl(
        sources.load(),
        sources,
        screen=Screen(out, err, live=False),
        registry=REGISTRY,
        sessions=SessionHolder(lambda settings: Session(settings, backend=backend)),
    )
    yield Talk(repl, backend, out, err, [])
    await repl.aclose()


@pytest.fixture
def service() -> Iterator[subprocess.Popen[bytes]]:
    """A process with the record of a service: it waits for the end of its input, or for a signal."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    write(replace(new_record("other", process.pid), status=replace(READY, model="other:latest"), api_key="k"))
    yield process
    process.kill()
    process.communicate()


# -- /coordinator ------------------------------------------------------------------------------------------------------


async def test_the_coordinators_of_the_session(spread: Talk):
    out, err = await spread.say("/coordinator")
    lines = out.splitlines()
    assert lines[0].startswith("big:latest: ready for ")
    assert "restarted once" in lines[0]
    assert any(line.startswith("  ┃━") for line in lines)
    assert lines[-2].split()[:3] == ["1", "127.0.0.1:50052", "0-5"]
    assert err == ""


async def test_a_failed_one_quotes_the_log(spread: Talk):
    from synaptic.backends.distributed.coordinator.states import CoordinatorState

    reason = "worker 10.0.0.4:50053 is gone: 'Remote RPC server crashed'"
    spread.backend.known = {"big:latest": replace(READY, state=CoordinatorState.FAILED, reason=reason, url=None)}
    out, _ = await spread.say("/coordinator status")
    assert out.startswith("big:latest: failed for ")
    assert reason in out


async def test_services_are_shown_beside_the_sessions_own(spread: Talk, service: subprocess.Popen[bytes]):
    out, _ = await spread.say("/coordinator")
    assert "big:latest: ready" in out
    assert "other:latest: ready" in out
    assert f"process {service.pid}, in the background" in out


async def test_where_there_is_neither_it_is_said_what_to_do(talk: Talk):
    out, err = await talk.say("/coordinator")
    assert out == "no model is spread over workers\n"
    assert "/coordinator start MODEL" in err
    assert "synaptic distributed plan" in err


async def test_start_stop_and_restart_in_the_session(spread: Talk):
    out, err = await spread.say("/coordinator start small")
    assert "loading small" in err
    assert out.startswith("small: ready")
    _, err = await spread.say("/coordinator stop")
    assert "name one of big:latest, small" in err
    _, err = await spread.say("/coordinator stop small")
    assert err == "small is stopped\n"
    out, err = await spread.say("/coordinator restart")
    assert err.startswith("big:latest is stopped\n")
    assert out.startswith("big:latest: ready")
    await spread.say("/coordinator stop")
    assert spread.backend.known == {}
    assert spread.repl.last_exit is ExitCode.ANSWERED


async def test_a_start_that_fails_says_why(spread: Talk):
    _, err = await spread.say("/coordinator start broken")
    assert "error: the workers cannot hold it: 3.2 GiB are missing" in err
    assert spread.repl.last_exit is ExitCode.NO_BACKEND


async def test_stop_ends_a_service(talk: Talk, service: subprocess.Popen[bytes]):
    _, err = await talk.say("/coordinator stop other")
    assert err == "other is stopped\n"
    assert service.wait(30) != 0
    assert read_records() == []


async def test_start_of_a_service_that_runs(talk: Talk, service: subprocess.Popen[bytes]):
    out, err = await talk.say("/coordinator start other")
    assert "already" in err
    assert "/set distributed_inference_enabled true" in err
    assert out.startswith("other:latest: ready")
    assert service.poll() is None


async def test_start_of_a_service_whose_model_is_not_there(talk: Talk, tmp_path: Path):
    _, err = await talk.say(f"/coordinator start {tmp_path}/none.gguf")
    assert "error: " in err
    assert talk.repl.last_exit is not ExitCode.ANSWERED
    assert read_records() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/coordinator frobnicate", "'frobnicate' is not understood"),
        ("/coordinator status now", "one argument too many"),
        ("/coordinator start a b", "one argument too many"),
        ("/coordinator start", "no model is named"),
        ("/coordinator stop", "no model is spread over workers"),
        ("/coordinator restart", "no model is spread over workers"),
        ("/rpc frobnicate", "usage: /rpc"),
        ("/rpc list x", "usage: /rpc"),
        ("/rpc add 10.0.0.4", "/set rpc_backends"),
        ("/rpc discover", "/set rpc_backends"),
        ("/rpc check", "the settings name no workers"),
        ("/rpc check http://x", "http://x"),
    ],
)
async def test_mistakes_are_said(talk: Talk, line: str, said: str):
    _, err = await talk.say(line)
    assert "error: " in err
    assert said in err
    assert "bug" not in err
    assert talk.repl.last_exit is ExitCode.USAGE


async def test_stop_of_another_model(spread: Talk):
    _, err = await spread.say("/coordinator stop none")
    assert "'none' is none of big:latest" in err


# -- /rpc --------------------------------------------------------------------------------------------------------------


async def test_the_workers(spread: Talk):
    WorkerRegistry().claim([Worker(NEAR, ("127.0.0.1",))], "the coordinator of big:latest")
    out, _ = await spread.say("/rpc")
    header, near, far, free = out.splitlines()
    assert header.split() == ["WORKER", "LAYERS", "WEIGHTS", "KV", "PROCESS", "STATE", "HELD", "BY"]
    assert near.split()[:2] == ["1", "127.0.0.1:50052"]
    assert f"the coordinator of big:latest (process {os.getpid()})" in near
    assert "alive, 67 MiB resident" in near
    assert "10.0.0.4:50053 device 1" in far
    assert free.split()[0] == "127.0.0.1:9"
    assert "never checked: /rpc check" in free


async def test_the_workers_of_services(talk: Talk, service: subprocess.Popen[bytes]):
    out, _ = await talk.say("/rpc list")
    assert "127.0.0.1:50052" in out
    assert service.poll() is None


async def test_no_workers(talk: Talk):
    out, err = await talk.say("/rpc")
    assert "no workers" in out
    assert "/set rpc_backends" in err


async def test_check_asks_those_of_the_settings_and_those_given(spread: Talk):
    out, _ = await spread.say("/rpc check")
    assert "127.0.0.1:9" in out
    assert spread.repl.last_exit is ExitCode.NO_BACKEND
    out, _ = await spread.say("/rpc check 127.0.0.1:8")
    assert "127.0.0.1:8" in out
    assert "127.0.0.1:9" not in out


def test_completion(spread: Talk):
    assert spread.complete("/coordinator ") == [f"/coordinator {name}" for name in ("start", "stop", "restart")]
    spread.repl.sessions.known_models = ("m1", "m2")
    assert spread.complete("/coordinator stop m") == ["/coordinator stop m1", "/coordinator stop m2"]
    assert spread.complete("/coordinator stop m1 ") == []
    assert spread.complete("/rpc c") == ["/rpc check"]
    assert spread.complete("/rpc check ") == ["/rpc check 127.0.0.1:9"]
    assert spread.complete("/rpc list ") == []


# -- on a terminal -----------------------------------------------------------------------------------------------------


def test_the_picture_of_a_load_is_drawn_in_place_until_a_key_is_pressed(tmp_path: Path):
    with open_terminal([DRIVER], tmp_path, environment(tmp_path), columns=80) as opened:
        opened.wait_for_prompt()
        opened.type("/coordinator", ENTER)
        opened.wait("any other key, leaves this", lambda shown: "100 % (43 MiB of 0.11 GiB)" in shown.text)
        assert opened.text.count("big:latest: loading") == 1
        opened.type("x")
        opened.wait(lambda shown: "leaves this" not in shown.text)
        opened.ask("hello", "hello")


def test_a_load_in_the_session_is_drawn_while_it_goes(tmp_path: Path):
    with open_terminal([DRIVER, "slowly"], tmp_path, environment(tmp_path), columns=80) as opened:
        opened.wait_for_prompt()
        opened.type("/coordinator start big:latest", ENTER)
        opened.wait("loading big:latest", "big:latest: loading for")
        opened.wait("big:latest: ready for")
        assert "big:latest: loading for" not in opened.text
        opened.type("/coordinator restart", ENTER)
        opened.wait("big:latest: loading for")
        opened.type(CTRL_C)
        opened.wait("interrupted")
        opened.ask("still here?", "still here?")


def test_ctrl_c_leaves_the_picture(tmp_path: Path):
    with open_terminal([DRIVER], tmp_path, environment(tmp_path), columns=40) as opened:
        opened.wait_for_prompt()
        opened.type("/coordinator", ENTER)
        opened.wait("leaves this")
        bar = next(line for line in opened.text.splitlines() if "┃" in line)
        assert len(bar.rstrip()) <= 40
        opened.type(CTRL_C)
        opened.wait("interrupted")
        opened.ask("still here?", "still here?")


def test_the_prompt_imports_nothing_of_it():
    code = "import synaptic.ui.repl.commands, sys; print([name for name in sys.modules if 'distributed' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
