"""What is to be done with spans and metrics, as plain data: what says so needs no library, and a test can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from synaptic.runtime.telemetry import conventions as of
from synaptic.text import cut

if TYPE_CHECKING:
    from synaptic.runtime.telemetry.conventions import Metric

Value: TypeAlias = str | int | float | bool | tuple[str, ...]
Attributes: TypeAlias = Mapping[str, Value]

LONGEST_NAME = 200
"""Characters of a name: clients and pipelines may write anything."""


@dataclass(frozen=True, slots=True)
class SpanBegins:
    """A span begins. Times are seconds since the epoch.

    Attributes:
        key: Names the span to the steps that follow.
        parent: The key of the span that it is in; ``None`` is whatever there is around all of them.
    """

    key: str
    name: str
    kind: Literal["internal", "client", "server"]
    parent: str | None
    at: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanGains:
    """More is known of a span."""

    key: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanNotes:
    """Something happened within a span."""

    key: str
    name: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class SpanEnds:
    """A span ends.

    Attributes:
        error: The type of what went wrong; ``None`` where nothing did.
        message: Of the error, where that may be told.
    """

    key: str
    at: float
    attributes: Attributes
    error: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class SpanDropped:
    """A span turns out to be none: nothing was done."""

    key: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A value of a metric."""

    metric: Metric
    value: float
    attributes: Attributes


SpanStep: TypeAlias = SpanBegins | SpanGains | SpanNotes | SpanEnds | SpanDropped | Measured


def span_name(operation: str, target: str | None) -> str:
    """Return a span's name, as the conventions make it: "chat llama3.1:8b"."""
    return cut(f"{operation} {target}" if target else operation, LONGEST_NAME)


def known(values: Mapping[str, Value | None]) -> dict[str, Value]:
    """Return the attributes that have a value."""
    return {name: value for name, value in values.items() if value is not None and value not in ("", ())}


def address_of(node: str | None) -> dict[str, Value]:
    """Return what is known of a node by its name, which may be its address. Of a URL, only host and port are told."""
    if not node:
        return {}
    if "://" not in node:
        return {of.NODE: node}
    try:
        url = urlsplit(node)
        host, port = url.hostname, url.port
    except ValueError:
        return {}
    found: dict[str, Value] = {of.SERVER_ADDRESS: host} if host else {}
    return {**found, of.SERVER_PORT: port} if port else found
