"""A pipeline and what it names to a graph: references, types and dependencies, all checked before any call."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from synaptic.errors import PipelineError
from synaptic.pipeline.checking import (
    RUN,
    CompileContext,
    SourceFile,
    UsedPipeline,
    View,
    inner_steps,
    structure,
    type_at,
)
from synaptic.pipeline.compiler.absent import report_absent
from synaptic.pipeline.compiler.case_checks import check_cases
from synaptic.pipeline.compiler.declarations import agents_beside, check_inputs, input_types, local_agents
from synaptic.pipeline.compiler.outlines import outline_scope, types_of
from synaptic.pipeline.compiler.salvage import salvage
from synaptic.pipeline.compiler.steps import Steps
from synaptic.pipeline.compiler.unread import warn_of_unread
from synaptic.pipeline.compiler.used_pipelines import Library
from synaptic.pipeline.graph import CompiledPipeline
from synaptic.pipeline.kinds import answers_of
from synaptic.pipeline.loader import MAX_PIPELINE_BYTES, find_file
from synaptic.pipeline.templates import TEXT, UNKNOWN, Structure
from synaptic.text import read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from synaptic.errors import Problem
    from synaptic.pipeline.checking import Checked
    from synaptic.pipeline.loader import Pipeline
    from synaptic.pipeline.spec import PipelineSpec
    from synaptic.pipeline.templates import StaticType, Template
    from synaptic.text import KeyPath

__all__ = ["CompileContext", "CompiledPipeline", "compile_pipeline", "examine", "examine_text"]


def compile_pipeline(pipeline: Pipeline, context: CompileContext) -> CompiledPipeline:
    """Return what the executor runs.

    Raises:
        PipelineError: With every mistake in it and in the pipelines that it uses, each once and located.
    """
    compiled, problems, warnings = _compile(pipeline, context, {})
    if problems or compiled is None:
        raise PipelineError.of(problems)
    return replace(compiled, warnings=tuple(warnings))


def examine(name: str | Path, context: CompileContext) -> tuple[Pipeline | None, tuple[Problem, ...]]:
    """Return a built-in pipeline or the one in a file, and every mistake in it.

    Beyond :func:`compile_pipeline` this looks into a file whose form is wrong, too: what is right in it is checked
    against the rest. The pipeline is ``None`` where there is any mistake.

    Raises:
        PipelineError: If there is no such pipeline, or its file cannot be read.
    """
    path = find_file(name)
    text = read_text(path, "pipeline", PipelineError, limit=MAX_PIPELINE_BYTES)
    return examine_text(text, str(path), context, path=path)


def examine_text(
    text: str, source: str, context: CompileContext, *, path: Path | None = None
) -> tuple[Pipeline | None, tuple[Problem, ...]]:
    """Return the pipeline that the YAML text describes, and every mistake in it, as :func:`examine` does."""
    found = salvage(text, source, path)
    problems = list(found.problems)
    if found.pipeline is not None:
        further = _compile(found.pipeline, context, found.broken)[1]
        problems += [each for each in further if (each.line, each.column) not in found.misspelt]
    return (None if problems else found.pipeline), tuple(_in_order(problems, source))


def _compile(
    pipeline: Pipeline, context: CompileContext, broken: Mapping[KeyPath, Collection[str]]
) -> tuple[CompiledPipeline | None, list[Problem], list[Problem]]:
    """Return the pipeline, what is wrong, and what a person should look at."""
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def build(part: Pipeline, omitted: Mapping[KeyPath, Collection[str]]) -> UsedPipeline:
        file = SourceFile(
            part.document,
            context,
            partial(library.use, user=part),
            defaults=part.spec.defaults,
            conversation=part.spec.conversation,
            beside=agents_beside(part, context.agents, problems, warnings),
            problems=problems,
            warnings=warnings,
            broken=omitted,
            path=part.path,
        )
        return _build(part, file)

    library = Library(build, problems, context.kept)
    compiled = library.compile(pipeline, broken).compiled
    source = pipeline.document.source
    return compiled, _in_order(problems, source), _in_order(warnings, source)


def _build(pipeline: Pipeline, file: SourceFile) -> UsedPipeline:
    """Return the pipeline of one file, after reporting what is wrong in it."""
    spec = pipeline.spec
    check_inputs(pipeline, file.report)
    file.local = local_agents(spec.agents, file.report)
    file.local = {**dict.fromkeys(file.broken.get(("agents",), ())), **file.local}
    outlines = outline_scope(file, spec.steps, ("steps",))
    own: dict[str, StaticType] = types_of(outlines)
    inputs = input_types(spec.inputs, file.broken.get(("inputs",), ()))
    view = View(own, ChainMap(), {"inputs": inputs, "run": RUN}, inner_steps(spec.steps))
    steps = Steps(file, outlines, ("steps",), view)
    result = _result(file, spec, view)
    needed = frozenset(result.steps) if result is not None else frozenset()
    graph = steps.finish(needed)
    absent = report_absent(file, spec, steps, result)
    answers = answers_of(outlines)
    if file.context.tests:
        answer = UNKNOWN if result is None else result.type if isinstance(result.code, Structure) else TEXT
        check_cases(file, pipeline, answers, view, answer)
    if graph is None or result is None or file.report.count:
        return UsedPipeline(spec.name, spec.inputs)
    warn_of_unread(file, spec, steps, result)
    compiled = CompiledPipeline(
        pipeline=pipeline,
        graph=graph,
        result=result.code,
        needed=needed,
        budget=spec.budget,
        concurrency=spec.concurrency,
    )
    reference = result.code.sole_reference
    kind = result.type if reference is None else type_at(view, reference)
    return UsedPipeline(spec.name, spec.inputs, compiled, kind, answers, absent)


def _result(file: SourceFile, spec: PipelineSpec, view: View) -> Checked[Template] | Checked[Structure] | None:
    """Return the result, or ``None`` after reporting what is wrong with it."""
    path = ("result",)
    if isinstance(spec.result, str):
        if not spec.result.strip():
            file.report.at_value("the result is empty", path, "write for example '{{ steps.NAME }}'")
        return file.texts.template(spec.result, path, view)
    if not spec.result:
        file.report.at_value("the result is empty", path, "write for example 'answer: \"{{ steps.NAME }}\"' below it")
    for name, value in spec.result.items():
        if value is None:
            file.report.at_key(f"{name!r} of the result is empty", (*path, name), "write its value, or remove the line")
    return structure(file, spec.result, path, view, f"the result of {spec.name!r} has no {{name}}")


def _in_order(problems: list[Problem], source: str) -> list[Problem]:
    """Return the problems as a person reads files: this one from its beginning, then the ones that it uses."""
    files = {source: 0}
    for problem in problems:
        files.setdefault(problem.source or "", len(files))
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda p: (files[p.source or ""], p.line or 0, p.column or 0))
