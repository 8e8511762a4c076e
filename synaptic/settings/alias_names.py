"""Aliases of models: names under which the gateway serves the first of several models that can answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

from pydantic import Field

from synaptic.errors import ConfigError
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PIPELINES: Final = "pipeline/"
"""What the names of pipelines begin with, where they are served as models."""

AliasModels: TypeAlias = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
"""The models of an alias, the preferred one first."""


def alias_key(name: str) -> str:
    """Return what equal names have in common: ``Fast`` and ``fast:latest`` are one."""
    return name.strip().lower().removesuffix(":latest")


def check_aliases(aliases: Mapping[str, Sequence[str]]) -> None:
    """Refuse aliases that mean nothing, twice something, or a pipeline.

    Raises:
        ConfigError: If there is one; the message goes on after the setting's name.
    """
    for alias, models in aliases.items():
        if not alias.strip():
            raise ConfigError("names no alias for some models", hint='write its name, as in "fast": ["qwen3:8b"]')
        for name in (alias, *models):
            if alias_key(name).startswith(PIPELINES):
                raise ConfigError(
                    f"has {excerpt(name)!r} in it, and a pipeline is a model of its own",
                    hint="name models; clients ask for pipelines by their own names",
                )
    known: dict[str, str] = {}
    for alias in aliases:
        if (other := known.setdefault(alias_key(alias), alias)) != alias:
            raise ConfigError(
                f"has {excerpt(alias)!r} and {excerpt(other)!r}, which are one", hint="remove one of them"
            )
    if found := alias_loop(aliases):
        raise ConfigError(loop_said(found), hint=LOOP_HINT)


LOOP_HINT: Final = "name models that a backend has; an alias may not have the name of one of its models"


def loop_said(loop: Sequence[str]) -> str:
    """Return what is wrong with aliases that lead back to the first of them."""
    return f"leads back to itself: {' -> '.join(map(excerpt, loop))}"


def alias_loop(aliases: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of a way from an alias back to itself; none if there is no such way."""
    named = {alias_key(alias): models for alias, models in aliases.items()}
    done: set[str] = set()

    def way_back(name: str, way: list[str]) -> list[str]:
        key = alias_key(name)
        keys = [alias_key(passed) for passed in way]
        if key in keys:
            return [*way[keys.index(key) :], name]
        if key in done or key not in named:
            return []
        for model in named[key]:
            if found := way_back(model, [*way, name]):
                return found
        done.add(key)
        return []

    return next((found for alias in aliases if (found := way_back(alias, []))), [])


def models_of(aliases: Mapping[str, Sequence[str]], name: str) -> list[str] | None:
    """Return the models that an alias means, aliases among them replaced by theirs; ``None`` if it is no alias."""
    if not aliases:
        return None
    named = {alias_key(alias): models for alias, models in aliases.items()}
    if alias_key(name) not in named:
        return None
    models: list[str] = []
    for model in named[alias_key(name)]:
        models += models_of(aliases, model) or [model]
    return list(dict.fromkeys(models))
