"""A path is treated alike wherever a flag, a setting or a pipeline takes one.

The places are found in the commands, the settings and the language themselves, so that a new one cannot be forgotten.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import certifi
import click
import pytest
from cli_support import ECHO, SCRIPTED, Outcome, run_here
from trust_support import trust

from synaptic import Agent, Session, paths
from synaptic.pipeline import pipeline_schema
from synaptic.settings import NodeSettings, Settings, load_settings
from synaptic.settings.anchored import NODE_PATHS, PATHS
from synaptic.ui.root import build_root

ASKS = "version: 1\nname: asks\nsteps: {end: {ask: Which?, default: this}}\nresult: '{{ steps.end }}'\n"
TESTED = f"{ASKS}tests: {{one: {{expect: {{result: this}}}}}}\n"
TOOL = "from synaptic import tool\n\n\n@tool\ndef shout(text: str) -> str:\n    return text.upper()\n"
_END = "-----END CERTIFICATE-----\n"
CERTIFICATE = Path(certifi.where()).read_text().partition(_END)[0] + _END
A_PATH = re.compile(r"\b(FILE|PATH|DIR|GGUF)\b")
SPEAKS_OF_A_PATH = re.compile(r"\b(files?|paths?|folders?|directory)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a path is written on the command line.

    Attributes:
        words: The command; ``{}`` is the path.
        text: What stands in the file; ``None`` where the command writes it.
        missing: The exit code where it is not there; ``None`` where that is no mistake yet.
        found: The exit code where it is there.

    """

    words: tuple[str, ...]
    name: str
    text: str | None = ""
    missing: int | None = 2
    found: int = 0


NODE = ("nodes", "add", "https://127.0.0.1:9", "--no-check", "--config", "settings.json")
PLACES = {
    "-p NAME|FILE": Place(("-p", "{}", *SCRIPTED, "-y", "-q", "run"), "x.yaml", ASKS),
    "-f PATH": Place((*ECHO, "-q", "-f", "{}", "hello"), "x.txt", "text"),
    "-i KEY=VALUE": Place((*ECHO, "-q", "-i", "query=@{}"), "x.txt", "text"),
    "--tools MODULE|FILE.py": Place(("--tools", "{}", *ECHO, "-q", "hello"), "x.py", TOOL),
    "--config PATH": Place(("config", "show", "--config", "{}", "--json"), "x.json", '{"retries": 3}'),
    "batch NAME|FILE": Place(("batch", "{}", "/dev/null", "-o", "o.jsonl"), "x.yaml", ASKS, found=2),
    "batch FILE.jsonl|FILE.parquet": Place(
        ("batch", "answer", "{}", "-o", "o.jsonl", "-q", *SCRIPTED), "x.jsonl", '"hello"'
    ),
    "pipelines show NAME|FILE": Place(("pipelines", "show", "{}", "--source"), "x.yaml", ASKS),
    "pipelines validate NAME|FILE...": Place(("pipelines", "validate", "{}"), "x.yaml", ASKS),
    "pipelines graph NAME|FILE": Place(("pipelines", "graph", "{}"), "x.yaml", ASKS),
    "pipelines test [NAME|FILE|FOLDER]...": Place(("pipelines", "test", "{}", "--json"), "x.yaml", TESTED),
    "-o PATH": Place(("pipelines", "graph", "answer", "-o", "{}"), "x.svg", None),
    # A secret may be put into its file later.
    "--token-file FILE": Place((*NODE, "--token-file", "{}"), "x", "secret", missing=None),
    "--password-file FILE": Place((*NODE, "--username", "ada", "--password-file", "{}"), "x", "secret", missing=None),
    "--ca-file FILE": Place((*NODE, "--ca-file", "{}"), "x.pem", CERTIFICATE),
    "--pipeline FILE": Place(("serve", "--pipeline", "{}", "--host", "0.0.0.0"), "x.yaml", ASKS, found=2),
    "--cert FILE": Place(("serve", "--cert", "{}", "--key", "{}"), "x.pem", CERTIFICATE, found=2),
    "--key FILE": Place(("serve", "--cert", "{}", "--key", "{}"), "x.pem", CERTIFICATE, found=2),
    "--identity FILE": Place(("machines", "add", "nobody@127.0.0.1:9", "--identity", "{}"), "x", "key", found=3),
    "--source FILE": Place(("engine", "install", "--source", "{}"), "x.tar.gz", "no archive", found=3),
    "engine use DIR": Place(("engine", "use", "{}"), "x", "no directory", found=2),
    "distributed plan [MODEL|GGUF]": Place(("distributed", "plan", "{}"), "x.gguf", "no model", missing=3, found=3),
    "distributed start [MODEL|GGUF]": Place(
        ("distributed", "start", "{}", "--foreground"), "x.gguf", "none", missing=3, found=3
    ),
}


