"""What a pipeline declares: its inputs and its own agents, checked and typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from synaptic import paths
from synaptic.agents import BESIDE, Agent, agent_counts, discover_agents
from synaptic.errors import AgentError, Problem
from synaptic.pipeline.checking import UnusablePath, parse_shape
from synaptic.pipeline.compiler.used_pipelines import inside_folder
from synaptic.pipeline.inputs import check_default
from synaptic.pipeline.templates import BOOLEAN, TEXT, UNKNOWN, ListOf, Number, Record, StaticType, Text
from synaptic.settings import advice_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.pipeline.checking import Report
    from synaptic.pipeline.loader import Pipeline
    from synaptic.pipeline.spec import AgentSpec, InputSpec
    from synaptic.text import KeyPath

_FILE_FIELDS = {"name": TEXT, "path": TEXT, "text": TEXT}
_TEMPLATE = re.compile(r"\{\{\s*(inputs|steps|run|item|previous)\b|\{%|\{\s*(inputs|steps)\.")


def input_types(inputs: Mapping[str, InputSpec], broken: Iterable[str] = ()) -> Record:
    """Return the type of the root ``inputs``; nothing is known of those whose declaration is ``broken``."""
    fields: dict[str, StaticType] = dict.fromkeys(broken, UNKNOWN)
    fields.update((name, _type(name, spec)) for name, spec in inputs.items())
    return Record(fields, "there is no input {name}")


def _type(name: str, spec: InputSpec) -> StaticType:
    file = Record(_FILE_FIELDS, "a file has no {name}")
    match spec.type:
        case "string":
            return Text(tuple(spec.choices)) if spec.choices else TEXT
        case "integer":
            return Number(whole=True, least=spec.minimum, most=spec.maximum)
        case "number":
            return Number(least=spec.minimum, most=spec.maximum)
        case "boolean":
            return BOOLEAN
        case "list":
            return ListOf(UNKNOWN)
        case "file":
            return Record(_FILE_FIELDS, f"the file {name!r} has no {{name}}")
    return ListOf(file)


def check_inputs(pipeline: Pipeline, report: Report) -> None:
    """Report every declaration that contradicts itself."""
    for name, spec in pipeline.spec.inputs.items():
        path: KeyPath = ("inputs", name)
        count = report.count
        _check_bounds(spec, path, report)
        if spec.required and spec.default is not None:
            advice = "remove one of them"
            report.at_key("'required' and 'default' exclude each other", (*path, "required"), advice)
        if spec.default is not None and report.count == count:
            check_written(pipeline, spec.default, spec, (*path, "default"), report, called="the default")


def _check_bounds(spec: InputSpec, path: KeyPath, report: Report) -> None:
    if spec.type not in {"integer", "number"}:
        for key in ("minimum", "maximum"):
            if getattr(spec, key) is not None:
                advice = "remove it, or write 'type: number'"
                report.at_key(f"{key!r} goes with a number, and this is a {spec.type}", (*path, key), advice)
    elif spec.minimum is not None and spec.maximum is not None and spec.minimum > spec.maximum:
        message = f"'minimum' ({spec.minimum:g}) is greater than 'maximum' ({spec.maximum:g})"
        report.at_value(message, (*path, "minimum"), "exchange them")
    if spec.choices is None:
        return
    if spec.type != "string":
        advice = "remove it, or write 'type: string'"
        report.at_key(f"'choices' goes with a string, and this is a {spec.type}", (*path, "choices"), advice)
    for index, choice in enumerate(spec.choices):
        if choice in spec.choices[:index]:
            report.at_value(f"the choice {choice!r} stands here twice", (*path, "choices", index), "keep one")
        elif not choice.strip():
            report.at_value("a choice is empty", (*path, "choices", index), "remove it")


def check_written(
    pipeline: Pipeline, value: Any, spec: InputSpec, path: KeyPath, report: Report, *, called: str
) -> None:
    """Report a value of an input in the pipeline's file that does not fit, or names a file that is not there.

    Args:
        pipeline: Whose folder holds the files.
        value: What is written.
        spec: The input.
        path: Where it is written.
        report: Takes the mistake.
        called: What a message calls it, such as ``the default``.
    """
    try:
        check_default(value, spec)
    except ValueError as exc:
        what, _, suggestion = str(exc).partition("; ")
        report.at_value(f"{called} {what}", path, suggestion or None)
        return
    if spec.type in {"file", "files"}:
        listed = value if isinstance(value, list) else [value]
        names = [part.strip() for text in listed for part in (text.split(",") if spec.type == "files" else [text])]
        for name in names:
            _check_file(pipeline, name, path, report)


def _check_file(pipeline: Pipeline, name: str, path: KeyPath, report: Report) -> None:
    try:
        found = inside_folder(name, pipeline)
    except UnusablePath as exc:
        report.at_value(exc.message, path, "write a path inside the folder of this file")
        return
    if not any(sign in name for sign in "*?[") and not found.is_file():
        report.at_value(f"there is no file {name!r} beside this pipeline", path)


def local_agents(agents: Mapping[str, AgentSpec], report: Report) -> dict[str, Agent | None]:
    """Return the pipeline's own agents; ``None`` stands for one that has a mistake, which is reported."""
    return {name: _agent(name, spec, ("agents", name), report) for name, spec in agents.items()}


