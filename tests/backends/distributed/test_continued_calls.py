"""A call whose ``llama-server`` is killed in the middle of a text: continued only where that server goes on with it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synaptic.backends.distributed.coordinator import DistributedCall
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.messages import CUT_OFF, ChatRequest, Continued, Delta, Finished, Message, Restarted
from synaptic.models import ModelStore
from synaptic.waiting import Deadline, Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.messages import Chunk, ReplyChunk

pytestmark = pytest.mark.real_model

CHILD = str(Path(__file__).parents[2] / "support" / "llama_server_child.py")
ASK = ChatRequest(messages=(Message("user", "Tell me about rivers."),), temperature=0.0, max_tokens=24)


class OneServer:
    """A coordinator of one ``llama-server``, which is started whenever none runs."""

    model = "smollm2"
    token_seconds = 60.0
    """So dear that nothing is generated twice in order to repeat it."""

    def __init__(self, kind: str) -> None:
        self.waits: Deadlines[Deadline] = Deadlines()
        self.process: asyncio.subprocess.Process | None = None
        self._kind = kind
        self._clients: list[LlamaServerBackend] = []

    async def ready(self, *, plain: bool = False) -> LlamaServerBackend:
        if self.process is None or self.process.returncode is not None:
            self.process = await asyncio.create_subprocess_exec(
                *[sys.executable, CHILD, str(ModelStore().path), self._kind],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        assert self.process.stdout is not None
        self._clients.append(LlamaServerBackend((await self.process.stdout.readline()).decode().strip()))
        return self._clients[-1]

    async def stream(self, serving: LlamaServerBackend, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        async with aclosing(serving.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def goes_on_with(self, serving: LlamaServerBackend, request: ChatRequest) -> bool:
        return await serving.goes_on_with(request)

    async def count_tokens(self, serving: LlamaServerBackend, text: str) -> int:
        return await serving.count_tokens(text)

    async def lost(self, serving: LlamaServerBackend) -> str | None:
        assert self.process is not None
        await self.process.wait()
        return "it was killed"

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        for client in self._clients:
            await client.aclose()
        self._clients.clear()


@asynccontextmanager
async def server_of(kind: str) -> AsyncIterator[OneServer]:
    server = OneServer(kind)
    try:
        yield server
    finally:
        await server.end()


async def told(server: OneServer, kill_after: int | None = None, ask: ChatRequest = ASK) -> list[Chunk]:
    """Return all chunks of a call whose server is killed after so many pieces of text; each call gets a new server."""
    await server.end()
    chunks: list[Chunk] = []
    async with aclosing(DistributedCall(server, ask).stream()) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if sum(isinstance(one, Delta) for one in chunks) == kill_after:
                kill_after = None
                assert server.process is not None
                server.process.kill()
    return chunks


def text_of(chunks: list[Chunk]) -> str:
    last = max((at for at, chunk in enumerate(chunks) if isinstance(chunk, Restarted)), default=-1)
    return "".join(chunk.text for chunk in chunks[last + 1 :] if isinstance(chunk, Delta))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "continued"), [("open", True), ("closed", False), ("legacy", False)])
async def test_a_text_whose_server_is_killed_is_never_garbled(kind: str, continued: bool) -> None:  # noqa: FBT001 - a row
    async with server_of(kind) as server:
        whole = text_of(await told(server))
        assert whole.strip()
        for kill_after in (1, 12):
            chunks = await told(server, kill_after)
            restarts = [chunk for chunk in chunks if isinstance(chunk, Restarted)]
            assert text_of(chunks) == whole
            assert len([chunk for chunk in chunks if isinstance(chunk, Continued)]) == 1  # told as it broke
            assert len(restarts) == (0 if continued else 1)
            if restarts:
                assert "template" in restarts[0].reason


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "continued"), [("open", True), ("closed", False)])
async def test_a_text_of_an_earlier_process_is_gone_on_with(kind: str, continued: bool) -> None:  # noqa: FBT001 - a row
    async with server_of(kind) as server:
        chunks = await told(server)
        whole, begun = text_of(chunks), text_of(chunks[:18])
        first, *chunks = await told(server, ask=replace(ASK, begun=begun))
    if continued:
        assert first == Continued(CUT_OFF, "distributed")
        assert begun + text_of(chunks) == whole
        assert isinstance(last := chunks[-1], Finished)
        assert last.usage is not None
        assert last.usage.completion_tokens == ASK.max_tokens
    else:
        assert isinstance(first, Restarted)
        assert "template" in first.reason
        assert text_of(chunks) == whole
