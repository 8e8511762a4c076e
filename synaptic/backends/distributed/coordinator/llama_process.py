"""One ``llama-server`` that we started: its address, its key, how far it has loaded, why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.coordinator.diagnosis import diagnose
from synaptic.backends.distributed.coordinator.load_channel import ROUTER_VARIABLE, read_channel
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.errors import BackendError, BackendUnavailable
from synaptic.processes import ChildProcess, child_environment
from synaptic.waiting import awake_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from synaptic.backends.distributed.coordinator.diagnosis import Diagnosis
    from synaptic.backends.distributed.coordinator.one_core import CoreWatch
    from synaptic.backends.distributed.engine import Engine

HOST: Final = "127.0.0.1"
NAME: Final = "distributed"
_POLL: Final = 0.25  # seconds; the channel says it sooner, where there is one
_KEPT_LINES: Final = 4000
_STOP_GRACE: Final = 3.0  # seconds to give the workers their memory back


class ServerEnded(BackendUnavailable):
    """A ``llama-server`` ended, or hung, before it served. ``diagnosis`` says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis), backend=NAME)
        self.diagnosis = diagnosis


class LoadStalled(BackendUnavailable):
    """A load made no progress for too long: a worker hangs, or the way to it is dead."""


class LlamaProcess:
    """A ``llama-server`` on a loopback port of its own behind a random key. Made by :meth:`start`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.key = secrets.token_urlsafe(24)
        self.client = LlamaServerBackend(self.url, name=NAME, node=NAME, api_key=self.key)
        self.lines: list[str] = []
        self._child: ChildProcess | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._hear: Callable[[float], None] | None = None

    @classmethod
    async def start(
        cls, engine: Engine, arguments: Sequence[str], *, port: int, log_file: Path, cores: CoreWatch | None = None
    ) -> LlamaProcess:
        """Start it; it is not ready yet.

        Args:
            engine: Whose ``llama-server``.
            arguments: What it is to serve and how, but for its address and its key.
            port: Where it is to listen.
            log_file: Where its words go.
            cores: Chooses the core that it is kept on.

        Raises:
            BackendUnavailable: If it cannot be started.
        """
        process = cls(port)
        process._child = await ChildProcess.start(
            engine.llama_server(*arguments, "--host", HOST, "--port", str(port)),
            env=environment(process.key),
            log_file=log_file,
            on_exit=lambda _: process._ended.set(),
            on_line=process._take,
        )
        if cores is not None:
            cores.keep(process.pid)  # what it starts there inherits it
        process._reader = asyncio.create_task(process._read(), name=f"llama-server {process.pid}")
        return process

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return 0 if self._child is None else self._child.pid

    @property
    def running(self) -> bool:
        """Whether its end has not been noticed yet."""
        return self._child is not None and self._child.running

    async def ended(self) -> Diagnosis:
        """Wait for its end; return why it came."""
        assert self._child is not None
        await self._ended.wait()
        return diagnose(await self._child.wait(), self._child.tail, stopped=self._child.stopped)

    async def ended_within(self, seconds: float) -> Diagnosis | None:
        """Return why it ended, if it has by now or does within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                return await self.ended()
        except TimeoutError:
            return None

    async def loaded(self, hear: Callable[[float], None], *, stall: float) -> None:
        """Wait until it has loaded its model.

        Args:
            hear: Told how much is loaded, from 0 to 1.
            stall: Seconds without any progress after which it is given up.

        Raises:
            ServerEnded: If it ended.
            LoadStalled: If it makes no progress.
        """
        progress = asyncio.Event()

        def note(fraction: float) -> None:
            progress.set()
            hear(fraction)

        self._hear = note
        waits = [
            asyncio.create_task(self._ready.wait()),
            asyncio.create_task(self._healthy()),
            asyncio.create_task(self._ended.wait()),
            asyncio.create_task(_still(progress, stall)),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hear = None
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if waits[2] in done or not self.running:
            raise ServerEnded(await self.ended())
        if waits[0] not in done and waits[1] not in done:
            raise LoadStalled(f"llama-server made no progress in loading for {stall:.0f} s", backend=NAME)

    def kill(self) -> None:
        """Kill it now; its end is noticed as any other."""
        if self._child is not None:
            self._child.kill()

    async def stop(self) -> None:
        """End it and wait until it is gone; also when called twice or cancelled."""
        assert self._child is not None
        try:
            await self.client.aclose()
        finally:
            try:
                await self._child.stop(_STOP_GRACE)
            finally:
                if self._reader is not None:
                    self._reader.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await self._reader

    def _take(self, line: str) -> None:
        """Keep what it says while it loads: which buffers are where is in there."""
        if not self._ready.is_set() and len(self.lines) < _KEPT_LINES:
            self.lines.append(line)

    async def _read(self) -> None:
        assert self._child is not None
        while (line := await self._child.read_line()) is not None:
            news = read_channel(line)
            if news is None:
                continue
            if news.state == "ready":
                self._ready.set()
            elif news.fraction is not None and self._hear is not None:
                self._hear(news.fraction)

    async def _healthy(self) -> None:
        """Return when it says so over HTTP: a build without the channel says nothing else."""
        while True:
            await asyncio.sleep(_POLL)
            with contextlib.suppress(BackendError):  # also while it is ending, which is noticed elsewhere
                if await self.client.health():
                    return


def environment(key: str) -> dict[str, str]:
    """Return what ``llama-server`` is started with: nothing of what a person set for their own, and the key.

    The key is not an argument: those can be read by every user of the machine. What browsers are told is none either:
    builds that do not know such an argument would not start. An empty origin is that of no page; left out, it is all.
    """
    told = {"LLAMA_API_KEY": key, "LLAMA_ARG_CORS_ORIGINS": "", "LLAMA_ARG_CORS_CREDENTIALS": "0"}
    return child_environment({ROUTER_VARIABLE: "1", "GGML_NO_BACKTRACE": "1", **told})


async def _still(progress: asyncio.Event, seconds: float) -> None:
    """Return once nothing has moved for that long."""
    while True:
        progress.clear()
        try:
            async with awake_timeout(seconds):
                await progress.wait()
        except TimeoutError:
            return
