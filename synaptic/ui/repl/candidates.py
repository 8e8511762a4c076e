"""What the arguments of commands may become: models, pipelines, agents, settings, files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from synaptic.settings import Settings, field_kind
from synaptic.ui.repl.registry import Candidate, no_candidates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from synaptic.ui.repl.registry import Candidates
    from synaptic.ui.repl.state import Repl

YAML_SUFFIXES = (".yaml", ".yml")


def models(repl: Repl, before: Sequence[str], word: str) -> Iterable[Candidate]:
    """Return the models that the backend named when it was last asked."""
    del before, word
    return [Candidate(name) for name in repl.sessions.known_models]


def pipelines(repl: Repl, before: Sequence[str], word: str) -> Iterator[Candidate]:
    """Yield the built-in pipelines, and YAML files."""
    from synaptic.pipeline import builtin_pipelines  # noqa: PLC0415  (start-up of the prompt)

    del repl, before
    yield from (Candidate(name, "built in") for name in builtin_pipelines())
    if "/" in word or word.startswith((".", "~")) or word not in builtin_pipelines():
        yield from files(word, YAML_SUFFIXES)


def agents(repl: Repl, before: Sequence[str], word: str) -> Iterator[Candidate]:
    """Yield the agents that are found."""
    from synaptic.agents import discover_agents  # noqa: PLC0415  (imports YAML)

    del repl, before, word
    yield from (Candidate(entry.agent.name, entry.agent.description) for entry in discover_agents().entries())


def setting_values(repl: Repl, before: Sequence[str], word: str) -> Iterator[Candidate]:
    """Yield the settings; after one of them, the values that it can have, if these can be named."""
    if not before:
        for name, info in Settings.model_fields.items():
            yield Candidate(name, info.description or "")
    elif len(before) == 1 and before[0] in Settings.model_fields:
        kind = field_kind(Settings.model_fields[before[0]].annotation)
        if kind.base is bool:
            yield from (Candidate(text) for text in ("true", "false"))
        if before[0] == "model":
            yield from models(repl, (), word)
        if before[0] == "pipeline":
            yield from pipelines(repl, (), word)
        if kind.optional:
            yield Candidate("none", "no value")


def commands(repl: Repl, before: Sequence[str], word: str) -> Iterator[Candidate]:
    """Yield the commands."""
    del before, word
    yield from (Candidate(entry.name, entry.help) for entry in repl.registry)


def any_file(repl: Repl, before: Sequence[str], word: str) -> Iterable[Candidate]:
    """Return the files that ``word`` may be the beginning of."""
    del repl, before
    return files(word)


def one_of(*words: str) -> Candidates:
    """Return the candidates of an argument that is one of a few words."""

    def given(repl: Repl, before: Sequence[str], word: str) -> Iterable[Candidate]:
        del repl, word
        return () if before else [Candidate(text) for text in words]

    return given


def first(candidates: Candidates, then: Candidates = no_candidates) -> Candidates:
    """Return candidates for the first argument, and others for those after it."""

    def by_position(repl: Repl, before: Sequence[str], word: str) -> Iterable[Candidate]:
        return (then if before else candidates)(repl, before, word)

    return by_position


def files(word: str, suffixes: Sequence[str] = ()) -> Iterator[Candidate]:
    """Yield the directories, and the files with one of the suffixes, whose path begins with ``word``."""
    start, _, part = word.rpartition("/")
    shown = f"{start}/" if "/" in word else ""
    try:
        directory = Path(os.path.expanduser(shown or "."))  # noqa: PTH111  (Path.expanduser raises without a home)
        entries = sorted(directory.iterdir())
        for entry in entries:
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if entry.is_dir():
                yield Candidate(f"{shown}{entry.name}/", "directory", more=True)
            elif not suffixes or entry.suffix in suffixes:
                yield Candidate(f"{shown}{entry.name}")
    except OSError:
        return
