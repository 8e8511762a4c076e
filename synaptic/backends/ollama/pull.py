"""Fetching a model into an Ollama server: ``POST /api/pull``, with progress."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from synaptic.backends.http import error_text, ndjson, new_client, stream_request, without_password
from synaptic.backends.ollama.api import NAME
from synaptic.errors import BackendError, ModelNotFound, StreamFailed, StreamTruncated
from synaptic.messages import BackendProgress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from synaptic.messages import Reporter

SMALL_LAYER_BYTES = 1_000_000
"""Licences and parameters, which come at once."""

MAX_PROGRESS_BYTES = 2**30
"""A day of progress, at 60 lines a second."""


async def pull_model(
    url: str,
    model: str,
    report: Reporter,
    *,
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
) -> None:
    """Have the server at ``url`` fetch ``model``; return when it is there.

    Args:
        url: ``http://host:port``.
        model: As the registry knows it.
        report: Gets the progress.
        headers: Sent with the request; the way to send credentials.
        ca_file: Certificates in PEM that are believed instead of the system's.

    Raises:
        ModelNotFound: If the registry does not know the model.
        StreamFailed: If the server gives up for another reason.
        StreamTruncated: If the connection ends before the server says that it is done.
        BackendError: For everything else, see :mod:`synaptic.errors`.
    """
    node = without_password(url)
    request = {"model": model, "stream": True}
    async with (
        new_client(url, headers=headers, ca_file=ca_file) as client,
        stream_request(client, "POST", "/api/pull", backend=NAME, node=node, json=request) as reply,
        aclosing(ndjson(reply, backend=NAME, node=node, most=MAX_PROGRESS_BYTES)) as lines,
    ):
        async for line in lines:
            if "error" in line:
                raise pull_error(error_text(json.dumps(line).encode()), model, node)
            if line.get("status") == "success":
                return
            if (event := layer_progress(line, model)) is not None:
                report(event)
    raise StreamTruncated(f"{node} ended the transfer before it was complete", backend=NAME, node=node)


def pull_error(text: str, model: str, node: str) -> BackendError:
    """Return the error that a message of a pull means."""
    if "file does not exist" in text.lower():
        hint = "see https://ollama.com/library for the names there are"
        return ModelNotFound(f"there is no model {model!r} to pull", hint=hint, backend=NAME, node=node)
    return StreamFailed(f"{node} could not pull {model!r}: {text}", backend=NAME, node=node)


def layer_progress(line: Mapping[str, Any], model: str) -> BackendProgress | None:
    """Return the progress of one layer, if a line of the reply tells one that is worth waiting for.

    The layers come one after another, and the size of the next is not known before it begins.
    """
    digest, total, done = line.get("digest"), line.get("total"), line.get("completed", 0)
    if not isinstance(digest, str) or not isinstance(total, int) or not isinstance(done, int):
        return None
    if total < SMALL_LAYER_BYTES:
        return None
    return BackendProgress(NAME, f"pulling {model} ({digest.removeprefix('sha256:')[:12]})", done, total)
