"""``synaptic.Pool``: chats over several Ollama nodes from any Python program, in five lines.

>>> import synaptic
>>> with synaptic.Pool(["http://desk:11434", "http://attic:11434"], model="llama3.2") as pool:
...     for reply in pool.chat_many_sync(["What is a heat pump?", "What is a llama?"]):
...         print(reply.node, reply.text)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from synaptic.backends.pool.backend import PoolBackend
from synaptic.backends.pool.from_program import pool_settings
from synaptic.backends.whole_reply import gathered
from synaptic.errors import BackendUnavailable, UsageError
from synaptic.messages import (
    PRIORITIES,
    ChatRequest,
    Message,
    Timeouts,
    Timings,
    Usage,
    ignore_report,
)
from synaptic.waiting import all_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

    from synaptic.backends.pool.node import Decision, NodeStatus
    from synaptic.messages import Chunk, FinishReason, ModelInfo, Reporter
    from synaptic.settings import NodeSettings, Settings

T = TypeVar("T")
Prompt: TypeAlias = "str | Sequence[Message | Mapping[str, str]]"
"""A question, or a conversation: messages with ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class PoolReply:
    """A complete reply.

    Attributes:
        node: Who gave it, or its last part.
        nodes: How many nodes the call was sent to; 1 unless one failed.
    """

    text: str
    thinking: str
    model: str | None
    node: str | None
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    nodes: int


