"""The prompt: questions, slash commands, a conversation. ``start`` is all that others need."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from synaptic.settings.load import LoadedSettings

__all__ = ["start"]


def start(
    loaded: LoadedSettings,
    *,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] = MappingProxyType({}),
    verbose: bool = False,
    tools: Sequence[str] = (),
    accept_all: bool = False,
) -> int:
    """Converse until the person leaves, or until piped input ends.

    Args:
        loaded: The settings to begin with; their notices have been shown.
        config_path: Where they were read from, if it was named; for reading them again after a change.
        overrides: ``KEY=VALUE`` of each ``--set``.
        flags: Setting -> (flag, value), as :func:`synaptic.settings.load.load_settings` takes them.
        verbose: Show more of each run.
        tools: Modules and files whose functions pipelines may call.
        accept_all: Accept every approval, instead of asking the person.

    Returns:
        The exit code: 0, or, of piped input, how its last failing line ended.

    Raises:
        UsageError: If a module of tools is wrong.

    """
    from synaptic.ui.repl.app import open_repl  # noqa: PLC0415  (the package costs nothing until it is used)

    code = open_repl(
        loaded,
        config_path=config_path,
        overrides=overrides,
        flags=flags,
        verbose=verbose,
        tools=tools,
        accept_all=accept_all,
    )
    return int(code)
