"""What answers the calls of a session: opened with the first one, with the policies that hold over all of its runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.backends import BackendContext, Routed, capabilities_of, create_backend, open_backend
from synaptic.messages import Route
from synaptic.runtime.policies import Stacks, Timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.backends import Backend
    from synaptic.messages import Reporter
    from synaptic.settings import Settings


class OpenedBackend:
    """One backend, chosen by the settings or given, and those that steps name beside it.

    Args:
        settings: Say where calls go, and what bounds them.
        given: Used as it is, instead of what the settings say; it is not closed here.
        report: Told what happens to the backends.
    """

    def __init__(self, settings: Settings, given: Backend | None, report: Reporter) -> None:
        self.given = given
        self.settings = settings
        self._report = report
        self._routed: Routed | None = None
        self._capacity: int | None = None
        self._stacks: Stacks | None = None
        self._routing = asyncio.Lock()

    @property
    def backend(self) -> Backend | None:
        """The backend; ``None`` before it is opened."""
        return None if self._routed is None else self._routed.backend

    async def open(self) -> Routed:
        """Return the backend, and where calls go; asks the network the first time.

        Raises:
            BackendUnavailable: If nothing can serve the calls.
            ModelNotFound: If what answers lacks the model.
        """
        async with self._routing:
            if self._routed is None:
                self._routed = await self._choose()
            return self._routed

    async def route(self) -> Route:
        """Return where calls go, with the model of those that name none: the backend's own may have been deleted.

        Raises:
            SynapticError: What ``open`` raises.
        """
        routed = await self.open()
        choose = capabilities_of(routed.backend).default_model
        if self.given is not None or self.settings.model is not None or choose is None:
            return routed.route
        model = await choose()
        return routed.route if model == routed.route.model else replace(routed.route, model=model)

    async def size(self, calls: Callable[[], int]) -> None:
        """Have the backend become as large as so many calls at once can use; that is settled with the first run.

        Args:
            calls: Returns how many; not asked where the backend has one size.

        Raises:
            SynapticError: What ``open`` raises.
        """
        can = capabilities_of((await self.open()).backend)
        if self._stacks is None and can.resize is not None:
            self._capacity = can.resize(calls())

    async def stacks(self) -> Stacks:
        """Return the backends with their policies; the same ones for every run, so that limits hold over all.

        Raises:
            SynapticError: What ``open`` raises.
        """
        routed = await self.open()
        if self._stacks is None:
            self._stacks = Stacks(
                routed.backend,
                self.settings,
                capacity=self._capacity,
                node=routed.route.node,
                open_backend=self._open_named,
                report=self._report,
            )
        return self._stacks

    async def direct(self) -> Backend:
        """Return the backend for calls that are no part of a run, with bounds on their time and ``model_parallel``.

        Raises:
            SynapticError: What ``open`` raises.
        """
        if self.settings.model_parallel:
            return (await self.stacks()).direct()
        backend = (await self.open()).backend
        return backend if capabilities_of(backend).keeps_deadlines else Timed(backend)

    async def aclose(self) -> None:
        """Close what was opened here; child processes end."""
        routed, self._routed = self._routed, None
        stacks, self._stacks = self._stacks, None
        if stacks is not None:
            await stacks.aclose()
        if routed is not None and self.given is None:
            await routed.backend.aclose()

    async def _choose(self) -> Routed:
        if self.given is None:
            return await open_backend(self.settings, self._report)
        models = await self.given.models()
        model = self.settings.model or (models[0].name if models else None)
        return Routed(self.given, Route(self.given.name, None, model, "given by the caller"))

    def _open_named(self, name: str) -> Backend:
        """Return the backend that a step names, opened beside the one of the route."""
        return create_backend(name, BackendContext(self.settings, None, self._report))
