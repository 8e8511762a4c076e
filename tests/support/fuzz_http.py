"""A server that says the same bytes to everybody, and what our clients ask of it: HTTP and llama.cpp's RPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from synaptic.backends.distributed.coordinator.watchdog import SlotWatch
from synaptic.backends.distributed.workers.measure import measure
from synaptic.backends.distributed.workers.probe import ProbeLimits, ask_facts, conversation
from synaptic.backends.distributed.workers.protocol import Endpoint
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.backends.ollama import OllamaBackend, pull_model
from synaptic.backends.pool.node.inspection import inspect_node
from synaptic.messages import ChatRequest, Delta, Finished, Message, ModelInfo, ReplyChunk, Timings, Usage
from synaptic.settings import NodeSettings, Settings

SECONDS = 20.0
"""Of waiting, for all that one reply is asked for: nothing here has to be waited for."""
REQUEST = ChatRequest(messages=(Message("user", "hello"),), model="m:1b", max_tokens=8)
SHAPED = ChatRequest(messages=REQUEST.messages, model="m:1b", max_tokens=8, schema={"type": "object"})
QUICK = ProbeLimits(resolve=1.0, connect=1.0, answer=1.0, whole=5.0)


@asynccontextmanager
async def saying(reply: bytes) -> AsyncIterator[int]:
    """Give the port of a server that reads something, says ``reply`` and hangs up."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await reader.read(1 << 16)
            writer.write(reply)
            writer.write_eof()
            while await reader.read(1 << 16):
                pass
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone; nobody waits for this task's result
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def _is_what_it_says(chunk: ReplyChunk) -> bool:
    """Whether the parts of a chunk are of the types that everybody else counts on."""
    match chunk:
        case Delta(text, thinking):
            return isinstance(text, str) and isinstance(thinking, str)
        case Finished():
            usage, timings = chunk.usage or Usage(), chunk.timings or Timings()
            counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
            lasted = (timings.load_seconds, timings.prompt_seconds, timings.generation_seconds)
            return (
                all(type(count) is int and 0 <= count < 2**63 for count in counts)
                and all(each is None or 0 <= each < 2**63 for each in lasted)
                and all(each is None or isinstance(each, str) for each in (chunk.model, chunk.tool))
            )
    return True


async def _read(chunks: AsyncIterator[ReplyChunk]) -> None:
    last = None
    async with aclosing(chunks) as reading:
        async for last in reading:
            assert _is_what_it_says(last), last
    assert isinstance(last, Finished), "a stream that did not end"


async def _ollama(url: str, ask: Callable[[OllamaBackend], Awaitable[object]]) -> None:
    async with OllamaBackend(url) as backend:
        await ask(backend)


async def _llama_server(url: str, ask: Callable[[LlamaServerBackend], Awaitable[object]]) -> None:
    async with aclosing(LlamaServerBackend(url)) as backend:
        await ask(backend)


async def _inspect(url: str) -> None:
    inspection = await inspect_node(NodeSettings(url=url), {}, Settings())
    if inspection.error is not None:
        raise inspection.error


def _counts(*values: object) -> bool:
    return all(value is None or (type(value) is int and 0 < value < 2**63) for value in values)


async def _models(server: LlamaServerBackend | OllamaBackend) -> None:
    for info in await server.models():
        assert isinstance(info, ModelInfo)
        assert _counts(info.size_bytes, info.context_length), info
        texts = (info.name, info.parameter_size, info.quantization)
        assert all(text is None or isinstance(text, str) for text in texts), info


async def _slots(server: LlamaServerBackend) -> None:
    SlotWatch(1.0).look(await server.slots(within=5), 0.0)


Ask = Callable[[str], Awaitable[object]]
ASKS: dict[bytes, Ask] = {
    b"chat": lambda url: _ollama(url, lambda node: _read(node.stream(REQUEST))),
    b"shape": lambda url: _ollama(url, lambda node: _read(node.stream(SHAPED))),
    b"tags": lambda url: _ollama(url, _models),
    b"choose": lambda url: _ollama(url, lambda node: node.default_model()),
    b"show": lambda url: _ollama(url, lambda node: node.context_length(REQUEST)),
    b"version": lambda url: _ollama(url, lambda node: node.version()),
    b"continue": lambda url: _ollama(url, lambda node: node.goes_on_with(REQUEST)),
    b"inspect": _inspect,
    b"pull": lambda url: pull_model(url, "m:1b", lambda _: None),
    b"sse": lambda url: _llama_server(url, lambda server: _read(server.watched_stream(REQUEST, lambda _: None))),
    b"sse-shape": lambda url: _llama_server(url, lambda server: _read(server.stream(SHAPED))),
    b"models": lambda url: _llama_server(url, _models),
    b"health": lambda url: _llama_server(url, lambda server: server.health()),
    b"tokenize": lambda url: _llama_server(url, lambda server: server.count_tokens("hello")),
    b"props": lambda url: _llama_server(url, lambda server: server.context_length(REQUEST)),
    b"slots": lambda url: _llama_server(url, _slots),
}
"""What is asked, by the word that the first line of an input is."""


def read_http(data: bytes, _: Path) -> None:
    """Ask what the first line says, of a server that says the rest."""
    word, _, reply = data.partition(b"\n")
    asks = list(ASKS.values())
    ask = ASKS.get(word) or asks[sum(word) % len(asks)]

    async def exchange() -> None:
        async with asyncio.timeout(SECONDS), saying(reply) as port:
            await ask(f"http://127.0.0.1:{port}")

    asyncio.run(exchange())


def read_rpc(data: bytes, _: Path) -> None:
    """Greet a worker that says ``data``, ask what it is, and measure it."""

    async def exchange() -> None:
        async with asyncio.timeout(SECONDS), saying(data) as port:
            endpoint = Endpoint("127.0.0.1", port)
            async with conversation(endpoint, address="127.0.0.1", limits=QUICK) as talk:
                facts = await ask_facts(talk)
                if facts.devices:
                    await measure(talk, facts.devices)

    asyncio.run(exchange())
