"""A worker on another machine: on its loopback, reached through the SSH connection, and ended with it.

What ends it there is a shell that has to hear of us every few seconds: the worker of a machine whose cable is pulled,
or whose program here is killed, does not stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Final

import asyncssh

from synaptic.cluster.delivery import deliver
from synaptic.cluster.forwarding import forwarded
from synaptic.cluster.looking import look_at_machine
from synaptic.cluster.ssh import BACKEND, SILENCE, beat, connected, said, shell_words
from synaptic.errors import BackendUnavailable, EngineUnavailable, SynapticError, UsageError
from synaptic.messages import BackendNotice, ignore_report
from synaptic.processes import PrivateLog
from synaptic.settings import RpcBackendSettings
from synaptic.waiting import Rules, awake_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.looking import MachineFacts
    from synaptic.cluster.machine_list import Machine
    from synaptic.messages import Reporter

START_SECONDS: Final = 20.0
LOG_BYTES: Final = 1 << 20
PORTS: Final = (20_000, 32_000)
"""Below those that Linux hands out by itself."""
_PORTS_TRIED: Final = 4
_POLL_SECONDS: Final = 0.1
_MOST_MEMORY: Final = 0.8
"""Of what is free on a machine, where a person says nothing."""
_ENDED: Final = "the worker has ended"

# $1 the directory, $2 the program, $3 port, $4 threads, $5 seconds of silence.
_SCRIPT: Final = f"""
cd "$1" || exit 1
trap '' PIPE
LD_LIBRARY_PATH="$1" ./"$2" --host 127.0.0.1 --port "$3" --threads "$4" </dev/null 2>&1 &
worker=$!
trap 'kill -9 $worker 2>/dev/null' EXIT
(while kill -0 $worker 2>/dev/null; do sleep 1; done; echo "{_ENDED}") &
bomb=
while read -r word; do
  [ -n "$bomb" ] && kill "$bomb" 2>/dev/null
  (sleep "$5"; kill -9 $worker; kill -9 $$) >/dev/null 2>&1 &
  bomb=$!
