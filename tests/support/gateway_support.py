"""The gateway in this process, for tests of what it says."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from synaptic.runtime import Session
from synaptic.server.gateway import ModelFront
from synaptic.server.limits import ServerLimits, limited, listening
from synaptic.server.ollama_api import ServeSettings, embedded_models
from synaptic.server.program import current_tls, gateway_application
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from synaptic.backends import Backend
    from synaptic.models import ModelStore
    from synaptic.server.gateway import CallMeter


def embedded_application(settings: ServeSettings, store: ModelStore, meter: CallMeter | None = None) -> web.Application:
    """Return the gateway in front of the embedded engine with the model of ``store``."""
    models = embedded_models(settings, store, meter)
    session = Session(Settings(), backend=models.backend)
    return gateway_application(settings, ModelFront(session, settings.pipelines, meter=meter), models.host)


@asynccontextmanager
async def gateway(
    settings: Settings | None = None,
    *,
    backend: Backend | None = None,
    serve: ServeSettings | None = None,
    meter: CallMeter | None = None,
    limits: ServerLimits | None = None,
) -> AsyncIterator[str]:
    """Serve what the settings choose, or a backend, during the block, which gets the address."""
    async with Session(settings or Settings(), backend=backend) as session:
        chosen = serve or ServeSettings()
        app = gateway_application(chosen, ModelFront(session, chosen.pipelines, meter=meter))
        if limits is not None:
            limited(app, limits)
        async with listening(app, "127.0.0.1", 0, drain=0.1, tls=current_tls(chosen)) as addresses:
            yield addresses[0]