class Pool:
    """A pool of Ollama nodes, for async code (``async with``) and for code that is not (``with``).

    It starts nothing and contacts no node until the first call. The sync methods may be called from any thread; the
    async ones belong to the event loop that is the first to call one. A pool is used in one of the two ways.

    Args:
        nodes: Addresses, or mappings like those in the settings (``{"url": ..., "parallel": 4}``), or one address;
            ``None`` takes the nodes of the settings, else the one that ``OLLAMA_HOST`` names.
        model: For calls that name none; ``None`` takes one that is installed.
        settings: Where the rest comes from; default: what the files and the environment say.
        report: Hears when a node goes down or comes back.
        options: Settings by name, which win: ``hedge=True``, ``failovers=1``, ``pool_max_wait=60`` ...

    Raises:
        ConfigError: If an address or an option is wrong.
    """

    def __init__(
        self,
        nodes: str | Iterable[str | Mapping[str, Any] | NodeSettings] | None = None,
        *,
        model: str | None = None,
        settings: Settings | None = None,
        report: Reporter = ignore_report,
        **options: Any,
    ) -> None:
        self.settings = pool_settings(nodes, model=model, settings=settings, options=options, report=report)
        self._report = report
        self._backend: PoolBackend | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        self._loop: _Loop | None = None
        self._opening = threading.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        if _runs_here() is not None:
            raise UsageError("a pool was opened with 'with' where an event loop runs", hint="write: async with")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> PoolBackend:
        """The pool as a backend, for a ``synaptic.Session``; close the session before the pool.

        Raises:
            BackendUnavailable: If the pool has been closed.
        """
        with self._opening:
            if self._closed:
                raise _closed()
            if self._backend is None:
                self._backend = PoolBackend(self.settings, report=self._report)
            return self._backend

    async def stream(self, prompt: Prompt, **options: Any) -> AsyncGenerator[Chunk]:
        """Yield the reply in pieces; the arguments are those of ``chat``.

        Raises:
            BackendError: What ``chat`` raises.
        """
        request = self.request(prompt, **options)
        async with aclosing(self._at_home().stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def chat(self, prompt: Prompt, **options: Any) -> PoolReply:
        """Return the complete reply to ``prompt``.

        Args:
            prompt: A question, or a conversation.
            options: ``system``, ``model``, ``schema`` (a JSON Schema), ``temperature``, ``max_tokens``, ``seed``,
                ``num_ctx``, ``keep_alive``, ``think``, ``priority`` (``interactive``, ``run`` or ``batch``), ``tag``.

        Raises:
            UsageError: If the prompt or an option is wrong, or the pool belongs to another event loop.
            ModelNotFound: If no node has the model.
            PoolSaturated: If too many calls wait, or this one waited too long.
            BackendUnavailable: If every node that could serve the call is down.
        """
        return await self._complete(self.request(prompt, **options))

    async def chat_many(self, prompts: Iterable[Prompt], **options: Any) -> list[PoolReply]:
        """Return the replies to several prompts, in their order; they run at once, as far as the nodes have places.

        Raises:
            UsageError: If a prompt or an option is wrong; nothing is sent then.
            BackendError: The first that one of them fails with; the others are cancelled.
        """
        if isinstance(prompts, str):
            raise UsageError("chat_many takes several prompts, not one text", hint="use chat, or write [text]")
        if not isinstance(prompts, Iterable):
            raise UsageError.of_kind("prompts", prompts, "a list of texts or conversations")
        requests = [self.request(prompt, **options) for prompt in prompts]
        return await all_of(self._complete(request) for request in requests)

    async def models(self) -> list[ModelInfo]:
        """Return the models of all nodes."""
        return await self._at_home().models()

    def nodes(self) -> list[NodeStatus]:
        """Return how each node stands."""
        return self._here(lambda backend: backend.statuses())

    def decisions(self) -> list[Decision]:
        """Return where the latest calls went, and why."""
        return self._here(lambda backend: backend.decisions())

    async def aclose(self) -> None:
        """Close the connections; calls that wait or run fail. A closed pool refuses calls."""
        if self._loop is not None:
            await asyncio.to_thread(self.close)
        else:
            await self._close_here()

    def chat_sync(self, prompt: Prompt, **options: Any) -> PoolReply:
        """Do what ``chat`` does, from code that is not async."""
        return self._run(self.chat(prompt, **options))

    def chat_many_sync(self, prompts: Iterable[Prompt], **options: Any) -> list[PoolReply]:
        """Do what ``chat_many`` does, from code that is not async."""
        return self._run(self.chat_many(prompts, **options))

    def models_sync(self) -> list[ModelInfo]:
        """Do what ``models`` does, from code that is not async."""
        return self._run(self.models())

    def close(self) -> None:
        """Do what ``aclose`` does, from code that is not async.

        Raises:
            UsageError: If the pool was used by async code.
        """
        with self._opening:
            loop, backend = self._loop, self._backend
            if loop is None:
                if backend is not None:
                    hint = "close it there: await pool.aclose()"
                    raise UsageError("a pool that async code uses was closed by code that is not async", hint=hint)
                self._closed = True
        if loop is not None:
            loop.close(self._close_here)

    def request(self, prompt: Prompt, **options: Any) -> ChatRequest:
        """Return the request that ``chat`` sends.

        Raises:
            UsageError: If an option is unknown, or has a value that it cannot have.
        """
        system = options.pop("system", None)
        priority = options.pop("priority", "run")
        if unknown := sorted(set(options) - _OPTIONS):
            known = ", ".join(sorted(_OPTIONS | {"system", "priority"}))
            raise UsageError(f"a chat has no option {unknown[0]!r}", hint=f"there are: {known}")
        if priority not in PRIORITIES:
            raise UsageError(f"there is no priority {priority!r}", hint=f"write one of: {', '.join(PRIORITIES)}")
        turns = _turns(prompt)
        if system is not None:
            turns.insert(0, Message("system", system))
        settings = self.settings
        defaults = {
            "model": settings.model,
            "temperature": settings.temperature,
            "num_ctx": settings.num_ctx,
            "keep_alive": settings.keep_alive,
            "think": settings.think,
        }
        timeouts = Timeouts(settings.first_token_timeout, settings.idle_timeout, settings.call_timeout)
        given: dict[str, Any] = {"timeouts": timeouts, **defaults, **options}
        return ChatRequest(messages=tuple(turns), priority=PRIORITIES[priority], **given)

    async def _complete(self, request: ChatRequest) -> PoolReply:
        reply = await gathered(self._at_home().stream(request))
        return PoolReply(
            text=reply.text,
            thinking=reply.thinking,
            model=reply.end.model,
            node=reply.end.node,
            finish_reason=reply.end.finish_reason,
            usage=reply.end.usage or Usage(),
            timings=reply.end.timings or Timings(),
            nodes=reply.nodes,
        )

    def _at_home(self) -> PoolBackend:
        """Return the backend, to the event loop that it belongs to."""
        running = asyncio.get_running_loop()
        with self._opening:
            if self._home is None:
                self._home = running
        if self._home is not running:
            hint = "make a pool for each event loop; threads share one by its sync methods"
            raise UsageError("this pool belongs to another event loop", hint=hint)
        return self.backend

    async def _close_here(self) -> None:
        with self._opening:
            backend, self._backend = self._backend, None
            self._closed = True
        if backend is not None:
            await backend.aclose()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the pool's own event loop, which begins with the first work."""
        if _runs_here() is not None:
            work.close()
            raise UsageError("a sync method of Pool was called where an event loop runs", hint="await its async twin")
        try:
            loop = self._own_loop()
        except BaseException:
            work.close()
            raise
        return loop.run(work)

    def _own_loop(self) -> _Loop:
        with self._opening:
            if self._closed:
                raise _closed()
            if self._loop is None:
                if self._home is not None:
                    raise UsageError("a sync method was called of a pool that async code uses", hint="make another one")
                self._loop = _Loop()
                self._home = self._loop.loop
            return self._loop

    def _here(self, ask: Callable[[PoolBackend], T]) -> T:
        """Ask the backend in the thread of its event loop."""
        running = _runs_here()
        if running is not None and (self._home is None or running is self._home):
            return ask(self.backend)

        async def answer() -> T:
            return ask(self.backend)

        return self._own_loop().run(answer())


_OPTIONS = {"model", "schema", "temperature", "max_tokens", "seed", "num_ctx", "keep_alive", "think", "tag", "timeouts"}


class _Loop:
    """An event loop in a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._ending = False
        self._giving = threading.Lock()
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self.loop.run_forever, name="synaptic-pool", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` there; an interrupt of the caller cancels it."""
        with self._giving:
            if self._ending:
                work.close()
                raise _closed()
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except CancelledError as exc:
            raise _closed() from exc  # only close() cancels it
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``last``, end what still runs, and end the thread; once more does no harm."""
        with self._closing:
            if self.loop.is_closed():
                return
            self.run(last())
            with self._giving:
                self._ending = True
                ended = asyncio.run_coroutine_threadsafe(_end_all(), self.loop)
            ended.result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


async def _end_all() -> None:
    """Cancel every other task of the loop, and close its generators."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _runs_here() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _closed() -> BackendUnavailable:
    return BackendUnavailable("the pool has been closed")


def _turns(prompt: Prompt) -> list[Message]:
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    if isinstance(prompt, Mapping) or not isinstance(prompt, Iterable):
        raise UsageError(f"a prompt is a text or a list of messages, not {prompt!r}"[:200])
    turns = [_message(turn) for turn in prompt]
    if not turns:
        raise UsageError("a conversation needs a message at least")
    return turns


def _message(turn: object) -> Message:
    if isinstance(turn, Message):
        return turn
    role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
    if role not in {"system", "user", "assistant"} or not isinstance(content, str):
        text = f"a message is {{'role': 'user', 'content': '...'}}, not {turn!r}"
        hint = "roles are system, user and assistant; for several questions at once use chat_many"
        raise UsageError(text[:200], hint=hint)
    return Message(role, content)
