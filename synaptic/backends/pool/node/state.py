"""What the pool knows of its nodes, as plain data: the picker reads it, the pool alone writes it.

Times are seconds of the event loop's clock. A simulation fills the same fields without any socket.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from synaptic.backends.ollama import context_to_ask
from synaptic.backends.pool.learned import Rates
from synaptic.models import LastTurn

if TYPE_CHECKING:
    from collections.abc import Mapping

NOTHING_CACHED: dict[int, int] = {}


@dataclass(slots=True, eq=False)
class ModelState:
    """One model on one node.

    Attributes:
        name: What all names of it have in common (``llama3:latest``); models are known by it throughout the pool.
        size_bytes: Of the weights, as ``/api/tags`` says.
        context_length: What it was trained with; ``None`` until ``/api/show`` was asked.
        own_context: The ``num_ctx`` of its Modelfile, if it has one.
        capabilities: As ``/api/show`` names them (``completion``, ``tools``, ``vision``, ``embedding``); ``None`` where
            the server does not say: then nothing is excluded.
        last_turn: What its template on the node does with an answer to be continued, as far as ``/api/show`` tells.
        resident: Whether it is in the node's memory now.
        loaded_bytes: What it takes there, KV cache included; 0 if it is not resident.
        vram_bytes: How much of that is in video memory.
        loaded_context: The context that it is loaded with, or is being loaded with.
        expires_at: When the node will unload it, as it writes it; "" if not known.
        loading_until: When the load that is under way is expected to end; 0 if none is.
        seen_at: When a call last saw whether it is resident; that counts more than what the node says.
        refused_until: The model is not asked for on this node before.
        refused_why: Why not.
        rates: What was learned of its speed here.
        spelling: How the node writes it, capitals included; "" where that is the same.
    """

    name: str
    size_bytes: int | None = None
    context_length: int | None = None
    own_context: int | None = None
    capabilities: frozenset[str] | None = None
    last_turn: LastTurn = LastTurn.UNKNOWN
    resident: bool = False
    loaded_bytes: int = 0
    vram_bytes: int = 0
    loaded_context: int | None = None
    expires_at: str = ""
    loading_until: float = 0.0
    seen_at: float = float("-inf")
    refused_until: float = 0.0
    refused_why: str = ""
    rates: Rates = field(default_factory=Rates)
    spelling: str = ""

    @property
    def shown(self) -> str:
        """What people call it, and the node."""
        return self.spelling or self.name

    def context_for(self, wanted: int | None) -> int | None:
        """Return the context to send with a call that needs ``wanted`` tokens of it: never less than there is."""
        loaded = self.loaded_context if self.resident or self.loading_until else None
        return context_to_ask(wanted, loaded=loaded, own=self.own_context, trained=self.context_length)[0]

    def load_begins(self, num_ctx: int | None, until: float) -> None:
        """Take note that it is being loaded with this context, until ``until`` as far as is known."""
        self.resident, self.loaded_context = False, num_ctx
        self.loading_until = max(self.loading_until, until)

    def reloads(self, wanted: int | None) -> bool:
        """Tell whether such a call has the loaded model loaded anew, since it is loaded with a shorter context."""
        loaded = self.loaded_context
        if loaded is None or (loaded >= (wanted or 0) and loaded >= (self.own_context or 0)):
            return False
        return (self.context_for(wanted) or 0) > loaded


@dataclass(slots=True, eq=False)
class NodeState:
    """One node.

    Attributes:
        key: Its number in the pool.
        name: What it is called in print; without secrets.
        limit: Calls at once, as configured.
        cap: Calls at once, as of now: never above ``limit``; 0 while the node gets none.
        why_closed: Why ``cap`` is 0.
        paused_until: When it is asked again that said that it is busy or not ready; past for every other node.
        trust: Of a node that has just come back, below 1: its expected times are divided by it (slow start).
        in_flight: Calls of this pool that it has now.
        elsewhere: Calls of other programs that it has now, as far as they tell.
        ends: When they are expected to end, in order.
        busy_models: Model -> calls of it in flight.
        memory_bytes: What models may take there, where that is known.
        models: By full name.
    """

    key: int
    name: str
    limit: int = 1
    cap: int = 1
    why_closed: str = ""
    paused_until: float = 0.0
    trust: float = 1.0
    in_flight: int = 0
    elsewhere: int = 0
    ends: list[float] = field(default_factory=list)
    busy_models: dict[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    models: dict[str, ModelState] = field(default_factory=dict)

    def claim(self, model: str, end: float) -> None:
        """Count one call more, which is expected to end at ``end``."""
        self.in_flight += 1
        insort(self.ends, end)
        self.busy_models[model] = self.busy_models.get(model, 0) + 1

    def release(self, model: str, end: float) -> None:
        """Take back what :meth:`claim` counted, with the same arguments."""
        self.in_flight -= 1
        self.ends.remove(end)
        left = self.busy_models[model] - 1
        if left:
            self.busy_models[model] = left
        else:
            del self.busy_models[model]


@dataclass(slots=True, eq=False)
class CallShape:
    """What the picker has to know of a call.

    Attributes:
        model: What all names of it have in common.
        asked: The model's name as it was asked for; for messages.
        prompt_tokens: Estimated.
        output_tokens: Estimated.
        needs: Capabilities that the model must have on the node.
        num_ctx: The context that the call needs; each node is asked for that or more.
        cached: Node's key -> tokens of the prompt that its cache is likely to hold.
        tried: Keys of the nodes that have failed this call; they are taken only where no other is left.
    """

    model: str
    prompt_tokens: int = 0
    output_tokens: int = 256
    needs: frozenset[str] = frozenset()
    num_ctx: int | None = None
    cached: Mapping[int, int] = field(default_factory=lambda: NOTHING_CACHED)
    tried: frozenset[int] = frozenset()
    asked: str = ""

    @property
    def shown(self) -> str:
        """The model as people call it."""
        return self.asked or self.model
