"""Distributed inference with the real engine and model: workers, external and ours, that tests hurt; what the same
engine says without workers; and what is left of it all afterwards.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil
import pytest
from chunk_support import collected, of_kind
from conftest import REAL_MODELS
from engine_support import real_files
from rpc_support import free_port

from synaptic import paths
from synaptic.backends.distributed.backend import DistributedBackend
from synaptic.backends.distributed.coordinator.states import FOLLOWERS, CoordinatorState, CoordinatorStatus
from synaptic.backends.distributed.placement.decide import place
from synaptic.backends.distributed.placement.predict import GIB
from synaptic.backends.distributed.placement.types import Offer, ServingNeeds
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.distributed.workers.registry import WorkerRegistry
from synaptic.backends.drafts import LONGEST
from synaptic.backends.llama_server import chat_payload
from synaptic.errors import NoPlacement
from synaptic.messages import (
    BackendNotice,
    ChatRequest,
    Chunk,
    Continued,
    Delta,
    Finished,
    JsonSchema,
    Message,
    Restarted,
)
from synaptic.models.layers import ModelShape
from synaptic.models.model_source import open_model
from synaptic.processes.child import tied
from synaptic.settings import Settings

PATIENCE = 60.0
MODEL = "smollm2:135m"
CONTEXT = 512
TOKENS = 40
LISTENING = "LISTEN"

_known: dict[str, bytes] = {}
"""What one test learned of the engine and of the workers' speed. Each has an empty home."""


# --- the home of a test


@pytest.fixture(name="engine_here")
def engine_in_home(own_home: Path) -> Iterator[Path]:
    """Let the program find the installed engine, with all that is known of it; return the engine's directory."""
    directory = real_files().directory
    paths.engine_dir().mkdir(parents=True, exist_ok=True)
    (paths.engine_dir() / directory.name).symlink_to(directory)
    for file in _kept():
        if file.name in _known:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_known[file.name])
    before = set(psutil.Process().children())
    yield directory
    left = [child for child in psutil.Process().children() if child not in before]
    assert not left, [(child.pid, child.status(), child.name()) for child in left]
    for file in _kept():
        if file.exists() and _about_this_machine(file):
            _known[file.name] = file.read_bytes()


def _kept() -> list[Path]:
    return [paths.engine_dir() / "known.json", paths.worker_facts_file()]


def _about_this_machine(file: Path) -> bool:
    """Whether a file is worth keeping: an external worker on the same port may be another one the next time."""
    return file.name == "known.json" or not any("127.0.0." in name for name in json.loads(file.read_text()))


# --- what the engine says without any worker


