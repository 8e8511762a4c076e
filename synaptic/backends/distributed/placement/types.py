"""The words of a placement: what workers offer, what the model needs, and which worker gets which layers, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from synaptic.backends.distributed.workers import Endpoint, Measurement
    from synaptic.models import ModelShape


class PlannedWorker(NamedTuple):
    """A worker of this machine that does not run yet: it has a number and no address."""

    number: int

    def __str__(self) -> str:
        return f"local-{self.number}"


WorkerName: TypeAlias = "Endpoint | PlannedWorker"
"""What a placement calls a worker: its address, or its number if it does not run yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One device of one worker.

    Attributes:
        endpoint: The worker, by its address if it runs.
        device: Its number there.
        memory_bytes: What layers may take, before any margin.
        measurement: What it and the way to it can do; ``None`` where that was never measured.
        layers: How many layers a person wants it to have; ``None`` leaves that to the placement.
        refusal: Why it cannot be used (held, unreachable, another version); "" if it can.
    """

    endpoint: WorkerName
    device: int
    memory_bytes: int
    measurement: Measurement | None = None
    managed: bool = False
    layers: int | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingNeeds:
    """What a model is to be served with.

    Attributes:
        context: Tokens of one call, prompt and reply together.
        slots: Calls at once.
        ubatch: Tokens of a prompt that are computed at once (llama.cpp's ``-ub``).
        draft: The most tokens of a call that are drafted and checked at once; 0 where none are.
        coordinator_memory: Bytes that the coordinator may take on this machine.
    """

    context: int
    slots: int
    ubatch: int = 512
    draft: int = 0
    coordinator_memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one device of one worker gets.

    Attributes:
        first: Its first layer.
        layers: How many, in order; the output is not one of them.
        output: Whether norm and head are there.
        embeddings: Whether the token embeddings are there, instead of at the coordinator.
        kv_bytes: Keys and values of all slots.
        compute_bytes: Scratch memory, estimated.
        seconds_per_token: Predicted, its network included.
        overridden: Whether a person chose the number of layers.
    """

    endpoint: WorkerName
    device: int
    first: int
    layers: int
    output: bool
    embeddings: bool
    weight_bytes: int
    kv_bytes: int
    compute_bytes: int
    seconds_per_token: float
    overridden: bool = False

    @property
    def memory_bytes(self) -> int:
        """All that it needs there."""
        return self.weight_bytes + self.kv_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceVerdict:
    """Why a device is, or is not, part of a placement."""

    endpoint: WorkerName
    device: int
    used: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which layers go where. Shares are in the order in which a token passes through them.

    Attributes:
        shares: At least one; each holds at least a layer or the output.
        output_here: Whether norm and head are at the coordinator instead of the last worker, so that hidden states
            come back and not logits.
        coordinator_bytes: What the coordinator will hold of the model, and its own buffers.
        tokens_per_second: Predicted decode speed of one stream; ``None`` where a worker was never measured.
        load_seconds: Predicted time until it is loaded; ``None`` likewise.
        draft_cost: Predicted cost of checking a drafted token, as a part of that of a pass; ``None`` likewise.
        verdicts: One for each device that was offered.
    """

    shape: ModelShape
    needs: ServingNeeds
    shares: tuple[Share, ...]
    coordinator_bytes: int
    tokens_per_second: float | None
    load_seconds: float | None
    verdicts: tuple[DeviceVerdict, ...]
    output_here: bool = False
    draft_cost: float | None = None

    @property
    def drafted_tokens_per_second(self) -> float | None:
        """Predicted decode speed of one stream of which all tokens are drafted, and right: that of a copy."""
        if self.tokens_per_second is None or self.draft_cost is None or not self.needs.draft:
            return None
        return self.tokens_per_second * (1 + self.needs.draft) / (1 + self.needs.draft * self.draft_cost)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The workers, each once, in the order of their first share.

        Raises:
            ValueError: If one of them is only planned; such a placement can be shown and not be started.
        """
        found = dict.fromkeys(share.endpoint for share in self.shares)
        running = tuple(endpoint for endpoint in found if not isinstance(endpoint, PlannedWorker))
        if len(running) < len(found):
            raise ValueError("a worker of this placement does not run")
        return running
