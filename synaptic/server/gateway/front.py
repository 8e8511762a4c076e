"""What every dialect speaks to: the models of one address, whatever serves them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

from synaptic import paths
from synaptic.backends import capabilities_of, check_features, gathered, node_pool
from synaptic.backends.pool import known_secrets, prompt_tokens
from synaptic.errors import BackendUnavailable, FeatureMissing, ModelNotFound
from synaptic.messages import PRIORITIES, ChatRequest, Timeouts, Usage
from synaptic.models import name_key
from synaptic.quick_init import quick_replace
from synaptic.runtime import KeptResponses
from synaptic.server.gateway.alias_models import ReplyUnderWay, alias_infos, first_that_does, first_to_answer, present
from synaptic.server.gateway.calls_under_way import CallsUnderWay
from synaptic.server.gateway.key_ring import check_model, may_see
from synaptic.server.gateway.metering import CallMeter
from synaptic.server.gateway.pipeline_models import PipelineModels
from synaptic.settings import models_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from synaptic.backends import Backend, Capabilities, ModelServer, ShowsNodes, WholeReply
    from synaptic.messages import Chunk, Embeddings, ModelInfo
    from synaptic.runtime import EventHandler, Session
    from synaptic.server.gateway.metering import MeteredCall

Result = TypeVar("Result")

NO_PIPELINES: Mapping[str, str | Path] = MappingProxyType({})


class ModelFront:
    """The models of one address.

    Args:
        session: Routes, and owns what it routes to. A server that is not there yet is looked for again by each call.
        pipelines: That are served as models, by name: built-in ones by their names, others as files.
        meter: Counts what calls use; one of its own where none is given.
    """

    def __init__(
        self, session: Session, pipelines: Mapping[str, str | Path] = NO_PIPELINES, *, meter: CallMeter | None = None
    ) -> None:
        self._session = session
        self.meter = meter or CallMeter()
        self.meter.telemetry = session.telemetry
        self._named = pipelines
        self.pipelines = PipelineModels(session, pipelines)
        self._under_way: Counter[Session] = Counter()
        self._closing: set[asyncio.Task[None]] = set()
        self._watchers: list[Callable[[], EventHandler]] = []
        self.calls = CallsUnderWay()

    async def renew(self, session: Session) -> None:
        """Let another session serve from now on; the one before ends with the last call that it serves."""
        for begin in self._watchers:
            session.watch(begin)
        before, self._session = self._session, session
        self.meter.telemetry = session.telemetry
        self.meter.records = session.settings.journal != "off"
        self.pipelines = PipelineModels(session, self._named)
        if not self._under_way[before]:
            await before.aclose()

    def watch(self, begin: Callable[[], EventHandler]) -> None:
        """Have each run from now on heard by a listener of its own, which ``begin`` makes."""
        self._watchers.append(begin)
        self._session.watch(begin)

    async def act(self, do: Callable[[Session], Awaitable[Result]]) -> Result:
        """Do something with the session that serves; it stays open until that has ended."""
        session = self._session
        with self._held(session):
            return await do(session)

    async def aclose(self) -> None:
        """Close the session that serves."""
        await self._session.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    @property
    def responses(self) -> KeptResponses | None:
        """Where responses are kept that clients go on from; ``None`` where nothing is recorded."""
        settings = self._session.settings
        if settings.journal == "off":
            return None
        most = settings.journal_max_bytes  # of which runs get the larger part
        kept = None if most is None else most // 4
        return KeptResponses(paths.journal_file(), kept, known_secrets(settings.nodes, os.environ))

    async def backend(self) -> Backend:
        """Return what serves calls.

        Raises:
            BackendError: If nothing does now.
        """
        return await self._session.direct()

    async def can(self) -> Capabilities:
        """Return what the backend can do; raises as :meth:`backend` does."""
        return capabilities_of(await self.backend())

    async def default_model(self) -> str | None:
        """Return the model of calls that name none; raises as :meth:`backend` does."""
        return (await self._session.route()).model

    async def models(self) -> list[ModelInfo]:
        """Return the models that can be asked for; raises as :meth:`backend` does."""
        return [model for model in await self.all_models() if may_see(model.name)]

    async def all_models(self) -> list[ModelInfo]:
        """Return what :meth:`models` does, whatever the client's key may see."""
        models = await (await self.backend()).models()
        return [*models, *alias_infos(self._session.settings.aliases, models), *self.pipelines.models()]

    @property
    def nodes(self) -> ShowsNodes | None:
        """How the nodes stand of the backend that serves; ``None`` where it has none, or nothing serves yet."""
        backend = self._session.routed_backend
        return None if backend is None else capabilities_of(backend).nodes

    def is_alias(self, model: str) -> bool:
        """Return whether a name is an alias."""
        return models_of(self._session.settings.aliases, model) is not None

    async def chosen(self, model: str, *, context: int | None = None) -> list[str] | None:
        """Return those models of an alias that are there and can have ``context`` tokens, the preferred one first.

        ``None`` if it is no alias.

        Raises:
            ModelNotFound: If none is there.
            FeatureMissing: If none has such a context.
            BackendError: If nothing serves calls.
        """
        names = models_of(self._session.settings.aliases, model)
        if names is None:
            return None
        return present(model, names, await (await self.backend()).models(), context)

    async def find(self, name: str) -> ModelInfo | None:
        """Return the model that a name means; ``None`` if there is none. Raises as :meth:`backend` does."""
        wanted = name_key(name)
        return next((model for model in await self.models() if name_key(model.name) == wanted), None)

    async def whole(self, request: ChatRequest) -> WholeReply:
        """Return a whole reply; raises as :meth:`stream` does, and what ends the reply."""
        answer = await self.stream(request)
        reply = await gathered(answer)
        reply.model = answer.model
        return reply

    async def stream(self, request: ChatRequest) -> ReplyUnderWay:
        """Begin a call, and return its chunks, which are the server's own.

        Raises:
            Refusal: If the key of the client may not ask that model, or has used up its tokens.
            FeatureMissing: If it asks for something that cannot be done.
            BackendError: If nothing serves calls.
        """
        check_model(request.model)
        call = self.meter.begin(request.model)
        session, answer = self._session, ReplyUnderWay(request.model or "")
        if PipelineModels.has(request.model):
            return answer.of(self._counted(session, call, self.pipelines.stream(request, call.so_far)))
        backend = await self.backend()
        check_features(request, capabilities_of(backend).features, backend=backend.name)
        settings = session.settings
        limits = Timeouts(settings.first_token_timeout, settings.idle_timeout, settings.call_timeout)
        asked = quick_replace(
            request,
            timeouts=limits,
            priority=PRIORITIES["interactive"],
            verbatim=True,
            repetition_guard=False,
            unread=call.unread,
        )
        learned = capabilities_of(backend).tokens_a_character
        call.asks(asked, None if learned is None else learned(asked))
        names = await self.chosen(answer.model, context=request.num_ctx)
        if names is None:
            return answer.of(self._counted(session, call, backend.stream(asked)))
        return answer.of(self._counted(session, call, first_to_answer(answer, names, asked, backend.stream)))

    async def _counted(
        self, session: Session, call: MeteredCall, chunks: AsyncIterator[Chunk]
    ) -> AsyncGenerator[Chunk, None]:
        """Yield chunks, counted."""
        self._hold(session)
        shown = self.calls.begin(call.model, own_pieces=not PipelineModels.has(call.model))
        try:
            with call:  # outside: what is closed first still counts
                async with aclosing(cast("AsyncGenerator[Chunk, None]", chunks)) as coming:
                    async for chunk in coming:
                        call.take(chunk)
                        shown.pieces += 1
                        yield chunk
        finally:
            self.calls.ended(shown)
            self._let_go(session)

    @contextmanager
    def _held(self, session: Session) -> Iterator[None]:
        """Keep a session open for the block."""
        self._hold(session)
        try:
            yield
        finally:
            self._let_go(session)

    def _hold(self, session: Session) -> None:
        """Keep a session open until it is let go as often."""
        self._under_way[session] += 1

    def _let_go(self, session: Session) -> None:
        """Let a session go; one that serves no more calls and was renewed is closed behind it."""
        self._under_way[session] -= 1
        if not self._under_way[session]:
            del self._under_way[session]
            if session is not self._session:
                task = asyncio.get_running_loop().create_task(session.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    @asynccontextmanager
    async def servers(self) -> AsyncIterator[Sequence[ModelServer]]:
        """Give the servers whose models can be changed; also nodes of which none has a model that could be asked.

        Raises:
            FeatureMissing: If what serves has none.
            BackendError: If nothing serves calls, and no node is named for them.
        """
        session, failed = self._session, None
        with self._held(session):
            try:
                backend = await session.direct()
            except (ModelNotFound, BackendUnavailable) as error:
                failed = error
            else:
                if (ask := capabilities_of(backend).servers) is not None:
                    yield await ask()
                    return
            pool = node_pool(session.settings)
            if pool is None:
                if failed is not None:
                    raise failed
                raise FeatureMissing(
                    f"the backend {backend.name!r} pulls, copies, makes and deletes no models",
                    missing=("models",),
                    hint="it is done at nodes: name them in the settings",
                    backend=backend.name,
                )
            async with pool:
                yield await pool.servers()

    async def embed(self, texts: Sequence[str], model: str | None) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            FeatureMissing: If the backend makes none.
            BackendError: If it fails, or nothing serves calls.
        """
        check_model(model)
        call = self.meter.begin(model, embeds=True)
        if PipelineModels.has(model):
            raise FeatureMissing("a pipeline makes no embeddings", missing=("embeddings",))
        backend = await self.backend()
        embed = capabilities_of(backend).embed
        if embed is None:
            raise FeatureMissing(
                f"the backend {backend.name!r} makes no embeddings", missing=("embeddings",), backend=backend.name
            )
        names = await self.chosen(model or "")
        with call:
            found = await (embed(texts, model) if names is None else first_that_does(names, partial(embed, texts)))
            call.whole(Usage(prompt_tokens=found.prompt_tokens))
        return found

    async def count_prompt(self, request: ChatRequest) -> int:
        """Return how many tokens the prompt of a request is: counted where the backend can, else estimated.

        Raises:
            Refusal: If the key of the client may not ask that model.
            BackendError: If nothing serves calls.
        """
        check_model(request.model)
        can = await self.can()
        if can.count_prompt is not None and not PipelineModels.has(request.model):
            return await can.count_prompt(request)
        return prompt_tokens(request, None if can.tokens_a_character is None else can.tokens_a_character(request))
