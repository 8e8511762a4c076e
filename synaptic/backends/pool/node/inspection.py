"""One look at each node, without a pool: is it there, what does it have, and where are its models loaded."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synaptic.backends.http import Origin, get_json, new_client, post_json
from synaptic.backends.ollama import (
    NAME,
    ContextReason,
    context_to_ask,
    own_context,
    server_version,
    status_error,
    trained_context,
)
from synaptic.backends.pool.learned import DEFAULT_CONTEXT
from synaptic.backends.pool.node.credentials import access_notices, certificates, node_headers
from synaptic.backends.pool.node.facts import read_facts
from synaptic.backends.pool.node.identity import once_notice, one_server_twice
from synaptic.backends.pool.node.status import ModelStatus, NodeStatus
from synaptic.backends.tunnels import Tunnels
from synaptic.errors import BackendError, ConfigError
from synaptic.models import name_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from synaptic.backends.http import JsonObject
    from synaptic.backends.pool.node.facts import LoadedModel
    from synaptic.messages import ModelInfo
    from synaptic.settings import NodeSettings, Settings

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 5.0
CONCURRENCY = 64
MODELS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What one look at a node told.

    Attributes:
        seconds: That ``/api/version`` took, connecting included; ``None`` if nothing came.
        version: Of its Ollama; ``None`` if nothing came.
        models: The installed ones.
        error: Why it is of no use.
        notices: What else a person should know.
        same_as: The node before it that is the same server, by another name; "" for most.
    """

    node: NodeSettings
    seconds: float | None = None
    version: str | None = None
    models: tuple[ModelStatus, ...] = ()
    error: BackendError | ConfigError | None = None
    notices: tuple[str, ...] = ()
    same_as: str = ""

    @property
    def well(self) -> bool:
        """Whether the node could serve a call."""
        return self.error is None and bool(self.models)

    @property
    def reason(self) -> str:
        """Why it is not well, "" if it is."""
        if self.error is not None:
            return self.error.message
        return "" if self.models else "it answers, but has no model"

    @property
    def hint(self) -> str | None:
        """What to do about that."""
        if self.error is not None:
            return self.error.hint
        return None if self.models else "run there: ollama pull llama3.2"

    @property
    def status(self) -> NodeStatus:
        """The same in the form in which a pool tells it."""
        return NodeStatus(
            name=self.node.shown,
            url=self.node.url,
            condition="up" if self.error is None else "down",
            version=self.version,
            limit=self.node.parallel,
            cap=self.node.parallel,
            in_flight=0,
            queued=0,
            models=self.models,
            served=0,
            errors=0,
            last_error="",
            reason=self.reason,
            hint=self.hint or "",
        )


async def inspect_nodes(
    nodes: Sequence[NodeSettings], environ: Mapping[str, str], settings: Settings | None = None
) -> list[Inspection]:
    """Return what a look at each node tells, in their order; at most 64 are asked at once.

    Args:
        nodes: The nodes.
        environ: Where their secrets are.
        settings: With them, each model is looked at for the context that calls will ask for.
    """
    places = asyncio.Semaphore(CONCURRENCY)

    async def one(node: NodeSettings) -> Inspection:
        async with places:
            return await inspect_node(node, environ, settings)

    async with Tunnels([node.url for node in nodes]), asyncio.TaskGroup() as tasks:
        looks = [tasks.create_task(one(node)) for node in nodes]
    found = [look.result() for look in looks]
    for index, first in (await one_server_twice([node.url for node in nodes])).items():
        notice = once_notice(nodes[index].url, nodes[first].url, nodes[first].shown)
        found[index] = replace(found[index], same_as=nodes[first].shown, notices=(*found[index].notices, notice))
    return found


