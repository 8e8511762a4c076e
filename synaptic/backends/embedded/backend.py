"""The embedded backend: a small model in a child process, for a machine where nothing else is installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import os
import secrets
from collections import deque
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from synaptic import paths
from synaptic.backends.base import EVERY_FEATURE, BackendContext, BackendKind, Capabilities, Finding
from synaptic.backends.drafts import (
    COST,
    LONGEST,
    MATCH,
    SHORTEST,
    DraftRecord,
    DraftTally,
    kind_of,
)
from synaptic.backends.embedded.context_size import OURS, available_memory, choose_context, own_context
from synaptic.backends.embedded.server_process import Parameters
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.errors import (
    BackendUnavailable,
    ConfigError,
    EngineCrashed,
    EngineUnavailable,
    ModelFileError,
    ModelNotFound,
    ProtocolError,
    StreamTruncated,
)
from synaptic.messages import (
    BackendNotice,
    ChatRequest,
    Embeddings,
    Finished,
    ModelInfo,
    ReplyChunk,
    Reporter,
    ignore_report,
)
from synaptic.models import MODEL_NAME, ModelStore, check_model_file, doubt_about, name_key
from synaptic.processes import STARTS, ChildProcess, describe_failure, python_command
from synaptic.waiting import Rules, awake_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from synaptic.settings import Settings

NAME = "embedded"
ENGINE_MODULE = "xllamacpp"
CHILD_MODULE = "synaptic.backends.embedded.server_process"
START_TIMEOUT = 300.0  # seconds; a big model of the user's own on a slow disk
CRASH_NOTICE = 1.0  # seconds from a cut connection to the news that the child is dead
RECENT_LINES = 8  # of its log: what it said long before it crashed was about other calls

_DAMAGED = ("corrupted or incomplete", "not within the file bounds", "failed to read", "invalid magic")
"""What llama.cpp says of a file that was cut or overwritten."""

TRY_OUT = (
    "fetching the embedded model SmolLM2-135M-Instruct, once: it is there to try things out; "
    "for real answers install Ollama and pull a bigger model"
)


@dataclass(slots=True, eq=False)
class _Engine:
    """A child that serves, and the client that talks to it.

    Attributes:
        drafts: Whether it drafts.
        calls: How many of ours it answers now.
        rests: Set while it answers none.
    """

    child: ChildProcess
    client: LlamaServerBackend
    drafts: bool
    calls: int = 0
    rests: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call."""
        self.calls += 1
        self.rests.clear()
        try:
            yield
        finally:
            self.calls -= 1
            if not self.calls:
                self.rests.set()


