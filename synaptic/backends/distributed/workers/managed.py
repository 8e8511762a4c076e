"""A worker of our own: an RPC server that is started, watched, started again when it ends, and never outlives us.

It is never contacted: it serves one client at a time, and a connection that says nothing would stand in the way of a
coordinator. That it listens, and that it hangs, the system tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from synaptic import paths
from synaptic.backends.distributed.engine import check_unchanged
from synaptic.backends.distributed.workers.machine import available_bytes, cpu_name, parse_devices
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.distributed.workers.tensor_cache import TensorCache
from synaptic.backends.embedded import SPIN_COUNT
from synaptic.errors import BackendUnavailable, SynapticError
from synaptic.messages import BackendNotice, ignore_report
from synaptic.processes import (
    STARTS,
    ChildProcess,
    bound_memory,
    cause_of,
    child_environment,
    connected,
    describe_failure,
    end_dead_connections,
    free_port,
    is_free,
    is_listening,
    is_stopped,
    resident_bytes,
)
from synaptic.waiting import ChangeSignal, Restarts, Rules, awake_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from synaptic.backends.distributed.engine import Engine
    from synaptic.backends.distributed.workers.machine import LocalDevice
    from synaptic.backends.distributed.workers.tensor_cache import TensorView
    from synaptic.messages import Reporter

T = TypeVar("T")

BACKEND: Final = "distributed"
LISTEN_SECONDS: Final = 30.0
"""How long a start may take; half a second is usual, and the machine may be busy."""
SLOW_SECONDS: Final = 3.0
"""After that long the verification of the tensor cache is worth a notice."""
CACHE_SECONDS: Final = 5.0
THREAD_SECONDS: Final = 1.0
"""How long a stop waits for work on the cache that it interrupts."""
TAIL_LINES: Final = 100

_POLL_SECONDS = 0.01
_PORTS_TRIED = 5


class WorkerPhase(StrEnum):
    """How a managed worker is."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    DOWN = "down"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedFacts:
    """The truth about a managed worker and the machine that it is on.

    Attributes:
        memory_bytes: What layers may take in it: what it has already, and what the machine has to spare, up to its
            bound.
        resident_bytes: Memory of its process; 0 while there is none.
        devices: Its devices beside the processor, with the memory that was free when the engine was examined; none
            where it computes with the processor.
        device: What the first of them is called, else the processor.
        alive: Whether the process runs and is not stopped.
        serving: Whether a client is connected to it.
        restarts: How often it was started again.
    """

    memory_bytes: int
    resident_bytes: int
    devices: tuple[LocalDevice, ...]
    device: str
    threads: int
    alive: bool
    serving: bool
    restarts: int