async def inspect_node(node: NodeSettings, environ: Mapping[str, str], settings: Settings | None = None) -> Inspection:
    """Return what a look at ``node`` tells. Whatever is wrong with it is part of that; nothing is raised."""
    notices = tuple(access_notices(node))
    try:
        client = new_client(
            node.url,
            connect_timeout=CONNECT_SECONDS,
            headers=node_headers(node, environ),
            ca_file=certificates(node),
        )
    except (BackendError, ConfigError) as exc:
        return Inspection(node=node, error=exc, notices=notices)
    seconds, version = None, None
    async with aclosing(client):
        try:
            began = time.perf_counter()
            version = server_version(await _get(client, node, "/api/version"), node.url)
            seconds = time.perf_counter() - began
            tags, loaded = await _get(client, node, "/api/tags"), await _get(client, node, "/api/ps")
        except BackendError as exc:
            return Inspection(node=node, seconds=seconds, version=version, error=exc, notices=notices)
        models = model_statuses(tags, loaded)
        if settings is not None:
            models = await _with_contexts(client, node, models, settings)
    return Inspection(node=node, seconds=seconds, version=version, models=models, notices=notices)


async def _with_contexts(
    client: httpx.AsyncClient, node: NodeSettings, models: tuple[ModelStatus, ...], settings: Settings
) -> tuple[ModelStatus, ...]:
    """Return the models with the context that calls will ask for; one that does not tell of itself stays as it is."""
    places = asyncio.Semaphore(MODELS_AT_ONCE)

    async def one(model: ModelStatus) -> ModelStatus:
        async with places:
            try:
                shown = await _show(client, node, model.name)
            except BackendError:
                return model
        asked, why = context_asked(settings, model.context_length if model.loaded else None, shown)
        return replace(model, asked_context=asked, asked_why=why)

    return tuple(await asyncio.gather(*(one(model) for model in models)))


def context_asked(settings: Settings, loaded: int | None, shown: JsonObject) -> tuple[int | None, str]:
    """Return the context that a call asks for which needs no more than the settings say, and why."""
    own, trained = own_context(shown), trained_context(shown)
    asked, why = context_to_ask(settings.num_ctx, loaded=loaded, own=own, trained=trained)
    is_pool = settings.task_distribution_enabled and bool(settings.nodes)
    if why is ContextReason.SERVER and is_pool:
        asked, why = context_to_ask(DEFAULT_CONTEXT, trained=trained)
        return asked, why.value if why is ContextReason.TRAINED else "neither num_ctx nor the model says"
    again = loaded is not None and asked is not None and asked > loaded
    return asked, f"{why.value}; the first call loads it anew" if again else why.value


def model_statuses(tags: JsonObject, loaded: JsonObject) -> tuple[ModelStatus, ...]:
    """Return the models of ``/api/tags``, with what ``/api/ps`` says of them; without those that run elsewhere."""
    facts = read_facts(tags, loaded)
    running = facts.loaded or {}
    return tuple(
        _model(entry.info, running.get(name_key(entry.info.name))) for entry in facts.installed if not entry.remote
    )


def _model(info: ModelInfo, running: LoadedModel | None) -> ModelStatus:
    return ModelStatus(
        name=info.name,
        loaded=running is not None,
        size_bytes=info.size_bytes,
        vram_share=running.vram_share if running is not None and running.size else None,
        context_length=running.context_length if running is not None else None,
        first_token=None,
        output_rate=None,
        samples=0,
        expires_at=running.expires_at if running is not None else "",
    )


async def _show(client: httpx.AsyncClient, node: NodeSettings, model: str) -> JsonObject:
    return await post_json(
        client,
        "/api/show",
        {"model": model},
        origin=Origin(NAME, node.url),
        within=ANSWER_SECONDS,
        read_error=lambda status, text: status_error(status, text, model=model, node=node.url),
    )


async def _get(client: httpx.AsyncClient, node: NodeSettings, path: str) -> JsonObject:
    return await get_json(client, path, origin=Origin(NAME, node.url), within=ANSWER_SECONDS)
