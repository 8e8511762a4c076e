"""The backend seam: the protocol, what a backend may offer beyond it, and the table of backends by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from synaptic.errors import FeatureMissing, UsageError
from synaptic.messages import NO_SAMPLING, ChatRequest, Chunk, Embeddings, ModelInfo, Reporter, ignore_report
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from synaptic.backends.distributed import CoordinatorStatus
    from synaptic.backends.pool import Decision, NodeStatus, WaitingCall
    from synaptic.settings import Settings

ENTRY_POINT_GROUP = "synaptic.backends"

BUILT_IN = {
    "scripted": "synaptic.backends.scripted:KIND",
    "embedded": "synaptic.backends.embedded.backend:KIND",
    "ollama": "synaptic.backends.ollama.backend_kind:KIND",
    "distributed": "synaptic.backends.distributed.backend_kind:KIND",
    "llama-server": "synaptic.backends.llama_server:KIND",
}
"""Where the ``BackendKind`` of each backend of ours is; a module is imported when its backend is asked for."""


Feature = Literal["tools", "tool_choice", "parallel_tools", "images", "logprobs", "stop", "sampling", "options"]
"""What a request may ask for beyond text for text, named as people ask for it."""

EVERY_FEATURE: frozenset[Feature] = frozenset(get_args(Feature))


class ShowsNodes(Protocol):
    """What a backend with several nodes tells of them."""

    def statuses(self) -> list[NodeStatus]:
        """Return how each node stands."""
        ...

    def decisions(self) -> list[Decision]:
        """Return where the latest calls went and why, oldest first."""
        ...

    def waiting_calls(self) -> list[WaitingCall]:
        """Return the calls that wait for a node, in the order in which they go, and why each waits."""
        ...


class ShowsCoordinators(Protocol):
    """What a backend that spreads the layers of models over workers tells of them, and does with them."""

    def coordinators(self) -> list[CoordinatorStatus]:
        """Return how the coordinator of each model stands; none is contacted."""
        ...

    async def load(self, model: str) -> CoordinatorStatus:
        """Load a model and return how it stands then; raises ``synaptic.errors.BackendError`` if that fails."""
        ...

    async def unload(self, model: str) -> None:
        """End the coordinator of a model, if there is one, and give its workers back."""
        ...


class ModelServer(Protocol):
    """One server whose models can be changed: an Ollama."""

    @property
    def shown(self) -> str:
        """What people call it: its name, else its address."""
        ...

    @property
    def node(self) -> str:
        """Its address, without a password."""
        ...

    def change(self, method: str, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Have it change its models, by a route of Ollama's API, and yield what it tells meanwhile.

        Closing this ends what the server does. Raises a ``synaptic.errors.BackendError`` if it does not come to its
        end.
        """
        ...

    async def has_blob(self, digest: str) -> bool:
        """Return whether it has a file that models can be made of; raises a ``synaptic.errors.BackendError``."""
        ...

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes]) -> bool:
        """Give it a file, and return whether it lacked it; raises a ``synaptic.errors.BackendError``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do beyond streaming; the default is nothing. What is ``None`` the backend cannot do.

    A wrapper forwards the capabilities of the backend inside it, and replaces those that it provides itself.

    Attributes:
        capacity: Calls that it serves at once; further ones wait before they are sent. ``None``: it takes every call.
        place: Where it serves, as people are shown it: an address, "3 nodes". Calls to one place share its capacity.
        for_trying: Its model is there to try things out: a question that names no pipeline is one call.
        longer_context: What a person does to have calls served with a longer context.
        keeps_deadlines: Whether it keeps ``request.timeouts`` itself, because a call may wait inside it before it is
            sent.
        check: Raises a ``synaptic.errors.SynapticError`` that says why it cannot serve a model, or with ``None``
            any model; takes two seconds at most, and is awaited before calls are routed there.
        start: Does what takes long before the first call: a download, a child process. Several callers share one
            start. The first call starts the backend, too, but bounded by the timeouts of the call.
        resize: Takes how many calls will come at once; returns how many the backend will take. Called before ``start``.
        default_model: Returns the model that serves a request without one; raises
            ``synaptic.errors.ModelNotFound`` if there is none.
        context_length: Returns the tokens of one call's context, prompt and reply together, that a request is served
            with; ``None`` where the backend cannot tell.
        count_tokens: Returns how many tokens of its model a text is; raises ``synaptic.errors.BackendError``.
        count_prompt: Returns how many tokens the prompt of a request is, as the template of its model writes it; raises
            ``synaptic.errors.BackendError``.
        watched_stream: Streams as ``stream`` does, and calls its second argument with false when the server read a part
            of the prompt, with true when it generated something.
        tokens_a_character: Returns how many tokens a character of a request's prompt is, as calls of its model have
            shown; ``None`` before any has.
        prepare: Begins to load the model of a request that will follow, unless a loaded one would have to go; returns
            at once.
        digest: Returns what identifies the content of a model, not only its name; ``None`` where it cannot tell.
        goes_on_with: Returns whether its server is known to go on with the last message of a request, which is the
            assistant's; raises ``synaptic.errors.BackendError`` if it could not be asked. A backend of one server has
            it; one of several goes on with ``request.begun`` itself.
        forget: Drops the kept reply to a request, because the caller could not use it.
        nodes: Tells how its nodes stand.
        coordinators: Tells how its coordinators stand, loads models and ends them.
        features: What a request may ask of it beyond text for text; the rest is refused by name.
        show: Returns what the server of a model says of it, in Ollama's words (``/api/show``); raises
            ``synaptic.errors.BackendError``.
        embed: Returns the vectors of texts, by the model that is named; raises ``synaptic.errors.BackendError``.
        servers: Returns the servers whose models can be changed.
    """

    capacity: int | None = None
    place: str | None = None
    for_trying: bool = False
    longer_context: str = "raise num_ctx"
    keeps_deadlines: bool = False
    check: Callable[[str | None], Awaitable[None]] | None = None
    start: Callable[[], Awaitable[None]] | None = None
    resize: Callable[[int], int] | None = None
    default_model: Callable[[], Awaitable[str]] | None = None
    context_length: Callable[[ChatRequest], Awaitable[int | None]] | None = None
    count_tokens: Callable[[str], Awaitable[int]] | None = None
    count_prompt: Callable[[ChatRequest], Awaitable[int]] | None = None
    watched_stream: Callable[[ChatRequest, Callable[[bool], None]], AsyncIterator[Chunk]] | None = None
    tokens_a_character: Callable[[ChatRequest], float | None] | None = None
    prepare: Callable[[ChatRequest], None] | None = None
    digest: Callable[[str | None], Awaitable[str | None]] | None = None
    goes_on_with: Callable[[ChatRequest], Awaitable[bool]] | None = None
    forget: Callable[[ChatRequest], Awaitable[None]] | None = None
    nodes: ShowsNodes | None = None
    coordinators: ShowsCoordinators | None = None
    features: frozenset[Feature] = frozenset()
    show: Callable[[str], Awaitable[dict[str, Any]]] | None = None
    embed: Callable[[Sequence[str], str | None], Awaitable[Embeddings]] | None = None
    servers: Callable[[], Awaitable[Sequence[ModelServer]]] | None = None


