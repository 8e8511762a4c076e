"""One ``llama-server`` from its start to its end, with a script in its place that misbehaves on purpose."""

import asyncio
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from synaptic.backends.distributed.coordinator.diagnosis import Cause
from synaptic.backends.distributed.coordinator.llama_process import LlamaProcess, LoadStalled, ServerEnded
from synaptic.backends.distributed.coordinator.lost_links import hung_up
from synaptic.processes.ports import free_port

SERVER = """
import http.server, os, sys, threading, time
mode, port = sys.argv[1], int(sys.argv[sys.argv.index("--port") + 1])
def say(state, **payload):
    import json
    print("cmd_child_to_router:state:" + json.dumps({"state": state, "payload": payload}), flush=True)
def part(value):
    say("loading", stages=["text_model"], current="text_model", value=value)
print("load_tensors: RPC0[h:1] model buffer size = 3.00 MiB", file=sys.stderr, flush=True)
healthy = mode != "channel"
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers.get("authorization") == "Bearer " + os.environ["LLAMA_API_KEY"]
        self.send_response(200 if healthy and right else 503)
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *arguments):
        pass
if mode == "dies":
    part(0.1)
    print("x.cpp:566: Remote RPC server crashed or returned malformed response", file=sys.stderr, flush=True)
    os.abort()
part(0.25)
if mode == "stalls":
    time.sleep(1000)
print("something else that nobody understands", flush=True)
part(0.75)
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
if mode == "channel":
    say("ready", id="m")
time.sleep(1000)
"""


@dataclass
class Script:
    """An engine whose llama-server is a script."""

    file: Path

    def llama_server(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", str(self.file), *arguments]


@pytest.fixture
def engine(tmp_path: Path) -> Script:
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    return Script(file)


async def started(engine: Script, mode: str, tmp_path: Path) -> LlamaProcess:
    return await LlamaProcess.start(engine, [mode], port=free_port(), log_file=tmp_path / "server.log")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["channel", "health"])
async def test_it_is_ready_when_the_channel_says_so_or_when_it_is_healthy(engine, mode, tmp_path):
    process = await started(engine, mode, tmp_path)
    try:
        heard: list[float] = []
        await process.loaded(heard.append, stall=30)
        assert heard == [0.25, 0.75]
        assert process.running
        assert process.lines[0].startswith("load_tensors")
    finally:
        await process.stop()
    assert not psutil.pid_exists(process.pid)
    assert "load_tensors" in (tmp_path / "server.log").read_text()
    await process.stop()


async def test_one_that_dies_while_it_loads_says_why(engine, tmp_path):
    process = await started(engine, "dies", tmp_path)
    try:
        with pytest.raises(ServerEnded) as caught:
            await process.loaded(lambda _: None, stall=30)
        assert caught.value.diagnosis.cause is Cause.WORKER
        assert "SIGABRT" in caught.value.message
        assert await process.ended_within(0.1) == caught.value.diagnosis
    finally:
        await process.stop()


async def test_one_that_makes_no_progress_is_given_up(engine, tmp_path):
    process = await started(engine, "stalls", tmp_path)
    try:
        with pytest.raises(LoadStalled, match="no progress"):
            await process.loaded(lambda _: None, stall=0.5)
        assert process.running
        process.kill()
        diagnosis = await process.ended_within(5)
        assert diagnosis is not None
        assert diagnosis.cause is Cause.KILLED
    finally:
        await process.stop()


async def test_who_waits_may_be_cancelled_and_the_process_goes(engine, tmp_path):
    process = await started(engine, "stalls", tmp_path)
    waiting = asyncio.create_task(process.loaded(lambda _: None, stall=30))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await process.ended_within(0.01) is None
    await process.stop()
    assert not psutil.pid_exists(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it")
def test_a_worker_that_hangs_up_is_seen_without_contacting_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()
        with socket.create_connection(here) as client:
            peer, _ = server.accept()
            assert hung_up(os.getpid(), [here]) == frozenset()
            peer.close()
            assert hung_up(os.getpid(), [here]) == {here}
            assert hung_up(os.getpid(), [("127.0.0.1", 1)]) == frozenset()
            assert hung_up(os.getpid(), []) == frozenset()
            assert hung_up(1, [here]) <= frozenset()
        assert client.fileno() == -1
    assert hung_up(2**22 + 1, [here]) == frozenset()