def mistakes(outcome: Outcome) -> int:
    """Return how many were told; ``validate`` tells them as compilers do, a line each."""
    return outcome.err.count("error: ") or len(outcome.err.splitlines())


def found_places() -> Iterator[str]:
    """Yield every option by its name and what is written behind it, every argument by its command."""
    for path, command in commands(build_root()):
        for parameter in command.params:
            shown = f"{parameter.metavar or parameter.name or ''}"
            if isinstance(parameter, click.Option):
                if A_PATH.search(shown) or A_PATH.search(parameter.help or ""):
                    short = min(parameter.opts, key=len)
                    yield f"{short} {shown}"
            elif A_PATH.search(shown):
                yield f"{path} {shown}"


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}".strip())


def test_every_flag_and_argument_that_takes_a_path_is_tried_here():
    assert set(found_places()) == set(PLACES)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_path_is_found_however_it_is_written(place: Place, own_home: Path, tmp_path: Path):
    here = tmp_path / "here"
    (here / "two words").mkdir(parents=True)
    written = [own_home / place.name, here / "two words" / place.name, here / place.name]
    for file in written if place.text is not None else ():
        file.write_text(place.text or "")

    told = set()
    for spelling in (f"~/{place.name}", f"two words/{place.name}", f"./{place.name}", str(here / place.name)):
        (here / "settings.json").unlink(missing_ok=True)
        outcome = run_here(*(word.format(spelling) for word in place.words), cwd=here)
        names = "|".join(re.escape(str(name)) for name in (spelling, *written, own_home, here))
        told.add((outcome.code, re.sub(f"({names})", "…", outcome.out + outcome.err)))
    assert {code for code, _ in told} == {place.found}, told
    assert all("no such" not in text.lower() and "there is no file" not in text for _, text in told)
    if place.text is None:
        assert all(file.is_file() for file in written)


@pytest.mark.parametrize("place", [place for place in PLACES.values() if place.missing is not None], ids=str)
@pytest.mark.parametrize("folder", ["~/nowhere", "~nobody-of-that-name", "no where", "/nowhere"])
def test_a_path_that_is_not_there_is_named_in_one_error(place: Place, folder: str, own_home: Path, tmp_path: Path):
    spelling = f"{folder}/{place.name}"
    outcome = run_here(*(word.format(spelling) for word in place.words), cwd=tmp_path)

    assert outcome.code == place.missing
    assert mistakes(outcome) == 1
    shown = spelling.replace("~/", f"{own_home}/")
    assert spelling in outcome.err or shown in outcome.err


def to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def two_hundred_gigabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 << 30)


def memory(path: Path) -> None:
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("odd", [to_a_device, a_pipe, a_circle, two_hundred_gigabytes, memory, Path.mkdir])
def test_what_is_no_file_is_called_that_at_once(place: Place, odd: Callable[[Path], None], tmp_path: Path):
    file = tmp_path / place.name
    odd(file)
    outcome = run_here(*(word.format(file) for word in place.words), cwd=tmp_path)

    assert outcome.code in {0, 2, 3}
    assert (outcome.code == 0) <= (place.missing is None or place.text is None)
    assert outcome.code == 0 or mistakes(outcome) == 1
    assert "bug" not in outcome.err
    assert "not there" not in outcome.err
    if "distributed" not in place.words:
        assert outcome.code == 0 or str(file) in outcome.err


def test_a_python_file_may_be_a_link_to_one_of_another_name(tmp_path: Path):
    (tmp_path / "tools").write_text(TOOL)
    (tmp_path / "x.py").symlink_to("tools")

    assert run_here("--tools", "./x.py", *ECHO, "-q", "hello", cwd=tmp_path).code == 0


def test_a_folder_of_pipelines_may_be_at_home(own_home: Path):
    (own_home / "mine").mkdir()
    (own_home / "mine" / "x.yaml").write_text(TESTED)

    assert run_here("pipelines", "test", "~/mine").out.endswith("1 test: 1 ok, 0 failed\n")