NO_CAPABILITIES = Capabilities()


@runtime_checkable
class Backend(Protocol):
    """Something that serves chat requests. A class that inherits from it has no capabilities unless it names some.

    Obligations of an implementation:

    - ``stream`` is an async generator. It ends with one ``synaptic.messages.Finished``, or raises a
      ``synaptic.errors.BackendError``; it never ends silently after a cut connection.
    - Closing the generator, or cancelling the task that iterates it, closes the connection to the server.
    - ``aclose`` frees everything, also when it is called twice.
    """

    name: str
    capabilities: Capabilities = NO_CAPABILITIES

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply to ``request`` as it is generated."""
        ...

    async def models(self) -> list[ModelInfo]:
        """Return the models that can be asked for."""
        ...

    async def aclose(self) -> None:
        """Free connections and child processes."""
        ...


def capabilities_of(backend: Backend) -> Capabilities:
    """Return what a backend can do beyond streaming; nothing if its class was written without the attribute."""
    return getattr(backend, "capabilities", NO_CAPABILITIES)


def features_of(request: ChatRequest) -> frozenset[Feature]:
    """Return what a request asks for beyond text for text. Tools that may not be called are not asked for."""
    asked: set[Feature] = set()
    for message in request.messages:
        if message.tool_calls or message.role == "tool":
            asked.add("tools")
        if message.images:
            asked.add("images")
    if request.tools:
        asked.add("tools")
    if request.tool_choice not in {None, "auto", "none"}:
        asked.add("tool_choice")
    if request.parallel_tools is not None:
        asked.add("parallel_tools")
    if request.logprobs is not None:
        asked.add("logprobs")
    if request.stop:
        asked.add("stop")
    if request.sampling is not NO_SAMPLING and request.sampling != NO_SAMPLING:
        asked.add("sampling")
    if request.options:
        asked.add("options")
    return frozenset(asked)


def check_features(request: ChatRequest, can: frozenset[Feature], *, backend: str) -> None:
    """Refuse a request that asks for what a backend cannot do: nothing of it is dropped in silence.

    Raises:
        FeatureMissing: If it does; names what.
    """
    if missing := sorted(features_of(request) - can):
        raise FeatureMissing(
            f"the backend {backend!r} cannot do {', '.join(missing)}",
            missing=tuple(missing),
            hint="leave that out of the request, or ask a backend that can",
            backend=backend,
        )


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend is made from.

    Attributes:
        url: Its server's address, where the caller names one.
        report: Hears of downloads, starts, losses.
        environ: Where secrets and addresses are that the settings do not have.
    """

    settings: Settings
    url: str | None = None
    report: Reporter = ignore_report
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


