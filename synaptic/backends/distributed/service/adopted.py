"""A coordinator that another process keeps (``synaptic distributed start``): used as long as it serves, never ended."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.backends.base import Capabilities
from synaptic.backends.distributed.coordinator import NAME, DistributedCall
from synaptic.backends.distributed.placement import UNKNOWN_TOKEN_SECONDS, token_seconds
from synaptic.backends.distributed.service.record import ServiceRecord, current, wait_until_ready
from synaptic.backends.llama_server import LlamaServerBackend
from synaptic.errors import FeatureMissing, SynapticError
from synaptic.messages import ModelInfo
from synaptic.waiting import Deadline, Deadlines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.messages import ChatRequest, Chunk, ReplyChunk

LOAD_SECONDS: Final = 3600.0
"""How long a service may load or recover; it says itself when it gives up."""
NOTICE: Final = 3.0
_POLL: Final = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class _Service:
    """A service while it serves from one ``llama-server``."""

    record: ServiceRecord
    client: LlamaServerBackend

    def same(self, record: ServiceRecord) -> bool:
        """Return whether the record still speaks of the same process."""
        then, now = self.record.status, record.status
        return record.ready and then is not None and now is not None and then.pid == now.pid


class AdoptedCoordinator:
    """The coordinator of a service, as its record describes it.

    Args:
        model: What the service was asked to serve.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.waits: Deadlines[Deadline] = Deadlines()
        self._service: _Service | None = None

    @property
    def token_seconds(self) -> float:
        """What generating a token takes, about, by what the service says."""
        status = self._service.record.status if self._service else None
        return token_seconds(status.tokens_per_second, status.placement) if status else UNKNOWN_TOKEN_SECONDS

    async def ready(self, *, plain: bool = False) -> _Service:
        """Return what serves, once it does.

        Args:
            plain: Whether it must not draft.

        Raises:
            BackendError: If the service has ended, has given up, or drafts and must not.
        """
        record = await wait_until_ready(self.model, LOAD_SECONDS)
        if plain and record.status is not None and record.status.drafts is not None and record.status.drafts.on:
            raise FeatureMissing(
                f"the service of {self.model} drafts, and llama.cpp tells no log-probabilities of drafted tokens",
                missing=("logprobs",),
                hint="start the service again with --set drafts=false",
                backend=NAME,
            )
        if self._service is None or not self._service.same(record):
            await self._forget()
            assert record.status is not None
            assert record.status.url is not None
            client = LlamaServerBackend(record.status.url, name=NAME, node=NAME, api_key=record.api_key)
            self._service = _Service(record, client)
        return self._service

    async def stream(self, serving: _Service, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply to one call."""
        chunks = serving.client.watched_stream(request, lambda generates: self.waits.heard(generates=generates))
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def goes_on_with(self, serving: _Service, request: ChatRequest) -> bool:
        """Return whether what serves goes on with the last message of a request, which is the assistant's."""
        return await serving.client.goes_on_with(request)

    async def count_tokens(self, serving: _Service, text: str) -> int:
        """Return how many tokens of what serves a text is."""
        return await serving.client.count_tokens(text)

    async def lost(self, serving: _Service) -> str | None:
        """Return why a broken call is to be continued, ``None`` if what served it still does."""
        for _ in range(int(NOTICE / _POLL)):
            try:
                record = current(serving.record)
            except SynapticError as error:
                return error.message
            if not serving.same(record):
                return (record.status.reason if record.status else "") or f"its service is {record.state}"
            await asyncio.sleep(_POLL)
        return None

    async def _forget(self) -> None:
        service, self._service = self._service, None
        if service is not None:
            await service.client.aclose()

    async def aclose(self) -> None:
        """Close our connections; the service goes on."""
        await self._forget()


class AdoptedBackend:
    """Serves the model of a service.

    Args:
        record: Which.
        parallel: Calls that are sent at once; ``None`` sends every call.
    """

    name = NAME

    def __init__(self, record: ServiceRecord, parallel: int | None = None) -> None:
        self.record = record
        self.capabilities = Capabilities(
            capacity=parallel,
            longer_context="raise distributed_context and start the service again",
            keeps_deadlines=True,
            context_length=self.context_length,
        )
        self._coordinator = AdoptedCoordinator(record.model)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the reply as it is generated; a break in between is continued.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        async with contextlib.aclosing(DistributedCall(self._coordinator, request).stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def models(self) -> list[ModelInfo]:
        """Return the one model."""
        placement = self.record.status.placement if self.record.status else None
        return [
            ModelInfo(
                name=self.record.model,
                size_bytes=placement.shape.weight_bytes if placement else None,
                context_length=placement.needs.context if placement else None,
                quantization=placement.shape.quantization if placement else None,
                loaded=self.record.ready,
            )
        ]

    async def context_length(self, request: ChatRequest) -> int | None:
        """Return the tokens of one call's context, as the service was started."""
        return await (await self._coordinator.ready()).client.context_length(request)

    async def aclose(self) -> None:
        """Close our connections; the service goes on."""
        await self._coordinator.aclose()
