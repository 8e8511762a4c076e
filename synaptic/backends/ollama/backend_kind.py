"""One Ollama node as the settings describe it: opened, and looked at for ``synaptic doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.backends.base import BackendContext, BackendKind, Finding
from synaptic.backends.http import without_password
from synaptic.backends.ollama.api import NAME, default_url
from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.pool import inspect_nodes, open_client
from synaptic.errors import BackendUnavailable, ConfigError
from synaptic.models import SUGGESTED_MODEL, name_key
from synaptic.settings import read_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.settings import NodeSettings


def from_context(context: BackendContext) -> OllamaBackend:
    """Return a client of the address in the context, else of the first node, else of the local server."""
    settings = context.settings
    if context.url is None and settings.nodes:
        return open_client(settings, settings.nodes[0], context.environ, as_loaded=True)
    return OllamaBackend.from_settings(settings, context.url or default_url(context.environ))


def local_node(environ: Mapping[str, str]) -> NodeSettings:
    """Return what is used where no node is named: what ``OLLAMA_HOST`` says, else the usual port of this machine.

    Raises:
        ConfigError: If that variable has no address.
    """
    try:
        return read_node({"url": without_password(default_url(environ))})
    except ConfigError as exc:
        raise ConfigError("OLLAMA_HOST holds no address", hint="write a host, such as 127.0.0.1:11434") from exc


async def examine(context: BackendContext) -> list[Finding]:
    """Return for each node of the settings, or for the local server, whether it answers and has a model.

    The local server is missed only where the settings name it: without one the embedded model answers.
    """
    settings, environ = context.settings, context.environ
    nodes = settings.nodes
    findings: list[Finding] = []
    for look in await inspect_nodes(nodes or [local_node(environ)], environ):
        if look.well:
            names = ", ".join(model.name for model in look.models)
            first = not findings or settings.task_distribution_enabled  # else it is the only one that is asked
            if settings.model is None or name_key(settings.model) in {name_key(model.name) for model in look.models}:
                findings.append(Finding(NAME, "ok", f"{look.node.url} has {names}", answers=first))
            else:
                text = f"{look.node.url} has {names}, but not {settings.model}"
                findings.append(Finding(NAME, "missing", text, f"ollama pull {settings.model}, or name another model"))
        elif look.error is None:
            text = f"{look.node.url} answers, but has no model"
            findings.append(Finding(NAME, "missing", text, f"ollama pull {SUGGESTED_MODEL}"))
        else:
            # Without nodes, an Ollama that is not there is nothing that lacks; one that is there and refuses is.
            absent = not nodes and isinstance(look.error, BackendUnavailable)
            findings.append(Finding(NAME, "note" if absent else "missing", look.reason, None if absent else look.hint))
    return findings


KIND = BackendKind(
    name=NAME,
    summary="the first of `nodes`, else an Ollama on this machine",
    open=from_context,
    examine=examine,
)
