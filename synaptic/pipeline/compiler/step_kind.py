"""Which keys of a step go together. Pure: from a step's form to what is wrong with it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from synaptic.pipeline.kinds import KINDS, KeyProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.kinds import Kind
    from synaptic.pipeline.spec import StepKeys

_RESTRICTED: Final = tuple(dict.fromkeys(chain.from_iterable(sorted(kind.takes) for kind in KINDS.values())))
"""The fields that not every kind takes; fields that are not here go with every kind."""
_WRITTEN: Final = {"inputs": "with", "item_name": "as"}


def listed(keys: list[str], last: str) -> str:
    """Return ``'a', 'b' or 'c'``, where ``last`` is the word before the last one."""
    quoted = [repr(key) for key in keys]
    return f" {last} ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else quoted[0]


def kind_of(name: str, spec: StepKeys) -> tuple[Kind | None, list[KeyProblem]]:
    """Return what the step does (a loop over itself is of its body's kind), or what is wrong with it."""
    loop = spec.repeat
    if loop is not None and (loop.steps is not None) == loop.itself:
        what = "both 'steps' and 'self'" if loop.itself else "neither 'steps' nor 'self: true'"
        return None, [KeyProblem(f"'repeat' has {what}", ("repeat",), "write exactly one of them")]
    kinds = [kind for kind in KINDS.values() if kind.claims(spec)]
    keys = [kind.key for kind in kinds]
    if loop is not None and loop.itself:
        if keys == ["choose"]:
            advice = "put it into 'repeat: {steps: …}'"
            return None, [KeyProblem("a 'choose' does not repeat itself", ("repeat",), advice)]
        if not kinds:
            message = f"the step {name!r} repeats itself, but has no call"
            return None, [KeyProblem(message, (), "add an 'agent', 'use' or 'tool'")]
    if len(kinds) == 1:
        return kinds[0], []
    empty = [kind.key for kind in KINDS.values() if kind.key in spec.model_fields_set]
    if not kinds and empty:
        return None, [KeyProblem(f"{empty[0]!r} is empty", (empty[0],), "write its value behind it")]
    if not kinds:
        message = f"the step {name!r} has none of {listed([kind.key for kind in KINDS.values()], 'or')}"
        return None, [KeyProblem(message, (), "write exactly one of them")]
    advice = "write exactly one of them"
    if "repeat" in keys:
        advice += "; to repeat the step's own call, write 'repeat: {self: true}'"
    named = " and ".join(repr(key) for key in keys) if len(keys) > 2 else f"both {keys[0]!r} and {keys[1]!r}"
    return None, [KeyProblem(f"the step {name!r} has {named}", (), advice)]


def key_problems(spec: StepKeys, kind: Kind) -> list[KeyProblem]:
    """Return every key that does not go with what the step does, or with the other keys."""
    return [*_of_kind(spec, kind), *kind.problems(spec), *_of_modifiers(spec), *_of_loop(spec)]


def _of_kind(spec: StepKeys, kind: Kind) -> Iterator[KeyProblem]:
    for field in _RESTRICTED:
        if field not in kind.takes and field in spec.model_fields_set and getattr(spec, field) is not None:
            written = _WRITTEN.get(field, field)
            message = f"a step with {kind.key!r} has no {written!r}"
            yield KeyProblem(message, (written,), kind.elsewhere.get(field, kind.advice))
    if not kind.calls_model:
        for key in ("idle", "first_token"):
            if getattr(spec.timeout, key) is not None:
                message = f"a step with {kind.key!r} has no {key!r} timeout"
                yield KeyProblem(message, ("timeout", key), "write 'total', which bounds the whole step")
        if spec.approve in {"prompt", "both"}:
            message = f"a step with {kind.key!r} has no prompt to approve"
            yield KeyProblem(message, ("approve",), "write 'approve: output'", at_value=True)
    for key in ("model", "backend"):
        value = getattr(spec, key)
        if value is not None and not value.strip():
            yield KeyProblem(f"{key!r} is empty", (key,), "write a name, or leave it out", at_value=True)


def _of_modifiers(spec: StepKeys) -> Iterator[KeyProblem]:
    if spec.foreach is None:
        for key in ("item_name", "concurrency"):
            if getattr(spec, key) is not None:
                written = _WRITTEN.get(key, key)
                yield KeyProblem(f"{written!r} goes with 'foreach', which is not here", (written,), "add 'foreach: …'")
    if spec.item_name in {"inputs", "steps", "run", "previous"}:
        yield KeyProblem(
            f"{spec.item_name!r} has a meaning of its own in templates", ("as",), "give it another name", at_value=True
        )
    if spec.samples is None:
        for key in ("select", "judge"):
            if getattr(spec, key) is not None:
                yield KeyProblem(f"{key!r} goes with 'samples', which is not here", (key,), "add 'samples: 3'")
    elif spec.judge is not None and spec.select == "vote":
        yield KeyProblem("'select: vote' asks no judge", ("judge",), "remove it, or write 'select: best'")
    if spec.retry.on is not None and not spec.retry.on:
        message = "'on' is empty, so that nothing would be tried again"
        yield KeyProblem(message, ("retry", "on"), "name the causes, or leave it out", at_value=True)


def _of_loop(spec: StepKeys) -> Iterator[KeyProblem]:
    loop = spec.repeat
    if loop is None:
        return
    if isinstance(loop.max, int) and loop.max < 1:
        yield KeyProblem(f"'max' must be at least 1, not {loop.max}", ("repeat", "max"), at_value=True)
    if loop.score is None:
        if loop.keep == "best":
            advice = "add 'score: …'"
            yield KeyProblem("'keep: best' needs a 'score' to tell which round is best", ("repeat", "keep"), advice)
        if loop.plateau is not None:
            yield KeyProblem("'plateau' needs a 'score' that stops rising", ("repeat", "plateau"), "add 'score: …'")
