"""The pool as a backend: task distribution over Ollama nodes."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from synaptic.backends.base import Capabilities
from synaptic.backends.ollama import FEATURES, NAME, InstalledModel, TokenRatios, choose_model
from synaptic.backends.pool.calls import PoolCall, PoolServices, RetryBudget, Sentinel, embed_texts
from synaptic.backends.pool.dispatch import Dispatcher, Limits, said_of
from synaptic.backends.pool.index import WORTHWHILE, Shortlist
from synaptic.backends.pool.learned import ContextBook, OutputSizes, Prefixes, SentPrompts, chain
from synaptic.backends.pool.node import (
    CallShape,
    Decision,
    Health,
    NodeModels,
    NodeState,
    NodeStatus,
    PoolNode,
    WaitingCall,
    Watch,
    access_notices,
    node_status,
    open_client,
)
from synaptic.backends.pool.policy import explain
from synaptic.backends.pool.shared_counts import SharedCounts
from synaptic.backends.pool.warm import Preloader, PreloadRequests
from synaptic.backends.tunnels import Tunnels
from synaptic.errors import BackendBusy, BackendError, BackendUnavailable, ModelNotFound
from synaptic.messages import BackendNotice, ChatRequest, Embeddings, ModelInfo, Reporter, ignore_report
from synaptic.models import full_name, name_key
from synaptic.waiting import WaitNotices

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from synaptic.backends.base import ModelServer
    from synaptic.backends.ollama import OllamaBackend
    from synaptic.messages import Chunk
    from synaptic.settings import NodeSettings, Settings

GIB = 2**30
SHOWN_WAITING = 50  # calls of each model
LOOK_AT_THEM = "look at them with: synaptic nodes check"


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool behaves.

    Attributes:
        limits: Bounds on waiting.
        failovers: Further nodes that a call is tried on.
        hedge: Whether a call whose first token is late is sent to a second node, too.
        num_ctx: Context length in tokens of requests that name none.
        keep_alive: How long a model stays loaded, for requests that do not say.
    """

    limits: Limits = Limits()
    failovers: int = 2
    hedge: bool = False
    num_ctx: int | None = None
    keep_alive: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return what the settings say."""
        return cls(
            limits=Limits(settings.pool_queue, settings.pool_max_wait, settings.pool_recovery_wait),
            failovers=settings.failovers,
            hedge=settings.hedge,
            num_ctx=settings.num_ctx,
            keep_alive=settings.keep_alive,
        )


class PoolBackend:
    """Several Ollama nodes as one backend. It belongs to the event loop in which it is first used.

    Nothing is sent before :meth:`start` or the first call.

    Args:
        settings: Defaults of requests, and the pool's options.
        nodes: Instead of those of the settings.
        report: Hears when a node goes down or comes back.
        environ: Where the nodes' secrets are named.
        options: Instead of what the settings say.
    """

    name = NAME

    def __init__(
        self,
        settings: Settings,
        nodes: Sequence[NodeSettings] | None = None,
        *,
        report: Reporter = ignore_report,
        environ: Mapping[str, str] | None = None,
        options: PoolOptions | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        options = options or PoolOptions.from_settings(settings)
        chosen = settings.nodes if nodes is None else nodes
        self._options = options
        self._report = report
        self._notices = [notice for node in chosen for notice in access_notices(node)]
        members = [_member(key, node, settings, environ) for key, node in enumerate(chosen)]
        self.members = {member.state.key: member for member in members}
        self._states = [member.state for member in members]
        self._others = SharedCounts()
        shortlist = _shortlist(self._states)
        self.dispatcher = Dispatcher(self._states, options.limits, shortlist=shortlist, others=self._others)
        self._watch = Watch(self.members, changed=self._changed, gone=self._gone, merged=self._merged, report=report)
        self._preloader = Preloader(
            look=self._watch.look_at_memory, changed=self._changed, loaded=self._loaded_ahead, report=report
        )
        self._preloads = PreloadRequests(self._load_ahead)
        self._closing: list[OllamaBackend] = []
        self._tunnels = Tunnels([node.url for node in chosen], report)
        self._sentinel = Sentinel(self._watch.suspect)
        self._services = PoolServices(
            members=self.members,
            dispatcher=self.dispatcher,
            sentinel=self._sentinel,
            watch=self._watch,
            budget=RetryBudget(),
            contexts=ContextBook(options.num_ctx),
            prefixes=Prefixes(),
            sent=SentPrompts(),
            sizes=OutputSizes(),
            ratios=TokenRatios(),
            failovers=options.failovers,
            hedge=options.hedge,
            waits=WaitNotices(report, NAME),
            bound=self._preloads.call_was_bound,
        )
        self._started: asyncio.Task[None] | None = None
        self._default_model: str | None = None
        self._closed = False
        self.capabilities = Capabilities(
            keeps_deadlines=True,
            start=self.start,
            default_model=self.default_model,
            context_length=self.context_length,
            tokens_a_character=self.tokens_a_character,
            prepare=self.prepare,
            digest=self.digest,
            nodes=self,
            features=FEATURES,
            show=self.show,
            embed=self.embed,
            servers=self.servers,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Ask every node what it has; calls that come meanwhile wait for it. A node that is down does not raise.

        Raises:
            BackendUnavailable: If the pool was closed.
        """
        if self._closed:
            raise BackendUnavailable("the pool has been closed", backend=NAME)
        if self._started is None:
            for notice in self._notices:
                self._report(BackendNotice(NAME, notice, "warning"))
            self._started = asyncio.get_running_loop().create_task(self._begin())
        await asyncio.shield(self._started)

    async def _begin(self) -> None:
        await self._tunnels.open()
        await self._watch.start()
        await self._others.join({member.url: member.state for member in self.members.values()})

    def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """Yield the reply of whichever node is best for the call.

        Raises:
            ModelNotFound: If no node has the model.
            PoolSaturated: If too many calls wait, or this one waited too long.
            BackendUnavailable: If every node that could serve the call is down.
            BackendError: What the last node did wrong.
        """
        if request.model is None or self._started is None or not self._started.done():
            return self._when_started(request)
        return PoolCall(self._services, request, name_key(request.model), chain(request.messages)).stream()

    async def _when_started(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        await self.start()
        model = request.model or await self.default_model()
        call = PoolCall(self._services, replace(request, model=model), name_key(model), chain(request.messages))
        async with aclosing(call.stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def show(self, model: str) -> dict[str, Any]:
        """Return what a node that has a model says of it; of several that answer, any.

        Raises:
            ModelNotFound: If no node has it.
            BackendError: What the last of them did wrong.
        """
        await self.start()
        name, error = name_key(model), None
        for member in self.members.values():
            state = member.state.models.get(name)
            if state is not None and member.state.cap > 0:
                try:
                    return await member.client.show(state.shown)
                except BackendError as exc:
                    error = exc
        raise error or ModelNotFound(f"no node has the model {model!r}", hint=f"ollama pull {model}", backend=NAME)

    async def servers(self) -> list[ModelServer]:
        """Return the nodes, whose models can be changed."""
        await self.start()
        return [NodeModels(member, self._models_changed) for member in self.members.values()]

    async def _models_changed(self, member: PoolNode) -> None:
        self._default_model = None
        await self._watch.models_changed(member)

    async def embed(self, texts: Sequence[str], model: str | None) -> Embeddings:
        """Return the vectors of texts, a long batch from several nodes.

        Raises:
            BackendError: As :meth:`stream` has it.
        """
        await self.start()
        return await embed_texts(self._services, texts, model or await self.default_model())

    async def models(self) -> list[ModelInfo]:
        """Return the models of all nodes, each once; ``loaded`` if any node has it in memory.

        Raises:
            BackendUnavailable: If no node answers; says why for each.
        """
        return [entry.info for entry in await self._installed()]

    async def default_model(self) -> str:
        """Return the model for requests that name none; it is chosen once.

        Raises:
            ModelNotFound: If no node has a model that can chat.
            BackendUnavailable: If no node answers.
        """
        known = self.model_names()
        if self._default_model is None or (known and self._default_model not in known):
            places = ", ".join(member.state.name for member in self.members.values())
            self._default_model = choose_model(await self._installed(), None, node=places)
        return self._default_model

    async def context_length(self, request: ChatRequest) -> int | None:
        """Return the context that ``request`` will be sent with.

        Raises:
            BackendError: If no node answers, or none has a model.
        """
        await self.start()
        model = name_key(request.model or await self.default_model())
        states = [state for node in self._states if (state := node.models.get(model)) is not None]
        return self._services.contexts.length(model, request.num_ctx, states)

    def tokens_a_character(self, request: ChatRequest) -> float | None:
        """Return how many tokens a character of the prompt is, as earlier calls of the model have shown."""
        model = request.model or self._default_model
        return None if model is None else self._services.ratios.of(name_key(model))

    async def digest(self, model: str | None) -> str | None:
        """Return what identifies the content of a model; ``None`` where the nodes do not tell, or not the same."""
        name = name_key(model or await self.default_model())
        listed = (entry for member in self.members.values() for entry in member.installed)
        found = {entry.digest for entry in listed if name_key(entry.info.name) == name}
        return found.pop() if len(found) == 1 else None

    @property
    def answers(self) -> bool:
        """Whether any node has said which models it has."""
        return any(member.checked_at for member in self.members.values())

    def model_names(self) -> list[str]:
        """Return the names of the models that the nodes have listed, as they write them."""
        return [entry.info.name for member in self.members.values() for entry in member.installed]

    def refusals(self, model: str | None) -> list[str]:
        """Return for each node why it cannot serve ``model``, once the pool was started; nothing if one can.

        Args:
            model: ``None`` is any model.
        """
        if model is None:
            if any(member.installed for member in self.members.values()):
                return []
            return [
                f"{member.state.name} has no model"
                if member.checked_at
                else said_of(member.state.name, member.health.reason)
                for member in self.members.values()
            ]
        return self.dispatcher.refusals(
            CallShape(name_key(model), num_ctx=self._options.num_ctx, asked=full_name(model))
        )

    def not_ready(self) -> BackendBusy | None:
        """Return what a node says that is down only because it is not ready yet; ``None`` if none is."""
        troubles = (member.trouble for member in self.members.values())
        return next((trouble for trouble in troubles if isinstance(trouble, BackendBusy)), None)

    def advice(self) -> str | None:
        """Return what to do about the nodes that are down, where that is one thing."""
        return shared_hint([member.trouble for member in self.members.values() if member.trouble is not None])

    def prepare(self, request: ChatRequest) -> None:
        """Have the model of a request that will follow loaded where it will be served; returns at once.

        A node that serves another model keeps it. The load begins when the next call, that of an earlier step, has got
        its node.
        """
        if request.model is not None and not self._closed:
            self._preloads.add(name_key(request.model), request)

    def statuses(self) -> list[NodeStatus]:
        """Return how each node stands, in the order in which they were named."""
        now = asyncio.get_running_loop().time()
        self.dispatcher.look_at_others()
        queued = {model: self.dispatcher.waiting.length(model) for model in self.dispatcher.waiting.lanes()}
        return [node_status(member, queued, now) for member in self.members.values()]

    def decisions(self) -> list[Decision]:
        """Return where the latest calls went and why, oldest first."""
        return [
            Decision(
                tag=past.tag,
                model=past.model,
                attempt=past.attempt,
                node=past.pick.node.name if past.pick.node else None,
                waited=past.waited,
                at=past.at,
                candidates=explain(past.pick),
                shortlisted=len(past.pick.verdicts),
            )
            for past in self.dispatcher.decisions
        ]

    def waiting_calls(self) -> list[WaitingCall]:
        """Return the calls that wait for a node, in the order in which they go, and why each waits."""
        return self.dispatcher.waiting_calls(SHOWN_WAITING)

    async def aclose(self) -> None:
        """Turn waiting calls away, stop watching, and close the connections."""
        self._closed = True
        self._preloads.close()
        self.dispatcher.close()
        started, self._started = self._started, None
        if started is not None:
            started.cancel()
        clients = [member.client for member in self.members.values()]
        parts: list[Any] = [self._watch, self._preloader, self._sentinel, *self._closing, *clients, self._tunnels]
        async with AsyncExitStack() as closing:  # closes each, also where another one fails or is cancelled
            closing.callback(self._others.leave)
            for part in reversed(parts):
                closing.push_async_callback(part.aclose)
        if started is not None:
            await asyncio.gather(started, return_exceptions=True)

    def _changed(self, member: PoolNode) -> None:
        """Take note of news about a node: calls that wait may want it now."""
        if member.state.key not in self.members:
            return  # a twin, which was just being asked
        member.health.apply(member.state, asyncio.get_running_loop().time())
        self.dispatcher.touched(member.state)

    def _load_ahead(self, request: ChatRequest) -> None:
        assert request.model is not None, "only such are wished for"
        model = name_key(request.model)
        states = [state for node in self._states if (state := node.models.get(model)) is not None]
        length = self._services.contexts.length(model, request.num_ctx, states)
        node = self.dispatcher.preview(CallShape(model, num_ctx=length))
        if node is not None:
            keep_alive = request.keep_alive or self._options.keep_alive
            self._preloader.prepare(self.members[node.key], model, num_ctx=length, keep_alive=keep_alive)

    def _loaded_ahead(self, member: PoolNode, model: str, num_ctx: int | None) -> None:
        self._watch.loaded(member, model, num_ctx=num_ctx, cold=True)

    def _merged(self, member: PoolNode, kept: PoolNode) -> None:
        """Use a server that is listed twice once: under the name that came first, with the larger of the two caps."""
        del self.members[member.state.key]
        self._states.remove(member.state)
        member.state.models.clear()
        self.dispatcher.touched(member.state)
        self._closing.append(member.client)
        kept.state.limit = max(kept.state.limit, member.state.limit)

    def _gone(self, member: PoolNode, why: str) -> None:
        """Give up the silent calls of a node that is down."""
        error = BackendUnavailable(f"{member.state.name}: {why}", backend=NAME, node=member.url)
        self._sentinel.abandon(member, error)

    async def _installed(self) -> list[InstalledModel]:
        """Return the models of all nodes, merged."""
        await self.start()
        alive = [member for member in self.members.values() if member.installed]
        if not alive:
            if self.answers:
                return []
            reasons = "; ".join(said_of(each.state.name, each.health.reason) for each in self.members.values())
            raise BackendUnavailable(
                f"no node can be used ({reasons})", hint=self.advice() or LOOK_AT_THEM, backend=NAME
            )
        merged: dict[str, InstalledModel] = {}
        for entry in (entry for member in alive for entry in member.installed):
            key = name_key(entry.info.name)
            known = merged.get(key)
            if known is None or (entry.info.loaded and not known.info.loaded):
                merged[key] = entry
        return list(merged.values())


def _member(key: int, node: NodeSettings, settings: Settings, environ: Mapping[str, str]) -> PoolNode:
    client = open_client(settings, node, environ)
    memory = None if node.memory_gib is None else int(node.memory_gib * GIB)
    state = NodeState(key, client.shown, limit=node.parallel, cap=node.parallel, memory_bytes=memory)
    return PoolNode(url=client.node, client=client, state=state, health=Health(node.parallel))


def shared_hint(errors: Sequence[BackendError]) -> str | None:
    """Return the hint of several errors if they have one and the same."""
    hints = {error.hint for error in errors}
    return hints.pop() if len(hints) == 1 else None


def _shortlist(states: Sequence[NodeState]) -> Shortlist | None:
    return Shortlist(states) if len(states) > WORTHWHILE else None
