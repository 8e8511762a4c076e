"""What a node says of its models, read with care, and put into what the pool knows. Pure: no I/O.

A node is another program, maybe of another version, maybe lying: whatever is not as it should be is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.backends.http import count_in, text_in
from synaptic.backends.ollama import listed, merge_models, own_context, shown_turn, trained_context
from synaptic.backends.pool.node.state import ModelState
from synaptic.models import name_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.backends.ollama import InstalledModel
    from synaptic.backends.pool.node.state import NodeState

SEEN_COUNTS = 5.0
"""Seconds for which what a call saw of a model (it was loaded, it was not) counts more than what the node says."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One entry of ``/api/ps``.

    Attributes:
        size: Bytes in memory, the KV cache included.
        size_vram: How much of that is in video memory.
        context_length: In tokens; ``None`` where an older server does not say.
    """

    size: int
    size_vram: int
    context_length: int | None
    expires_at: str

    @property
    def vram_share(self) -> float:
        """Part of it that is in video memory, 0 to 1."""
        return min(1.0, self.size_vram / self.size) if self.size else 0.0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What ``/api/tags`` and ``/api/ps`` say.

    Attributes:
        digests: Model -> what identifies its content.
        loaded: By model; ``None`` where the server has no ``/api/ps``.
    """

    installed: tuple[InstalledModel, ...]
    digests: Mapping[str, str]
    loaded: Mapping[str, LoadedModel] | None


def read_facts(tags: Mapping[str, Any], ps: Mapping[str, Any]) -> NodeFacts:
    """Return what the two listings say; entries that make no sense are left out."""
    loaded = (
        {name_key(name): _loaded(entry) for name, entry in listed(dict(ps))}
        if isinstance(ps.get("models"), list)
        else None
    )
    installed = tuple(merge_models(dict(tags), dict(ps)))
    digests = {name_key(model.info.name): model.digest for model in installed if model.digest is not None}
    return NodeFacts(installed, digests, loaded)


def update(state: NodeState, facts: NodeFacts, now: float) -> None:
    """Put what a node says into what is known of it; what calls have seen just now goes before that."""
    listed = {name_key(entry.info.name): entry for entry in facts.installed if not entry.remote}
    for name in [name for name in state.models if name not in listed]:
        if name not in state.busy_models:
            del state.models[name]
    for name, entry in listed.items():
        model = state.models.get(name)
        if model is None:
            model = state.models[name] = ModelState(name)
        model.spelling = entry.info.name
        model.size_bytes = entry.info.size_bytes
        if model.refused_until and now >= model.refused_until:
            model.refused_until, model.refused_why = 0.0, ""
        if not entry.can_chat and model.capabilities is None:
            model.capabilities = frozenset({"embedding"})
        if facts.loaded is not None:
            _put_loaded(model, facts.loaded.get(name), now, sure=False)


def update_memory(state: NodeState, ps: Mapping[str, Any], now: float, asked_at: float) -> None:
    """Put what ``/api/ps`` alone says, which was asked for at ``asked_at``, into what is known of the models."""
    loaded = read_facts({}, ps).loaded
    if loaded is not None:
        for name, model in state.models.items():
            _put_loaded(model, loaded.get(name), now, sure=asked_at > model.seen_at)


def read_shown(model: ModelState, shown: Mapping[str, Any]) -> None:
    """Put ``/api/show`` into what is known of a model on a node."""
    model.context_length = trained_context(dict(shown)) or model.context_length
    model.own_context = own_context(dict(shown))
    model.last_turn = shown_turn(dict(shown))
    capabilities = shown.get("capabilities")
    if isinstance(capabilities, list):
        names = frozenset(name for name in capabilities if isinstance(name, str))
        if names:
            model.capabilities = names


def _put_loaded(model: ModelState, loaded: LoadedModel | None, now: float, *, sure: bool) -> None:
    if loaded is not None:
        model.loaded_bytes, model.vram_bytes = loaded.size, loaded.size_vram
        model.loaded_context, model.expires_at = loaded.context_length, loaded.expires_at
    if not sure and now < model.seen_at + SEEN_COUNTS and model.resident != (loaded is not None):
        return
    if now < model.loading_until:
        return  # a model is listed as soon as its load begins
    model.resident, model.loading_until = loaded is not None, 0.0
    if loaded is None:
        model.loaded_bytes, model.vram_bytes, model.loaded_context, model.expires_at = 0, 0, None, ""


def _loaded(entry: Mapping[str, Any]) -> LoadedModel:
    return LoadedModel(
        size=count_in(entry.get("size")),
        size_vram=count_in(entry.get("size_vram")),
        context_length=count_in(entry.get("context_length")) or None,
        expires_at=text_in(entry.get("expires_at")),
    )
