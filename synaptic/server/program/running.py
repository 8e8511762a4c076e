"""From settings to a server that runs until it is told to end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from synaptic.backends import considered
from synaptic.errors import BackendError
from synaptic.messages import BackendNotice, Reporter, ignore_report
from synaptic.runtime import Session
from synaptic.server.gateway import ModelFront, tell_service_manager
from synaptic.server.limits import listening
from synaptic.server.ollama_api import embedded_models
from synaptic.server.program.application import gateway_application
from synaptic.server.program.metered import metered
from synaptic.server.program.renewal import Renewal, current_tls, renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import web

    from synaptic.models import ModelStore
    from synaptic.runtime import Event, EventHandler
    from synaptic.server.ollama_api import ServeSettings
    from synaptic.settings import Settings

EMBEDDED: Final = "embedded"
SIGNAL_BASE: Final = 128
DRAIN: Final = 30.0  # seconds that replies under way get when the server is told to end
CUT: Final = 0.1  # the same for the embedded model: Ollama cuts them
GARBAGE: Final = 10_000  # things made and not freed before Python looks for circles among them; 700 by itself


async def serve(
    settings: ServeSettings,
    chosen: Settings,
    store: ModelStore,
    ready: Callable[[str, str], None],
    report: Reporter = ignore_report,
    *,
    again: Callable[[], Settings] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. A first one lets replies under way end, for a while; a second one cuts them.

    With SIGHUP, the settings and the certificate are read again, and serve from then on; calls under way end where they
    are.

    Args:
        settings: How.
        chosen: What serves the calls: the embedded engine, a node, a pool, a coordinator.
        store: Where the embedded model is.
        ready: Called with the address and with what serves, once it answers.
        report: Hears of what serves.
        again: Reads the settings again; ``None`` leaves SIGHUP alone. So does the embedded model without a certificate.

    Raises:
        BackendUnavailable: If the port is taken.
        UsageError: If the settings are wrong.
    """

    def heard(event: Event) -> None:
        if (told := getattr(event, "report", None)) is not None:
            report(told)

    async with (
        metered(chosen, report) as meter,
        Session(chosen, priority="interactive", on_event=heard) as session,
    ):
        name = await _what_serves(session, report)
        if name != EMBEDDED or chosen.embedded_model is not None:
            front = ModelFront(session, settings.pipelines, meter=meter)
            app = gateway_application(settings, front)
            try:
                with renewed(_renewals(settings, report, front, heard, again), report):
                    await _listen(app, settings, lambda url: ready(url, name), drain=DRAIN)
            finally:
                await front.aclose()
            return
    async with metered(chosen, report) as meter:
        models = embedded_models(settings, store, meter)
        async with Session(chosen, backend=models.backend, priority="interactive", on_event=heard) as session:
            app = gateway_application(settings, ModelFront(session, settings.pipelines, meter=meter), models.host)
            with renewed(_renewals(settings, report, None, heard, again), report):
                await _listen(app, settings, lambda url: ready(url, EMBEDDED), drain=CUT)


def _renewals(
    settings: ServeSettings,
    report: Reporter,
    front: ModelFront | None,
    heard: EventHandler,
    again: Callable[[], Settings] | None,
) -> list[Renewal]:
    """Return what SIGHUP renews: the certificate, and what serves, which of the embedded model stays."""
    found: list[Renewal] = []
    if again is None:
        return found
    if (tls := settings.tls) is not None:

        async def renew_tls() -> str:
            await asyncio.to_thread(tls.renew)
            return "read the certificate again"

        found.append(Renewal("the certificate stays as it was", renew_tls))
    if front is not None:

        async def renew_settings() -> str:
            session = Session(again(), priority="interactive", on_event=heard)
            try:
                name = await _what_serves(session, report)
            except BaseException:
                await session.aclose()
                raise
            await front.renew(session)
            return f"read the settings again: {name} serves"

        found.append(Renewal("the settings stay as they were", renew_settings))
    return found


async def _what_serves(session: Session, report: Reporter) -> str:
    """Return the name of the backend; one that is not there yet is looked for again by each call."""
    names = considered(session.settings)
    if names == (EMBEDDED,):
        return EMBEDDED
    try:
        return (await session.route()).backend
    except BackendError as error:
        hint = f"; {error.hint}" if error.hint else ""
        report(BackendNotice(names[0], f"{error.message}{hint}; calls are refused until then", "warning"))
        return names[0]


async def _listen(app: web.Application, settings: ServeSettings, ready: Callable[[str], None], *, drain: float) -> None:
    drain = drain if settings.drain is None else settings.drain
    with _told_to_end() as ended:
        async with listening(app, settings.host, settings.port, drain=drain, tls=current_tls(settings)) as addresses:
            with _seldom_looked_through():
                ready(addresses[0])
                tell_service_manager("READY=1")
                await ended.wait()
                tell_service_manager("STOPPING=1")


@contextmanager
def _seldom_looked_through() -> Iterator[None]:
    """Have Python look for circles of garbage more seldom, and never through what is there by now: that stays.

    To look through it all would stop all streams for a tenth of a second; as often as Python does by itself, it takes a
    seventh of the processor's time of a call.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


@contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    """Give an event that the first SIGINT or SIGTERM sets; the second ends the process, and its children notice."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: int) -> None:
        if ended.is_set():
            os._exit(SIGNAL_BASE + number)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told, number)
    try:
        yield ended
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
