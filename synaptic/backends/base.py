"""The backend seam: one protocol, one context, and the registry of names."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from synaptic.errors import UsageError
from synaptic.messages import ChatRequest, Chunk, ModelInfo, Reporter, ignore_report
from synaptic.text import did_you_mean

if TYPE_CHECKING:
    from synaptic.backends.distributed import CoordinatorStatus
    from synaptic.backends.pool import Decision, NodeStatus
    from synaptic.settings import Settings

ENTRY_POINT_GROUP = "synaptic.backends"

BUILT_IN = {
    "scripted": "synaptic.backends.scripted:from_context",
    "embedded": "synaptic.backends.embedded.backend:from_context",
    "ollama": "synaptic.backends.ollama.backend:from_context",
    "distributed": "synaptic.backends.distributed.backend:from_context",
    "llama-server": "synaptic.backends.llama_server:from_context",
}


@runtime_checkable
class Backend(Protocol):
    """Something that serves chat requests.

    Obligations of an implementation:

    - ``stream`` is an async generator. It ends with one chunk that has ``finish_reason``, or raises a
      :class:`~synaptic.errors.BackendError`; it never ends silently after a cut connection.
    - Closing the generator, or cancelling the task that iterates it, closes the connection to the server.
    - ``aclose`` frees everything, also when it is called twice.
    """

    name: str

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply to ``request`` as it is generated."""
        ...

    async def models(self) -> list[ModelInfo]:
        """Return the models that can be asked for."""
        ...

    async def aclose(self) -> None:
        """Free connections and child processes."""
        ...


@runtime_checkable
class Startable(Protocol):
    """A backend that has long work to do before its first call: a download, a child process."""

    async def start(self) -> None:
        """Do that work; whoever calls meanwhile joins in. Calls start it, too, but bounded by their timeouts."""
        ...


@runtime_checkable
class ChoosesModel(Protocol):
    """A backend with several models that knows which one to take where none is named."""

    async def default_model(self) -> str:
        """Return the model's name; raises :class:`~synaptic.errors.ModelNotFound` if there is none."""
        ...


@runtime_checkable
class KnowsContext(Protocol):
    """A backend that can tell how long the context is that a request would be served with."""

    async def context_length(self, request: ChatRequest) -> int | None:
        """Return the tokens of one call's context, prompt and reply together; ``None`` where that is not known."""
        ...


@runtime_checkable
class SizesToWidth(Protocol):
    """A backend that serves as many calls at once as the work asks for, if it knows that before it starts."""

    def expect(self, calls: int) -> int:
        """Take note of how many calls will come at once; return how many it will take."""
        ...


@runtime_checkable
class KeepsTimeouts(Protocol):
    """A backend that keeps ``request.timeouts`` itself, because a call may wait inside it before it is sent."""

    keeps_timeouts: bool


@runtime_checkable
class PreparesModels(Protocol):
    """A backend that can load a model ahead of its first call."""

    def prepare(self, request: ChatRequest) -> None:
        """Begin to load the model of a request that will follow, where that disturbs nobody; returns at once."""
        ...


@runtime_checkable
class ShowsNodes(Protocol):
    """A backend with several nodes, that can tell how each stands and why calls went where they went."""

    def statuses(self) -> list[NodeStatus]:
        """Return how each node stands."""
        ...

    def decisions(self) -> list[Decision]:
        """Return where the latest calls went and why, oldest first."""
        ...


@runtime_checkable
class ShowsCoordinators(Protocol):
    """A backend that spreads the layers of models over workers, and can tell how each model stands."""

    def coordinators(self) -> list[CoordinatorStatus]:
        """Return how the coordinator of each model stands; none is contacted."""
        ...

    async def load(self, model: str) -> CoordinatorStatus:
        """Load a model and return how it stands then; raises :class:`~synaptic.errors.BackendError` if that fails."""
        ...

    async def unload(self, model: str) -> None:
        """End the coordinator of a model, if there is one, and give its workers back."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that has the tokenizer of the model that it serves."""

    async def count_tokens(self, text: str) -> int:
        """Return how many tokens ``text`` is; raises :class:`~synaptic.errors.BackendError` if that fails."""
        ...


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What a backend is made from: the settings, an address where it needs one, and somebody to report to."""

    settings: Settings
    url: str | None = None
    report: Reporter = ignore_report


BackendFactory = Callable[[BackendContext], Backend]


def known_backends() -> dict[str, str]:
    """Return name -> ``module:callable`` of every backend, built in or installed by a third party."""
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


def create_backend(name: str, context: BackendContext) -> Backend:
    """Return the backend called ``name``; its module is imported now and not before.

    Raises:
        UsageError: If there is no backend of that name.

    """
    target = BUILT_IN.get(name) or known_backends().get(name)
    if target is None:
        raise UsageError(f"there is no backend {name!r}", hint=did_you_mean(name, known_backends()))
    module, _, attribute = target.partition(":")
    factory = cast("BackendFactory", getattr(importlib.import_module(module), attribute))
    return factory(context)
