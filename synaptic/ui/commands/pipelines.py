"""``synaptic pipelines``: what there is, how it is written, whether one is right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from synaptic.ui.options import given, json_option

if TYPE_CHECKING:
    from synaptic.pipeline.loader import Pipeline


@click.group()
def pipelines() -> None:
    """List, show and check pipelines."""


@pipelines.command("list")
@json_option
@click.pass_context
def list_pipelines(context: click.Context, /, **values: Any) -> None:
    """List the built-in pipelines with their inputs."""
    from synaptic.pipeline.loader import Pipeline, builtin_pipelines  # noqa: PLC0415
    from synaptic.ui.output import write_json, write_table  # noqa: PLC0415

    found = [Pipeline.builtin(name) for name in builtin_pipelines()]
    if given(context, **values).json:
        write_json([_data(pipeline) for pipeline in found])
        return
    rows = [(pipeline.name, _inputs(pipeline), pipeline.spec.description.strip()) for pipeline in found]
    write_table(("name", "inputs", "description"), rows)


@pipelines.command()
@click.argument("name", metavar="NAME|FILE")
@json_option
@click.pass_context
def show(context: click.Context, /, name: str, **values: Any) -> None:
    """Print a pipeline's file; to change a built-in one, start from it.

    As in: synaptic pipelines show research > mine.yaml
    """
    from synaptic.pipeline.loader import Pipeline  # noqa: PLC0415
    from synaptic.ui.output import write_json, write_text  # noqa: PLC0415

    pipeline = Pipeline.find(name)
    if given(context, **values).json:
        write_json(_data(pipeline))
    elif pipeline.path is not None:
        write_text(pipeline.path.read_text(encoding="utf-8"))


@pipelines.command()
@click.argument("names", metavar="NAME|FILE...", nargs=-1, required=True)
def validate(names: tuple[str, ...]) -> None:
    """Check pipelines in full, without a model: form, references, agents, cycles."""
    from synaptic.agents import discover_agents  # noqa: PLC0415
    from synaptic.errors import PipelineError  # noqa: PLC0415
    from synaptic.pipeline.compiler import compile_pipeline  # noqa: PLC0415
    from synaptic.pipeline.loader import Pipeline  # noqa: PLC0415
    from synaptic.problems import Problem  # noqa: PLC0415
    from synaptic.ui.output import write_text  # noqa: PLC0415
    from synaptic.ui.text import plural  # noqa: PLC0415

    book = discover_agents()
    agents = {name: book.get(name) for name in book}
    problems: list[Problem] = []
    for name in names:
        try:
            pipeline = Pipeline.find(name)
            compile_pipeline(pipeline, agents)
        except PipelineError as exc:
            problems += exc.problems or [Problem(exc.message, suggestion=exc.hint)]
        else:
            write_text(f"{name}: ok ({plural(len(pipeline.spec.steps), 'step')})")
    if problems:
        raise PipelineError.of(problems)


def _inputs(pipeline: Pipeline) -> str:
    inputs = pipeline.spec.inputs
    return ", ".join(name if spec.required else f"{name}={spec.default}" for name, spec in inputs.items())


def _data(pipeline: Pipeline) -> dict[str, Any]:
    spec = pipeline.spec.model_dump(mode="json", exclude_none=True, by_alias=True)
    return {"name": pipeline.name, "path": pipeline.path, **spec}
