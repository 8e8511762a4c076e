"""What the documentation says is true: its examples work and its links lead somewhere."""

import re
from pathlib import Path

import pytest

from synaptic.agents import discover_agents
from synaptic.pipeline.compiler import compile_pipeline
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.pipeline.spec import RepeatSpec, StepSpec

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(page: Path):
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("source", blocks("pipelines.md", "yaml"))
def test_the_example_pipeline_compiles(source: str):
    book = discover_agents()

    assert compile_pipeline(Pipeline.parse(source), {name: book[name] for name in book}).graph.steps


def test_the_page_on_pipelines_names_every_key_and_every_built_in():
    text = (ROOT / "docs" / "pipelines.md").read_text()
    keys = {info.alias or name for model in (StepSpec, RepeatSpec) for name, info in model.model_fields.items()}

    for name in (keys - {"description"}) | set(builtin_pipelines()):
        assert f"`{name}`" in text, name


def test_the_example_of_a_test_runs():
    (example,) = [block for block in blocks("library.md", "python") if "ScriptedBackend(" in block]

    exec(compile(example, "library.md", "exec"), {})
