"""Changing the models of an Ollama server: ``/api/pull``, ``push``, ``create``, ``copy`` and ``delete``."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from synaptic.backends.http import Origin, error_text, ndjson, new_client, stream_request, without_password
from synaptic.backends.ollama.api import NAME, status_error
from synaptic.errors import BackendError, ModelNotFound, StreamFailed, StreamTruncated
from synaptic.messages import BackendProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    import httpx

    from synaptic.backends.http import JsonObject
    from synaptic.messages import Reporter

SMALL_LAYER_BYTES = 1_000_000
"""Licences and parameters, which come at once."""

MAX_PROGRESS_BYTES = 2**30
"""A day of progress, at 60 lines a second."""

_TOLD = frozenset({"/api/pull", "/api/push", "/api/create"})
"""What ends with the line ``success``; the others say nothing."""


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
    request = {"model": model, "stream": True}
    async with (
        new_client(url, headers=headers, ca_file=ca_file) as client,
        aclosing(changing(client, "POST", "/api/pull", request, node=without_password(url))) as lines,
    ):
        async for line in lines:
            if (event := layer_progress(line, model)) is not None:
                report(event)


async def changing(
    client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any], *, node: str
) -> AsyncGenerator[JsonObject, None]:
    """Have a server change its models, and yield the lines in which it tells of it; closing this ends what it does.

    Args:
        client: Of the server.
        method: As the route asks for it.
        path: One of the routes that change models.
        body: With ``stream`` true, where the route has it.
        node: Its address, for the errors.

    Raises:
        ModelNotFound: If it does not have the model, or the registry does not know it.
        StreamFailed: If it gives up for another reason.
        StreamTruncated: If the connection ends before it says that it is done.
        BackendError: For everything else, see :mod:`synaptic.errors`.
    """
    model = str(body.get("model") or body.get("source") or "")
    call = stream_request(
        client,
        method,
        path,
        json=body,
        origin=Origin(NAME, node),
        read_error=lambda status, text: status_error(status, text, model=model, node=node),
    )
    async with call as reply, aclosing(ndjson(reply, origin=Origin(NAME, node), most=MAX_PROGRESS_BYTES)) as lines:
        async for line in lines:
            if "error" in line:
                text = error_text(json.dumps(line).encode())
                raise change_error(text, path.rpartition("/")[2], model, node)
            yield line
            if line.get("status") == "success":
                return
    if path in _TOLD:
        raise StreamTruncated(f"{node} ended the transfer before it was complete", backend=NAME, node=node)


def change_error(text: str, what: str, model: str, node: str) -> BackendError:
    """Return the error that a message means which stands in the stream of a pull, a push or the like."""
    if "file does not exist" in text.lower():
        hint = "see https://ollama.com/library for the names there are"
        return ModelNotFound(f"there is no model {model!r} to pull", hint=hint, backend=NAME, node=node)
    return StreamFailed(f"{node} could not {what} {model!r}: {text}", backend=NAME, node=node)


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