# -- settings --------------------------------------------------------------------------------------------------------


def test_every_setting_that_takes_a_path_is_known_as_one():
    for known, model in ((PATHS, Settings), (NODE_PATHS, NodeSettings)):
        speaking = {
            name
            for name, field in model.model_fields.items()
            if name.endswith(("_file", "_path", "_dir")) or SPEAKS_OF_A_PATH.search(field.description or "")
        }
        assert speaking <= set(known)
        assert set(known) <= set(model.model_fields)


FILES = {"embedded_model": "x.gguf", "model": "./x.gguf", "agent_models": "x.gguf", "pipeline": "in here/x.yaml"}
NAMES = {"embedded_model": None, "model": "hf.co/me/x:Q4.gguf", "agent_models": "x:8b", "pipeline": "research"}


@pytest.mark.parametrize("setting", PATHS)
def test_a_path_in_a_settings_file_begins_at_that_file_and_others_here(setting: str, tmp_path: Path):
    def loaded(value: str | None, **more: object) -> object:
        file = tmp_path / "settings.json"
        file.write_text(json.dumps({setting: {"editor": value} if setting == "agent_models" else value}))
        found = getattr(load_settings(config_path=file, environ={}, **more).settings, setting)
        return found.get("editor") if setting == "agent_models" else found

    given = f"{setting}.editor" if setting == "agent_models" else setting
    name = FILES[setting]
    assert loaded(name) == str(tmp_path / name)
    assert loaded(f"../{name}") == str(tmp_path.parent / name)
    assert loaded(f"~/{name}") == f"~/{name}"
    assert loaded(f"/{name}") == str(Path(f"/{name}"))
    assert loaded(NAMES[setting]) == NAMES[setting]
    assert loaded(None if setting != "agent_models" else "y", overrides=[f"{given}={name}"]) == name


@pytest.mark.parametrize("key", sorted(NODE_PATHS))
def test_a_nodes_file_begins_at_the_settings_file_too(key: str, tmp_path: Path):
    file = tmp_path / "settings.json"
    (tmp_path / "x.pem").write_text(CERTIFICATE)
    node = {"url": "https://127.0.0.1:9", key: "x.pem"} | ({"username": "ada"} if key == "password_file" else {})
    file.write_text(json.dumps({"nodes": [node, "http://127.0.0.1:8"]}))

    assert getattr(load_settings(config_path=file, environ={}).settings.nodes[0], key) == str(tmp_path / "x.pem")


def test_a_path_that_is_kept_is_kept_in_full(own_home: Path, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(ASKS)
    kept = run_here("config", "set", "pipeline", "x.yaml", cwd=tmp_path)

    assert kept.code == 0
    assert json.loads((own_home / ".synapticllamas.json").read_text())["pipeline"] == str(tmp_path / "x.yaml")
    assert run_here(*SCRIPTED, "-q", "-y", "run").out == "this\n"


# -- pipelines -------------------------------------------------------------------------------------------------------

IN_THE_LANGUAGE = {
    "$defs.case.properties.inputs",
    "$defs.agent",
    "$defs.input.properties.type",
    "$defs.step.properties.use",
    "",
}
"""What the schema says of files: agents beside a pipeline, a default that is read, ``use``; "" is the file itself."""

USES = "steps: {{end: {{use: '{}'}}}}\n"
READS = "inputs: {{doc: {{type: file, default: '{}'}}}}\nsteps: {{end: {{ask: W?, default: x}}}}\n"
READS_ALL = "inputs: {{docs: {{type: files, default: ['{}']}}}}\nsteps: {{end: {{ask: W?, default: x}}}}\n"
TESTED_WITH = (
    "inputs: {{doc: {{type: file}}}}\ntests: {{one: {{inputs: {{doc: '{}'}}}}}}\n"
    "steps: {{end: {{ask: W?, default: x}}}}\n"
)


def descriptions(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if isinstance(node.get("description"), str):
            yield path, node["description"]
        for key, value in node.items():
            yield from descriptions(value, f"{path}.{key}".strip("."))


def test_every_key_of_the_language_that_takes_a_path_is_tried_here():
    speaking = {path for path, text in descriptions(pipeline_schema()) if SPEAKS_OF_A_PATH.search(text)}

    assert speaking == IN_THE_LANGUAGE


@pytest.mark.parametrize("body", [USES, READS, READS_ALL, TESTED_WITH], ids=["use", "file", "files", "tests"])
@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("x.yaml", None),
        ("./two words/x.yaml", None),
        ("nowhere.yaml", "there is no file"),
        ("~/x.yaml", "folder"),
        ("/x.yaml", "folder"),
        ("../x.yaml", "folder"),
    ],
)
def test_a_path_in_a_pipeline_begins_at_its_file_and_stays_below(
    body: str, path: str, wrong: str | None, tmp_path: Path, own_home: Path
):
    folder = tmp_path / "other"
    for place in (folder, folder / "two words", own_home):
        place.mkdir(parents=True, exist_ok=True)
        (place / "x.yaml").write_text(ASKS)
    head = "version: 1\nname: demo\nresult: '{{ steps.end }}'\n"
    (folder / "demo.yaml").write_text(head + body.format(path))

    outcome: Outcome = run_here("pipelines", "validate", "other/demo.yaml", cwd=tmp_path)
    assert outcome.code == (0 if wrong is None else 2), outcome.err
    if wrong is not None:
        assert mistakes(outcome) == 1
        assert "demo.yaml:" in outcome.err and wrong in outcome.err


