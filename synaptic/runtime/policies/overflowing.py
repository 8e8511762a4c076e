"""What is said of a prompt that does not fit, and what a person can do about it from where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.errors import ContextOverflow
from synaptic.runtime.policies.prompt_size import reply_tokens, room_for_prompt

if TYPE_CHECKING:
    from synaptic.backends import Capabilities
    from synaptic.messages import ChatRequest
    from synaptic.shared_bounds import Overflow

_AFTER: Final[dict[Overflow, str]] = {
    "error": "",
    "truncate_oldest": " and does not fit even without the data in it",
    "summarise": " and does not fit after the data in it was summarised, either",
}


@dataclass(frozen=True, slots=True)
class OverflowRule:
    """What happens to a prompt that does not fit.

    Attributes:
        in_file: Whether the pipeline's file says so; else it is the setting.
    """

    how: Overflow = "error"
    in_file: bool = True


REFUSE: Final = OverflowRule()


@dataclass(frozen=True, slots=True)
class Refused:
    """A prompt that does not fit.

    Attributes:
        context: The model's, in tokens.
        tokens: Of the prompt, as people are told: "9000", "about 9000".
        path: The step, where the error does not come from its call.
        remark: Stands behind the count; ``None`` is what the rule says.
    """

    request: ChatRequest
    context: int
    tokens: str
    path: str = ""
    remark: str | None = None


def too_long(prompt: Refused, rule: OverflowRule, can: Capabilities, backend: str) -> ContextOverflow:
    """Return the error of a prompt that does not fit, after what the rule says was done about it."""
    room = max(0, room_for_prompt(prompt.request, prompt.context))
    whose = f"the prompt of {prompt.path}" if prompt.path else "the prompt"
    done = _AFTER[rule.how] if prompt.remark is None else prompt.remark
    kept = reply_tokens(prompt.request, prompt.context)
    return ContextOverflow(
        f"{whose} is {prompt.tokens} tokens{done}; there is room for {room}: the context is {prompt.context} tokens, "
        f"of which {kept} are kept for the reply",
        hint=_either(_ways(rule, can)),
        backend=backend,
    )


def _ways(rule: OverflowRule, can: Capabilities) -> list[str]:
    ways = [can.longer_context]
    if rule.how == "error" and rule.in_file:
        ways.insert(0, "write overflow: truncate_oldest or overflow: summarise in the step")
    elif rule.how == "error":
        ways.insert(0, "have it summarised with --set overflow=summarise")
    return [*ways, "lower max_tokens" if rule.in_file else "give it less text"]


def _either(ways: list[str]) -> str:
    return f"{', '.join(ways[:-1])} or {ways[-1]}"
