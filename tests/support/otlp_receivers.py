"""Receivers of OTLP over HTTP: OpenTelemetry's own collector, and a server that decodes the protobuf messages.

Both give what has come in the same form, so that a test does not know which one it talks to.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from collector_build import collector
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 60.0  # seconds; the machine may be busy
KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class Span:
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    error: str | None  # the message of the status, where it is one
    seconds: float
    events: list[str]
    resource: dict[str, Any]


@dataclass
class Told:
    """What a receiver has got."""

    spans: list[Span] = field(default_factory=list)
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    text: str = ""

    def span(self, name: str) -> Span:
        """The one with that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def take(self, message: dict[str, Any]) -> None:
        """Take a request in the JSON of OTLP."""
        self.text += json.dumps(message, ensure_ascii=False)
        for group in message.get("resourceSpans", ()):
            about = _attributes(group["resource"])
            for scope in group["scopeSpans"]:
                self.spans += [_span(span, about) for span in scope["spans"]]
        for group in message.get("resourceMetrics", ()):
            for scope in group["scopeMetrics"]:
                for metric in scope["metrics"]:
                    self.metrics.setdefault(metric["name"], []).extend(
                        {"unit": metric["unit"], "sum": point["sum"], "count": int(point["count"])}
                        | {"bounds": point["explicitBounds"], "attributes": _attributes(point)}
                        for point in metric["histogram"]["dataPoints"]
                    )


class Receiver(Protocol):
    url: str

    def told(self, until: Callable[[Told], object] = lambda told: told.spans) -> Told:
        """What has come, once there is enough."""
        ...


class DecodingServer:
    """Decodes what it gets."""

    def __init__(self) -> None:
        self._messages: list[dict[str, Any]] = []
        messages = self._messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                kinds = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
                messages.append(MessageToDict(kinds[self.path].FromString(body)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def told(self, until: Callable[[Told], object] = lambda told: told.spans) -> Told:
        return _enough(lambda: [_with_hexadecimal_ids(message) for message in tuple(self._messages)], until)


class RealCollector:
    """The collector, which writes what it gets to a file."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._file, config = folder / "told.json", folder / "config.yaml"
        pipeline = {"receivers": ["otlp"], "exporters": ["file"]}
        receivers = {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{port}"}}}}
        exporters = {"file": {"path": str(self._file), "flush_interval": "100ms"}}
        service = {"pipelines": {"traces": pipeline, "metrics": pipeline}}
        config.write_text(json.dumps({"receivers": receivers, "exporters": exporters, "service": service}))
        self.process = subprocess.Popen([collector(), "--config", config])
        _wait_until(lambda: self._answers(port))

    def _answers(self, port: int) -> bool:
        assert self.process.poll() is None, "the collector has ended"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return False
        return True

    def told(self, until: Callable[[Told], object] = lambda told: told.spans) -> Told:
        return _enough(self._messages, until)

    def _messages(self) -> list[dict[str, Any]]:
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def decoding_server() -> Iterator[DecodingServer]:
    receiver = DecodingServer()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join(PATIENCE)
        receiver.server.server_close()


@contextmanager
def real_collector() -> Iterator[RealCollector]:
    if not collector().exists():
        pytest.skip("the collector of OpenTelemetry is not built here: make collector (takes Go)")
    with tempfile.TemporaryDirectory() as name:
        receiver = RealCollector(Path(name))
        try:
            yield receiver
        finally:
            receiver.process.terminate()
            receiver.process.wait(PATIENCE)


def _enough(messages: Callable[[], list[dict[str, Any]]], until: Callable[[Told], object]) -> Told:
    def look() -> Told | None:
        told = Told()
        for message in messages():
            told.take(message)
        return told if until(told) else None

    return _wait_until(look)


def _wait_until(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return value


def _span(span: dict[str, Any], resource: dict[str, Any]) -> Span:
    status, kind = span.get("status", {}), span["kind"]
    failed = status.get("code") in (2, "STATUS_CODE_ERROR")
    return Span(
        name=span["name"],
        kind=KINDS[kind] if isinstance(kind, int) else kind.removeprefix("SPAN_KIND_").lower(),
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        attributes=_attributes(span),
        error=status.get("message", "") if failed else None,
        seconds=(int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])) / 1e9,
        events=[event["name"] for event in span.get("events", ())],
        resource=resource,
    )


def _attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each["value"]) for each in of.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    ((kind, content),) = value.items()
    if kind == "arrayValue":
        return [_value(each) for each in content["values"]]
    return int(content) if kind == "intValue" else content


def _with_hexadecimal_ids(value: Any) -> Any:
    """The JSON of OTLP writes ids so; that of protobuf writes base64."""
    if isinstance(value, list):
        return [_with_hexadecimal_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    ids = {"traceId", "spanId", "parentSpanId"}
    return {
        name: base64.b64decode(each).hex() if name in ids else _with_hexadecimal_ids(each)
        for name, each in value.items()
    }
