"""``synaptic pipelines``: what there is, how it is written, what it does, whether one is right."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from synaptic import paths
from synaptic.errors import ExitCode, Problem, UsageError
from synaptic.pipeline import (
    Format,
    Pipeline,
    builtin_pipelines,
    compile_pipeline,
    draw,
    overview,
    pipeline_schema,
)
from synaptic.runtime import Session
from synaptic.text import decoded, plural
from synaptic.ui.commands.pipelines_test import compile_context, examined, test
from synaptic.ui.commands.support import load
from synaptic.ui.options import json_option, settings_options, tools_option, with_options
from synaptic.ui.screen import (
    print_overview,
    terminal_width,
    write_document,
    write_json,
    write_paragraph,
    write_table,
    write_text,
)

if TYPE_CHECKING:
    from synaptic.pipeline import InputSpec
    from synaptic.settings import Settings
    from synaptic.ui.options import Options

_WRITTEN_ANEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY | os.O_NONBLOCK  # a pipe is not waited for
_FORMATS = ("text", "mermaid", "dot", "svg", "json")  # drawing.FORMATS; the help need not load it

_SCHEMA_EPILOG = """\b
As in: synaptic pipelines schema > pipeline.schema.json
The first line of a pipeline file then says where it is:
# yaml-language-server: $schema=pipeline.schema.json"""


@click.group()
def pipelines() -> None:
    """List, show, draw, check and test pipelines."""


pipelines.add_command(test)


@pipelines.command("list")
@json_option
@with_options
def list_pipelines(options: Options) -> None:
    """List the built-in pipelines with their inputs."""
    found = [Pipeline.builtin(name) for name in builtin_pipelines()]
    if options.json:
        write_json([_data(pipeline) for pipeline in found])
        return
    rows = [(pipeline.name, _inputs(pipeline), pipeline.spec.description.strip()) for pipeline in found]
    write_table(("name", "inputs", "description"), rows)


@pipelines.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--plan", "overview", is_flag=True, help="The inputs and the steps in their order, also into a file.")
@click.option("--source", is_flag=True, help="The file as it is written, also on a terminal.")
@tools_option
@settings_options
@json_option
@with_options
def show(options: Options, name: str, *, overview: bool, source: bool) -> None:
    """Show what a pipeline takes and does; into a file or a pipe, print its own file.

    On a terminal: the inputs, and the steps with what each waits for, which model it asks, and why. To change a
    built-in pipeline, start from its file, as in: synaptic pipelines show research > mine.yaml
    """
    if overview and source:
        raise click.UsageError("--plan and --source are two ways to show a pipeline; take one")
    pipeline = Pipeline.find(name)
    if options.json and not overview:
        write_json(_data(pipeline))
    elif overview or options.json or (sys.stdout.isatty() and not source):
        _show_overview(pipeline, name, options)
    elif pipeline.path is not None:
        write_document(decoded(pipeline.path.read_bytes()))


@pipelines.command()
@click.argument("name", metavar="NAME|FILE")
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    default="text",
    show_default=True,
    help="For a terminal, for Markdown (Mermaid), for Graphviz, a picture, or data (networkx node-link).",
)
@click.option("-o", "--output", metavar="PATH", help="File to write instead of standard output.")
@tools_option
@with_options
def graph(options: Options, name: str, form: str, output: str | None) -> None:
    """Draw a pipeline: its steps, what each waits for, and the longest chain.

    As in: synaptic pipelines graph research --format svg -o research.svg
    """
    compiled = compile_pipeline(Pipeline.find(name), compile_context(options))
    width = terminal_width(sys.stdout) if output is None and sys.stdout.isatty() else 80
    drawing = draw(compiled, cast("Format", form), width=width)
    if output is None:
        (write_text if form == "text" else write_document)(drawing)
    else:
        _write_file(output, drawing)


@pipelines.command()
@click.argument("names", metavar="NAME|FILE...", nargs=-1, required=True)
@click.option("--models", is_flag=True, help="Ask the backend which models it has, and check their names, too.")
@tools_option
@settings_options
@with_options
def validate(options: Options, names: tuple[str, ...], *, models: bool) -> int:
    """Check pipelines in full, without calling a model: form, references, types, agents, tools, cycles.

    Prints every mistake as file:line:column: what is wrong; what to write instead. Exit code 2 if there is one.
    What may run, but is probably not meant, is a warning.
    """
    world = compile_context(options, tests=True)
    if models:
        settings = load(options).settings
        world = replace(world, agent_models=settings.agent_models, models=_model_names(settings))
    problems: dict[Problem, None] = {}
    cautions: dict[Problem, None] = {}
    for name in dict.fromkeys(names):
        pipeline, found = examined(name, world)
        problems.update(dict.fromkeys(found))
        if pipeline is not None:
            warnings = compile_pipeline(pipeline, world).warnings
            said = f", {plural(len(warnings), 'warning')}" if warnings else ""
            write_text(f"{name}: ok ({plural(len(pipeline.spec.steps), 'step')}{said})")
            cautions.update(dict.fromkeys(warnings))
    for caution in cautions:
        write_text(f"{caution.location}: warning: {caution.clause}", sys.stderr)
    for problem in problems:
        write_text(str(problem), sys.stderr)
    return int(ExitCode.USAGE if problems else ExitCode.ANSWERED)


@pipelines.command(epilog=_SCHEMA_EPILOG)
def schema() -> None:
    """Print the JSON Schema of a pipeline file, which editors complete and check with."""
    write_json(pipeline_schema())


def _show_overview(pipeline: Pipeline, name: str, options: Options) -> None:
    world = replace(compile_context(options), agent_models=load(options).settings.agent_models, model=options.model)
    compiled = compile_pipeline(pipeline, world)
    if options.json:
        write_json(overview(compiled))
        return
    print_overview(compiled, sys.stdout)
    write_paragraph("", f"The file itself: synaptic pipelines show {name} --source", sys.stdout)


def _model_names(settings: Settings) -> list[str]:
    """Return the models of the backend that the settings lead to.

    Raises:
        BackendError: If nothing answers.
    """

    async def ask() -> list[str]:
        async with Session(settings) as session:
            return [model.name for model in await session.models()]

    return asyncio.run(ask())


def _write_file(path: str, text: str) -> None:
    try:
        descriptor = os.open(paths.expanded(path), _WRITTEN_ANEW, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.set_blocking(descriptor, True)
            file.write(text)
    except OSError as exc:
        reason = "nothing reads that pipe" if exc.errno == errno.ENXIO else exc.strerror or str(exc)
        raise UsageError(f"{path} cannot be written: {reason}") from exc


def _inputs(pipeline: Pipeline) -> str:
    return ", ".join(_input(name, declared) for name, declared in pipeline.spec.inputs.items())


def _input(name: str, declared: InputSpec) -> str:
    """Return an input with its default as it is written after ``-i``; an optional one without, in brackets."""
    if declared.required:
        return name
    if declared.default is None:
        return f"[{name}]"
    if isinstance(declared.default, list):
        return f"{name}=({len(declared.default)} items)"
    return f"{name}={declared.default}"


def _data(pipeline: Pipeline) -> dict[str, Any]:
    """Return a pipeline as its file has it, the inputs with the defaults of their keys."""
    inputs = {
        name: spec.model_dump(mode="json", exclude_none=True, by_alias=True)
        for name, spec in pipeline.spec.inputs.items()
    }
    return {"path": pipeline.path, "description": "", **pipeline.document.value, "inputs": inputs}
