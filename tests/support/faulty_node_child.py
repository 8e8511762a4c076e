"""The scripted node in a process of its own, which can be killed, stopped with a signal, and started on its old port.

    async with child_node(models=["m"], seconds_per_call=0.05, parallel=16) as node:
        ... node.url ...
        node.kill()                            # SIGKILL
        await node.restart()                   # on the same port, nothing remembered
        node.stop_signal(); node.cont()        # SIGSTOP, SIGCONT
        await node.control(fault={"kind": "busy_503"}, config={"parallel": 2})
        await node.counters()                  # what the node has counted, as plain values

By hand: ``python tests/support/faulty_node_child.py --port 0 --config '{"parallel": 2}'`` prints its address as JSON.
The same can then be changed with ``POST /_control`` and read with ``GET /_counters``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import selectors
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faulty_node import FaultyNode
from faulty_node_reply import dumps
from faulty_node_script import Fault, as_models

from synaptic.processes.child import ChildProcess, tied

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from faulty_node_http import Connection, Request

START_SECONDS = 20.0


class ControlledNode(FaultyNode):
    """A node that can be asked and changed over its own port, but not while it refuses or reads nothing."""

    def _listing(self, connection: Connection, request: Request) -> None:
        if request.path == "/_counters":
            connection.reply(200, dumps(self._report(asked=False)))
        elif request.path == "/_asked":
            connection.reply(200, dumps(self._report(asked=True)))
        elif request.path == "/_control":
            self._change(json.loads(request.body))
            connection.reply(200, b"{}")
        else:
            super()._listing(connection, request)

    def _report(self, *, asked: bool) -> dict[str, Any]:
        calls = {"asked": [asdict(call) for call in self.asked]} if asked else {}
        loaded = {name: entry.context for name, entry in self.memory.current().items()}
        counted = {each.name: getattr(self.counters, each.name) for each in fields(self.counters)}
        counted |= {"calls": self.counters.calls, "duplicates": self.duplicates if asked else None}
        return {**counted, "loads": self.memory.loads, "loaded": loaded, "mode": self.mode, **calls}

    def _change(self, wanted: dict[str, Any]) -> None:
        for name, value in wanted.get("config", {}).items():
            setattr(self.config, name, as_models(value) if name == "models" else value)
        for name in wanted.get("loaded", ()):
            self.memory.put(name)
        if wanted.get("forget"):
            self.asked.clear()
        if "fault" in wanted:
            fault = Fault(**(wanted["fault"] or {}))
            after = wanted.get("after_seconds", 0.05 if fault.kind == "refuse" else 0.0)  # the answer goes out first
            asyncio.get_running_loop().call_later(after, setattr, self, "mode", fault) if after else self._set(fault)

    def _set(self, fault: Fault) -> None:
        self.mode = fault


if sys.platform == "linux":

    class Selector(selectors.EpollSelector):
        """Waits as long as asked: epoll itself rounds up to milliseconds, by which every call would be late."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

else:
    Selector = selectors.DefaultSelector


class _MayBeStopped(ChildProcess):
    """A child that hangs when it is stopped, as a machine elsewhere does; one of ours would be killed and replaced."""

    def _look(self) -> None:
        pass


class ChildNode:
    """A running node of :func:`child_node`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.port = 0
        self._process: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def restart(self) -> None:
        """Start it, again if it ran before: on the same port, with the configuration that it had at first."""
        await self.close()
        command = [sys.executable, str(Path(__file__).resolve()), "--port", str(self.port)]
        self._process = await _MayBeStopped.start(tied([*command, "--config", json.dumps(self.config)]))
        async with asyncio.timeout(START_SECONDS):
            said = await self._process.read_line()
        if said is None:
            raise RuntimeError("the node ended: " + "\n".join(self._process.tail))
        self.port = json.loads(said)["port"]

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        os.kill(self.pid, signal.SIGKILL)

    def stop_signal(self) -> None:
        """Freeze it (SIGSTOP): its connections stay open, new ones are accepted by the kernel, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def control(self, **changes: Any) -> None:
        """Change ``config`` (fields), ``fault`` (fields, or ``None`` for none) or ``loaded`` (names to load)."""
        await self._ask("POST", "/_control", json.dumps(changes).encode())

    async def counters(self) -> dict[str, Any]:
        """Return what it has counted since it was started."""
        return await self._ask("GET", "/_counters")

    async def asked(self) -> list[dict[str, Any]]:
        """Return its last calls."""
        calls: list[dict[str, Any]] = (await self._ask("GET", "/_asked"))["asked"]
        return calls

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            await self._process.exited_within(START_SECONDS)
            await self._process.stop()

    async def _ask(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        async with asyncio.timeout(START_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(
                    f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                )
                writer.write(body)
                answer: dict[str, Any] = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
            finally:
                writer.close()
                await writer.wait_closed()
        return answer


@asynccontextmanager
async def child_node(**config: Any) -> AsyncGenerator[ChildNode]:
    """Run a node in a child process that ends with this block, or with us; ``config`` is that of the node, as JSON."""
    node = ChildNode(config)
    try:
        await node.restart()
        yield node
    finally:
        await node.close()


async def serve(port: int, config: dict[str, Any]) -> None:
    """Run a node until the process ends."""
    async with ControlledNode(port, **config) as node:
        sys.stdout.write(json.dumps({"url": node.url, "port": node.port}) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """Run a node as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--config", type=json.loads, default={}, help="fields of faulty_node_script.Config, as JSON")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
        runner.run(serve(arguments.port, arguments.config))


if __name__ == "__main__":
    main()