done
[ -n "$bomb" ] && kill "$bomb" 2>/dev/null
kill -9 $worker 2>/dev/null
"""


class RemoteWorker:
    """Keeps a worker running on a machine, and a port of ours that leads to it, until it is closed.

    Args:
        machine: Where; a `local_port` of 0 lets the first tunnel choose one.
        engine: Of which it is.
        report: Told when the machine is lost, and when it is back.
        connect: Gives a connection to it for the time of a block.

    Attributes:
        reached: Whether it has been up, be it that it is lost now.
        failure: Why it was not reached, or lost, at the last try.
    """

    def __init__(
        self,
        machine: Machine,
        engine: Engine,
        report: Reporter = ignore_report,
        connect: Callable[[Machine], AbstractAsyncContextManager[asyncssh.SSHClientConnection]] = connected,
    ) -> None:
        self.machine = machine
        self.facts: MachineFacts | None = None
        self.reached = False
        self.failure: SynapticError | None = None
        self._local_port = machine.local_port
        self.log_file = machine.log_file
        self._engine = engine
        self._report = report
        self._connect = connect
        self._log_handler = PrivateLog(self.log_file, LOG_BYTES)
        self._keeper: asyncio.Task[None] | None = None
        self._up = False

    @property
    def settings(self) -> RpcBackendSettings:
        """How its worker is reached from here, as if it were one of the settings."""
        return RpcBackendSettings(host="127.0.0.1", port=self._local_port, memory_gib=self.memory_gib)

    @property
    def memory_gib(self) -> float | None:
        """What layers may take there."""
        if self.machine.memory_gib is not None or self.facts is None or not self.facts.free_bytes:
            return self.machine.memory_gib
        return round(self.facts.free_bytes * _MOST_MEMORY / (1 << 30), 2)

    @property
    def trying(self) -> bool:
        """Whether it is up, or will be tried again."""
        return self._keeper is not None and not self._keeper.done()

    async def start(self, say: Callable[[str], None] = lambda _: None, *, again: bool = False) -> None:
        """Bring the engine there if it is not, start the worker, and return once it is reached.

        Args:
            say: Told what takes long.
            again: Whether a machine that is not reached is tried again, until `aclose`; that is told by the error, too.

        Raises:
            BackendUnavailable: If the machine is not reached, or the worker does not start.
            EngineUnavailable: If the engine would not run there.
            UsageError: If its key is not known, or another program of this machine uses it.
        """
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(first, say, again=again), name=f"machine {self.machine.name}")
        try:
            await first
        except BaseException as error:
            if not (again and isinstance(error, SynapticError)):
                await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the worker there and the connection. Nothing happens if that is so already."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        self._log_handler.close()

    async def _keep(self, first: asyncio.Future[None], say: Callable[[str], None], *, again: bool) -> None:
        """Have the worker run, again and again."""
        attempt = 0
        while True:
            try:
                async with self._connect(self.machine) as connection:
                    with said(self.machine):  # what breaks where: the connection, in whatever waits for it
                        await self._serve(connection, first, say)
            except SynapticError as error:
                self.failure = error
                final = not passes(error)
                if not first.done():
                    first.set_exception(error)
                    final = final or not again
                elif attempt == 0 or final:
                    what = error.message if final else f"{error.message}; it is tried again"
                    self._report(BackendNotice(BACKEND, what, "warning"))
                if final:
                    return
            attempt = 0 if self._up else attempt + 1
            self._up = False
            await asyncio.sleep(Rules.MACHINE.delay(attempt + 1))

    async def _serve(
        self, connection: asyncssh.SSHClientConnection, first: asyncio.Future[None], say: Callable[[str], None]
    ) -> None:
        """Serve over one connection until that or the worker ends.

        Raises:
            BackendUnavailable: Always in the end: why.
        """
        self.facts = facts = await look_at_machine(self.machine, connection)
        there = await deliver(self.machine, facts, connection, self._engine, say)
        threads = self.machine.threads or facts.processors
        say("starting a worker")
        for attempt in range(1, _PORTS_TRIED + 1):
            port = random.randint(*PORTS)
            words = shell_words(_SCRIPT, there.directory, there.program, str(port), str(threads), str(SILENCE))
            async with asyncio.timeout(START_SECONDS):
                process = await connection.create_process(words, stderr=-2)
            async with self._watched(process) as ended:
                if not await self._listens(connection, port, ended):
                    if attempt == _PORTS_TRIED:
                        raise self._failed(f"does not start a worker; its log is {self.log_file}")
                    continue
                async with self._forward(connection, port):
                    self._up = True
                    before, self.reached = self.reached, True
                    if first.done():
                        came = "is back" if before else "is reached now"
                        self._report(BackendNotice(BACKEND, f"{self.machine.name} {came}"))
                    else:
                        first.set_result(None)
                    await ended
            raise self._failed("is gone, or its worker has ended")

    @contextlib.asynccontextmanager
    async def _watched(self, process: asyncssh.SSHClientProcess[str]) -> AsyncIterator[asyncio.Task[None]]:
        """Let the shell there hear of us for the time of a block; give what is done once its worker has ended."""
        tasks = [asyncio.create_task(self._until_ended(process)), asyncio.create_task(beat(process))]
        try:
            yield tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            process.close()

    async def _until_ended(self, process: asyncssh.SSHClientProcess[str]) -> None:
        """Keep what the worker says, until it ends or cannot be heard any more."""
        async for line in process.stdout:
            self._note(line)
            if _ENDED in line:
                return

    async def _listens(self, connection: asyncssh.SSHClientConnection, port: int, ended: asyncio.Task[None]) -> bool:
        """Return whether the worker takes connections; false once it has ended, or takes none for long."""
        until = awake_time() + START_SECONDS
        while not ended.done() and awake_time() < until:
            try:
                async with asyncio.timeout(START_SECONDS):
                    _, writer = await connection.open_connection("127.0.0.1", port)
            except TimeoutError:
                return False
            except asyncssh.ChannelOpenError:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                writer.close()
                return True
        return False

    def _note(self, line: str) -> None:
        self._log_handler.handle(logging.LogRecord("machine", logging.INFO, "", 0, line.rstrip("\n"), None, None))

    @contextlib.asynccontextmanager
    async def _forward(self, connection: asyncssh.SSHClientConnection, port: int) -> AsyncIterator[None]:
        """Have our port lead there for the time of a block."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                self._local_port = await stack.enter_async_context(forwarded(connection, self._local_port, port))
            except OSError as error:
                name, taken = self.machine.name, self._local_port
                raise UsageError(
                    f"another program here uses {name}: port {taken} of this machine is taken",
                    hint=f"end it, or take another port: synaptic machines add {self.machine.shown} --name {name}",
                ) from error
            yield

    def _failed(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(f"{self.machine.name} {what}", backend=BACKEND, node=self.machine.name)


def passes(error: SynapticError) -> bool:
    """Return whether a machine may be reached later: what a person has to see to does not change by itself."""
    return not isinstance(error, EngineUnavailable | UsageError)
