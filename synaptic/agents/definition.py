"""Agents: a role in one Markdown file (YAML front matter and the prompt), and where such files are found."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from synaptic import paths
from synaptic.agents.shape import Shape
from synaptic.agents.strangers import FENCE, MATTER, NO_MATTER, Stranger, stranger_of, strangers_line
from synaptic.errors import AgentError, Problem
from synaptic.settings import is_trusted, left_out_line
from synaptic.shared_bounds import LONGEST_REPLY
from synaptic.text import cut, did_you_mean, parse_yaml, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from synaptic.agents.notation import Mistake
    from synaptic.text import YamlDocument

__all__ = ["Agent", "AgentBook", "AgentEntry", "discover_agents"]

KEYS = ("name", "description", "model", "temperature", "max_tokens", "output")
"""The keys of the front matter. The prompt is the body."""
FILE_LIMIT = 256 * 1024
"""Bytes. A prompt that long fits no model's context; the file is something else."""
TEMPERATURE_LIMIT = 2.0
PROJECT = "project"
BESIDE = "pipeline"
_OF_OTHERS = frozenset({PROJECT, BESIDE})
"""Directories of that name exist in other projects, for other things."""
_SHOWN = 80
_BELOW = "the prompt is the text below the front matter"
_OTHER_WORDS = {
    **dict.fromkeys(("prompt", "system", "system_prompt", "system_message", "instructions", "instruction"), _BELOW),
    **dict.fromkeys(("role", "goal", "backstory", "persona", "task"), f"write it into the prompt: {_BELOW}"),
    **dict.fromkeys(("output_schema", "schema", "response_format", "format", "returns"), "write 'output'"),
    **dict.fromkeys(("num_predict", "max_output_tokens", "tokens"), "write 'max_tokens'"),
    **dict.fromkeys(("llm", "model_name", "engine"), "write 'model'"),
    **dict.fromkeys(("title", "about", "summary"), "write 'description'"),
    **dict.fromkeys(("tools", "top_p", "top_k", "stop", "seed"), "an agent has none: remove it"),
}
"""What other tools call these keys, or have beside them -> what to write."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_NAME_RULE = "use small letters, digits, '-' and '_', first a letter"

Complaint: TypeAlias = tuple[str, str]
"""What is wrong with a value, and what to write instead."""


@dataclass(frozen=True, init=False)
class Agent:
    """A role: instructions, output shape, sampling, model preference.

    Attributes:
        prompt: The instructions; sent as the system message.
        description: One line that says what the agent is for.
        model: As the backend names it; ``None`` takes the run's model.
        temperature: 0 to 2; ``None`` takes the run's.
        max_tokens: Bound on one reply; ``None`` leaves it to the backend.
        output: The shape of the reply; ``None`` is free text.
        source: The file that it was read from.
    """

    name: str
    prompt: str
    description: str
    model: str | None
    temperature: float | None
    max_tokens: int | None
    output: Shape | None
    source: Path | None = field(compare=False)

    def __init__(
        self,
        *,
        name: str,
        prompt: str,
        description: str = "",
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        output: Shape | Mapping[str, Any] | None = None,
        source: Path | None = None,
    ) -> None:
        values = {
            "name": name,
            "prompt": prompt,
            "description": description,
            "model": model,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        problems = [
            Problem(message, source=f"agent {name!r}", suggestion=suggestion)
            for key, value in values.items()
            for message, suggestion in _complaints(key, value)
        ]
        shape = output
        if output is not None and not isinstance(output, Shape):
            shape = _shape(output, None, problems)
        if problems:
            raise AgentError.of(problems)
        values["prompt"] = prompt.strip()
        values["description"] = " ".join(description.split())
        values["temperature"] = None if temperature is None else float(temperature)
        for key, value in {**values, "output": shape, "source": source}.items():
            object.__setattr__(self, key, value)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an agent from a Markdown file.

        Raises:
            AgentError: With every mistake in the file, each with its line and column.
        """
        path = Path(path)
        return cls.parse(_text(path), source=path)

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with the package."""
        return self.source is not None and self.source.parent == paths.shipped_agents_dir()

    @classmethod
    def parse(cls, text: str, *, source: str | Path = "agent.md") -> Self:
        """Read an agent from the text of a Markdown file.

        Args:
            text: The front matter and the prompt.
            source: Where the text comes from, for messages; its stem is the name where the text gives none.

        Raises:
            AgentError: With every mistake in the text, each with its line and column.
        """
        if not isinstance(text, str):
            raise AgentError.of_kind("text", text, "the Markdown of an agent as a str")
        return cls._parsed(text, source)

    @classmethod
    @lru_cache(maxsize=256)  # a batch, and a prompt that stays open, look the same files up for each run
    def _parsed(cls, text: str, source: str | Path) -> Self:
        label = str(source)
        matter = _split(text, label)
        problems = _body_problems(matter, label)
        document: YamlDocument | None = None
        try:
            document = parse_yaml(matter.yaml, label, AgentError, first_line=matter.yaml_line)
            problems = _head_problems(document, matter, Path(source).stem) + problems
        except AgentError as error:
            problems = [*error.problems, *problems]
        if document is None or problems:
            raise AgentError.of(sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0)))
        values = {key: value for key, value in (document.value or {}).items() if value is not None}
        values.setdefault("name", Path(source).stem)
        return cls(**values, prompt=matter.body, source=source if isinstance(source, Path) else None)


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """An agent in a book.

    Attributes:
        origin: Where it was found: "shipped", "user", "project", or what the caller calls it.
        overrides: The files of the same name that this one hides, the nearest last.
        text: What its file held when it was read.
    """

    agent: Agent
    origin: str
    path: Path | None = None
    overrides: tuple[Path, ...] = ()
    text: str = field(default="", compare=False, repr=False)


class AgentBook:
    """Agents by name. Of two entries with one name the later one counts, and says what it hides.

    Attributes:
        left_out: One line that says which files of the project are no agents here, because its folder is not trusted,
            or because others wrote them for something else; "" where all are.
        strangers: The latter.
    """

    def __init__(
        self, entries: Iterable[AgentEntry] = (), *, left_out: str = "", strangers: Sequence[Stranger] = ()
    ) -> None:
        self.left_out = left_out
        self.strangers = tuple(strangers)
        self._entries: dict[str, AgentEntry] = {}
        for entry in entries:
            hidden = self._entries.get(entry.agent.name)
            if hidden is not None and hidden.path is not None:
                self._entries[entry.agent.name] = replace(entry, overrides=(*hidden.overrides, hidden.path))
            else:
                self._entries[entry.agent.name] = entry

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Agent:
        return self.get(name)

    def get(self, name: str) -> Agent:
        """Return the agent called ``name``.

        Raises:
            AgentError: If there is none; its hint names the nearest.
        """
        return self.entry(name).agent

    def entry(self, name: str) -> AgentEntry:
        """Return the entry of the agent called ``name``.

        Raises:
            AgentError: If there is none; its hint names the nearest.
        """
        found = self._entries.get(name)
        if found is None:
            meant = next((each for each in self.strangers if each.path.stem == name), None)
            hint = did_you_mean(name, self._entries) if meant is None else f"{meant.path}: {meant.why}; {meant.cure}"
            if meant is None and paths.is_file(paths.builtin_pipelines_dir() / f"{name}.yaml"):
                hint = f"{name} is a pipeline: synaptic pipelines show {name}"
            stem = name.removesuffix(".md")
            if (plain := stem.rpartition("/")[2]) in self._entries:
                hint = f"did you mean {plain!r}?"
            elif meant is None and (file := next(filter(paths.is_file, (f"{stem}.md", f"agent/{stem}.md")), None)):
                hint = (
                    f"{file} is here, but agents are read from the folder {paths.project_agents_dir()}: move it there"
                )
            raise AgentError(f"there is no agent {cut(name, _SHOWN)!r}", hint=hint)
        return found

    def entries(self) -> tuple[AgentEntry, ...]:
        """Return every entry, by name."""
        return tuple(self._entries[name] for name in self)


def discover_agents(directories: Sequence[tuple[str, Path]] | None = None) -> AgentBook:
    """Read every agent there is: the shipped ones, the user's, and those of ``./agents``; later ones override.

    A file in ``./agents`` that would override one of the others, or lies elsewhere, counts once its folder is trusted.

    Args:
        directories: Pairs of an origin and a directory to search instead; one that does not exist is skipped.

    Raises:
        AgentError: With every mistake in every file: an agent that is silently left out is worse. A file of a project
            that was written for another program is none, and mentioned.
    """
    strangers: list[Stranger] = []
    if directories is not None:
        return AgentBook(_read(directories, strangers), strangers=strangers)
    folder = Path()
    found = _read(_directories(folder), strangers)
    left_out = {
        entry.path: name
        for name, entry in _project(found).items()
        if not agent_counts(entry, folder, takes_a_name=bool(entry.overrides))
    }
    kept = [entry for entry in found if entry.path not in left_out]
    lines = [left_out_line(folder, [*left_out.values()]), strangers_line(strangers)]
    return AgentBook(kept, left_out="; ".join(filter(None, lines)), strangers=strangers)


def agent_counts(entry: AgentEntry, folder: Path, *, takes_a_name: bool) -> bool:
    """Return whether an agent of a folder may be called.

    Args:
        entry: The agent.
        folder: Which has it in its ``agents``.
        takes_a_name: Whether it has the name of an agent from elsewhere, which it would replace.
    """
    loads = entry.agent.model is not None and paths.names_model_file(entry.agent.model)
    inside = entry.path is None or paths.resolved(entry.path).is_relative_to(paths.resolved(folder))
    if entry.path is None or (inside and not takes_a_name and not loads):
        return True
    return is_trusted(folder, _name_in_folder(entry.path), entry.text)


def agents_of(folder: Path) -> dict[str, AgentEntry]:
    """Return the agents of a folder, trusted or not, by file as in ``agents/editor.md``.

    Raises:
        AgentError: As :func:`discover_agents` does.
    """
    return _project(_read(_directories(folder), []))


def _project(entries: list[AgentEntry]) -> dict[str, AgentEntry]:
    """Return those of a project's folder, by file, with what they override."""
    known = AgentBook(entries).entries()
    return {_name_in_folder(entry.path): entry for entry in known if entry.origin == PROJECT and entry.path}


