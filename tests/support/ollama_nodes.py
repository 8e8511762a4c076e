"""Real nodes for tests: ``synaptic serve`` in processes of its own, with the embedded model, on free ports.

::

    async with real_nodes(3, parallel=1) as nodes:
        ...  # nodes[0].url, .pid, .kill(), .stop(), .cont(), await .gone(), await .restart()

No model is loaded until the first call. Every engine computes with one thread. Mark the test ``real_model``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from chat_turns import Turn

MODEL = "smollm2:135m"
START_WITHIN = 60.0  # seconds; the machine may be busy
STOP_WITHIN = 60.0
SERVING = "serving at "
SYNAPTIC_SERVE = ("-P", "-m", "synaptic", "serve", "--backend", "embedded", "--no-pipelines")
WITH_TEMPLATE = str(Path(__file__).with_name("template_node_child.py"))


class RealNode:
    """One node. Its signals are sent at once; ``gone`` and ``restart`` wait."""

    def __init__(
        self, arguments: Sequence[str], environ: Mapping[str, str], program: Sequence[str] = SYNAPTIC_SERVE
    ) -> None:
        self.url = ""
        self.log: deque[str] = deque(maxlen=200)
        self._program = program
        self._arguments = arguments
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OLLAMA_")}
        self._environ = {**inherited, **environ}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        """The port; 0 before the first start."""
        return int(self.url.rpartition(":")[2] or 0)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    def kill(self) -> None:
        """SIGKILL: it is gone without a word, and its engine with it."""
        self.send(signal.SIGKILL)

    def stop(self) -> None:
        """SIGSTOP: it hangs; the kernel still takes connections for it."""
        self.send(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: it goes on."""
        self.send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: it ends in an orderly way."""
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def gone(self) -> int:
        """Wait until the process has ended; return how."""
        assert self._process is not None
        async with asyncio.timeout(STOP_WITHIN):
            code = await self._process.wait()
        if self._reader is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):  # an engine that still dies may hold the pipe for a moment
                    await asyncio.shield(self._reader)
        return code

    async def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            *[sys.executable, *self._program, "--port", str(self.port), *self._arguments],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ,
        )
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._process, ready))
        async with asyncio.timeout(START_WITHIN):
            self.url = await ready

    async def restart(self) -> None:
        """Kill it if it still runs, and start it again on the same port."""
        self.kill()
        await self.gone()
        await self.start()

    async def end(self) -> None:
        """Take it down, whatever state it is in."""
        self.cont()
        self.terminate()
        try:
            await self.gone()
        except TimeoutError:
            self.kill()
            await self.gone()
        finally:
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.wait([self._reader])

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Future[str]) -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self.log.append(line)
            if line.startswith(SERVING) and not ready.done():
                ready.set_result(line.removeprefix(SERVING).split()[0])
        if not ready.done():
            ready.set_exception(RuntimeError("the node did not start: " + " | ".join(self.log)))


@asynccontextmanager
async def real_nodes(
    count: int,
    *,
    parallel: int = 1,
    max_queue: int | None = None,
    context: int | None = None,
    keep_alive: str | None = None,
    aliases: Sequence[str] = (),
    threads: int = 1,
    environ: Mapping[str, str] = MappingProxyType({}),
    turn: Turn | None = None,
) -> AsyncIterator[list[RealNode]]:
    """Start ``count`` nodes and take them down at the end, also those that were killed or stopped meanwhile.

    ``OLLAMA_*`` variables of the machine do not reach them; those in ``environ`` do. With ``turn``, their model has a
    template of that kind (see :mod:`chat_turns`); they have no ``max_queue`` and no ``keep_alive`` then.
    """
    program = SYNAPTIC_SERVE if turn is None else (WITH_TEMPLATE, turn)
    arguments = ["--parallel", str(parallel), "--threads", str(threads)]
    for option, value in (("--max-queue", max_queue), ("--context", context), ("--keep-alive", keep_alive)):
        arguments += [] if value is None else [option, str(value)]
    for alias in aliases:
        arguments += ["--alias", alias]
    nodes = [RealNode(arguments, environ, program) for _ in range(count)]
    try:
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(node.start())
        yield nodes
    finally:
        started = [node for node in nodes if node._process is not None]
        await asyncio.gather(*(node.end() for node in started))