# -- agents beside a pipeline ----------------------------------------------------------------------------------------

CALLS = "version: 1\nname: calls\nsteps: {end: {agent: NAME, prompt: x}}\nresult: '{{ steps.end }}'\n"


def agent(folder: Path, name: str, prompt: str, more: str = "temperature: 1") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(f"---\n{more}\n---\n{prompt}\n")


async def prompt_of(name: str, folder: Path, **given: Agent) -> str:
    """Return the prompt of the agent that a pipeline in the folder ``other`` calls by that name."""
    (folder / "other" / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "other" / "p.yaml").write_text(CALLS.replace("NAME", name))
    async with Session(Settings(backend="scripted"), agents=given) as session:
        plan = await session.plan(pipeline=folder / "other" / "p.yaml")
    call = plan.compiled.graph.steps["end"].call
    assert call is not None
    return call.agent.prompt


@pytest.mark.parametrize(
    ("places", "taken"),
    [
        (["other"], "other"),
        (["here"], "here"),
        (["other", "here"], "other"),
        (["other", "here", "user"], "other"),
        (["here", "user"], "here"),
        (["other", "given"], "given"),
    ],
)
@pytest.mark.parametrize("name", ["cautious", "editor"])
async def test_the_nearest_agent_is_taken(name: str, places: list[str], taken: str, tmp_path: Path):
    folders = {"other": tmp_path / "other" / "agents", "here": tmp_path / "agents", "user": paths.user_agents_dir()}
    for place in places:
        if place in folders:
            agent(folders[place], name, place)
            trust(folders[place].parent)
    given = {name: Agent(name=name, prompt="given")} if "given" in places else {}

    with chdir(tmp_path):
        assert await prompt_of(name, tmp_path, **given) == taken


def test_a_pipeline_that_is_used_has_the_agents_beside_its_own_file(tmp_path: Path):
    agent(tmp_path / "sub" / "agents", "cautious", "x")
    (tmp_path / "sub" / "p.yaml").write_text(CALLS.replace("NAME", "cautious"))
    (tmp_path / "uses.yaml").write_text(
        "version: 1\nname: u\nsteps: {end: {use: sub/p.yaml}}\nresult: '{{ steps.end }}'\n"
    )
    (tmp_path / "calls.yaml").write_text(CALLS.replace("NAME", "cautious"))

    assert run_here("pipelines", "validate", str(tmp_path / "uses.yaml")).code == 0
    refused = run_here("pipelines", "validate", str(tmp_path / "calls.yaml"))
    assert refused.code == 2 and "there is no agent 'cautious'" in refused.err


def test_a_mistake_in_an_agent_beside_a_pipeline_is_told_once_at_its_place(tmp_path: Path):
    agent(tmp_path / "agents", "cautious", "Write.", "temprature: 1")
    (tmp_path / "p.yaml").write_text(CALLS.replace("NAME", "cautious"))

    outcome = run_here("pipelines", "validate", str(tmp_path / "p.yaml"))
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        f"{tmp_path}/agents/cautious.md:2:1: unknown key 'temprature'; did you mean 'temperature'?"
    ]
