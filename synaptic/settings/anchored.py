"""Paths in settings: one that a file names begins at that file's folder, any other where the program was started."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from synaptic.paths import names_model_file, names_pipeline_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from synaptic.settings.check import Given

PATHS: Final[Mapping[str, Callable[[str], bool]]] = {
    "embedded_model": lambda _: True,
    "model": names_model_file,
    "agent_models": names_model_file,
    "pipeline": names_pipeline_file,
}
"""Setting, or table -> whether its text is a path."""

NODE_PATHS: Final = frozenset({"token_file", "password_file", "ca_file"})


def anchored(given: Given, folder: Path) -> Given:
    """Return a value with its relative paths begun at a folder; what begins with ``~`` stays as it is."""
    name, value = given.path[0], given.value
    if name == "nodes" and isinstance(value, list):
        return replace(given, value=[_node(node, folder) for node in value])
    if name in PATHS and isinstance(value, str) and PATHS[name](value):
        return replace(given, value=begun_at(value, folder))
    return given


def _node(node: Any, folder: Path) -> Any:
    if not isinstance(node, dict):
        return node
    return {
        key: begun_at(value, folder) if key in NODE_PATHS and isinstance(value, str) else value
        for key, value in node.items()
    }


def begun_at(path: str, folder: Path) -> str:
    """Return a path that begins at a folder, if it does not begin elsewhere."""
    if not path or path.startswith("~"):
        return path
    return os.path.abspath(folder / path)  # noqa: PTH100 - keeps links
