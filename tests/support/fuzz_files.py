"""Readers of files that others wrote, each as the program uses them."""

from dataclasses import replace
from pathlib import Path

from pipeline_mistakes import CONTEXT as MISTAKEN

from synaptic.agents.definition import Agent, discover_agents
from synaptic.errors import ModelFileError, PipelineError, SynapticError
from synaptic.models import read_header, read_shape
from synaptic.models.chat_template import last_turn
from synaptic.pipeline import bind_inputs, compile_pipeline, default_inputs, draw, examine
from synaptic.pipeline.loader import Pipeline
from synaptic.pipeline.templates.expressions import SKIPPED, Expression, Template, TemplateProblem
from synaptic.settings import describe, load_settings, migrate

BOOK = discover_agents()
CONTEXT = replace(MISTAKEN, agents={**MISTAKEN.agents, **{name: BOOK[name] for name in BOOK}}, models=None)
"""What the rows of mistakes may name, and what the built-in pipelines name."""


def read_settings(data: bytes, folder: Path) -> None:
    """Read settings as the user's file, and as that of a folder; a file of the older program is migrated."""
    file, project = folder / "settings.json", folder / "project"
    project.mkdir()
    for path in (file, project / "synapticllamas.json"):
        path.write_bytes(data)
    describe(load_settings(config_path=file, environ={}, cwd=project))
    before = file.read_bytes()
    try:
        migrate(file)
    except SynapticError:
        assert file.read_bytes() == before, "a file was changed, and then refused"
        raise


def read_pipeline(data: bytes, folder: Path) -> None:
    """Examine a pipeline; compile it, draw it and bind its defaults where it is right."""
    file = folder / "p.yaml"
    file.write_bytes(data)
    pipeline, problems = examine(file, CONTEXT)
    assert (pipeline is None) == bool(problems)
    assert all(problem.line and problem.column for problem in problems)
    try:
        compiled = compile_pipeline(Pipeline.load(file), CONTEXT)
    except PipelineError as error:
        assert error.problems
        assert set(error.problems) <= set(problems)
        raise
    assert not problems
    for form in ("text", "mermaid", "dot", "svg", "json"):
        draw(compiled, form)
    bind_inputs(compiled.pipeline, default_inputs(compiled), {})


VALUES = {
    "inputs": {"a": "text", "n": 3, "f": 0.5, "l": ["x", 1, None], "d": {"k": "v", "items": [1]}},
    "steps": {"s": {"score": 0.5, "facts": ["a", "b"]}, "t": "text", "skipped": SKIPPED},
    "item": {"name": "x"},
}


def read_template(data: bytes, _: Path) -> None:
    """Render a text as a template, and evaluate it as an expression."""
    source = data.decode(errors="replace")
    refused: Exception | None = None
    for compile_, use in ((Template.compile, "render"), (Expression.compile, "evaluate")):
        try:
            compiled = compile_(source)
            compiled.check({})
            getattr(compiled, use)(VALUES, where="here")
        except (TemplateProblem, PipelineError) as error:
            assert not isinstance(error, TemplateProblem) or 1 <= error.line <= source.count("\n") + 1
            refused = error
    if refused is not None:
        raise refused


def read_agent(data: bytes, folder: Path) -> None:
    """Read an agent, and an answer in its shape."""
    file = folder / "agent.md"
    file.write_bytes(data)
    agent = Agent.load(file)
    if agent.output is not None:
        assert agent.output.json_schema()["type"] == "object"
        agent.output.validate_text('{"a": 1}')


def read_gguf(data: bytes, folder: Path) -> None:
    """Read a model's header as the doctor does, and as placement does."""
    file = folder / "m.gguf"
    file.write_bytes(data)
    try:
        read_header(file, whole=True)
        assert read_shape("m", [file]).weight_bytes <= len(data)
    except ModelFileError as error:
        assert str(file) in error.message
        raise


def read_chat_template(data: bytes, _: Path) -> None:
    """Read the chat template that came with a model of Ollama."""
    last_turn(data.decode(errors="replace"))
