"""The session behind the prompt: made when it is first needed, kept while the settings allow, closed once."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic import agents, runtime
from synaptic.errors import SynapticError
from synaptic.ui import screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from synaptic.messages import Route
    from synaptic.pipeline import Tool
    from synaptic.runtime import Event, Session
    from synaptic.settings import Settings

SessionFactory: TypeAlias = "Callable[[Settings], Session]"

PER_RUN: Final = frozenset(
    {
        "pipeline",
        "pipeline_inputs",
        "agent_models",
        "temperature",
        "max_tokens",
        "think",
        "keep_alive",
        "first_token_timeout",
        "idle_timeout",
        "call_timeout",
        "markdown",
        "theme",
        "editing",
    }
)
"""Settings that a session reads again for each run, or never; every other one is built into its backend."""

_NEEDED_MODULES: Final = (
    "synaptic.runtime.journal.journal",  # first, with the next: a question is recorded before the rest is needed
    "synaptic.backends.pool.node.credentials",
    "synaptic.runtime.session",
    "synaptic.agents.definition",
    "synaptic.ui.screen.render",
    "synaptic.ui.screen.render_live",
    "synaptic.ui.screen.markdown_answer",
    "synaptic.ui.screen.markdown_look",
)


def session_factory(
    tools: Mapping[str, Tool] = MappingProxyType({}),
    *,
    accept_all: bool = False,
    paused: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> SessionFactory:
    """Return what makes sessions; their modules are imported when the first is made and not before.

    Args:
        tools: What pipelines may call, beside the installed ones.
        accept_all: Accept every approval; else the person at the terminal is asked.
        paused: Keeps a run off the terminal while the person is asked.
    """

    def make(settings: Settings) -> Session:
        approver = screen.make_approver(accept_all=accept_all, paused=paused)
        return runtime.Session(settings, tools=tools, approver=approver, priority="interactive")

    return make


def load_modules() -> None:
    """Import what the first question needs, and read the agents once, so that it need not wait for it."""
    for name in _NEEDED_MODULES:
        importlib.import_module(name)
    with contextlib.suppress(SynapticError):
        agents.discover_agents()


class SessionHolder:
    """Owns at most one session.

    Attributes:
        route: Where calls go, once that is known.
        default_pipeline: What answers a question where no pipeline is set, once that is known; "" before.
        known_models: Names for completion, as of the last time they were asked for.
        hear: Is told between runs if something could not be recorded.
    """

    def __init__(self, factory: SessionFactory | None = None) -> None:
        self._factory = factory or session_factory()
        self.hear: Callable[[Event], None] | None = None
        self._session: Session | None = None
        self._warming: asyncio.Task[None] | None = None
        self._forgotten = 0
        self.route: Route | None = None
        self.default_pipeline = ""
        self.known_models: tuple[str, ...] = ()

    async def get(self, settings: Settings) -> Session:
        """Return a session for these settings; one that was made for others is closed first."""
        if self._warming is not None:
            await asyncio.wait({self._warming})
        if self._session is not None and not serves(self._session.settings, settings):
            await self._close_session()
        if self._session is None:
            self._session = self._factory(settings)
        self._session.settings = settings
        return self._session

    async def ask_route(self, settings: Settings) -> Route:
        """Return where calls go, and remember it for the toolbar.

        Raises:
            BackendError: If nothing can serve the calls.
        """
        return await self._ask(await self.get(settings))

    async def recorded(self) -> None:
        """Wait until the record of runs has all that was said here so far."""
        if self._session is not None:
            await self._session.recorded(on_event=self.hear)

    def forget_route(self) -> None:
        """Know no more where calls go, nor what answers: settings have changed on which both depend."""
        self.route, self.default_pipeline = None, ""
        self._forgotten += 1

    def warm(self, settings: Settings) -> None:
        """Begin, in the background and silently, what the first question needs anyway: imports, and the route.

        Whatever goes wrong there goes wrong again, aloud, when it is needed.
        """
        if self._warming is None:
            self._warming = asyncio.get_running_loop().create_task(self._warm(settings))

    async def aclose(self) -> None:
        """Stop warming and close the session."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._close_session()

    async def _warm(self, settings: Settings) -> None:
        await asyncio.to_thread(load_modules)
        session = self._session = self._factory(settings)
        with contextlib.suppress(SynapticError):
            await self._ask(session)
            self.known_models = tuple(model.name for model in await session.models())

    async def _ask(self, session: Session) -> Route:
        forgotten = self._forgotten
        route, default_pipeline = await session.route(), await session.default_pipeline()
        if forgotten == self._forgotten:
            self.route, self.default_pipeline = route, default_pipeline
        return route

    async def _close_session(self) -> None:
        session, self._session = self._session, None
        self.forget_route()
        if session is not None:
            await session.aclose()


def serves(old: Settings, new: Settings) -> bool:
    """Return whether a session made for ``old`` serves ``new`` as well."""
    return old.model_dump(exclude=set(PER_RUN)) == new.model_dump(exclude=set(PER_RUN))
