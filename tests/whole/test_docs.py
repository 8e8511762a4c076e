"""What the documentation says is true: its examples work, its tables are complete, its links lead somewhere."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel

import synaptic
from synaptic.agents.agent import discover_agents
from synaptic.backends.base import BUILT_IN, backend_kind
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.kinds import KINDS
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.pipeline.spec import parts, spec
from synaptic.pipeline.spec.types import TimeoutSpec
from synaptic.pipeline.tools import Tool

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PIPELINES = (ROOT / "docs" / "pipelines.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def anchor(heading: str) -> str:
    """Return how a link names a heading: its words in small letters, joined with hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(page: Path):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target, section in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", prose):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if section:
            text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert section in [anchor(heading) for heading in headings], section


# -- docs/pipelines.md ---------------------------------------------------------------------------------------------

COUNT_WORDS = """
def count_words(text: str) -> int:
    \"\"\"Return the number of words.\"\"\"
    return len(text.split())
"""


def context() -> CompileContext:
    book = discover_agents()
    (program,) = blocks("pipelines.md", "python")
    names: dict[str, object] = {}
    exec(compile(program, "pipelines.md", "exec"), names)
    tool = Tool.of(names["count_words"])
    return CompileContext(agents={name: book[name] for name in book}, tools={tool.name: tool})


def whole(source: str) -> Pipeline:
    """Return the pipeline of a block; one that shows only ``steps`` is completed first."""
    if not source.startswith("version: 1"):
        (key, *others) = yaml.safe_load(source)
        assert (key, others) == ("steps", []), "a block is a whole pipeline, or shows its steps"
        source = f'version: 1\nname: part\ninputs:\n  query: {{required: true}}\n{source}result: "done"\n'
    return Pipeline.parse(source, path=ROOT / "examples" / "block.yaml")


@pytest.mark.parametrize("source", blocks("pipelines.md", "yaml"))
def test_every_example_compiles(source: str):
    assert compile_pipeline(whole(source), context()).graph.steps


def test_most_examples_are_there():
    found = blocks("pipelines.md", "yaml")

    assert len(found) >= 20
    assert sum(source.startswith("version: 1") for source in found) >= 7


OF_KINDS = [model for kind in KINDS.values() for model in kind.models]
MODELS = [
    model
    for model in (*vars(parts).values(), *vars(spec).values(), *OF_KINDS, TimeoutSpec)
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__name__.endswith("Spec")
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_is_named(model: type[BaseModel]):
    hidden = {"action"}  # of on_error, which is not written as a mapping of these
    keys = {info.alias or name for name, info in model.model_fields.items()} - hidden
    assert keys
    for key in keys:
        assert re.search(rf"`{key}(: [^`]*)?`", PIPELINES), key


@pytest.mark.parametrize("name", ["InputType", "Join", "Select", "Overflow", "RetryCause"])
def test_every_value_of_an_enumeration_is_named(name: str):
    for value in get_args(getattr(parts, name)):
        assert f"`{value}`" in PIPELINES, value


def test_every_built_in_is_named_with_its_inputs():
    rows = re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\|([^|]*)\|[^|]*\|$", PIPELINES, re.MULTILINE)
    table = {name: set(re.findall(r"`(\w+)`", inputs)) for name, inputs in rows}
    for name in builtin_pipelines():
        assert table[name] == set(Pipeline.builtin(name).spec.inputs) - {"query"}, name


def test_the_mistakes_that_are_shown_are_found():
    source = """\
version: 1
name: mine
steps:
  judge:
    agent: judge
    promt: Judge this.
"""
    with pytest.raises(synaptic.PipelineError, match=r"mine\.yaml:6:5: unknown key 'promt'; did you mean 'prompt'\?"):
        Pipeline.parse(source, "mine.yaml")


# -- docs/agents.md, docs/library.md -------------------------------------------------------------------------------


def test_every_shipped_agent_is_named_with_its_fields():
    book = discover_agents([("shipped", ROOT / "agents")])
    rows = dict(re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|$", (ROOT / "docs/agents.md").read_text(), re.MULTILINE))
    for name in book:
        shape = book[name].output
        assert re.findall(r"`(\w+)`", rows[name]) == (list(shape.field_names()) if shape else []), name


def test_every_backend_is_in_the_table():
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]*) \|$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)

    assert [row for row in rows if row[0] in BUILT_IN] == [(name, backend_kind(name).summary) for name in BUILT_IN]


def test_the_backend_of_ones_own_answers():
    names: dict[str, object] = {"synaptic": synaptic}
    for block in blocks("library.md", "python"):
        if "Parrot" in block:
            exec(compile(block, "library.md", "exec"), names)
    kind, busy = names["kind"], names["Busy"]
    assert isinstance(kind, synaptic.BackendKind)

    backend = kind.open(synaptic.BackendContext(synaptic.Settings()))
    result = synaptic.run_sync("hello", pipeline="answer", settings=synaptic.Settings(), backend=backend)

    assert result.answer == "hello"
    assert busy().capabilities.capacity == 2


def test_the_example_of_a_test_runs():
    (example,) = [block for block in blocks("library.md", "python") if "ScriptedBackend(" in block]

    exec(compile(example, "library.md", "exec"), {})
