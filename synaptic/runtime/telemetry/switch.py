"""Whether runs are told of: the one place that opens telemetry, and that knows whether its extra is installed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote

from synaptic.backends import pool
from synaptic.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.runtime.events import EventHandler
    from synaptic.runtime.listeners import Listeners
    from synaptic.runtime.telemetry.request_spans import RequestEnd
    from synaptic.settings import Settings

CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURES: Final = {"true", "1", "span_only", "span_and_event"}


class RequestTeller(Protocol):
    """Tells of one call of a client."""

    def ended(self, end: RequestEnd) -> None:
        """Tell how it ended."""
        ...


class Teller(Protocol):
    """Tells of what happens. Nothing of it raises, waits, or reaches a run."""

    def run(self) -> EventHandler:
        """Return what hears of one run."""
        ...

    def request(self, api: str, model: str, *, embeds: bool) -> RequestTeller:
        """Begin to tell of a client's call, which what this task does from now on belongs to."""
        ...

    async def aclose(self) -> None:
        """Send what is left, within bounds."""
        ...


def open_telemetry(settings: Settings, listeners: Listeners, environ: Mapping[str, str] = os.environ) -> Teller | None:
    """Return what tells of runs; ``None`` where the settings want none, and nothing is imported then.

    Args:
        settings: Which of them say where.
        listeners: Among which it listens to each run; they hear once that the collector does not take what it gets.
        environ: Has secrets, and whether content is told.

    Raises:
        ConfigError: If the extra is not installed, or a standard variable of OpenTelemetry cannot be used.
    """
    if settings.telemetry == "off":
        return None
    try:
        from synaptic.runtime.telemetry.otlp import Telemetry  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        said = f"the setting 'telemetry' needs OpenTelemetry: {error.name} is not installed"
        raise ConfigError(said, hint="pip install 'synapticllamas[otel]', or set telemetry to off") from error
    try:
        opened = Telemetry(
            settings.telemetry_endpoint,
            content=settings.telemetry_content or environ.get(CAPTURE, "").strip().lower() in _CAPTURES,
            secrets=pool.known_secrets(settings.nodes, environ) | _sent_secrets(environ),
            report=listeners.report,
        )
    except (ValueError, OSError) as error:
        said = f"OpenTelemetry cannot be set up as its variables say: {error}"
        raise ConfigError(said, hint="look at the variables OTEL_…, or set telemetry to off") from error
    listeners.watch(opened.run)
    return opened


def _sent_secrets(environ: Mapping[str, str]) -> set[str]:
    """Return what is sent to the collector as its headers, and must be said nowhere else, as it is and decoded."""
    names = [name for name in environ if name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("HEADERS")]
    fields = [field for name in names for field in environ[name].split(",")]
    values = {field.partition("=")[2] or field for field in fields}
    return {spelling.strip() for value in values for spelling in (value, unquote(value)) if spelling.strip()}
