"""The one module that imports OpenTelemetry: does with its SDK what the span steps say, and sends it over OTLP/HTTP.

Imported on first use only. What is sent waits in queues of threads of the SDK, which end with the process; a collector
that is slow, absent or wrong costs a run nothing, and is said once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from synaptic.bounded_names import BoundedNames
from synaptic.messages import BackendNotice
from synaptic.runtime.telemetry import conventions
from synaptic.runtime.telemetry.request_spans import RequestSpans
from synaptic.runtime.telemetry.run_spans import RunSpans
from synaptic.runtime.telemetry.span_steps import (
    LONGEST_NAME,
    Measured,
    SpanBegins,
    SpanDropped,
    SpanEnds,
    SpanGains,
    SpanNotes,
)
from synaptic.text import cut, one_line, spelled, without_secrets
from synaptic.trace_context import HEADER, TRACEPARENT
from synaptic.version import __version__
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from opentelemetry.metrics import Histogram
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from synaptic.messages import Reporter
    from synaptic.runtime.events import Event, EventHandler
    from synaptic.runtime.telemetry.request_spans import RequestEnd
    from synaptic.runtime.telemetry.span_steps import Attributes, SpanStep, Value

CLOSE_SECONDS: Final = 2.0
"""How long the end of a session waits for a collector."""

LONGEST_TROUBLE: Final = 300
NAME: Final = "synapticllamas"
_NANOSECONDS: Final = 1e9
_KINDS: Final = {
    "internal": trace.SpanKind.INTERNAL,
    "client": trace.SpanKind.CLIENT,
    "server": trace.SpanKind.SERVER,
}
_CONTEXTS: Final = TraceContextTextMapPropagator()
_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk._shared_internal",
)


class _Troubles(logging.Filter):
    """Takes what OpenTelemetry logs of our own deliveries; a program may have others of its own, which log on."""

    def __init__(self) -> None:
        super().__init__()
        self._of_thread = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        telemetry: Telemetry | None = getattr(self._of_thread, "telemetry", None)
        if telemetry is None:
            return True
        telemetry.failed(record.getMessage())
        return False

    @contextmanager
    def of(self, telemetry: Telemetry) -> Iterator[None]:
        """Take what is logged in the block."""
        before = getattr(self._of_thread, "telemetry", None)
        self._of_thread.telemetry = telemetry
        try:
            yield
        finally:
            self._of_thread.telemetry = before


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Give what OpenTelemetry complains of in the block, instead of having it logged, with tracebacks and all."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("opentelemetry")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


_TROUBLES: Final = _Troubles()
for _logger in _LOGGERS:
    logging.getLogger(_logger).addFilter(_TROUBLES)


class _Spans(OTLPSpanExporter):
    """Sends spans, and says to its owner what went wrong."""

    owner: Telemetry

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them; runs in a thread of the SDK."""
        with _TROUBLES.of(self.owner):
            return super().export(spans)


class _Metrics(OTLPMetricExporter):
    """Sends metrics, as spans are sent."""

    owner: Telemetry

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **options: Any
    ) -> MetricExportResult:
        """Send them; runs in a thread of the SDK."""
        with _TROUBLES.of(self.owner):
            return super().export(metrics_data, timeout_millis, **options)


