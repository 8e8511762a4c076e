"""Inputs and outputs that are read nowhere: a name that is missing in a template, or a call that is paid for nothing.

Read is what a template or an expression refers to, what another step waits for by name or falls back on. The output of
a step that does something beside giving it (a tool, a choice that opens steps, what a person approves) need not be.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from synaptic.pipeline.before_run import every_step
from synaptic.pipeline.checking import in_single_braces, spoken_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.pipeline.checking import Checked, LookAlike, SourceFile, Written
    from synaptic.pipeline.compiler.draft import Draft, LoopBody
    from synaptic.pipeline.spec import PipelineSpec
    from synaptic.pipeline.templates import Reference
    from synaptic.text import KeyPath

    Path: TypeAlias = tuple[str, ...]
    """What stands behind ``steps`` or ``inputs`` in a reference."""


def warn_of_unread(file: SourceFile, spec: PipelineSpec, steps: LoopBody, result: Checked[Any]) -> None:
    """Warn of what is read nowhere, each once: where a text seems to speak of it, there."""
    meant = list(_in_single_braces(file))
    references = [*_references(steps), *result.references]
    read = {reference.path[:1] for reference in references if reference.root == "inputs"}
    read |= {path[1:2] for path in meant if path[0] == "inputs"}
    for name in spec.inputs:
        if not read & {(), (name,)} and not _is_spoken_of(file, name, f"inputs.{name}", ("inputs",)):
            advice = f"write {{{{ inputs.{name} }}}} where it belongs, or remove it"
            file.report.warnings.at_key(f"the input {name!r} is read nowhere", ("inputs", name), advice)
    outside = [reference.path for reference in result.references if reference.root == "steps"]
    _warn_of_steps(file, steps, [*outside, *(path[1:] for path in meant if path[0] == "steps")], "steps.")
    _warn_of_items(file)


def _warn_of_steps(file: SourceFile, steps: LoopBody, outside: list[Path], way: str) -> None:
    """Warn of the steps of one scope that neither a path from ``outside`` nor another step leads to."""
    paths = [*outside, *(reference.path for reference in _references(steps) if reference.root == "steps")]
    read = {path[0] for path in paths if path}
    for draft in steps.drafts.values():
        read.update(draft.needs, filter(None, [draft.outline.spec.on_error.use]))
    for name, draft in steps.drafts.items():
        if draft.body is not None and (name in read or _acts(draft)):
            _warn_of_body(file, draft, [path[1:] for path in paths if path[:1] == (name,)], f"{way}{name}.")
        elif name not in read and not _acts(draft) and not _is_spoken_of(file, name, way + name, draft.outline.path):
            advice = f"write {{{{ {way}{name} }}}} where it belongs, or remove the step"
            file.report.warnings.at_key(f"the output of {name!r} is read nowhere", draft.outline.path, advice)


def _warn_of_body(file: SourceFile, draft: Draft, outside: list[Path], way: str) -> None:
    if draft.body is None:
        return
    ends = [part for part in (draft.until, draft.score) if part is not None]
    before = [
        reference.path
        for inner in draft.body.drafts.values()
        if not inner.outline.itself
        for reference in _of_draft(inner, deep=False)
        if reference.root == "previous"
    ]
    inward = [*outside, *before, *(reference.path for part in ends for reference in part.references)]
    if () not in inward:  # else the outputs of a round are read together
        _warn_of_steps(file, draft.body, inward, way)


def _references(steps: LoopBody) -> Iterator[Reference]:
    for draft in steps.drafts.values():
        yield from _of_draft(draft)


def _of_draft(draft: Draft, *, deep: bool = True) -> Iterator[Reference]:
    parts = (draft.when, draft.foreach, draft.until, draft.score, *draft.checked)
    yield from chain.from_iterable(part.references for part in parts if part is not None)
    if deep and draft.body is not None:
        yield from _references(draft.body)


def _acts(draft: Draft) -> bool:
    """Return whether the step does something beside giving its output."""
    outline, work = draft.outline, draft.built.work
    if outline.spec.approve or any(outline.options.values()) or (outline.kind is not None and outline.kind.acts):
        return True
    if draft.body is not None:
        return any(_acts(inner) for inner in draft.body.drafts.values())
    inside = work.inside if work is not None else None
    return inside is not None and any(step.approve or step.kind == "tool" for _, step in every_step(inside.graph))


# -- what looks like a value -----------------------------------------------------------------------------------


def _in_single_braces(file: SourceFile) -> Iterator[Path]:
    """Warn of references in single braces, and yield the names that each one leads over."""
    for written in file.texts.written:
        for found in in_single_braces(written.source):
            _warn(file, written, found)
            yield tuple(found.reference.split("."))


def _is_spoken_of(file: SourceFile, name: str, reference: str, own: KeyPath) -> bool:
    """Warn of the first text that seems to speak of a value, and return whether there is one."""
    for written in file.texts.written:
        found = spoken_of(written.source, name, reference) if written.path[: len(own)] != own else None
        if found is not None:
            _warn(file, written, found)
            return True
    return False


def _warn_of_items(file: SourceFile) -> None:
    """Warn of texts that speak of the item of their map in words of another language, and in no other way."""
    for written in file.texts.written:
        for name in written.items:
            found = spoken_of(written.source, name, name)
            if found is not None:
                _warn(file, written, found)


def _warn(file: SourceFile, written: Written, found: LookAlike) -> None:
    message = f"{found.token!r} is plain text here, and no value takes its place"
    advice = f"did you mean {{{{ {found.reference} }}}}?"
    file.report.warnings.in_text(message, written.path, found.line, found.token, advice)