BackendFactory = Callable[[BackendContext], Backend]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that ``synaptic doctor`` has looked at.

    Attributes:
        status: ``missing`` stands in the way of what the settings ask for, ``problem`` is a file that is wrong.
        fix: What to do where it is not as it should be.
        answers: Whether questions can be answered thanks to it.
    """

    name: str
    status: Literal["ok", "note", "missing", "problem"]
    detail: str
    fix: str | None = None
    answers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendKind:
    """What the program knows of a kind of backend before one is opened.

    Attributes:
        name: As settings and pipelines name it.
        summary: What it is, in one line.
        open: Makes one; nothing is contacted or started.
        examine: Looks for what it needs, for ``synaptic doctor``; ``None`` needs nothing.
    """

    name: str
    summary: str
    open: BackendFactory
    examine: Callable[[BackendContext], Awaitable[list[Finding]]] | None = None


def known_backends() -> dict[str, str]:
    """Return name -> ``module:attribute`` of every backend, built in or installed by a third party."""
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {**installed, **BUILT_IN}


class BackendNames(Collection[str]):
    """The names of all backends; installed packages are searched only for a name that is not built in."""

    def __contains__(self, name: object) -> bool:
        return name in BUILT_IN or name in known_backends()

    def __iter__(self) -> Iterator[str]:
        return iter(known_backends())

    def __len__(self) -> int:
        return len(known_backends())


def backend_kind(name: str) -> BackendKind:
    """Return the kind called ``name``; its module is imported now. A third party may offer a bare callable instead.

    Raises:
        UsageError: If there is no backend of that name.
    """
    target = BUILT_IN.get(name) or known_backends().get(name)
    if target is None:
        raise UsageError(f"there is no backend {name!r}", hint=did_you_mean(name, known_backends()))
    module, _, attribute = target.partition(":")
    offered: BackendKind | BackendFactory = getattr(importlib.import_module(module), attribute)
    if isinstance(offered, BackendKind):
        return offered
    return BackendKind(name=name, summary=f"from {module}", open=offered)


def create_backend(name: str, context: BackendContext) -> Backend:
    """Return the backend called ``name``; nothing is contacted or started.

    Raises:
        UsageError: If there is no backend of that name.
    """
    return backend_kind(name).open(context)
