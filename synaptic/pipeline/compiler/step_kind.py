"""Which keys of a step go together. Pure: from a step's form to what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.graph import WorkKind
    from synaptic.pipeline.spec import StepSpec
    from synaptic.text import KeyPath

_KINDS: dict[str, WorkKind] = {"agent": "agent", "use": "pipeline", "tool": "tool", "choose": "choose"}
_ALL_KINDS = "'agent', 'use', 'tool', 'choose' or 'repeat'"

_CALLS: frozenset[WorkKind] = frozenset({"agent", "choose"})
_FITS: dict[str, frozenset[WorkKind]] = {
    "prompt": frozenset({"agent"}),
    "inputs": frozenset({"pipeline", "tool"}),
    "output": frozenset({"agent", "tool"}),
    "samples": frozenset({"agent"}),
    "model": _CALLS,
    "backend": _CALLS,
    "fallback_models": _CALLS,
    "temperature": _CALLS,
    "max_tokens": _CALLS,
    "overflow": _CALLS,
    "cache": _CALLS,
    "retry": _CALLS,
}
"""The kinds that take a key; keys that are not here go with every kind."""
_WRITTEN = {"inputs": "with", "item_name": "as"}
_NAMES: dict[WorkKind, str] = {
    "agent": "agent",
    "choose": "choose",
    "tool": "tool",
    "pipeline": "use",
    "repeat": "repeat",
}
_ELSEWHERE: dict[tuple[WorkKind, str], str] = {
    ("choose", "prompt"): "write it inside 'choose'",
    ("choose", "output"): "its output is the chosen option",
    ("agent", "inputs"): "write the values into the prompt, as in {{ inputs.NAME }}",
    ("choose", "inputs"): "write the values into the prompt, as in {{ inputs.NAME }}",
    ("tool", "prompt"): "a tool gets its arguments with 'with'",
    ("pipeline", "prompt"): "a pipeline gets its inputs with 'with'",
    ("pipeline", "output"): "its output is the result of that pipeline",
    ("repeat", "output"): "its output is that of its steps",
}
_DEFAULT_ADVICE: dict[WorkKind, str] = {
    "agent": "remove it",
    "choose": "remove it",
    "tool": "a tool calls no model: remove it",
    "pipeline": "write it into that pipeline",
    "repeat": "give it to a step inside the loop",
}


class Misfit(NamedTuple):
    """A key that does not go with the others, or its value; ``path`` is inside the step."""

    message: str
    path: KeyPath
    suggestion: str | None = None
    at_value: bool = False


def kind_of(name: str, spec: StepSpec) -> tuple[WorkKind | None, list[Misfit]]:
    """Return what the step does (a loop over itself is of its body's kind), or what is wrong with it."""
    kinds = [key for key in _KINDS if getattr(spec, key) is not None]
    loop = spec.repeat
    if loop is not None:
        if (loop.steps is not None) == loop.itself:
            what = "both 'steps' and 'self'" if loop.itself else "neither 'steps' nor 'self: true'"
            return None, [Misfit(f"'repeat' has {what}", ("repeat",), "write exactly one of them")]
        if loop.itself and kinds == ["choose"]:
            return None, [Misfit("a 'choose' does not repeat itself", ("repeat",), "put it into 'repeat: {steps: …}'")]
        if not loop.itself:
            kinds.append("repeat")
        elif not kinds:
            message = f"the step {name!r} repeats itself, but has no call"
            return None, [Misfit(message, (), "add an 'agent', 'use' or 'tool'")]
    if len(kinds) == 1:
        return _KINDS.get(kinds[0], "repeat"), []
    if not kinds:
        message = f"the step {name!r} has none of {_ALL_KINDS}"
        return None, [Misfit(message, (), "write exactly one of them")]
    advice = "write exactly one of them"
    if kinds[-1] == "repeat":
        advice += "; to repeat the step's own call, write 'repeat: {self: true}'"
    named = " and ".join(repr(key) for key in kinds) if len(kinds) > 2 else f"both {kinds[0]!r} and {kinds[1]!r}"  # noqa: PLR2004  (two are "both")
    return None, [Misfit(f"the step {name!r} has {named}", (), advice)]


def misfits(spec: StepSpec, kind: WorkKind) -> list[Misfit]:
    """Return every key that does not go with what the step does, or with the other keys."""
    return [*_of_kind(spec, kind), *_of_modifiers(spec), *_of_loop(spec), *_of_approval(spec, kind)]


def _of_kind(spec: StepSpec, kind: WorkKind) -> Iterator[Misfit]:
    given = {key for key in spec.model_fields_set if getattr(spec, key) is not None}
    for key, kinds in _FITS.items():
        if key in given and kind not in kinds:
            advice = _ELSEWHERE.get((kind, key), _DEFAULT_ADVICE[kind])
            written = _WRITTEN.get(key, key)
            yield Misfit(f"a step with {_NAMES[kind]!r} has no {written!r}", (written,), advice)
    if kind not in _CALLS:
        for key in ("idle", "first_token"):
            if getattr(spec.timeout, key) is not None:
                message = f"a step with {_NAMES[kind]!r} has no {key!r} timeout"
                yield Misfit(message, ("timeout", key), "write 'total', which bounds the whole step")
    if kind == "agent" and spec.prompt is None:
        yield Misfit("a step with an agent needs a 'prompt'", (), "add 'prompt: …'")
    elif kind == "agent" and spec.prompt is not None and not spec.prompt.strip():
        yield Misfit("the prompt is empty", ("prompt",), "write what the agent is asked", at_value=True)
    for key in ("model", "backend"):
        value = getattr(spec, key)
        if value is not None and not value.strip():
            yield Misfit(f"{key!r} is empty", (key,), "write a name, or leave it out", at_value=True)


def _of_modifiers(spec: StepSpec) -> Iterator[Misfit]:
    if spec.foreach is None:
        for key in ("item_name", "concurrency"):
            if getattr(spec, key) is not None:
                written = _WRITTEN.get(key, key)
                yield Misfit(f"{written!r} goes with 'foreach', which is not here", (written,), "add 'foreach: …'")
    if spec.item_name in {"inputs", "steps", "run", "previous"}:
        yield Misfit(
            f"{spec.item_name!r} has a meaning of its own in templates", ("as",), "give it another name", at_value=True
        )
    if spec.samples is None:
        for key in ("select", "judge"):
            if getattr(spec, key) is not None:
                yield Misfit(f"{key!r} goes with 'samples', which is not here", (key,), "add 'samples: 3'")
    elif spec.judge is not None and spec.select == "vote":
        yield Misfit("'select: vote' asks no judge", ("judge",), "remove it, or write 'select: best'")
    if spec.retry.on is not None and not spec.retry.on:
        message = "'on' is empty, so that nothing would be tried again"
        yield Misfit(message, ("retry", "on"), "name the causes, or leave it out", at_value=True)


def _of_loop(spec: StepSpec) -> Iterator[Misfit]:
    loop = spec.repeat
    if loop is None:
        return
    if isinstance(loop.max, int) and loop.max < 1:
        yield Misfit(f"'max' must be at least 1, not {loop.max}", ("repeat", "max"), at_value=True)
    if loop.score is None:
        if loop.keep == "best":
            advice = "add 'score: …'"
            yield Misfit("'keep: best' needs a 'score' to tell which round is best", ("repeat", "keep"), advice)
        if loop.plateau is not None:
            yield Misfit("'plateau' needs a 'score' that stops rising", ("repeat", "plateau"), "add 'score: …'")


def _of_approval(spec: StepSpec, kind: WorkKind) -> Iterator[Misfit]:
    if spec.approve in {"prompt", "both"} and kind not in _CALLS:
        message = f"a step with {_NAMES[kind]!r} has no prompt to approve"
        yield Misfit(message, ("approve",), "write 'approve: output'", at_value=True)