def _name_in_folder(path: Path) -> str:
    return f"{paths.project_agents_dir()}/{path.name}"


def _directories(folder: Path) -> tuple[tuple[str, Path], ...]:
    return (
        ("shipped", paths.shipped_agents_dir()),
        ("user", paths.user_agents_dir()),
        (PROJECT, folder / paths.project_agents_dir()),
    )


def _read(directories: Sequence[tuple[str, Path]], strangers: list[Stranger]) -> list[AgentEntry]:
    entries: list[AgentEntry] = []
    problems: list[Problem] = []
    read: set[Path] = set()
    for origin, directory in directories:
        # A checkout is run from its own root, where ./agents are the shipped ones themselves.
        if directory.is_dir() and paths.resolved(directory) not in read:
            read.add(paths.resolved(directory))
            entries += _read_directory(origin, directory, problems, strangers)
    if problems:
        hint = "every .md file in these directories is read as an agent, except README.md: fix it or move it away"
        raise AgentError("\n".join(str(problem) for problem in problems), problems=problems, hint=hint)
    return entries


def _read_directory(
    origin: str, directory: Path, problems: list[Problem], strangers: list[Stranger]
) -> list[AgentEntry]:
    entries: dict[str, AgentEntry] = {}
    try:
        files = sorted(path for path in directory.iterdir() if _is_agent_file(path.name))
    except OSError as error:
        problems.append(Problem(f"cannot be read: {error.strerror}", source=str(directory)))
        return []
    for path in files:
        try:
            text = _text(path)
            if origin in _OF_OTHERS and (stranger := stranger_of(path, text)) is not None:
                strangers.append(stranger)
                continue
            agent = Agent.parse(text, source=path)
        except AgentError as error:
            problems += error.problems
            continue
        taken = entries.get(agent.name)
        if taken is not None:
            message = f"the name {agent.name!r} is taken by {taken.path}"
            problems.append(Problem(message, source=str(path), suggestion="give one of them another name"))
        else:
            entries[agent.name] = AgentEntry(agent, origin, path, text=text)
    return list(entries.values())


