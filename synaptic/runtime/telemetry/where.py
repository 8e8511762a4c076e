"""Where a call was served, as attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from synaptic.runtime.telemetry import conventions as of

if TYPE_CHECKING:
    from synaptic.runtime.telemetry.span_steps import Value


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
