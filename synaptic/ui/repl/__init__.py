"""The prompt: questions, slash commands, a conversation. ``start`` is all that others need."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from synaptic.config import LoadedSettings

__all__ = ["start"]


def start(
    loaded: LoadedSettings,
    *,
    config_path: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] = MappingProxyType({}),
    verbose: bool = False,
) -> int:
    """Converse until the person leaves, or until piped input ends.

    Args:
        loaded: The settings to begin with; their notices have been shown.
        config_path: Where they were read from, if it was named; for reading them again after a change.
        overrides: ``KEY=VALUE`` of each ``--set``.
        flags: Setting -> (flag, value), as :func:`synaptic.config.load_settings` takes them.
        verbose: Show more of each run.

    Returns:
        The exit code: 0, or, of piped input, how its last failing line ended.

    """
    from synaptic.ui.repl.app import open_repl  # noqa: PLC0415  (the package costs nothing until it is used)

    return int(open_repl(loaded, config_path=config_path, overrides=overrides, flags=flags, verbose=verbose))
