"""What is known from before: one rule for resume, fork and rerun. What has the same key is not done again.

A *leaf* is what a run pays for: a model's call, a tool's call, a person's decision. Everything else (maps, loops,
samples, races, used pipelines) is run again, finds its leaves done, and so arrives where it was.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from synaptic.quick_init import quick_init
from synaptic.runtime.policies import request_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.messages import ChatRequest
    from synaptic.pipeline import CompiledCall
    from synaptic.runtime.approval import ApprovalRequest, Decision
    from synaptic.runtime.events import StepAsked, StepSummarised, UnusableReply


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of a leaf.

    Attributes:
        output: As the leaf gave it, before a person approved it; of a person's decision, what the run went on with.
        decision: Of a person; ``None`` of other leaves.
        order: Of the ends of the leaves: a race goes as it went.
        model: That was asked.
        stop_reason: Why the output ends where it ends.
    """

    output: Any
    order: int = 0
    decision: Decision | None = None
    model: str | None = None
    backend: str | None = None
    node: str | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of an agent's call that was begun, and whose end is not known.

    Attributes:
        unusable: The replies that had come, and that the model was asked again because of.
        said: The beginning of the one after them.
        pieces: In how many that came, about one a token; 0 where nobody knows.
    """

    unusable: Sequence[UnusableReply] = ()
    said: str = ""
    pieces: int = 0


NOTHING: Final = Begun()


class Past(Protocol):
    """What a run may take instead of doing it."""

    def taken(self, path: str, key: str, digest: str | None = None) -> Done | None:
        """Return what came of a leaf, ``None`` where it must be done; each output is given once.

        Args:
            path: Of the step that asks.
            key: What decides the output.
            digest: What identifies the content of the model; ``None`` where that is not known.
        """
        ...

    def was_open(self, path: str, key: str) -> bool:
        """Return whether the leaf was begun, and it is not known how it ended."""
        ...

    def has_ended(self, path: str, *, decided: bool) -> bool:
        """Return whether something of the run itself is left that came of a leaf at a path.

        Args:
            path: Of the step.
            decided: Whether that is a person's decision.
        """
        ...

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left that could be taken."""
        ...

    def changes(self, asked: StepAsked) -> tuple[str, ...]:
        """Return in what a question differs from the last one at its path; () where it does not, or there was none."""
        ...

    def begun(self, path: str, key: str, digest: str | None = None) -> Begun:
        """Return what is known of a leaf that was begun, and whose end is not known.

        Args:
            path: Of the step.
            key: What decides the output.
            digest: What identifies the content of the model; another model does not go on with it.
        """
        ...

    def summary(self, path: str, key: str) -> StepSummarised | None:
        """Return the summary that was asked for with a key; it may be taken more than once."""
        ...


_FIELDS: Final[Mapping[str, str]] = {
    "model": "model",
    "schema": "shape of the output",
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "num_ctx": "num_ctx",
    "think": "think",
    "repetition_guard": "repetition guard",
}
"""What of a request decides the reply beside its messages, and what people call it."""


def differences(before: StepAsked, now: StepAsked) -> tuple[str, ...]:
    """Return in what two questions of one step differ, in a person's words; () where their keys are the same."""
    if before.key == now.key:
        return ("content of the model",) if differ(before.digest, now.digest) else ()
    old, new = before.request, now.request
    if old is None or new is None:
        found = ["tool"] if before.tool != now.tool else []
        return tuple(found or ["arguments"])
    texts = ({message.role: message.content for message in request.messages} for request in (old, new))
    old_texts, new_texts = texts
    found = ["instructions of the agent"] if old_texts.get("system") != new_texts.get("system") else []
    found += ["prompt"] if old_texts.get("user") != new_texts.get("user") else []
    found += [word for name, word in _FIELDS.items() if getattr(old, name) != getattr(new, name)]
    found += ["content of the model"] if differ(before.digest, now.digest) else []
    return tuple(found or ["policy of the step"])


def differ(one: str | None, other: str | None) -> bool:
    """Return whether two digests are known and not the same."""
    return None not in {one, other} and one != other


def call_key(request: ChatRequest, call: CompiledCall) -> str:
    """Return the key of an agent's call: all that decides its output, but for the content of the model."""
    policy = call.policy
    shape = None if call.shape is None else call.shape.json_schema()
    return request_key(request, (policy.backend, policy.overflow, policy.fallback_models, shape))


def summary_key(request: ChatRequest, digest: str | None) -> str:
    """Return the key of a summary of a part of a prompt."""
    return request_key(request, ("summary", digest))


def tool_key(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the key of a tool's call."""
    return _hash("tool", name, arguments)


def decision_key(request: ApprovalRequest) -> str:
    """Return the key of a person's decision: it is all that the person is shown, and what the answer must fit."""
    shape = None if request.shape is None else request.shape.json_schema()
    return _hash(request.what, request.value, request.question, shape)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()