class EmbeddedBackend:
    """Serves one small model from a child process, which is started by the first call.

    A child that crashes takes the calls in flight with it (:class:`~synaptic.errors.EngineCrashed`, retryable); the
    next call starts another, unless four crashed within a minute.

    Args:
        settings: ``embedded_*`` are used.
        report: Hears of the download, the start and crashes.
        store: Where the model is kept; ``None`` for the user's cache.
        command: What to run as the child; ``None`` for the real one.
    """

    name = NAME

    def __init__(
        self,
        settings: Settings,
        report: Reporter = ignore_report,
        *,
        store: ModelStore | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._settings = settings
        self._report = report
        self._store = store or ModelStore()
        self._command = command
        self._engine: _Engine | None = None
        self._starting = asyncio.Lock()
        self._context: int | None = None
        self._plain = not settings.drafts
        self._drafts: DraftRecord | None = None
        self._crashes: deque[float] = deque(maxlen=Rules.EMBEDDED.most + 1)
        self._closed = False
        self.capabilities = Capabilities(
            capacity=settings.embedded_parallel,
            for_trying=settings.embedded_model is None,
            longer_context="use a model with a longer context"
            if settings.embedded_context is None
            else "raise embedded_context",
            start=self.start,
            context_length=self.context_length,
            count_tokens=self.count_tokens,
            count_prompt=self.count_prompt,
            watched_stream=self.watched_stream,
            goes_on_with=self.goes_on_with,
            features=EVERY_FEATURE - {"images", "options"},
            embed=self.embed,
        )

    @property
    def slots(self) -> int:
        """How many calls run at once; more wait inside the engine."""
        return self._settings.embedded_parallel

    @property
    def model_name(self) -> str:
        """The name of the model: ours, or that of the user's file."""
        own = self._settings.embedded_model
        return MODEL_NAME if own is None else Path(own).stem

    @property
    def pid(self) -> int | None:
        """Process id of the child while it runs."""
        return self._engine.child.pid if self._engine is not None and self._engine.child.running else None

    async def start(self) -> None:
        """Fetch the model if need be and start the child; concurrent callers share one start.

        Raises:
            BackendUnavailable: If there will be no engine; says why.
            ConfigError: If the user's model is not usable.
        """
        await self._running_engine()

    def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply as it is generated.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
            ConfigError: If the user's model is not usable.
        """
        return self.watched_stream(request)

    async def watched_stream(
        self, request: ChatRequest, step: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply, and tell ``step`` what the engine does, as ``LlamaServerBackend.watched_stream`` has it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
            ConfigError: If the user's model is not usable.
        """
        self._check_model(request.model)
        engine = await self._running_engine(plain=request.logprobs is not None)
        try:
            with engine.call():
                async with aclosing(engine.client.watched_stream(replace(request, model=None), step)) as chunks:
                    async for chunk in chunks:
                        if isinstance(chunk, Finished) and engine.drafts and self._drafts is not None:
                            self._drafts.take(kind_of(request), DraftTally.of(chunk))
                        yield chunk
        except (StreamTruncated, BackendUnavailable, ProtocolError) as error:
            if self._closed or not await engine.child.exited_within(CRASH_NOTICE):
                raise
            raise EngineCrashed(
                f"the embedded engine {_how(engine.child, RECENT_LINES)} during the call",
                hint="the next call starts it again",
                backend=NAME,
                node=NAME,
            ) from error

    async def models(self) -> list[ModelInfo]:
        """Return the one model; the child is not started for that."""
        own = self._settings.embedded_model
        shipped = own is None
        size = self._store.artifact.file_bytes if own is None else check_model_file(own).stat().st_size
        return [
            ModelInfo(
                name=self.model_name,
                size_bytes=size,
                context_length=await self._context_of_a_call(),
                parameter_size="135M" if shipped else None,
                quantization="Q4_1" if shipped else None,
                loaded=self.pid is not None,
            )
        ]

    async def context_length(self, _: ChatRequest) -> int | None:
        """Return the context of one call, as the child is started; the child is not started for that."""
        return await self._context_of_a_call()

    async def count_tokens(self, text: str) -> int:
        """Return how many tokens of the model ``text`` is.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
            ConfigError: If the user's model is not usable.
        """
        engine = await self._running_engine()
        with engine.call():
            return await engine.client.count_tokens(text)

    async def count_prompt(self, request: ChatRequest) -> int:
        """Return how many tokens the prompt of ``request`` is, as the model's template writes it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
            ConfigError: If the user's model is not usable.
        """
        engine = await self._running_engine()
        with engine.call():
            return await engine.client.count_prompt(replace(request, model=None))

    async def goes_on_with(self, request: ChatRequest) -> bool:
        """Return whether the model's template lets the last message of a request, the assistant's, go on.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
            ConfigError: If the user's model is not usable.
        """
        engine = await self._running_engine()
        with engine.call():
            return await engine.client.goes_on_with(replace(request, model=None))

    async def embed(self, texts: Sequence[str], model: str | None) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
            ConfigError: If the user's model is not usable.
        """
        self._check_model(model)
        engine = await self._running_engine()
        with engine.call():
            found = await engine.client.embed(texts, None)
        return replace(found, model=self.model_name)

    async def aclose(self) -> None:
        """End the child and wait until it is gone."""
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            await _shut(engine)
        if self._drafts is not None:
            await asyncio.to_thread(self._drafts.save)

    def _check_model(self, wanted: str | None) -> None:
        names = {self.model_name}
        if self._settings.embedded_model is None:
            names |= {MODEL_NAME.partition(":")[0], Path(self._store.artifact.member).stem}
        if wanted is not None and name_key(wanted) not in {name_key(name) for name in names}:
            raise ModelNotFound(
                f"the embedded engine has {self.model_name!r} only, not {wanted!r}",
                hint=f"for {wanted!r} install Ollama and pull it, or set embedded_model to the path of a GGUF file",
                backend=NAME,
                node=NAME,
            )

    async def _running_engine(self, *, plain: bool = False) -> _Engine:
        """Return the engine, started if need be.

        Args:
            plain: Whether it must not draft: llama.cpp tells no log-probabilities of drafted tokens. One that does is
                started again without, for good: those who ask for them do so in every call. One whose drafts do not
                pay is, too, once it rests.
        """
        async with self._starting:
            self._plain = self._plain or plain
            engine = self._engine
            if engine is not None and engine.child.running:
                if not (plain and engine.drafts) and not self._drafts_fail(engine):
                    return engine
                if engine.calls:
                    await engine.rests.wait()
            self._refuse_if_closed()
            self._engine = None
            if engine is not None:
                await _shut(engine)
            self._refuse_if_it_keeps_crashing()
            engine = await self._start_engine()
            try:
                self._refuse_if_closed()
            except BackendUnavailable:
                await _shut(engine)
                raise
            self._engine = engine
            return engine

    async def _start_engine(self) -> _Engine:
        require_engine()
        own = self._settings.embedded_model
        if own is None and not self._store.is_there():
            self._report(BackendNotice(NAME, TRY_OUT))
        model = check_model_file(own) if own is not None else await self._store.ensure(self._report)
        drafts = not self._plain and not await self._why_no_drafts()
        key = secrets.token_urlsafe(24)
        parameters = Parameters(
            parent=os.getpid(),
            model=str(model),
            alias=self.model_name,
            api_key=key,
            slots=self.slots,
            slot_context=await self._context_of_a_call(),
            threads=self._settings.embedded_threads or usable_threads(),
            embeddings=True,
            drafts=(MATCH, SHORTEST, LONGEST) if drafts else None,
        )
        child, url = await launch(parameters, command=self._command, on_exit=self._noticed_exit)
        return _Engine(child, LlamaServerBackend(url, name=NAME, node=NAME, api_key=key, pictures=False), drafts)

    async def _why_no_drafts(self) -> str:
        """Return why drafts do not pay, "" if they may."""
        if self._drafts is None:
            self._drafts = await asyncio.to_thread(DraftRecord, f"embedded {self.model_name}")
        return self._drafts.why_not(COST)

    def _drafts_fail(self, engine: _Engine) -> bool:
        """Return whether the drafts of an engine that rests gain nothing."""
        return engine.drafts and not engine.calls and self._drafts is not None and bool(self._drafts.why_not(COST))

    async def _context_of_a_call(self) -> int:
        """Return the tokens of context of one call; chosen once, so that every start of the child has the same."""
        if self._context is None:
            wanted, file = self._settings.embedded_context, self._settings.embedded_model
            own = OURS if file is None else await asyncio.to_thread(own_context, check_model_file(file))
            self._context = choose_context(wanted, own, self.slots, available_memory())
            if wanted is not None and self._context < wanted:
                why = "the model's own context is" if self._context == own.trained else "memory is enough for"
                message = f"embedded_context is {wanted}, and {why} {self._context}: that is used"
                self._report(BackendNotice(NAME, message))
        return self._context

    def _noticed_exit(self, child: ChildProcess) -> None:
        """Count a crash while serving; the caller of the start reports one during it."""
        if self._engine is None or self._engine.child is not child:
            return
        self._crashes.append(asyncio.get_running_loop().time())
        message = f"the embedded engine {child.ending}; the next call starts it again"
        self._report(BackendNotice(NAME, message, "warning"))

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise BackendUnavailable("the embedded backend has been closed", backend=NAME, node=NAME)

    def _refuse_if_it_keeps_crashing(self) -> None:
        window, now = Rules.EMBEDDED.window, asyncio.get_running_loop().time()
        recent = [when for when in self._crashes if now - when < window]
        if len(recent) > Rules.EMBEDDED.most:
            raise EngineUnavailable(
                f"the embedded engine crashed {len(recent)} times within {window:.0f} s and is not started again",
                hint=f"its log is {paths.state_dir() / 'logs' / 'embedded.log'}",
                backend=NAME,
                node=NAME,
            )


def from_context(context: BackendContext) -> EmbeddedBackend:
    """Return the embedded backend; nothing is started yet."""
    return EmbeddedBackend(context.settings, context.report)


async def examine(context: BackendContext) -> list[Finding]:
    """Return whether the engine is installed and which model it will serve; nothing is downloaded."""
    try:
        require_engine()
    except EngineUnavailable as exc:
        return [Finding("engine", "missing", exc.message, exc.hint)]
    settings = context.settings
    own = name_key(from_context(context).model_name)
    answers = settings.model is None or settings.backend == NAME or name_key(settings.model) == own
    model = await asyncio.to_thread(_model_finding, settings.embedded_model)
    usable = model.status in {"ok", "note"}
    return [Finding("engine", "ok", "the embedded engine is installed", answers=answers and usable), model]


def _model_finding(own: str | None) -> Finding:
    if own is not None:
        try:
            return Finding("model", "ok", str(check_model_file(own)))
        except ConfigError as exc:
            return Finding("model", "problem", exc.message.replace("\n", "; "), exc.hint or "correct embedded_model")
    store = ModelStore()
    try:
        store.check()
    except ModelFileError as exc:
        return Finding("model", "missing", exc.message, exc.hint or "")
    if store.has_model():
        if (doubt := doubt_about(MODEL_NAME)) is not None:
            return Finding("model", "note", doubt, "synaptic models verify")
        return Finding("model", "ok", str(store.path))
    return Finding("model", "note", f"{store.artifact.title} is fetched by the first question", "synaptic models pull")


KIND = BackendKind(
    name=NAME,
    summary="a small model in a child process; nothing else has to be installed",
    open=from_context,
    examine=examine,
)


async def launch(
    parameters: Parameters,
    *,
    command: Sequence[str] | None = None,
    on_exit: Callable[[ChildProcess], None] | None = None,
) -> tuple[ChildProcess, str]:
    """Start an engine and wait until it serves; return its process and its address.

    One that is killed or stopped meanwhile is started again, a few times.

    Args:
        parameters: How it is to serve.
        command: What to run; ``None`` for the real one.
        on_exit: Called once when it has ended, unless it was stopped.

    Raises:
        BackendUnavailable: If it does not start; says why.
    """
    attempt = 1
    while True:
        child = await ChildProcess.start(
            command or python_command(CHILD_MODULE),
            first_line=parameters.to_line(),
            log_file=paths.state_dir() / "logs" / "embedded.log",
            on_exit=on_exit,
        )
        try:
            return child, await _address(child)
        except EngineUnavailable:
            await child.stop()
            if not child.lost or attempt == STARTS:
                raise
        except BaseException:
            await child.stop()
            raise
        attempt += 1


def require_engine(module: str = ENGINE_MODULE) -> None:
    """Check that the engine is installed, before anything is downloaded for it.

    Raises:
        EngineUnavailable: If it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise EngineUnavailable(
            f"the embedded engine is not installed (no module named {module!r})",
            hint="pip install 'synapticllamas[local]', or install Ollama",
            backend=NAME,
            node=NAME,
        )


def usable_threads() -> int:
    """Return how many threads should compute: the cores we may use, not their hyperthreads, within our quota."""
    allowed = processors()
    physical = psutil.cpu_count(logical=False) or allowed
    try:
        quota = cpu_quota(Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii"))
    except OSError:
        quota = None
    return thread_count(allowed, physical, quota)


def processors() -> int:
    """Return how many processors we may use, hyperthreads included."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(cpu_max: str) -> float | None:
    """Return the processors that a control group grants, from its ``cpu.max``; ``None`` where it sets no limit."""
    quota, _, period = cpu_max.strip().partition(" ")
    return float(quota) / float(period) if quota.isdecimal() and period.isdecimal() else None


def thread_count(allowed: int, physical: int, quota: float | None) -> int:
    """Return the number of threads to compute with.

    llama.cpp's threads wait for each other by spinning, so that one thread too many slows all of them down; a second
    hyperthread pays on a machine with a single core only (measured: two threads 1.5 times as fast as one).
    """
    granted = math.inf if quota is None else math.ceil(quota)
    return int(max(1, min(allowed, max(2, physical), granted)))


def start_failure(child: ChildProcess) -> EngineUnavailable:
    """Return the error for a child that ended before it served; what is lost is started several times."""
    hint = "its log is " + str(paths.state_dir() / "logs" / "embedded.log")
    how = _how(child)
    if any(words in how for words in _DAMAGED):
        hint = f"is the file complete? compare its size with the original's, or fetch it again; {hint}"
    elif "SIGILL" in how:
        hint = "this processor lacks an instruction that the engine was built with; use Ollama on this machine"
    elif "SIGKILL" in how:
        hint = "was there enough memory? lower embedded_parallel or embedded_context"
    often = f" in {STARTS} attempts" if child.lost else ""
    return EngineUnavailable(f"the embedded engine did not start{often}: it {how}", hint=hint, backend=NAME, node=NAME)


def _how(child: ChildProcess, lines: int = 0) -> str:
    """Say how an engine ended and why, from the last of its lines; 0 for all that are kept."""
    return describe_failure(child.returncode or 0, child.tail[-lines:], stopped=child.stopped)


async def _address(child: ChildProcess, within: float = START_TIMEOUT) -> str:
    """Wait until the child serves, and return where."""
    try:
        async with awake_timeout(within):
            line = await child.read_line()
            if line is None:
                await child.wait()
    except TimeoutError as error:
        message = f"the embedded engine did not start within {within:.0f} s"
        raise EngineUnavailable(message, backend=NAME, node=NAME) from error
    if line is None:
        raise start_failure(child)
    try:
        return str(json.loads(line)["url"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"the embedded engine said {line[:80]!r} instead of its address"
        raise EngineUnavailable(message, backend=NAME, node=NAME) from error


async def _shut(engine: _Engine) -> None:
    try:
        await engine.client.aclose()
    finally:
        await engine.child.stop()
