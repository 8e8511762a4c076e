"""First pass over a pipeline's steps: what each one does and what its output looks like.

Templates refer to steps in any order, so the types of all outputs are known before the first template is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from synaptic.pipeline.checking import same_type
from synaptic.pipeline.compiler.step_kind import key_problems, kind_of
from synaptic.pipeline.kinds import LOOP_FIELDS, Outline
from synaptic.pipeline.spec import StepKeys
from synaptic.pipeline.templates import UNKNOWN, ListOf, StaticType, unify

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from synaptic.pipeline.checking import SourceFile
    from synaptic.text import KeyPath

Scopes: TypeAlias = "tuple[Collection[str], ...]"
"""The names of the steps of each scope around a step."""


def types_of(outlines: Mapping[str, Outline]) -> dict[str, StaticType]:
    """Return the types of the outputs of one scope."""
    return {name: outline.output for name, outline in outlines.items()}


def outline_scope(
    file: SourceFile, steps: Mapping[str, StepKeys], path: KeyPath, around: Scopes = ()
) -> dict[str, Outline]:
    """Return the outlines of the steps of one scope, after reporting what is wrong with their form."""
    outlines: dict[str, Outline] = {}
    taken = (*around, steps)
    for name, spec in steps.items():
        if any(name in scope for scope in around):
            file.report.at_key(f"the step {name!r} exists outside the loop too", (*path, name), "give it another name")
        outlines[name] = _outline(file, name, spec, (*path, name), taken)
    for name in file.broken.get(path, ()):
        outline = outlines.setdefault(name, Outline(name, StepKeys(), (*path, name), None))
        outline.shape, outline.single, outline.output = None, UNKNOWN, UNKNOWN
        if not outline.agent_path:
            file.check_named_agent((*path, name, "agent"))
    for outline in outlines.values():
        fallback = outlines.get(outline.spec.on_error.use or "")
        if fallback is not None:
            same = same_type(fallback.output, outline.output)
            outline.output = unify(outline.output, fallback.output) if same else UNKNOWN
    return outlines


def _outline(file: SourceFile, name: str, spec: StepKeys, path: KeyPath, taken: Scopes) -> Outline:
    kind, wrong = kind_of(name, spec)
    outline = Outline(name, spec, path, kind)
    if kind is not None:
        wrong += key_problems(spec, kind)
    for problem in wrong:
        report = file.report.at_value if problem.at_value else file.report.at_key
        report(problem.message, (*path, *problem.path), problem.suggestion)
    if spec.repeat is not None and spec.repeat.steps:
        _loop(file, outline, taken)
    if kind is not None:
        kind.outline(file, outline)
    outline.output = outline.single if spec.foreach is None else ListOf(outline.single)
    return outline


def _loop(file: SourceFile, outline: Outline, taken: Scopes) -> None:
    loop = outline.spec.repeat
    if loop is None or loop.steps is None:
        return
    path = (*outline.path, "repeat", "steps")
    outline.body = outline_scope(file, loop.steps, path, taken)
    for name in LOOP_FIELDS.keys() & outline.body.keys():
        message = f"a loop's output has a field {name!r} already"
        file.report.at_key(message, (*path, name), "give the step another name")
