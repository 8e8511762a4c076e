"""What the documentation says is true: its examples work, its tables are complete, its links lead somewhere."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer
from cli_support import run_here
from pydantic import BaseModel

import synaptic
from synaptic.agents.definition import discover_agents
from synaptic.backends.base import BUILT_IN, backend_kind
from synaptic.pipeline.compiler import CompileContext, compile_pipeline
from synaptic.pipeline.kinds import KINDS
from synaptic.pipeline.loader import Pipeline, builtin_pipelines
from synaptic.pipeline.spec import parts, spec
from synaptic.pipeline.spec.short_forms import TimeoutSpec
from synaptic.pipeline.tools import Tool

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LANGUAGE = [f"reference/language/{name}.md" for name in ("basics", "flow", "parts", "bounds", "keys", "built-in")]
PIPELINES = "\n".join((DOCS / page).read_text() for page in LANGUAGE)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def anchor(heading: str) -> str:
    """Return how a link names a heading: its words in small letters, joined with hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
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


def test_every_page_is_in_the_site():
    listed = re.findall(r"^ *- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert sorted(listed) == [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md"))]


def test_every_public_name_has_its_entry_in_the_reference():
    entries = re.findall(r"^::: synaptic\.(\w+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE)

    assert sorted([*entries, "__version__"]) == sorted(synaptic.__all__)
    for name in entries:
        public = getattr(synaptic, name)
        members = getattr(public, "__dict__", {}).values()
        texts = [public.__doc__, *(inspect.getdoc(value) for value in members if callable(value))]
        assert texts[0], name
        assert not any(re.search(r":\w+:`", text or "") for text in texts), (
            "the site reads Markdown, not Sphinx's roles"
        )


def test_files_of_the_source_that_are_named_are_there():
    files = [str(path.relative_to(ROOT)) for path in ROOT.glob("synaptic/**/*.py")]
    for page in (ROOT / "CONTRIBUTING.md", *(DOCS / "internals").glob("*.md")):
        for name in re.findall(r"`([\w/]+\.py)`", page.read_text()):
            assert any(f"/{file}".endswith(f"/{name}") for file in files) or (ROOT / name).exists(), (page.name, name)


# -- docs/reference/language -------------------------------------------------------------------------------------------

COUNT_WORDS = """
def count_words(text: str) -> int:
    \"\"\"Return the number of words.\"\"\"
    return len(text.split())
"""


def context() -> CompileContext:
    book = discover_agents()
    (program,) = blocks("reference/language/parts.md", "python")
    names: dict[str, object] = {}
    exec(compile(program, "parts.md", "exec"), names)
    tool = Tool.of(names["count_words"])
    return CompileContext(agents={name: book[name] for name in book}, tools={tool.name: tool})


def whole(source: str) -> Pipeline:
    """Return the pipeline of a block; one that shows only ``steps`` is completed first."""
    if not source.startswith("version: 1"):
        (key, *others) = yaml.safe_load(source)
        assert (key, others) == ("steps", []), "a block is a whole pipeline, or shows its steps"
        source = f'version: 1\nname: part\ninputs:\n  query: {{required: true}}\n{source}result: "done"\n'
    return Pipeline.parse(source, path=ROOT / "examples" / "block.yaml")


LANGUAGE_BLOCKS = [source for page in LANGUAGE for source in blocks(page, "yaml")]


@pytest.mark.parametrize("source", LANGUAGE_BLOCKS)
def test_every_example_compiles(source: str):
    compiled = compile_pipeline(whole(source), context())

    assert compiled.graph.steps
    assert not source.startswith("version: 1") or not compiled.warnings


def test_most_examples_are_there():
    found = LANGUAGE_BLOCKS

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


@pytest.mark.parametrize("name", ["InputType", "Join", "Select", "Overflow", "RetryCause", "ReplyFailure"])
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


# -- docs/reference, docs/how-to/library.md ----------------------------------------------------------------------------


def test_every_shipped_agent_is_named_with_its_fields():
    book = discover_agents([("shipped", ROOT / "agents")])
    rows = dict(
        re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|$", (ROOT / "docs/reference/agents.md").read_text(), re.MULTILINE)
    )
    for name in book:
        shape = book[name].output
        assert re.findall(r"`(\w+)`", rows[name]) == (list(shape.field_names()) if shape else []), name


def test_every_backend_is_in_the_table():
    rows = re.findall(r"^\| `([\w-]+)` \| ([^|]*) \|$", (ROOT / "docs/reference/settings.md").read_text(), re.MULTILINE)

    assert [row for row in rows if row[0] in BUILT_IN] == [(name, backend_kind(name).summary) for name in BUILT_IN]


def test_the_backend_of_ones_own_answers():
    names: dict[str, object] = {"synaptic": synaptic}
    for block in blocks("how-to/library.md", "python"):
        if "Parrot" in block:
            exec(compile(block, "how-to/library.md", "exec"), names)
    kind, busy = names["kind"], names["Busy"]
    assert isinstance(kind, synaptic.BackendKind)

    backend = kind.open(synaptic.BackendContext(synaptic.Settings()))
    result = synaptic.run_sync("hello", pipeline="answer", settings=synaptic.Settings(), backend=backend)

    assert result.answer == "hello"
    assert busy().capabilities.capacity == 2


def test_the_example_of_a_test_runs():
    (example,) = [block for block in blocks("how-to/library.md", "python") if "ScriptedBackend(" in block]

    exec(compile(example, "how-to/library.md", "exec"), {})


# -- the tutorial and the how-tos ----------------------------------------------------------------------------------

GUIDES = [*sorted(DOCS.glob("tutorial/*.md")), *(DOCS / f"how-to/{name}.md" for name in ("files", "batch", "web-app"))]
SCRIPTED = synaptic.Settings(backend="scripted", retries=0)


@pytest.mark.parametrize(
    "source",
    [source for page in GUIDES for source in blocks(str(page.relative_to(DOCS)), "yaml")],
    ids=lambda source: source[:20],
)
async def test_every_pipeline_of_a_guide_runs(source: str, tmp_path: Path):
    (tmp_path / "notes.md").write_text("The pump is loud.")
    inputs = {"files": [str(tmp_path / "notes.md")]} if "files:" in source else {}

    result = await synaptic.run(
        "Porto", pipeline=Pipeline.parse(source, "weekend.yaml"), inputs=inputs, settings=SCRIPTED
    )

    assert (result.status, result.error) == ("succeeded", None)
    assert result.answer


@pytest.mark.parametrize(
    "page", [page for page in GUIDES if page.stem in {"files", "batch"}], ids=lambda page: page.stem
)
def test_every_program_of_a_guide_runs(page: Path, tmp_path: Path):
    (program,) = blocks(str(page.relative_to(DOCS)), "python")
    environment = os.environ | {"SYNAPTIC_BACKEND": "scripted", "SYNAPTIC_CONFIG_FILE": os.devnull}

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip()


def test_the_tests_of_the_guide_end_as_it_shows(tmp_path: Path):
    page = "how-to/test-pipelines.md"
    review, _ = blocks(page, "yaml")
    for shown, source in zip(blocks(page, "console"), (review, review.replace("< 0.5", "< 0.05")), strict=True):
        (tmp_path / "review.yaml").write_text(source)

        tested = run_here("pipelines", "test", "review.yaml", cwd=tmp_path)

        assert shown == f"$ synaptic pipelines test review.yaml\n{tested.out}"


async def test_the_web_app_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SYNAPTIC_BACKEND", "scripted")
    (program,) = blocks("how-to/web-app.md", "python")
    names = {"__name__": "page"}
    exec(compile(program, "web-app.md", "exec"), names)

    async with TestServer(names["app"]) as server, TestClient(server) as client:
        reply = await client.get("/", params={"q": "Why is the sky blue?"})
        assert (reply.status, "Why is the sky blue?" in await reply.text()) == (200, True)


def test_the_mistake_that_the_tutorial_makes_is_found():
    source = blocks("tutorial/first-pipeline.md", "yaml")[1].replace("key_facts", "facts")
    (shown,) = re.findall(r"^weekend.yaml:.*$", (DOCS / "tutorial/first-pipeline.md").read_text(), re.MULTILINE)

    with pytest.raises(synaptic.PipelineError) as caught:
        compile_pipeline(Pipeline.parse(source, "weekend.yaml"), context())

    assert [str(problem) for problem in caught.value.problems] == [shown]
