"""What the pool shows of itself: a node as it stands, and why a call went where it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NodeCondition = Literal["up", "warming", "trying", "down", "unknown"]
"""``warming``: back, and given calls slowly; ``trying``: back as far as one call tells; ``down``: gets no calls;
``unknown``: not asked yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model of a node.

    Attributes:
        vram_share: Of a loaded model, the part that is in video memory, 0 to 1; ``None`` if it is not loaded.
        first_token: Learned seconds to the first token without loading; ``None`` without samples.
        output_rate: Learned tokens a second; ``None`` without samples.
        expires_at: When the node will unload it (RFC 3339), "" where it does not say.
        note: What is wrong with it here, "" if nothing is.
        asked_context: The context that a call asks for which needs no more than the settings say; ``None`` where it
            asks for none, or where the model was not looked at for that.
        asked_why: Why that; "" where the model was not looked at for it.
    """

    name: str
    loaded: bool
    size_bytes: int | None
    vram_share: float | None
    context_length: int | None
    first_token: float | None
    output_rate: float | None
    samples: int
    expires_at: str = ""
    note: str = ""
    asked_context: int | None = None
    asked_why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node as it stands.

    Attributes:
        url: Without password.
        in_flight: Calls of this pool that it has now.
        elsewhere: Calls of other programs that it has now, as far as they tell.
        queued: Calls that wait for a node and could run here.
        errors: How many calls it has failed since the start.
        last_error: The latest failure; "" if there was none.
        reason: Why it is not ``up``; "" if it is.
        probe_in: Seconds until it is looked at again, where it is ``down``.
        hint: What to do about ``reason``; "" where that is not known.
    """

    name: str
    url: str
    condition: NodeCondition
    version: str | None
    limit: int
    cap: int
    in_flight: int
    queued: int
    models: tuple[ModelStatus, ...]
    served: int
    errors: int
    last_error: str
    reason: str
    probe_in: float | None = None
    hint: str = ""
    elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """What was thought of one node for one call.

    Attributes:
        seconds: Expected until the call is complete: ``wait + load + run``; ``None`` if the node was out of question.
        wait: Until it has a free place, that other programs leave one included.
        load: To load the model.
        run: To serve the call, what its cache saves already taken off.
        why: Why it was taken or not.
    """

    node: str
    seconds: float | None
    wait: float
    load: float
    run: float
    cached_tokens: int
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one call went, and why.

    Attributes:
        tag: The step that asked.
        attempt: 1 for the first one.
        node: Who got it; ``None`` if it was left waiting.
        waited: Seconds in the queue.
        at: Unix time.
        shortlisted: How many nodes were looked at; in a large pool that is not all of them.
    """

    tag: str
    model: str
    attempt: int
    node: str | None
    waited: float
    at: float
    candidates: tuple[Candidate, ...]
    shortlisted: int


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A call that waits for a node.

    Attributes:
        tag: The step that asks; "" for a call of a client.
        seconds: That it has waited.
        why: Why it waits, in words.
    """

    tag: str
    model: str
    seconds: float
    why: str