class ManagedWorker:
    """An RPC server of the engine, kept running until :meth:`stop`.

    ``generation`` grows with each start. While it is restarted its port stays the same.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        threads: int,
        memory_bytes: int | None,
        cache_dir: Path | None,
        name: str,
        cache_bytes: int | None = None,
        report: Reporter = ignore_report,
    ) -> None:
        """Choose the port; nothing is started yet.

        Args:
            engine: Whose RPC server it is.
            host: The IPv4 address to listen at. A client that reaches the port can run code as this user.
            port: Where; a free one unless given.
            threads: Threads that compute.
            memory_bytes: What layers may take; ``None`` for what the machine has.
            cache_dir: Where tensors are kept for the next start (:func:`synaptic.paths.tensor_cache_dir`); ``None``
                keeps none.
            name: What it is called in logs and messages: ``local-1``.
            cache_bytes: How much ``cache_dir`` may hold; ``None`` for any amount.
            report: Told when it was restarted or failed.

        Raises:
            UsageError: If the address is not one of this machine.
            BackendUnavailable: If no port is free.
        """
        self.name = name
        self.threads = threads
        self.memory_bound = memory_bytes
        self.endpoint = Endpoint(host, free_port(host) if port is None else port)
        self.phase = WorkerPhase.STOPPED
        self.generation = 0
        self.failure: BackendUnavailable | None = None
        self.log_file = paths.state_dir() / "logs" / f"worker-{name}.log"
        self._engine = engine
        self._port_is_ours_to_choose = port is None
        self._cache_root = cache_dir
        self._cache_bytes = cache_bytes
        self._report = report
        self._view: TensorView | None = None
        self._caching = False
        self._child: ChildProcess | None = None
        self._listener: asyncio.Task[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready_at = 0.0
        self._restarts = Restarts(Rules.WORKER)
        self._asked: str | None = None
        self._threads: set[asyncio.Future[Any]] = set()
        self._wake = asyncio.Event()
        self._change = ChangeSignal()
        self._said: deque[str] = deque(maxlen=TAIL_LINES)
        self._clients = 0

    @property
    def engine(self) -> Engine:
        """Whose RPC server it is."""
        return self._engine

    @property
    def pid(self) -> int | None:
        """Its process, while there is one."""
        return self._child.pid if self._child is not None and self._child.running else None

    @property
    def running(self) -> bool:
        """Whether it takes connections, as far as is known."""
        return self.phase is WorkerPhase.RUNNING and self.pid is not None

    @property
    def serving(self) -> bool:
        """Whether a client is connected to it, by what it says itself."""
        return self.running and self._clients > 0

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines it wrote, those of its standard output first."""
        return (*self._said, *(self._child.tail if self._child is not None else ()))

    async def start(self) -> None:
        """Start it, and return once it listens. Nothing happens if it is kept running already.

        Raises:
            BackendUnavailable: If it does not start; the message quotes what it said. Nothing is left running.
            UsageError: If the address is not one of this machine any more.
        """
        if self._supervisor is not None and not self._supervisor.done():
            return
        self.failure = None
        self._restarts.forget()
        self._asked = None
        try:
            await self._open_cache()
            await self._launch(fixed=not self._port_is_ours_to_choose or self.generation > 0)
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.name}")
        if self._view is not None:
            self._keeper = asyncio.create_task(self._keep_cache(), name=f"tensor cache of {self.name}")

    async def stop(self) -> None:
        """End it and reap it; nothing is left. Nothing happens if that is so already."""
        tasks = [task for task in (self._supervisor, self._keeper) if task is not None]
        self._supervisor = self._keeper = None
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            try:
                await self._end_child()
            finally:
                self._set(WorkerPhase.STOPPED)
                self._caching = False
                if self._view is not None:
                    self._view.release()  # which also ends work on it after the present file
                    self._view = None
                if self._threads:
                    await asyncio.wait(self._threads, timeout=THREAD_SECONDS)

    async def restart(self, reason: str) -> None:
        """Kill it and start it again at once; return once it listens.

        ``reason`` is for the log and the reports.

        Raises:
            BackendUnavailable: If it does not start, or is stopped meanwhile.
        """
        if self._supervisor is None or self._supervisor.done():
            await self.start()
            return
        target = self.generation + 1
        self._asked = reason
        self._wake.set()
        while self.generation < target or not self.running:
            await self._change_while_kept()

    async def wait_running(self) -> None:
        """Wait until it takes connections.

        Raises:
            BackendUnavailable: If it has failed for good, or is stopped.
        """
        while not self.running:
            await self._change_while_kept()

    async def wait_change(self, generation: int) -> None:
        """Wait until it has ended, hangs, or was restarted since ``generation``; at once if that is so already."""
        while self.running and self.generation == generation:
            await self._change.wait()

    async def changed(self) -> None:
        """Wait until anything changes: how it is, or whether a client is connected to it."""
        await self._change.wait()

    def clients(self) -> tuple[str, ...]:
        """Return the addresses of those who are connected to it, as the system tells; one at a time is served."""
        pid = self.pid
        return () if pid is None else connected(pid, self.endpoint.port)

    async def check_cache(self) -> None:
        """Verify what it has written into its tensor cache, so that the next client gets nothing that is damaged.

        Call it before a coordinator is started while this worker runs on. It takes some seconds at most; files that
        would take longer are verified while the worker runs, and are not used until then.
        """
        if self._caching and self._view is not None and not await self._in_thread(self._view.prepare):
            await self.restart("its tensor cache cannot be verified")

    def facts(self) -> ManagedFacts:
        """Return what is true now. It asks the system, for about a millisecond, and does not contact the worker."""
        pid = self.pid
        resident = 0 if pid is None else resident_bytes(pid)
        room = available_bytes() + resident
        devices = parse_devices(self._engine.facts.devices)
        return ManagedFacts(
            memory_bytes=room if self.memory_bound is None else min(self.memory_bound, room),
            resident_bytes=resident,
            devices=devices,
            device=devices[0].title if devices else cpu_name(),
            threads=self.threads,
            alive=pid is not None and not is_stopped(pid),
            serving=self.serving,
            restarts=max(0, self.generation - 1),
        )

    # What the supervisor does.

    async def _supervise(self) -> None:
        try:
            while True:
                reason = await self._trouble()
                await self._revive(reason)
        except BackendUnavailable as error:
            self.failure = error
            self._report(BackendNotice(BACKEND, error.message, "warning"))
            self._set(WorkerPhase.FAILED)

    async def _trouble(self) -> str:
        """Wait until it has ended or is to be restarted; return which, in words that continue its name."""
        assert self._child is not None
        while True:
            self._wake.clear()
            if self._asked is not None:
                return f"was ended: {self._asked}"
            if self._child.returncode is not None:
                return self._child.ending
            await self._wake.wait()

    async def _revive(self, reason: str) -> None:
        """Start it again, as often as its restart policy allows.

        Raises:
            BackendUnavailable: If the policy gives it up.
        """
        loop = asyncio.get_running_loop()
        ran_for = loop.time() - self._ready_at
        self._set(WorkerPhase.DOWN)
        said = "" if self._child is None else self._quoted(self._child)
        await self._end_child()
        while True:
            delay = 0.0 if self._asked is not None else self._restarts.after_end(loop.time(), ran_for)
            if delay is None:
                raise BackendUnavailable(
                    f"the local worker {self.name} ends again and again and is not started any more: it {reason}{said}",
                    hint=f"its log is {self.log_file}",
                    backend=BACKEND,
                    node=str(self.endpoint),
                )
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            try:
                await self._launch(fixed=True)
            except (SynapticError, OSError) as error:
                ran_for, reason, said = 0.0, f"does not start: {error}", ""
                self._asked = None
                self._set(WorkerPhase.DOWN)
            else:
                self._report(BackendNotice(BACKEND, f"the local worker {self.name} {reason}; it runs again"))
                return

    async def _launch(self, *, fixed: bool) -> None:
        """Start the process and wait until it listens.

        ``fixed`` says whether others rely on the port by now.

        Raises:
            BackendUnavailable: If that fails; nothing is left running.
        """
        self._set(WorkerPhase.STARTING)
        if self._view is not None:
            with self._told_if_slow():
                self._caching = await self._in_thread(self._view.prepare)
        for attempt in range(_PORTS_TRIED):
            self._find_port(fixed=fixed)
            try:
                await self._start_child()
                break
            except BackendUnavailable:
                # Another program may have taken the port between the look and the start.
                if fixed or attempt == _PORTS_TRIED - 1 or is_free(*self.endpoint):
                    raise
        self._asked = None
        self._ready_at = asyncio.get_running_loop().time()
        self.generation += 1
        self._set(WorkerPhase.RUNNING)

    def _find_port(self, *, fixed: bool) -> None:
        if is_free(*self.endpoint):
            return
        if fixed:
            raise BackendUnavailable(
                f"port {self.endpoint.port} at {self.endpoint.host} is taken by another program",
                hint="end that one, or name another port",
                backend=BACKEND,
                node=str(self.endpoint),
            )
        self.endpoint = Endpoint(self.endpoint.host, free_port(self.endpoint.host, avoid={self.endpoint.port}))

    async def _start_child(self) -> None:
        """Start the process and wait until it listens, a few times if something outside ends it meanwhile."""
        for attempt in range(1, STARTS + 1):
            child = await self._new_child()
            try:
                await self._until_listening(child)
            except BackendUnavailable:
                await self._end_child()
                if not child.lost or attempt == STARTS:
                    raise
            except BaseException:
                await self._end_child()
                raise
            else:
                self._watch_peers(child)
                return

    def _watch_peers(self, child: ChildProcess) -> None:
        """Have it freed from a client whose machine went away; one on this machine does not go without a word."""
        watched = end_dead_connections(child.pid, self.endpoint.port)
        if not watched and not ipaddress.ip_address(self.endpoint.host).is_loopback:
            said = (
                f"{self.name} waits for ever for a client whose network has gone: this system does not let its "
                "connections be watched; start it again if it stays in use"
            )
            self._report(BackendNotice(BACKEND, said, "warning"))

    async def _new_child(self) -> ChildProcess:
        self._said.clear()
        self._clients = 0
        await check_unchanged(self._engine)
        child = await ChildProcess.start(
            self._engine.rpc_server(*self._arguments()),
            env=self._environment(),
            log_file=self.log_file,
            on_exit=self._noticed_exit,
        )
        self._child = child
        self._listener = asyncio.create_task(self._listen(child), name=f"listen to {self.name}")
        if self.memory_bound is not None and "CUDA" not in self._engine.facts.backends:
            bound_memory(child.pid, self.memory_bound)
        return child

    async def _until_listening(self, child: ChildProcess) -> None:
        end = awake_time() + LISTEN_SECONDS
        while not is_listening(child.pid, self.endpoint.port):
            if await child.exited_within(_POLL_SECONDS):
                raise self._not_started(self._ended(child))
            if awake_time() > end:
                raise self._not_started(f"does not listen after {LISTEN_SECONDS:g} s{self._quoted(child)}")

    def _arguments(self) -> list[str]:
        host, port = self.endpoint
        arguments = ["--host", host, "--port", str(port), "--threads", str(self.threads)]
        return [*arguments, "--cache"] if self._caching else arguments

    def _environment(self) -> dict[str, str]:
        environment = child_environment({"GGML_NO_BACKTRACE": "1"})
        if "OMP_WAIT_POLICY" not in environment:
            # Threads that wait must not take the processor from the next worker on this machine.
            environment.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        if self._caching and self._view is not None:
            environment["LLAMA_CACHE"] = str(self._view.directory)
        return environment

    async def _listen(self, child: ChildProcess) -> None:
        """Take what it says of itself and of its clients."""
        while (line := await child.read_line()) is not None:
            self._said.append(line)
            if line.startswith("Accepted client connection"):
                self._clients += 1
                self._change.notify()
            elif line.startswith("Client connection closed"):
                self._clients = max(0, self._clients - 1)
                self._change.notify()

    async def _end_child(self) -> None:
        """Kill and reap the process, if there is one. It has nothing to say at its end, so it gets no time."""
        child, self._child = self._child, None
        listener, self._listener = self._listener, None
        try:
            if child is not None:
                await child.stop(grace=0)
        finally:
            if listener is not None:
                listener.cancel()

    def _noticed_exit(self, child: ChildProcess) -> None:
        if child is self._child and self.phase is WorkerPhase.RUNNING:
            self._set(WorkerPhase.DOWN)
        self._wake.set()

    def _ended(self, child: ChildProcess) -> str:
        # It also exits with status 0 when it cannot take a connection.
        return describe_failure(child.returncode or 0, self._said_of_it(child), stopped=child.stopped)

    def _said_of_it(self, child: ChildProcess) -> list[str]:
        return [line for line in (*self._said, *child.tail) if not line.startswith(_USUAL)]

    def _quoted(self, child: ChildProcess) -> str:
        cause = cause_of(self._said_of_it(child))
        return f": {cause}" if cause else ""

    def _not_started(self, what: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"the local worker {self.name} at {self.endpoint} {what}",
            hint=f"its log is {self.log_file}",
            backend=BACKEND,
            node=str(self.endpoint),
        )

    # The tensor cache.

    async def _open_cache(self) -> None:
        if self._cache_root is None or self._view is not None or self._cache_bytes == 0:
            return

        cache = TensorCache(self._cache_root, limit_bytes=self._cache_bytes)
        opening = asyncio.ensure_future(asyncio.to_thread(cache.open_view, self.name))
        try:
            self._view = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # A thread cannot be stopped: its lock must not outlive this worker.
            with contextlib.suppress(OSError):
                (await opening).release()
            raise
        except OSError as error:
            said = f"the local worker {self.name} keeps no tensors on disk: {error.filename}: {error.strerror}"
            self._report(BackendNotice(BACKEND, said, "warning"))

    @contextlib.contextmanager
    def _told_if_slow(self) -> Iterator[None]:
        """Say what a start waits for, if it takes long: gigabytes may have been written before a crash."""
        said = f"the local worker {self.name} first verifies what was written into its tensor cache"
        notice = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._report, BackendNotice(BACKEND, said))
        try:
            yield
        finally:
            notice.cancel()

    async def _keep_cache(self) -> None:
        """Take what the worker has written into the cache into our books, once it is whole."""
        view = self._view
        assert view is not None
        while True:
            await asyncio.sleep(CACHE_SECONDS)
            with contextlib.suppress(OSError):  # a full disk: what is not in the books is looked at again later
                await self._in_thread(view.adopt)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do work on the cache in a thread. A thread cannot be stopped: :meth:`stop` waits for it a little."""
        doing = asyncio.ensure_future(asyncio.to_thread(work))
        self._threads.add(doing)
        doing.add_done_callback(self._done_in_thread)
        return await asyncio.shield(doing)

    def _done_in_thread(self, doing: asyncio.Future[Any]) -> None:
        self._threads.discard(doing)
        if not doing.cancelled():
            doing.exception()  # retrieved, so that asyncio does not log it; the caller has it already

    # Who waits for a change.

    def _set(self, phase: WorkerPhase) -> None:
        self.phase = phase
        self._change.notify()

    async def _change_while_kept(self) -> None:
        if self.phase is WorkerPhase.FAILED:
            assert self.failure is not None
            raise self.failure
        if self.phase is WorkerPhase.STOPPED:
            raise BackendUnavailable(f"the local worker {self.name} is stopped", backend=BACKEND)
        await self._change.wait()


_USUAL: Final = ("load_backend:", "Starting RPC server", "  endpoint", "  local cache", "Devices:", "  transport")
