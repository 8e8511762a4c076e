"""What the arguments of commands may become: models, pipelines, agents, nodes, settings, files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from synaptic import agents, paths, pipeline
from synaptic.settings import Settings, field_kind

if TYPE_CHECKING:
    from synaptic.ui.repl.repl import Repl

YAML_SUFFIXES: Final = (".yaml", ".yml")
NODE_ACTIONS: Final = ("list", "add", "remove", "check", "discover")
COORDINATOR_ACTIONS: Final = ("start", "stop", "restart")
WORKER_ACTIONS: Final = ("check",)
_CONFIG_ACTIONS: Final = ("show", "path", "set")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A word that may be completed to. ``about`` is shown beside it; ``more`` says that another part may follow."""

    text: str
    about: str = ""
    more: bool = False


Candidates: TypeAlias = Callable[["Repl", Sequence[str], str], Iterable[Suggestion]]
"""(the program, the complete words before, the word being typed) -> what it may become; the caller filters."""


def models(repl: Repl, before: Sequence[str], word: str) -> Iterable[Suggestion]:
    """Return the models that the backend named when it was last asked."""
    del word
    return () if before else [Suggestion(name) for name in repl.sessions.known_models]


def retry_arguments(repl: Repl, before: Sequence[str], word: str) -> Iterable[Suggestion]:
    """Return the option of a further try; after it, the models."""
    return models(repl, before[1:], word) if before else (Suggestion("-m", "another model", more=True),)


def pipelines(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield the built-in pipelines, and YAML files."""
    del repl
    if before:
        return
    builtin = pipeline.builtin_pipelines()
    yield from (Suggestion(name, "built in") for name in builtin)
    if "/" in word or word.startswith((".", "~")) or word not in builtin:
        yield from files(word, YAML_SUFFIXES)


def run_arguments(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield the pipelines; behind ``-f``, files."""
    if before and before[-1] in {"-f", "--file"}:
        yield from files(word)
    yield from pipelines(repl, before, word)


def agent_names(repl: Repl, before: Sequence[str], word: str) -> Iterable[Suggestion]:
    """Return the agents that are found."""
    del repl, word
    if before:
        return ()
    return [Suggestion(entry.agent.name, entry.agent.description) for entry in agents.discover_agents().entries()]


def setting_values(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield the settings; after one of them, the values that it can have, if these can be named."""
    if not before:
        for name, info in Settings.model_fields.items():
            yield Suggestion(name, info.description or "")
    elif len(before) == 1 and before[0] in Settings.model_fields:
        kind = field_kind(Settings.model_fields[before[0]].annotation)
        if kind.base is bool:
            yield from (Suggestion(text) for text in ("true", "false"))
        if before[0] == "model":
            yield from models(repl, (), word)
        if before[0] == "pipeline":
            yield from pipelines(repl, (), word)
        if kind.optional:
            yield Suggestion("none", "no value")


def config_arguments(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield what can be done with the settings; after ``set``, the settings and their values."""
    if not before:
        yield from map(Suggestion, _CONFIG_ACTIONS)
    elif before[0] == "set":
        yield from setting_values(repl, before[1:], word)


def node_arguments(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield what can be done with nodes; after some of it, the nodes that it can be done to."""
    del word
    if not before:
        yield from map(Suggestion, NODE_ACTIONS)
    elif before[0] in {"remove", "check"}:
        yield from (Suggestion(node.name or node.url, node.url) for node in repl.settings.nodes)


def coordinator_arguments(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield what can be done with coordinators; after that, the models that it can be done to."""
    del word
    if not before:
        yield from map(Suggestion, COORDINATOR_ACTIONS)
    elif len(before) == 1:
        names = (repl.settings.model, *repl.settings.prewarm, *repl.sessions.known_models)
        yield from map(Suggestion, dict.fromkeys(name for name in names if name))


def worker_arguments(repl: Repl, before: Sequence[str], word: str) -> Iterator[Suggestion]:
    """Yield what can be done with workers; after ``check``, the workers of the settings."""
    del word
    if not before:
        yield from map(Suggestion, WORKER_ACTIONS)
    elif before[0] == "check":
        yield from (Suggestion(f"{worker.host}:{worker.port}") for worker in repl.settings.rpc_backends)


def commands(repl: Repl, before: Sequence[str], word: str) -> Iterable[Suggestion]:
    """Return the commands."""
    del word
    return () if before else [Suggestion(entry.name, entry.help) for entry in repl.registry]


def copied(repl: Repl, before: Sequence[str], word: str) -> Iterable[Suggestion]:
    """Return what can be copied beside a turn."""
    del repl, word
    return () if before else (Suggestion("code", "the last block of code"),)


def any_file(repl: Repl, before: Sequence[str], word: str) -> Iterable[Suggestion]:
    """Return the files that ``word`` may be the beginning of."""
    del repl, before
    return files(word)


def files(word: str, suffixes: Sequence[str] = ()) -> Iterator[Suggestion]:
    """Yield the directories, and the files with one of the suffixes, whose path begins with ``word``."""
    start, _, part = word.rpartition("/")
    shown = f"{start}/" if "/" in word else ""
    try:
        directory = paths.expanded(shown or ".")
        entries = sorted(directory.iterdir())
        for entry in entries:
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if entry.is_dir():
                yield Suggestion(f"{shown}{entry.name}/", "directory", more=True)
            elif not suffixes or entry.suffix in suffixes:
                yield Suggestion(f"{shown}{entry.name}")
    except OSError:
        return


OF_COMMAND: Final[Mapping[str, Candidates]] = {
    "help": commands,
    "model": models,
    "pipeline": pipelines,
    "agents": agent_names,
    "run": run_arguments,
    "set": setting_values,
    "config": config_arguments,
    "nodes": node_arguments,
    "coordinator": coordinator_arguments,
    "rpc": worker_arguments,
    "save": any_file,
    "copy": copied,
    "retry": retry_arguments,
}
"""Of each command whose arguments can be completed."""
