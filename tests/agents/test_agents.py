"""Agents: Markdown files with front matter, where they are found, and the shipped ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shape_sizes import longest_decoded
from trust_support import trust

from synaptic import paths
from synaptic.agents.definition import FILE_LIMIT, Agent, AgentBook, AgentEntry, discover_agents
from synaptic.agents.notation import EnumType, ListType, StringType
from synaptic.agents.shape import Shape
from synaptic.errors import AgentError, ExitCode

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("classifier", "critic", "editor", "judge", "planner", "researcher", "storyteller")

CRITIC = """\
---
name: critic
description: >
  Judges a text
  and scores it
model: llama3.1:8b
temperature: 1
max_tokens: 100
output:
  score: number(0..1)
---

You are a critic.

--- Be fair.
"""


def mistakes_of(text: str, source: str | Path = "critic.md") -> list[str]:
    with pytest.raises(AgentError) as caught:
        Agent.parse(text, source=source)
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def write(directory: Path, name: str, text: str = "---\n---\nDo it.\n") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


# --- one file -------------------------------------------------------------------------------------------------------


def test_an_agent_is_read_whole() -> None:
    agent = Agent.parse(CRITIC)
    assert agent == Agent(
        name="critic",
        prompt="You are a critic.\n\n--- Be fair.",
        description="Judges a text and scores it",
        model="llama3.1:8b",
        temperature=1.0,
        max_tokens=100,
        output={"score": "number(0..1)"},
    )
    assert agent.source is None
    assert isinstance(agent.temperature, float)


def test_everything_but_the_prompt_may_be_left_out() -> None:
    agent = Agent.parse("---\nmodel:\noutput: ~\n---\nDo it.", source="agents/do-it.md")
    assert agent == Agent(name="do-it", prompt="Do it.")
    assert (agent.model, agent.temperature, agent.max_tokens, agent.output) == (None, None, None, None)


def test_windows_line_endings_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "critic.md"
    path.write_bytes(b"\xef\xbb\xbf" + CRITIC.replace("\n", "\r\n").encode())
    assert Agent.load(path) == Agent.parse(CRITIC)
    assert Agent.load(str(path)).source == path
    assert Agent.parse("\ufeff" + CRITIC.replace("\n", "\r")) == Agent.parse(CRITIC)


@pytest.mark.parametrize(
    ("head", "mistakes"),
    [
        ("temprature: 1", ["critic.md:2:1: unknown key 'temprature'; did you mean 'temperature'?"]),
        ("system: Do it", ["critic.md:2:1: unknown key 'system'; the prompt is the text below the front matter"]),
        ("role: Poet", ["critic.md:2:1: unknown key 'role'; write it into the prompt: the prompt is the text below the front matter"]),  # noqa: E501
        ("Output_Schema: x", ["critic.md:2:1: unknown key 'Output_Schema'; write 'output'"]),
        ("top_p: 1", ["critic.md:2:1: unknown key 'top_p'; an agent has none: remove it"]),
        ("zzz: 1", ["critic.md:2:1: unknown key 'zzz'; known: description, max_tokens, model, name, output, temperature"]),  # noqa: E501
        ("name: My Critic", ["critic.md:2:7: 'My Critic' is not an agent's name; use small letters, digits, '-' and '_', first a letter"]),  # noqa: E501
        ("name: 7", ["critic.md:2:7: 7 is not an agent's name; use small letters, digits, '-' and '_', first a letter"]),  # noqa: E501
        ("description: [a]", ["critic.md:2:14: the description must be text, not a list; put it in quotes"]),
        ("description: 2024", ["critic.md:2:14: the description must be text, not 2024; put it in quotes"]),
        ("model: true", ["critic.md:2:8: the model must be the name of one, not true; write for example 'model: llama3.1:8b'"]),  # noqa: E501
        ("model: {a: b}", ["critic.md:2:8: the model must be the name of one, not a mapping; write for example 'model: llama3.1:8b'"]),  # noqa: E501
        ("model: ''", ["critic.md:2:8: the model must be the name of one, not ''; write for example 'model: llama3.1:8b'"]),  # noqa: E501
        ("temperature: warm", ["critic.md:2:14: the temperature must be a number from 0 to 2, not 'warm'; write for example 'temperature: 0.3'"]),  # noqa: E501
        ("temperature: 2.1", ["critic.md:2:14: the temperature must be a number from 0 to 2, not 2.1; write for example 'temperature: 0.3'"]),  # noqa: E501
        ("temperature: -1", ["critic.md:2:14: the temperature must be a number from 0 to 2, not -1; write for example 'temperature: 0.3'"]),  # noqa: E501
        ("temperature: true", ["critic.md:2:14: the temperature must be a number from 0 to 2, not true; write for example 'temperature: 0.3'"]),  # noqa: E501
        ("max_tokens: 0", ["critic.md:2:13: max_tokens must be a whole number, 1 to 1000000, not 0; write for example 'max_tokens: 512'"]),  # noqa: E501
        ("max_tokens: 1.5", ["critic.md:2:13: max_tokens must be a whole number, 1 to 1000000, not 1.5; write for example 'max_tokens: 512'"]),  # noqa: E501
        ("max_tokens: '9'", ["critic.md:2:13: max_tokens must be a whole number, 1 to 1000000, not '9'; write for example 'max_tokens: 512'"]),  # noqa: E501
        ("output: list[string]", ["critic.md:2:9: an output is a mapping of field names to types; give it a field, such as 'result: list[string]'"]),  # noqa: E501
        ("output:\n  a: list[strng]", ["critic.md:3:11: unknown type 'strng'; did you mean 'string'?"]),
        ("output:\n  a: 'list[strng]'", ["critic.md:3:12: unknown type 'strng'; did you mean 'string'?"]),
        ("output:\n  a: |\n    strng", ["critic.md:3:6: unknown type 'strng'; did you mean 'string'?"]),
        ("output:\n  a: list[string,\n    strng]", ["critic.md:3:17: ']' is expected here, not ','; put ']' after the type of the items"]),  # noqa: E501
        ("output:\n  a: list[string\n    strng]", ["critic.md:3:6: ']' is expected here, not 's'; put ']' after the type of the items"]),  # noqa: E501
        ("output:\n  a:\n    b-c: string", ["critic.md:4:5: 'b-c' is not a field name; use letters, digits and underscores, first a letter, at most 64"]),  # noqa: E501
        ("output:\n  a:\n  b: 5", ["critic.md:3:3: a type is text or a mapping, not nothing; write for example 'string', or 'list[string]' for a list", "critic.md:4:3: a type is text or a mapping, not int 5; write for example 'string', or 'list[string]' for a list"]),  # noqa: E501
        ("- a", ["critic.md:2:1: the front matter is no mapping; write one 'key: value' a line"]),
        ("model: a\nmodel: b", ["critic.md:3:1: the key 'model' stands twice; it is first on line 2; keep one"]),
    ],
)  # fmt: skip
def test_a_mistake_says_where_it_stands_and_what_to_write(head: str, mistakes: list[str]) -> None:
    assert mistakes_of(f"---\n{head}\n---\nDo it.\n") == mistakes


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "critic.md:1:1: ", "there is no front matter; begin with a line '---'"),
        ("\n\nname: x\n---\nDo it.", "critic.md:3:1: ", "there is no front matter"),
        (" \n\n---\nmodel: a\n", "critic.md:3:1: ", "the front matter has no end"),
        ("\n\n---\nmodel: a\n---\n \n", "critic.md:6:1: ", "the prompt is empty"),
        ("\n---\noutput:\n  a: strng\n---\nDo it.", "critic.md:4:6: ", "strng"),
        ("---\nmodel: a\n", "critic.md:1:1: ", "the front matter has no end; close it with a line '---'"),
        ("---\n---\n \n", "critic.md:3:1: ", "the prompt is empty; write what the agent should do"),
        ("---\noutput:\n\ta: string\n---\nDo it.", "critic.md:3:1: ", "indent with spaces, not tabs"),
        ("---\nmodel: [a\n---\nDo it.", "critic.md:2:8: ", "'[' has no end"),
        ("---\noutput:\n  a: {b: string}, c\n---\nDo it.", "critic.md:3:", "put the whole text in quotes"),
        ("---\noutput:\n  a: list[{b: string}]\n---\nDo it.", "critic.md:3:13: ", "put a value that has ': ' in it in quotes"),  # noqa: E501
        ("---\nname: critic\n<<: {a: 1}\n---\nDo it.", "critic.md:3:1", "merge keys (<<) are not read"),
        ("---\nmodel: !!python/object/apply:os.getcwd []\n---\nDo it.", "critic.md:2:", "is not read; remove it"),
        ("---\nmodel: a\x00b\n---\nDo it.", "critic.md:", "broken YAML"),
        ("---\nmodel: " + "[" * 250_000 + "\n---\nDo it.", "critic.md:2:", "nested more than 40 levels deep"),
    ],
)  # fmt: skip
def test_a_broken_file_says_so(text: str, place: str, words: str) -> None:
    first = mistakes_of(text)[0]
    assert first.startswith(place)
    assert words in first


def test_blank_lines_before_the_front_matter_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "agents", "poet.md", "\r\n \n---\ntemperature: 0.9\n---\nYou write verse.\n")
    poet = discover_agents().get("poet")
    assert (poet.temperature, poet.prompt) == (0.9, "You write verse.")


def test_every_mistake_of_a_file_is_reported_once_and_in_order() -> None:
    text = "---\nnom: x\ntemperature: 9\noutput:\n  a: strng\n  b: {c: list, d: bool}\nmodel: 3\n---\n"
    assert [re.split(r"[ ;]", mistake, maxsplit=1)[0] for mistake in mistakes_of(text)] == [
        "critic.md:2:1:",
        "critic.md:3:14:",
        "critic.md:5:6:",
        "critic.md:6:10:",
        "critic.md:6:19:",
        "critic.md:7:8:",
        "critic.md:9:1:",
    ]


def test_broken_yaml_and_an_empty_prompt_are_both_reported() -> None:
    assert len(mistakes_of("---\nmodel: [\n---\n")) == 2


def test_a_file_whose_name_is_no_agent_name_needs_one() -> None:
    text = "---\ndescription: x\n---\nDo it."
    (mistake,) = mistakes_of(text, "agents/My Critic.md")
    assert mistake.startswith("agents/My Critic.md:2:1: the file's name makes no agent name: 'My Critic'; add a line")
    assert Agent.parse("---\nname: my-critic\n---\nDo it.", source="agents/My Critic.md").name == "my-critic"


def test_a_file_that_is_no_agent_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "latin.md").write_bytes("---\ndescription: caf\xe9\n---\nDo it.".encode("latin-1"))
    (tmp_path / "large.md").write_text("---\n---\n" + "x" * FILE_LIMIT, encoding="utf-8")
    expected = {
        "none.md": "there is no such file",
        "folder.md": "this is a directory, not a Markdown agent file",
        "latin.md": ":2:17: the file is not UTF-8 text; save it as UTF-8",
        "large.md": "a Markdown agent has at most 262,144",
    }
    for name, words in expected.items():
        with pytest.raises(AgentError) as caught:
            Agent.load(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert words in str(caught.value)


# --- made in Python -------------------------------------------------------------------------------------------------


def test_an_agent_is_made_in_python() -> None:
    agent = Agent(name="poet", prompt=" Write. ", output={"title": "string", "mood": "enum(glad, sad)"})
    assert agent.prompt == "Write."
    assert agent.output == Shape.parse({"title": "string", "mood": "enum(glad, sad)"})
    assert Agent(name="poet", prompt="Write.", output=agent.output) == agent
    assert hash(agent) == hash(Agent(name="poet", prompt="Write.", output=agent.output))


def test_an_agent_made_wrongly_says_everything_that_is_wrong() -> None:
    with pytest.raises(AgentError) as caught:
        Agent(name="Poet", prompt="", temperature=float("nan"), max_tokens=0, output={"a": "strng"})
    assert str(caught.value).splitlines() == [
        "agent 'Poet': 'Poet' is not an agent's name; use small letters, digits, '-' and '_', first a letter",
        "agent 'Poet': the prompt is empty; write what the agent should do below the front matter",
        "agent 'Poet': the temperature must be a number from 0 to 2, not nan; write for example 'temperature: 0.3'",
        "agent 'Poet': max_tokens must be a whole number, 1 to 1000000, not 0; write for example 'max_tokens: 512'",
        "output.a:1: unknown type 'strng'; did you mean 'string'?",
    ]
    assert caught.value.exit_code is ExitCode.USAGE


# --- where agents are found -----------------------------------------------------------------------------------------


def test_later_directories_override_and_say_what_they_hide(tmp_path: Path) -> None:
    for origin in ("one", "two", "three"):
        write(tmp_path / origin, "critic.md", f"---\ndescription: {origin}\n---\nDo it.")
    write(tmp_path / "one", "editor.md")
    book = discover_agents([(origin, tmp_path / origin) for origin in ("one", "two", "missing", "three")])
    assert list(book) == ["critic", "editor"]
    assert book["critic"].description == "three"
    critic, editor = book.entries()
    assert (critic.origin, critic.path) == ("three", tmp_path / "three/critic.md")
    assert critic.overrides == (tmp_path / "one/critic.md", tmp_path / "two/critic.md")
    assert editor == AgentEntry(book.get("editor"), "one", tmp_path / "one/editor.md")
    assert len(book) == 2
    assert "critic" in book
    assert "poet" not in book


def test_files_that_are_no_agents_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "poet.MD")
    for name in ("README.md", "readme.md", ".hidden.md", "notes.txt", "x.md.orig"):
        write(tmp_path, name, "no agent")
    write(tmp_path / "sub", "inner.md", "no agent")
    assert list(discover_agents([("project", tmp_path)])) == ["poet"]


@pytest.mark.parametrize("text", ["", "# Notes\n\nOf other agents.\n", "\ufeffname: x\n"])
def test_a_document_of_a_project_that_is_no_agent_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "agents", "poet.md", text)
    book = discover_agents()
    assert "poet" not in book and "editor" in book
    assert book.left_out == "there is no front matter, in agents/poet.md: left out, as no agents"
    with pytest.raises(AgentError, match="there is no agent 'poet'") as caught:
        book.get("poet")
    assert "agents/poet.md: there is no front matter; begin with a line '---'" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("poet", "poet.md is here, but agents are read from the folder agents: move it there"),
        ("./poet.md", "./poet.md is here, but agents are read from the folder agents: move it there"),
        ("bard", "agent/bard.md is here, but agents are read from the folder agents: move it there"),
        ("agents/guide.md", "did you mean 'guide'?"),
        ("guide.md", "did you mean 'guide'?"),
    ],
)
def test_the_file_of_an_agent_is_no_agent_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in ((".", "poet"), ("agent", "bard"), ("agents", "guide")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write(tmp_path / folder, f"{name}.md", "---\ndescription: x\n---\nDo it.")
    with pytest.raises(AgentError, match="there is no agent") as caught:
        discover_agents().get(asked)
    assert caught.value.hint == hint


OF_ANOTHER_PROGRAM = """\
---
name: {name}
description: Use this agent when: the user asks for a review. Examples: <example>
tools: Read, Grep
model: sonnet
---
You review code.
"""


def test_an_agent_of_another_program_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("critic", "reviewer"):
        write(tmp_path / "agents", f"{name}.md", OF_ANOTHER_PROGRAM.format(name=name))
    write(tmp_path / "agents", "own.md")
    write(tmp_path / "beside", "reviewer.md", OF_ANOTHER_PROGRAM.format(name="reviewer"))
    book = discover_agents()

    why = "'tools' is a key of other programs' agents"
    assert book.left_out == f"{why}, in agents/critic.md, agents/reviewer.md: left out, as no agents"
    assert "own" in book and book.entry("critic").origin == "shipped"
    with pytest.raises(AgentError, match="there is no agent 'reviewer'") as caught:
        book.get("reviewer")
    assert f"agents/reviewer.md: {why}; remove 'tools'" in str(caught.value.hint)
    assert not discover_agents([("pipeline", tmp_path / "beside")])
    with pytest.raises(AgentError, match="a ':' stands inside a value"):
        discover_agents([("user", tmp_path / "beside")])


def test_every_broken_file_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "a", "one.md", "no front matter")
    write(tmp_path / "a", "two.md", "---\nmodel: 1\nnom: x\n---\nDo it.")
    write(tmp_path / "b", "three.md", "---\n---\n")
    (tmp_path / "b" / "four.md").mkdir()
    with pytest.raises(AgentError) as caught:
        discover_agents([("a", tmp_path / "a"), ("b", tmp_path / "b")])
    assert [Path(problem.source or "").name for problem in caught.value.problems] == [
        "one.md", "two.md", "two.md", "four.md", "three.md"
    ]  # fmt: skip
    assert "fix it or move it away" in str(caught.value)


def test_two_files_of_one_directory_with_the_same_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "---\nname: critic\n---\nDo it.")
    write(tmp_path, "critic.md")
    with pytest.raises(
        AgentError, match=r"critic\.md: the name 'critic' is taken by .*a\.md; give one of them another"
    ):
        discover_agents([("project", tmp_path)])


AS_NOBODY = """
import os, sys
from pathlib import Path
from synaptic.agents.definition import discover_agents
from synaptic.errors import AgentError
import synaptic.text.yaml_positions, yaml
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    discover_agents([("project", Path("agents"))])
except AgentError as exc:
    print(exc)
