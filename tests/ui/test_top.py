"""``synaptic top``: the picture as data makes it, and the command against a real gateway, real nodes and nothing."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from cli_support import MAIN, NOTHING_THERE, run_here, wait_until
from fault_server import FaultServer, html, json_reply
from gateway_support import gateway
from repl_terminal import environment, open_terminal
from rich.console import Console
from tool_node import MODEL, tool_node

from synaptic.errors import BackendUnavailable
from synaptic.settings import Settings
from synaptic.ui.commands import top as top_command
from synaptic.ui.commands.top import _show, watch
from synaptic.ui.screen.coordinator_view import ASCII, UNICODE
from synaptic.ui.screen.now_view import now_picture

if TYPE_CHECKING:
    from pathlib import Path

HURT = "a\x1b[31mred\x1b]0;title\x07"
NODE = {"name": "desk", "condition": "up", "in_flight": 1, "cap": 2, "queued": 3, "version": "0.12.6"}
NODE |= {"reason": "", "last_error": "", "models": []}
NOW: dict[str, Any] = {"backend": "ollama", "nodes": [NODE], "coordinators": [], "waiting": [], "calls": []}
NOW |= {"runs": [], "tokens_per_second": 12.5}


def drawn(width: int = 100, *, plain: bool = False, rates: tuple[float, ...] = (), **more: Any) -> str:
    console = Console(width=width, color_system=None, file=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(now_picture({**NOW, **more}, rates, ASCII if plain else UNICODE, width=width, plain=plain))
    return captured.get()


def test_it_shows_nodes_with_all_that_is_in_their_memory() -> None:
    models = [
        {"name": "qwen3:8b", "loaded": True, "bytes": 5_200_000_000, "rate": 33.3},
        {"name": "gemma3:4b", "loaded": True, "bytes": None, "rate": None},
        {"name": "other", "loaded": False, "bytes": 1, "rate": None},
    ]
    down = {**NODE, "name": "http://10.0.0.9", "condition": "down", "in_flight": 0, "cap": 0, "reason": "refused"}
    lines = drawn(nodes=[{**NODE, "models": models}, down], runs=["a"], rates=(0.0, 5.0, 12.5)).splitlines()
    assert lines[0] == "▁▄█ 12.5 tok/s  1 in flight  0 waiting  1 run"
    assert lines[1].split() == ["node", "state", "busy", "queue", "version", "in", "memory", "tok/s"]
    assert lines[2].split() == ["desk", "up", "■□", "1/2", "3", "0.12.6", "qwen3:8b", "(5.2", "GB)", "33.3"]
    assert lines[3].split() == ["gemma3:4b"]
    assert lines[4].split()[:3] == ["10.0.0.9", "down", "0/0"]
    assert lines[5] == "10.0.0.9: refused"
    assert "queue" not in drawn(60)
    assert "#. 1/2" in drawn(plain=True)


def test_it_shows_layers_calls_that_wait_and_why() -> None:
    layers = [
        {"worker": "10.0.0.4:50052", "count": 40, "lost": False},
        {"worker": "10.0.0.5:50052", "count": 40, "lost": True},
    ]
    big = {"model": "llama3.1:70b", "state": "ready", "rate": 11.0, "calls": 1, "waiting": 2, "layers": layers}
    big |= {"progress": None, "reason": "a worker is lost"}
    loading = {**big, "state": "loading", "rate": None, "progress": {"fraction": 0.5}, "layers": [], "reason": ""}
    waiting = [{"tag": "write", "model": "qwen3:8b", "seconds": 2.0, "why": "desk has no free place yet"}] * 12
    calls = [{"model": "qwen3:8b", "pieces": 7, "seconds": 3.0}]
    text = drawn(coordinators=[big, loading], waiting=waiting, calls=calls, nodes=[])
    assert "llama3.1:70b  ready  11.0 tok/s  1 call, 2 waiting" in text
    assert "10.0.0.4:50052" in text
    assert "✗" in text
    assert "a worker is lost" in text
    assert "desk has no free place yet" in text
    assert "and 2 more" in text
    assert "call of qwen3:8b: 7 tokens in 3.0 s" in text
    assert "and 2 more" in drawn(50, waiting=waiting)
    assert "nothing can serve calls now: no node" in drawn(backend=None, error="no node", nodes=[])
    assert "2 in flight  16 waiting" in text


def test_what_a_node_calls_itself_does_nothing_to_the_terminal() -> None:
    node = {**NODE, "name": HURT, "condition": HURT, "version": HURT, "reason": HURT}
    text = drawn(nodes=[{**node, "models": [{"name": HURT, "loaded": True}]}], calls=[])
    assert "\x1b" not in text
    assert "\x07" not in text


async def test_of_a_gateway_it_shows_what_its_clients_do(capfd: pytest.CaptureFixture[str]) -> None:
    async with tool_node() as node:
        settings = Settings(nodes=[{"url": node.url, "name": "desk"}], journal="off")
        async with gateway(settings) as url, aiohttp.ClientSession(url) as client:
            node.pace = 600.0
            body = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}
            async with client.post("/api/chat", json=body) as reply:
                await reply.content.readline()
                await _show(url, "any key", None, live=False, as_json=False)
                assert "1 in flight" in (told := capfd.readouterr().out)
                assert "desk" in told
                await _show(url, None, None, live=False, as_json=True)
                assert json.loads(capfd.readouterr().out)["calls"][0]["model"] == MODEL


async def test_it_looks_again_each_second() -> None:
    looks = 0

    async def look() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise BackendUnavailable("nothing answers there")
        return {**NOW, "tokens_per_second": float(looks)}

    screen = io.StringIO()
    shown = asyncio.create_task(watch(look, Console(file=screen, force_terminal=True, width=100, height=20)))
    async with asyncio.timeout(30):
        while "3.0 tok/s" not in screen.getvalue():
            await asyncio.sleep(0.02)
    assert "nothing answers there" in screen.getvalue()
    shown.cancel()
    await asyncio.gather(shown, return_exceptions=True)
    assert screen.getvalue().endswith("\x1b[?25h\x1b[?1049l")  # the cursor is back, and what was there before


async def test_without_a_gateway_it_asks_the_nodes(tmp_path: Path) -> None:
    async with tool_node() as node:
        words = ("--set", f"nodes={node.url}", "--set", "task_distribution_enabled=true")
        done = await asyncio.to_thread(run_here, "top", *words)
        assert done.code == 0
        assert MODEL in done.out
        assert "a gateway tells" in done.out


async def hanging(reader: asyncio.StreamReader, *_: object) -> None:
    await reader.read()


async def test_mistakes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no address of a gateway" in run_here("top", "--url", "desk").err
    assert "no such variable" in run_here("top", "--url", NOTHING_THERE, "--key-env", "KEY").err
    monkeypatch.setenv("KEY", "secret")
    done = await asyncio.to_thread(run_here, "top", "--url", NOTHING_THERE, "--key-env", "KEY")
    assert (done.code, "nothing answers at" in done.err, "secret" in done.err) == (3, True, False)
    script = [json_reply({"error": "a key is needed"}, 401), json_reply({"nodes": 3}), json_reply([]), html(), hanging]
    async with FaultServer({"/ui/now": script}) as server:
        for said in ("a key is needed", "another version", "says 200", "no gateway of this version"):
            assert said in (await asyncio.to_thread(run_here, "top", "--url", server.url)).err
        monkeypatch.setattr(top_command, "PATIENCE", 0.2)
        assert "does not answer" in (await asyncio.to_thread(run_here, "top", "--url", server.url)).err


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        gzip.compress(json.dumps(NOW).encode()),
        json.dumps({**NOW, "tokens_per_second": "many"}).encode(),
        json.dumps({**NOW, "tokens_per_second": float("nan")}).encode(),
        json.dumps({**NOW, "tokens_per_second": 10**400}).encode(),
        json.dumps({**NOW, "calls": [{"model": "a", "pieces": 1, "seconds": float("inf")}]}).encode(),
        json.dumps({**NOW, "calls": [{"model": "a", "pieces": 1, "seconds": 10**400}]}).encode(),
        json.dumps(
            {**NOW, "nodes": [{**NODE, "cap": 10**400, "models": [{"loaded": 1, "name": "a", "rate": "x"}]}]}
        ).encode(),
        b'{"backend": "' + b"a" * 17_000_000 + b'"}',
    ],
    ids=range(10),
)
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_gateway_that_means_no_good_is_told_in_a_line(body: bytes, encoding: str) -> None:
    headers = f"content-encoding: {encoding}\r\ncontent-length: {len(body)}\r\n"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter, *_args: object) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n".encode() + body)

    async with FaultServer({"/ui/now": answer}) as server:
        done = await asyncio.to_thread(run_here, "top", "--url", server.url)
    assert done.code in {0, 1, 3}
    assert "bug" not in done.err
    assert "Traceback" not in done.err


async def test_on_a_terminal_it_goes_on_until_ctrl_c(own_home: Path) -> None:
    async with FaultServer({"/ui/now": json_reply(NOW)}) as server:
        await asyncio.to_thread(_looked_at, own_home, server)
    assert len(server.requests) >= 2


def _looked_at(home: Path, server: FaultServer) -> None:
    with open_terminal([MAIN, "top", "--url", server.url], home, environment(home)) as terminal:
        terminal.wait("12.5 tok/s", "desk")
        wait_until(lambda: len(server.requests) >= 2, "another look")
        terminal.type("\x03")
        assert terminal.wait_for_end() == 0
