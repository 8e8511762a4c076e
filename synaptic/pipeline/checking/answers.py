"""What a test may write as the reply of a step, and what is wrong with a reply that the step could never give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from synaptic.errors import OutputInvalid
from synaptic.pipeline.spec import FAILS, ReplyFailure, is_failure
from synaptic.pipeline.templates import UNKNOWN, Record, Text
from synaptic.text import did_you_mean, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.agents import Shape
    from synaptic.pipeline.templates import StaticType

FAILURES: Final = get_args(ReplyFailure)
_SHOWN: Final = 60
_MEANT: Final = {"yes": "true", "on": "true", "accepted": "true", "no": "false", "off": "false", "refused": "false"}

Wrong = tuple[str, str | None]
"""What is wrong with a reply, to be read after "the reply", and what to write."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers a call of a step.

    Attributes:
        by: Who gives the answer: a model, a choosing model, a tool, a person, another pipeline, a person who approves;
            ``unknown`` where the step has a mistake.
        shape: Of the answer, where it has one.
        options: Labels of a choice.
        type: Of what another pipeline gives.
        open: Whether further steps are inside, of which nothing is known: their file has a mistake.
    """

    by: Literal["model", "choice", "tool", "person", "pipeline", "approval", "unknown"]
    shape: Shape | None = None
    options: Sequence[str] = ()
    type: StaticType = UNKNOWN
    open: bool = False


def wrong_reply(reply: Any, answering: Answering) -> Wrong | None:
    """Return what is wrong with one reply; ``None`` if the step could give it."""
    if answering.by == "unknown":
        return None
    if reply is None:
        return "is empty", "write what is answered"
    if is_failure(reply, answering.shape):
        return _wrong_failure(reply[FAILS], answering)
    match answering.by:
        case "choice":
            return _wrong_label(reply, answering.options)
        case "approval":
            meant = _MEANT.get(reply.lower()) if isinstance(reply, str) else None
            return None if meant is None else (f"is the text {reply!r}", f"write {meant}")
        case "tool":
            return None if answering.shape is None else _wrong_shape(reply, answering.shape)
        case "pipeline":
            return _wrong_result(reply, answering.type)
    return _wrong_text(reply) if answering.shape is None else _wrong_shape(reply, answering.shape)


def _wrong_failure(said: Any, answering: Answering) -> Wrong | None:
    if answering.by == "approval":
        return "of a person who approves cannot fail", "write false, which refuses"
    if answering.by not in {"model", "choice"}:
        is_text = isinstance(said, str) and said.strip()
        return None if is_text else (f"has no error: {_described(said)}", f"write it as text: {{{FAILS}: no network}}")
    if said in FAILURES:
        return None
    return f"fails for an unknown reason: {_described(said)}", did_you_mean(str(said), FAILURES)


def _wrong_label(reply: Any, options: Sequence[str]) -> Wrong | None:
    if isinstance(reply, str) and reply in options:
        return None
    return f"is none of the options: {_described(reply)}", did_you_mean(str(reply), options)


def _wrong_text(reply: Any) -> Wrong | None:
    if isinstance(reply, bool) or not isinstance(reply, (str, int, float)):
        return f"must be text, not {_described(reply)}", "put it in quotes" if isinstance(reply, bool) else None
    return None if str(reply).strip() else ("is empty", f"for a reply that is not usable, write {{{FAILS}: output}}")


def _wrong_shape(reply: Any, shape: Shape) -> Wrong | None:
    if not isinstance(reply, Mapping):
        fields = ", ".join(f"{name}: …" for name in shape.field_names())
        return f"must be a mapping, not {_described(reply)}", f"write {{{fields}}}"
    try:
        shape.validate(reply)
    except OutputInvalid as exc:
        return exc.message.removeprefix("the reply "), None
    return None


def _wrong_result(reply: Any, kind: StaticType) -> Wrong | None:
    if isinstance(kind, Text) and not isinstance(reply, str):
        return f"must be text, not {_described(reply)}", "it is the result of the pipeline"
    if isinstance(kind, Record) and not isinstance(reply, Mapping):
        return f"must be a mapping, not {_described(reply)}", f"it has {', '.join(kind.fields)}"
    return None


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(one_line(value, _SHOWN)) if isinstance(value, str) else str(value).lower()