"""


def test_a_directory_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "agents", "critic.md")
    tmp_path.chmod(0o755)
    (tmp_path / "agents").chmod(0o311)
    command = [sys.executable, "-c", AS_NOBODY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (tmp_path / "agents").chmod(0o700)

    assert "agents: cannot be read: Permission denied" in done.stdout


def test_shipped_user_and_project_agents_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    assert [(entry.agent.name, entry.origin) for entry in discover_agents().entries()] == [
        (name, "shipped") for name in SHIPPED
    ]
    write(paths.user_agents_dir(), "critic.md")
    write(tmp_path / "agents", "critic.md")
    write(tmp_path / "agents", "poet.md")
    book = discover_agents()
    assert (
        book.left_out == "this folder is not trusted; left out: agents/critic.md; to see and allow it: synaptic trust"
    )
    assert book.entry("critic").origin == "user"
    assert book.entry("poet") == AgentEntry(book["poet"], "project", Path("agents/poet.md"))
    trust()
    book = discover_agents()
    assert book.left_out == ""
    assert book.entry("critic").origin == "project"
    assert book.entry("critic").overrides == (
        paths.shipped_agents_dir() / "critic.md",
        paths.user_agents_dir() / "critic.md",
    )


def test_a_checkout_does_not_override_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "agents").symlink_to(paths.shipped_agents_dir())
    monkeypatch.chdir(tmp_path)
    assert {(entry.origin, entry.overrides) for entry in discover_agents().entries()} == {("shipped", ())}


def test_an_unknown_agent_is_answered_with_the_nearest() -> None:
    book = AgentBook([AgentEntry(Agent(name="critic", prompt="Do it."), "inline")])
    with pytest.raises(AgentError, match="there is no agent 'critc'\n  did you mean 'critic'"):
        book.get("critc")
    with pytest.raises(AgentError, match="there is no agent 'critic'"):
        AgentBook().get("critic")


def test_an_entry_without_a_file_hides_others_too(tmp_path: Path) -> None:
    path = write(tmp_path, "critic.md")
    found = discover_agents([("project", tmp_path)]).entries()
    inline = AgentEntry(Agent(name="critic", prompt="Do it."), "pipeline")
    assert AgentBook([*found, inline]).entry("critic").overrides == (path,)
    assert AgentBook([inline, *found]).entry("critic").overrides == ()


# --- the shipped agents ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_agent_is_described_and_bounded(name: str) -> None:
    agent = Agent.load(paths.shipped_agents_dir() / f"{name}.md")
    assert agent.name == name
    assert 10 < len(agent.description) < 100
    assert len(agent.prompt) < 600
    assert agent.max_tokens is not None
    if agent.output is not None:
        # A model may spend a token on every character; the space between JSON's tokens comes on top.
        assert longest_decoded(agent.output.root) * 1.15 <= agent.max_tokens
        assert all(f'"{field}"' in agent.prompt for field in agent.output.field_names())
        assert agent.temperature is not None
        assert agent.temperature <= 0.4


def test_the_shipped_agents_have_the_fields_that_the_built_in_pipelines_use() -> None:
    book = discover_agents([("shipped", paths.shipped_agents_dir())])
    assert tuple(book) == SHIPPED
    shapes = {name: shape.field_names() for name in book if (shape := book[name].output) is not None}
    assert shapes == {
        "planner": ("questions",),
        "researcher": ("key_facts",),
        "critic": ("issues", "missing", "score"),
        "judge": ("reason", "score"),
    }


# --- the documentation ----------------------------------------------------------------------------------------------

DOCS = (ROOT / "docs/reference/agents.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)


def test_the_documented_agent_is_one() -> None:
    (text,) = examples("markdown")
    agent = Agent.parse(text, source="agents/cautious.md")
    assert agent.output is not None
    assert agent.output.lookup("verdict") == EnumType(("go", "wait", "stop"))


def test_the_documented_notation_is_read() -> None:
    (text,) = examples("yaml")
    agent = Agent.parse(f"---\n{text}---\nDo it.", source="example.md")
    assert agent.output is not None
    assert agent.output.lookup("people.0.name") == StringType()
    assert json.loads(json.dumps(agent.output.notation))["note?"] == "string(..200)"


def test_the_documented_mistakes_are_reported_so() -> None:
    (good,) = examples("markdown")
    (messages,) = examples("text")
    bad = good.replace("temperature", "temprature").replace("list[string", "list[strng")
    assert mistakes_of(bad, "agents/cautious.md") == messages.splitlines()


def test_the_documented_python_runs() -> None:
    (code,) = examples("python")
    scope: dict[str, object] = {}
    exec(code, scope)
    poet = scope["poet"]
    assert isinstance(poet, Agent)
    assert poet.output is not None
    assert poet.output.lookup("lines") == ListType(StringType(0, 80), 4, 4)