class Telemetry:
    """Tells of the runs of a session, and of the calls of a gateway's clients.

    Args:
        endpoint: Address of the collector; ``None`` is what OpenTelemetry's own variables say.
        content: Whether prompts and answers are told.
        secrets: What is told nowhere.
        report: Hears, once, that the collector does not take what it is sent.

    Raises:
        ValueError: If a variable of OpenTelemetry cannot be used.
        OSError: If a file that such a variable names cannot be read.
    """

    def __init__(
        self,
        endpoint: str | None,
        *,
        content: bool,
        secrets: Collection[str],
        report: Reporter,
    ) -> None:
        self._content = content
        self._report = report
        self._spellings = spelled(secrets)
        self._troubles: list[str] = []
        self._failed = self._closing = self._stopped = False
        with _complaints() as complaints:
            self._open(endpoint)
        if complaints:
            self._troubles.append(f"OpenTelemetry says of its variables: {'; '.join(dict.fromkeys(complaints))}")

    def _open(self, endpoint: str | None) -> None:
        base = None if endpoint is None else endpoint.rstrip("/")
        self._spans = _Spans(endpoint=base and f"{base}/v1/traces")
        self._metrics = _Metrics(endpoint=base and f"{base}/v1/metrics")
        self._spans.owner = self._metrics.owner = self
        resource = _resource()
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._tracers.add_span_processor(BatchSpanProcessor(self._spans))
        reader = PeriodicExportingMetricReader(self._metrics)
        self._meters = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
        named = (conventions.SCOPE, __version__)
        self.tracer = self._tracers.get_tracer(*named, schema_url=conventions.SCHEMA_URL)
        meter = self._meters.get_meter(*named, schema_url=conventions.SCHEMA_URL)
        self._histograms: dict[str, Histogram] = {
            metric.name: meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.bounds
            )
            for metric in conventions.METRICS
        }
        self._labels: dict[str, BoundedNames] = {}

    def run(self) -> EventHandler:
        """Return what hears of one run, whose parent is what this task belongs to now."""
        self._tell()
        spans, performer = RunSpans(content=self._content), _Performer(self)

        def hear(event: Event) -> None:
            performer.perform(spans.read(event))

        return hear

    def request(self, api: str, model: str, *, embeds: bool) -> _Request:
        """Begin to tell of a client's call."""
        self._tell()
        return _Request(_Performer(self), RequestSpans(api, model, embeds=embeds))

    def failed(self, said: str) -> None:
        """Note, in whatever thread, that something could not be told. At the end, nothing is tried again."""
        if not self._failed:
            self._failed = True
            self._troubles.append(f"the collector gets no telemetry: {said}")
        if self._closing:
            self._stop()

    async def aclose(self) -> None:
        """Send what is left; what is not taken in :data:`CLOSE_SECONDS` is lost."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        self._closing = True

        def close() -> None:
            try:
                self._shut_down()
            finally:
                with suppress(RuntimeError):  # the loop has ended before
                    loop.call_soon_threadsafe(closed.set)

        # No thread of asyncio's: those are waited for when the loop ends.
        threading.Thread(target=close, name="telemetry-close", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await closed.wait()
        except TimeoutError:
            self.failed(f"it did not take everything in {CLOSE_SECONDS:g} s")
        self._tell()

    def attributes(self, found: Attributes) -> dict[str, Value]:
        """Return attributes as they may be told: without secrets, and of bounded length."""
        return {name: self._cleared(name, value) for name, value in found.items()}

    def cleared(self, text: str) -> str:
        """Return a text without secrets."""
        return without_secrets(text, self._spellings) if self._spellings else text

    def measure(self, measured: Measured) -> None:
        """Take a value of a metric. No label gets values without end."""
        labels = {
            name: self._labels.setdefault(name, BoundedNames()).of(value) if isinstance(value, str) else value
            for name, value in self.attributes(measured.attributes).items()
        }
        self._histograms[measured.metric.name].record(measured.value, labels)

    def _cleared(self, name: str, value: Value) -> Value:
        if isinstance(value, str):
            text = self.cleared(value)
            return text if name in conventions.CONTENT else cut(text, LONGEST_NAME)
        return tuple(map(self.cleared, value)) if isinstance(value, tuple) else value

    def _shut_down(self) -> None:
        with _TROUBLES.of(self):
            self._tracers.shutdown()
            self._meters.shutdown(CLOSE_SECONDS * 1000)

    def _stop(self) -> None:
        """Let the deliveries try nothing again, those that wait to do so as well."""
        if self._stopped:
            return
        self._stopped = True
        with _TROUBLES.of(self):
            self._spans.shutdown()  # type: ignore[no-untyped-call]
            self._metrics.shutdown()

    def _tell(self) -> None:
        """Say what went wrong, once. Threads only note it: reports belong to the event loop."""
        while self._troubles:
            said = one_line(self.cleared(self._troubles.pop()), LONGEST_TROUBLE)
            self._report(BackendNotice("telemetry", said, "warning"))


class _Request:
    """Tells of one call of a client."""

    def __init__(self, performer: _Performer, spans: RequestSpans) -> None:
        self._performer, self._spans = performer, spans
        performer.perform(spans.begun(steady_time()))

    def ended(self, end: RequestEnd) -> None:
        """Tell how it ended."""
        self._performer.perform(self._spans.ended(end))


class _Performer:
    """Does with the SDK what span steps say, for one run or one call; what fails ends it, and nothing else."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._outside = TRACEPARENT.get()
        self._context = _CONTEXTS.extract({HEADER: self._outside}) if self._outside else None
        self._open: dict[str, tuple[trace.Span, str | None]] = {}
        self._broken = False

    def perform(self, steps: Iterable[SpanStep]) -> None:
        """Do some steps, in order."""
        if self._broken:
            return
        try:
            with _TROUBLES.of(self._telemetry):
                for step in steps:
                    self._do(step)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with telemetry, the run goes on
            self._broken = True
            self._telemetry.failed(f"{type(error).__name__}: {error}")

    def _do(self, step: SpanStep) -> None:
        match step:
            case SpanBegins():
                self._begin(step)
            case SpanGains(key, attributes) if key in self._open:
                self._open[key][0].set_attributes(self._telemetry.attributes(attributes))
            case SpanNotes(key, name, attributes) if key in self._open:
                self._open[key][0].add_event(name, self._telemetry.attributes(attributes))
            case SpanEnds(key) if key in self._open:
                self._end(step)
            case SpanDropped(key) if key in self._open:
                self._leave(key)
            case Measured():
                self._telemetry.measure(step)

    def _begin(self, step: SpanBegins) -> None:
        around = self._open.get(step.parent) if step.parent is not None else None
        context = self._context if around is None else trace.set_span_in_context(around[0])
        span = self._telemetry.tracer.start_span(
            self._telemetry.cleared(step.name),
            context,
            _KINDS[step.kind],
            self._telemetry.attributes(step.attributes),
            start_time=_nanoseconds(step.at),
        )
        self._open[step.key] = (span, step.parent)
        TRACEPARENT.set(_traceparent(span))

    def _end(self, step: SpanEnds) -> None:
        span = self._leave(step.key)
        span.set_attributes(self._telemetry.attributes(step.attributes))
        if step.error is not None:
            span.set_attribute(conventions.ERROR_TYPE, step.error)
            message = self._telemetry.cleared(step.message)
            span.set_status(trace.Status(trace.StatusCode.ERROR, one_line(message) or None))
        span.end(_nanoseconds(step.at))

    def _leave(self, key: str) -> trace.Span:
        """Return a span that is open no longer; the task goes on for the one around it."""
        span, parent = self._open.pop(key)
        around = None if parent is None else self._open.get(parent)
        TRACEPARENT.set(self._outside if around is None else _traceparent(around[0]))
        return span


def _resource() -> Resource:
    """Return what tells of this program; ``OTEL_SERVICE_NAME`` goes before our own name."""
    found = Resource.create({"service.version": __version__})
    named = str(found.attributes.get(SERVICE_NAME, ""))
    return found.merge(Resource({SERVICE_NAME: NAME})) if named.startswith("unknown_service") else found


def _traceparent(span: trace.Span) -> str:
    """Return what names a span to a server; "" of one that is none, where the SDK is disabled."""
    carrier: dict[str, str] = {}
    _CONTEXTS.inject(carrier, trace.set_span_in_context(span))
    return carrier.get(HEADER, "")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)