class Local:
    """``llama-server`` of the same engine without RPC: one thread, one slot, nothing kept from prompt to prompt."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid
        self._said: dict[str, str] = {}

    def says(self, prompt: str, **options: Any) -> str:
        """Return the greedy answer."""
        asked = ask(prompt, **options)
        key = repr(asked)
        if key not in self._said:
            payload = {**chat_payload(asked), "cache_prompt": False, "stream": False}
            del payload["stream_options"]
            request = urllib.request.Request(
                f"{self.url}/v1/chat/completions",
                json.dumps(payload).encode(),
                {"content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                self._said[key] = json.load(reply)["choices"][0]["message"]["content"]
        return self._said[key]


@pytest.fixture(name="local", scope="module")
def local_answers() -> Iterator[Local]:
    """The same engine on the same model, without workers; it ends with its module, others count children."""
    files = real_files()
    model = real_model()
    port = free_port()
    command = [
        *(str(files.llama_server), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-c", str(CONTEXT)),
        *("-np", "1", "-t", "1", "-fa", "on", "-fit", "off", "--cache-ram", "0", "--no-webui", "--offline"),
    ]
    process = subprocess.Popen(
        tied(command),
        cwd=files.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_healthy(url, process)
        yield Local(url, process.pid)
    finally:
        process.kill()
        process.wait()


def real_model() -> Path:
    return min(REAL_MODELS.glob("SmolLM2-135M-Instruct.Q4_1-*.gguf"))  # fetched before the first test


def _wait_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=PATIENCE):
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)


# --- workers


def memory_for(shape: ModelShape, count: int, *, slots: int = 1, context: int = CONTEXT) -> float:
    """Return the GiB of each of ``count`` workers that hold a model together, and that one fewer cannot hold."""

    def fits(size: int, workers: int) -> bool:
        offers = [
            Offer(endpoint=Endpoint("127.0.0.1", 50000 + number), device=0, memory_bytes=size)
            for number in range(workers)
        ]
        try:
            place(shape, offers, ServingNeeds(context=context, slots=slots, draft=LONGEST))
        except NoPlacement:
            return False
        return True

    low, high = 0, 4 * GIB
    while high - low > GIB // 4096:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle, count) else (middle, high)
    assert count == 1 or not fits(high, count - 1)
    return high / GIB


class External:
    """An RPC server that somebody else started: it may go and come back on its port, and dies of SIGPIPE."""

    alive: ClassVar[set[int]] = set()
    """Those that are not the backend's to end."""

    def __init__(self, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._files = real_files()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def start(self) -> Self:
        """Start it; whoever comes meets it listening."""
        command = [str(self._files.rpc_server), "-H", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        self._process = subprocess.Popen(
            command,
            cwd=self._files.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.alive.add(self._process.pid)
        end = time.monotonic() + PATIENCE
        while not _listens(self._process.pid, self.port):
            assert self._process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        return self

    def hurt(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it, and collect it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.alive.discard(self._process.pid)

    def settings(self, memory_gib: float | None = None) -> dict[str, Any]:
        """Return it as an entry of ``rpc_backends``."""
        entry: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
        return entry if memory_gib is None else {**entry, "memory_gib": memory_gib}


def _listens(pid: int, port: int) -> bool:
    try:
        found = psutil.Process(pid).net_connections(kind="tcp4")
    except psutil.NoSuchProcess:
        return False
    return any(one.status == LISTENING and one.laddr.port == port for one in found)


@contextmanager
def externals(count: int) -> Iterator[list[External]]:
    """So many external workers."""
    with ExitStack() as stack:
        workers = []
        for _ in range(count):
            worker = External()
            stack.callback(worker.end)
            workers.append(worker.start())
        yield workers


# --- a backend that is watched


@dataclass
class Answer:
    """What one call yielded."""

    chunks: list[Chunk] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What holds in the end: a restart voids what came before."""
        return collected(self.chunks)

    @property
    def breaks(self) -> int:
        return len(of_kind(Continued, self.chunks)) + len(of_kind(Restarted, self.chunks))

    @property
    def ends(self) -> list[str]:
        return [chunk.finish_reason for chunk in of_kind(Finished, self.chunks)]


@dataclass
class Watched:
    """A backend, and what it says."""

    backend: DistributedBackend
    notices: list[BackendNotice]
    others: set[int] = field(default_factory=lambda: {child.pid for child in psutil.Process().children()})

    @property
    def status(self) -> CoordinatorStatus:
        """How the one coordinator stands."""
        (status,) = self.backend.coordinators()
        return status

    @property
    def states(self) -> list[CoordinatorState]:
        """What the coordinators became, in order."""
        return [transition.after for transition in self.backend.transitions]

    @property
    def said(self) -> str:
        return "\n".join(notice.message for notice in self.notices)

    @property
    def pid(self) -> int:
        """The ``llama-server`` of the one coordinator."""
        assert self.status.pid
        return self.status.pid

    def worker(self, number: int = 0) -> int:
        """The process of a worker that we started."""
        pid = self.status.workers[number].pid
        assert pid is not None
        return pid

    def children(self) -> list[psutil.Process]:
        """The processes that the backend has, whether a status names them or not."""
        return [child for child in psutil.Process().children() if child.pid not in self.others | External.alive]

    def later(self, seconds: float, what: Callable[[], object]) -> None:
        """Do something in a while, meanwhile the rest goes on."""
        asyncio.get_running_loop().call_later(seconds, what)

    async def answer(
        self,
        prompt: str,
        hurt: Callable[[], object] | None = None,
        *,
        after: int = 10,
        when_loading: Callable[[], object] | None = None,
        when_reading: Callable[[], object] | None = None,
        at_every_load: Callable[[], object] | None = None,
        **options: Any,
    ) -> Answer:
        """Ask, and do something once so many pieces of the answer have come, or at another moment."""
        watches = []
        if when_loading is not None:
            watches.append(self._at_load(when_loading))
        if at_every_load is not None:
            watches.append(self._all_the_while(at_every_load))
        if when_reading is not None:
            watches.append(self._at_reading(when_reading))
        tasks = [asyncio.create_task(watch) for watch in watches]
        try:
            return await self._answer(prompt, hurt, after, **options)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    async def _at_load(self, hurt: Callable[[], object]) -> None:
        """Do something once the load has begun to move."""
        await until(lambda: bool(self.backend.coordinators()) and self.status.progress is not None)
        hurt()

    async def _all_the_while(self, hurt: Callable[[], object]) -> None:
        """Do something again and again as long as a load lasts, and at each further load: none can end well."""
        while True:
            await self.until(CoordinatorState.LOADING)
            hurt()
            await asyncio.sleep(0.1)

    async def _at_reading(self, hurt: Callable[[], object]) -> None:
        """Do something when a call was sent, a moment later: its prompt is long."""
        await until(lambda: self.status.calls == 1)
        await asyncio.sleep(0.15)
        hurt()

    async def _answer(self, prompt: str, hurt: Callable[[], object] | None, after: int, **options: Any) -> Answer:
        answer = Answer()
        pieces = 0
        async with asyncio.timeout(PATIENCE), aclosing(self.backend.stream(ask(prompt, **options))) as chunks:
            async for chunk in chunks:
                answer.chunks.append(chunk)
                pieces += isinstance(chunk, Delta) and bool(chunk.text)
                if hurt is not None and pieces == after:
                    hurt()
                    hurt = None
        assert hurt is None, f"only {pieces} pieces came"
        assert len(answer.ends) == 1, answer.ends
        return answer

    async def until(self, *states: CoordinatorState) -> None:
        """Wait until the one coordinator is in one of these states."""
        await until(lambda: bool(self.backend.coordinators()) and self.status.state in states)

    async def until_lost(self) -> None:
        """Wait until what served was lost."""
        await until(lambda: CoordinatorState.DEGRADED in self.states)


def ask(
    prompt: str,
    *,
    tokens: int = TOKENS,
    schema: JsonSchema | None = None,
    model: str | None = None,
    guarded: bool = True,
) -> ChatRequest:
    """Return a greedy call."""
    return ChatRequest(
        messages=(Message("user", prompt),),
        model=model,
        schema=schema,
        temperature=0.0,
        seed=1,
        max_tokens=tokens,
        repetition_guard=guarded,
    )


def settings_of(**options: Any) -> Settings:
    """Return settings for one slot of the real model, with one thread a worker."""
    usual = {
        "model": MODEL,
        "distributed_inference_enabled": True,
        "task_distribution_enabled": False,
        "distributed_context": CONTEXT,
        "distributed_parallel": 1,
        "local_worker_threads": 1,
    }
    return Settings(**{**usual, **options})


async def real_shape() -> ModelShape:
    """Return the real model's shape."""
    return await open_model(MODEL)


async def spread(workers: int, **options: Any) -> dict[str, Any]:
    """Return the options of so many local workers that each of them is needed."""
    shape = await real_shape()
    slots = options.get("distributed_parallel", 1)
    gib = memory_for(shape, workers, slots=slots) if workers > 1 else None
    return {"local_workers": workers, "local_worker_memory_gib": gib, **options}


@asynccontextmanager
async def distributed(**options: Any) -> AsyncIterator[Watched]:
    """A backend; afterwards nothing of it is left, and it went from state to state as it may."""
    with nothing_left():
        notices: list[BackendNotice] = []

        def report(news: object) -> None:
            if isinstance(news, BackendNotice):
                notices.append(news)

        backend = DistributedBackend(settings_of(**options), report)
        try:
            yield Watched(backend, notices)
        finally:
            await backend.aclose()
        for transition in backend.transitions:
            assert transition.after in FOLLOWERS[transition.before], transition
        assert WorkerRegistry().holders() == []
        assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()


@contextmanager
def nothing_left() -> Iterator[None]:
    """Make sure that a block leaves no process, no zombie and no open file."""
    own = psutil.Process()
    before, files = {child.pid for child in own.children(recursive=True)}, _descriptors()
    yield
    left = [child for child in own.children(recursive=True) if child.pid not in before | External.alive]
    assert not left, [(child.pid, child.status(), child.name()) for child in left]
    # What the interpreter itself opens once (an event loop's pipe, a database of names) is no leak.
    more = {number: name for number, name in _descriptors().items() if number not in files}
    assert not {number: name for number, name in more.items() if not _harmless(name)}, more


def _descriptors() -> dict[str, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue
    return found


def _harmless(name: str) -> bool:
    return name.startswith(("/proc/", "/usr/", "/dev/"))


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something that is sure to come."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def within(work: Awaitable[Any], seconds: float = PATIENCE) -> Any:
    """Wait for work that is sure to end."""
    async with asyncio.timeout(seconds):
        return await work


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def gone(pid: int) -> bool:
    """Whether a process has ended, collected or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def in_order(wanted: Sequence[CoordinatorState], states: Sequence[CoordinatorState]) -> bool:
    """Whether the states went through ``wanted`` in that order, whatever came between."""
    rest = iter(states)
    return all(state in rest for state in wanted)


def copy_of(engine: Path, directory: Path) -> Path:
    """Copy an engine, so that a part of it can be changed."""
    return Path(shutil.copytree(engine, directory, symlinks=True))