def _text(path: Path) -> str:
    return read_text(path, "Markdown agent", AgentError, limit=FILE_LIMIT)


def _is_agent_file(name: str) -> bool:
    return name.lower().endswith(".md") and name.lower() != "readme.md" and not name.startswith(".")


@dataclass(frozen=True, slots=True)
class _Matter:
    """The two parts of an agent's file, and the lines on which they begin."""

    yaml: str
    yaml_line: int
    body: str
    body_line: int


def _split(text: str, source: str) -> _Matter:
    """Return what stands between the fences and what stands below them."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    if lines[first].rstrip() != FENCE:
        raise AgentError.of([Problem(NO_MATTER, source, first + 1, 1, MATTER)])
    end = next((at for at, line in enumerate(lines) if at > first and line.rstrip() == FENCE), None)
    if end is None:
        missing = Problem("the front matter has no end", source, first + 1, 1, "close it with a line '---'")
        raise AgentError.of([missing])
    return _Matter("\n".join(lines[first + 1 : end]), first + 2, "\n".join(lines[end + 1 :]).strip(), end + 2)


def _head_problems(document: YamlDocument, matter: _Matter, stem: str) -> list[Problem]:
    """Return what is wrong in the front matter, once its YAML could be read."""
    if document.value is not None and not isinstance(document.value, dict):
        return [document.problem("the front matter is no mapping", (), suggestion="write one 'key: value' a line")]
    values: dict[str, Any] = document.value or {}
    problems: list[Problem] = []
    for key, value in values.items():
        if key not in KEYS:
            suggestion = _OTHER_WORDS.get(str(key).lower()) or did_you_mean(key, KEYS)
            problems.append(document.problem(f"unknown key {key!r}", (key,), suggestion=suggestion))
        elif value is None:
            continue
        elif key == "output":
            _shape(value, _locate(document, matter), problems)
        else:
            problems += [
                document.problem(message, (key,), at_key=False, suggestion=suggestion)
                for message, suggestion in _complaints(key, value)
            ]
    if values.get("name") is None and not _NAME.fullmatch(stem):
        message = f"the file's name makes no agent name: {stem!r}"
        problems.append(document.problem(message, (), suggestion=f"add a line 'name: ...'; {_NAME_RULE}"))
    return problems


def _body_problems(matter: _Matter, source: str) -> list[Problem]:
    return [
        Problem(message, source, matter.body_line, 1, suggestion)
        for message, suggestion in _complaints("prompt", matter.body)
    ]


def _shape(notation: object, locate: Callable[[Mistake], Problem] | None, problems: list[Problem]) -> Shape | None:
    try:
        return Shape.parse(notation, locate=locate)
    except AgentError as error:
        problems += error.problems
        return None


def _locate(document: YamlDocument, matter: _Matter) -> Callable[[Mistake], Problem]:
    """Return what says where in the front matter a mistake in the output stands."""
    lines = matter.yaml.split("\n")

    def locate(mistake: Mistake) -> Problem:
        path = ("output", *mistake.path)
        whole_field = mistake.offset is None and bool(mistake.path)
        problem = document.problem(mistake.message, path, at_key=whole_field, suggestion=mistake.suggestion)
        if mistake.offset is None or problem.line is None or problem.column is None:
            return problem
        written = lines[problem.line - matter.yaml_line][problem.column - 1 :]
        column = problem.column + mistake.offset + written.startswith(("'", '"'))
        # In a block scalar or over several lines the text stands elsewhere: then only its beginning is known.
        fits = path not in document.blocks and mistake.offset <= len(written)
        return replace(problem, column=column) if fits else problem

    return locate


def _complaints(key: str, value: object) -> list[Complaint]:
    """Return what is wrong with ``value`` as the ``key`` of an agent."""
    complaint = _CHECKS[key](value)
    return [] if complaint is None else [complaint]


def _check_name(value: object) -> Complaint | None:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return None
    return f"{_shown(value)} is not an agent's name", _NAME_RULE


def _check_prompt(value: object) -> Complaint | None:
    if isinstance(value, str) and value.strip():
        return None
    return "the prompt is empty", "write what the agent should do below the front matter"


def _check_description(value: object) -> Complaint | None:
    if isinstance(value, str):
        return None
    return f"the description must be text, not {_shown(value)}", "put it in quotes"


def _check_model(value: object) -> Complaint | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return None
    return f"the model must be the name of one, not {_shown(value)}", "write for example 'model: llama3.1:8b'"


def _check_temperature(value: object) -> Complaint | None:
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= TEMPERATURE_LIMIT:
        return None
    return f"the temperature must be a number from 0 to 2, not {_shown(value)}", "write for example 'temperature: 0.3'"


def _check_max_tokens(value: object) -> Complaint | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST_REPLY):
        return None
    must = f"a whole number, 1 to {LONGEST_REPLY}"
    return f"max_tokens must be {must}, not {_shown(value)}", "write for example 'max_tokens: 512'"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    return str(value).lower() if isinstance(value, bool) else repr(value)


_CHECKS: dict[str, Callable[[object], Complaint | None]] = {
    "name": _check_name,
    "prompt": _check_prompt,
    "description": _check_description,
    "model": _check_model,
    "temperature": _check_temperature,
    "max_tokens": _check_max_tokens,
}
