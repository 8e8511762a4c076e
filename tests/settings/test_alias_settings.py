"""Aliases of models in the settings: what is wrong with them is said where it was written, with what to write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synaptic.errors import ConfigError
from synaptic.settings import Settings, load_settings
from synaptic.settings.alias_names import alias_loop, models_of

if TYPE_CHECKING:
    from pathlib import Path


def loaded(tmp_path: Path, aliases: Any, *overrides: str) -> Settings:
    path = tmp_path / "settings.json"
    path.write_text('{"retries": 1,\n "aliases":\n  ' + json.dumps(aliases) + "}")
    return load_settings(config_path=path, overrides=overrides, environ={}, cwd=tmp_path).settings


def test_aliases_name_models_and_one_another(tmp_path: Path) -> None:
    settings = loaded(tmp_path, {"fast": ["qwen3:8b", "llama3.2"], "any": ["Fast:latest", "big:70b", "llama3.2"]})
    assert models_of(settings.aliases, "FAST") == ["qwen3:8b", "llama3.2"]
    assert models_of(settings.aliases, "any:latest") == ["qwen3:8b", "llama3.2", "big:70b"]
    assert models_of(settings.aliases, "qwen3:8b") is None
    assert loaded(tmp_path, {"a": ["m"]}, 'aliases.b=["n"]').aliases == {"a": ["m"], "b": ["n"]}


@pytest.mark.parametrize(
    ("aliases", "said"),
    [
        ({"fast": []}, 'settings.json:3:4: aliases.fast must have at least 1 entry; write "fast": ["qwen3'),
        ({"fast": "m"}, 'aliases.fast must be a list, not "m"; write "fast": ["qwen3:8b"'),
        ({"fast": ["m", ""]}, "aliases.fast[1] must not be empty"),
        ({"": ["m"]}, "names no alias"),
        (
            {"fast": ["fast:latest"]},
            "aliases.fast leads back to itself: fast -> fast:latest; name models that a backend has",
        ),
        ({"a": ["b"], "b": ["m", "A"]}, "aliases.a leads back to itself: a -> b -> A; name models"),
        ({"a": ["m"], "A:latest": ["n"]}, "aliases.A:latest and aliases.a are one name; remove one of them"),
        (
            {"fast": ["pipeline/research"]},
            "'pipeline/research' in it, and a pipeline is a model of its own; name models",
        ),
        ({"pipeline/x": ["m"]}, "'pipeline/x' in it, and a pipeline"),
    ],
)
def test_what_is_wrong_is_said_with_place_and_cure(tmp_path: Path, aliases: Any, said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        loaded(tmp_path, aliases)
    (problem,) = wrong.value.problems
    assert said in str(problem)
    assert problem.line == 3


def test_a_loop_over_several_sources_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set: aliases\.b leads back|aliases\.a leads back to itself: a -> b -> a"):
        loaded(tmp_path, {"a": ["b"]}, 'aliases.b=["a"]')
    assert loaded(tmp_path, {"a": ["b"], "b": ["a"]}, 'aliases={"c": ["m"]}').aliases == {"c": ["m"]}
    with pytest.raises(ConfigError, match="leads back"):
        Settings(aliases={"a": ["b"], "b": ["c"], "c": ["b"]})
    with pytest.raises(ConfigError, match="which are one"):
        Settings(aliases={"a": ["b"], "A": ["c"]})


def test_the_way_back_is_shown_from_where_it_begins() -> None:
    assert alias_loop({"a": ["x", "b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert alias_loop({"a": ["b", "c"], "b": ["c"], "c": ["m"]}) == []