def agents_beside(
    pipeline: Pipeline, known: Mapping[str, Agent], problems: list[Problem], warnings: list[Problem]
) -> Mapping[str, Agent | None]:
    """Return the agents in the folder ``agents`` beside the pipeline's file.

    Mistakes in them are reported; all of them are then ``None``. One that has the name of a known agent, or lies
    elsewhere, is left out until its folder is trusted, with a warning.
    """
    folder = None if pipeline.path is None else paths.agents_dir_beside(pipeline.path)
    if folder is None or not folder.is_dir():
        return {}
    try:
        book = discover_agents([(BESIDE, folder)])
    except AgentError as exc:
        problems += exc.problems
        return {file.stem: None for file in folder.glob("*.md")}
    # Those of the working directory are mentioned where all agents are read.
    elsewhere = [] if paths.resolved(folder) == paths.resolved(paths.project_agents_dir()) else book.strangers
    warnings += [Problem(f"{each.why}, so that it is no agent", str(each.path)) for each in elsewhere]
    found: dict[str, Agent | None] = {}
    for entry in book.entries():
        if agent_counts(entry, folder.parent, takes_a_name=_another(entry.agent, known)):
            found[entry.agent.name] = entry.agent
        else:
            what = f"the agent {entry.agent.name!r} is left out, because the folder is not trusted"
            warnings.append(Problem(what, str(entry.path), suggestion=advice_for(folder.parent)))
    return found


def _another(agent: Agent, known: Mapping[str, Agent]) -> bool:
    """Return whether one of the known agents has the name of this one and another file."""
    files = [each.source and paths.resolved(each.source) for each in (agent, known.get(agent.name)) if each is not None]
    return len(set(files)) > 1


def _agent(name: str, spec: AgentSpec, path: KeyPath, report: Report) -> Agent | None:
    count = report.count
    values: dict[str, Any] = {
        "prompt": spec.prompt,
        "description": spec.description,
        "model": spec.model,
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
    }
    for key, value in values.items():
        try:
            Agent(**{"name": name, "prompt": "x", key: value})
        except AgentError as exc:
            for problem in exc.problems:
                advice = "write what the agent should do" if key == "prompt" else problem.suggestion
                report.at_value(problem.message, (*path, key), advice)
    template = _TEMPLATE.search(spec.prompt)
    if template is not None:
        line = spec.prompt.count("\n", 0, template.start()) + 1
        message = "an agent's prompt is the same for every call, and no template"
        advice = "write what changes into the prompt of the step"
        report.in_text(message, (*path, "prompt"), line, template.group(), advice)
    shape = None
    if spec.output is not None:
        shape = parse_shape(spec.output, (*path, "output"), report)
    return Agent(name=name, output=shape, **values) if report.count == count else None
