"""``synaptic.Pool``: chats over several Ollama nodes from any Python program, in five lines.

>>> import synaptic
>>> with synaptic.Pool(["http://desk:11434", "http://attic:11434"], model="llama3.2") as pool:
...     for reply in pool.chat_many_sync(["What is a heat pump?", "What is a llama?"]):
...         print(reply.node, reply.text)
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from synaptic.errors import StreamTruncated, UsageError
from synaptic.messages import PRIORITIES, ChatRequest, Message, Timeouts, Timings, Usage, ignore_report

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence

    from synaptic.backends.pool.backend import PoolBackend
    from synaptic.backends.pool.status import Decision, NodeStatus
    from synaptic.config import NodeSettings, Settings
    from synaptic.messages import Chunk, FinishReason, ModelInfo, Reporter

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

    It starts nothing and asks nobody until the first call. Of the sync methods, each may be called from any thread.

    Args:
        nodes: Addresses, or mappings like those in the settings (``{"url": ..., "parallel": 4}``); ``None`` takes the
            nodes of the settings, else the one that ``OLLAMA_HOST`` names.
        model: For calls that name none; ``None`` takes one that is installed.
        settings: Where the rest comes from; default: what the files and the environment say.
        report: Hears when a node goes down or comes back.
        options: Settings by name, which win: ``hedge=True``, ``failovers=1``, ``pool_max_wait=60`` ...

    Raises:
        ConfigError: If an address or an option is wrong.

    """

    def __init__(
        self,
        nodes: Iterable[str | Mapping[str, Any] | NodeSettings] | None = None,
        *,
        model: str | None = None,
        settings: Settings | None = None,
        report: Reporter = ignore_report,
        **options: Any,
    ) -> None:
        from synaptic.backends.pool.opening import pool_settings  # noqa: PLC0415  (pydantic)

        self.settings = pool_settings(nodes, model=model, settings=settings, options=options)
        self._report = report
        self._backend: PoolBackend | None = None
        self._loop: _Loop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> PoolBackend:
        """The pool as a backend, for a :class:`~synaptic.Session`."""
        if self._backend is None:
            from synaptic.backends.pool.backend import PoolBackend  # noqa: PLC0415  (httpx)

            self._backend = PoolBackend(self.settings, report=self._report)
        return self._backend

    async def stream(self, prompt: Prompt, **options: Any) -> AsyncGenerator[Chunk]:
        """Yield the reply in pieces; the arguments are those of :meth:`chat`.

        Raises:
            BackendError: What :meth:`chat` raises.

        """
        async with aclosing(self.backend.stream(self.request(prompt, **options))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def chat(self, prompt: Prompt, **options: Any) -> PoolReply:
        """Return the complete reply to ``prompt``.

        Args:
            prompt: A question, or a conversation.
            options: ``system``, ``model``, ``schema`` (a JSON Schema), ``temperature``, ``max_tokens``, ``seed``,
                ``num_ctx``, ``keep_alive``, ``think``, ``priority`` (``interactive``, ``run`` or ``batch``), ``tag``.

        Raises:
            UsageError: If an option is unknown.
            ModelNotFound: If no node has the model.
            PoolSaturated: If too many calls wait, or this one waited too long.
            BackendUnavailable: If every node that could serve the call is down.

        """
        collected = _Collected()
        async with aclosing(self.backend.stream(self.request(prompt, **options))) as chunks:
            async for chunk in chunks:
                collected.take(chunk)
        return collected.reply()

    async def chat_many(self, prompts: Iterable[Prompt], **options: Any) -> list[PoolReply]:
        """Return the replies to several prompts, in their order; they run at once, as far as the nodes have places.

        Raises:
            BackendError: The first that one of them fails with; the others are cancelled.

        """
        tasks: list[asyncio.Task[PoolReply]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(self.chat(prompt, **options)) for prompt in prompts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]

    async def models(self) -> list[ModelInfo]:
        """Return the models of all nodes."""
        return await self.backend.models()

    def nodes(self) -> list[NodeStatus]:
        """Return how each node stands."""
        return self._here(self.backend.statuses)

    def decisions(self) -> list[Decision]:
        """Return where the latest calls went, and why."""
        return self._here(self.backend.decisions)

    async def aclose(self) -> None:
        """Close the connections; calls that wait or run fail."""
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.aclose()

    def chat_sync(self, prompt: Prompt, **options: Any) -> PoolReply:
        """Do what :meth:`chat` does, from code that is not async."""
        return self._run(self.chat(prompt, **options))

    def chat_many_sync(self, prompts: Iterable[Prompt], **options: Any) -> list[PoolReply]:
        """Do what :meth:`chat_many` does, from code that is not async."""
        return self._run(self.chat_many(prompts, **options))

    def close(self) -> None:
        """Do what :meth:`aclose` does, from code that is not async."""
        if self._loop is not None:
            self._loop.run(self.aclose())
            self._loop.close()
            self._loop = None

    def request(self, prompt: Prompt, **options: Any) -> ChatRequest:
        """Return the request that :meth:`chat` sends.

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
        turns = [Message("user", prompt)] if isinstance(prompt, str) else [_message(turn) for turn in prompt]
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

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._loop is None:
                self._loop = _Loop()
            return self._loop.run(work)
        work.close()
        raise UsageError("a sync method of Pool was called where an event loop runs", hint="await its async twin")

    def _here(self, ask: Callable[[], T]) -> T:
        """Ask the backend in the thread of its event loop."""
        if self._loop is None:
            return ask()

        async def answer() -> T:
            return ask()

        return self._loop.run(answer())


_OPTIONS = {"model", "schema", "temperature", "max_tokens", "seed", "num_ctx", "keep_alive", "think", "tag", "timeouts"}


class _Loop:
    """An event loop in a thread of its own, for callers that have none."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="synaptic-pool", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` there; an interrupt of the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread."""
        self.run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Collected:
    """What the chunks of one call add up to."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._nodes = 1
        self._last: Chunk | None = None

    def take(self, chunk: Chunk) -> None:
        if chunk.restart is not None:
            self._text.clear()
            self._thinking.clear()
            self._nodes += 1
        if chunk.continued is not None:
            self._nodes += 1
        if chunk.text:
            self._text.append(chunk.text)
        if chunk.thinking:
            self._thinking.append(chunk.thinking)
        if chunk.finish_reason is not None:
            self._last = chunk

    def reply(self) -> PoolReply:
        last = self._last
        if last is None or last.finish_reason is None:
            raise StreamTruncated("the reply ended before its end was announced")
        return PoolReply(
            text="".join(self._text),
            thinking="".join(self._thinking),
            model=last.model,
            node=last.node,
            finish_reason=last.finish_reason,
            usage=last.usage or Usage(),
            timings=last.timings or Timings(),
            nodes=self._nodes,
        )


def _message(turn: Message | Mapping[str, str]) -> Message:
    if isinstance(turn, Message):
        return turn
    role, content = turn.get("role"), turn.get("content")
    if role not in {"system", "user", "assistant"} or not isinstance(content, str):
        text = f"a message is {{'role': 'user', 'content': '...'}}, not {dict(turn)!r}"
        raise UsageError(text[:200], hint="roles are system, user and assistant")
    return Message(role, content)  # type: ignore[arg-type]  # (checked above)
