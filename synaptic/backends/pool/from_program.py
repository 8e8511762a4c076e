"""From what a Python program names to the settings of a pool."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import NoneType
from typing import TYPE_CHECKING, Any

from synaptic.backends.ollama import default_url
from synaptic.errors import ConfigError
from synaptic.messages import BackendNotice, ignore_report
from synaptic.settings import NodeSettings, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synaptic.messages import Reporter


def pool_settings(
    nodes: str | Iterable[str | Mapping[str, Any] | NodeSettings] | None,
    *,
    model: str | None,
    settings: Settings | None,
    options: Mapping[str, Any],
    report: Reporter = ignore_report,
) -> Settings:
    """Return the settings of a pool: those that hold anyway, with what was named put over them.

    Raises:
        ConfigError: If something that was named is not what the settings take.
    """
    if not isinstance(nodes, (str, Iterable, NoneType)):
        raise ConfigError.of_kind("nodes", nodes, "a list of addresses, as in ['http://desk:11434']")
    if not isinstance(settings, (Settings, NoneType)):
        raise ConfigError.of_kind("settings", settings, "of synaptic.Settings; single ones are options: hedge=True")
    if settings is None:
        loaded = load_settings()
        settings = loaded.settings
        if loaded.left_out:
            report(BackendNotice("settings", loaded.left_out, "warning"))
    named: list[str | Mapping[str, Any] | NodeSettings] = [*settings.nodes] or [default_url(os.environ)]
    if nodes is not None:
        named = [nodes] if isinstance(nodes, str) else [*nodes]
    if not named:
        raise ConfigError("a pool needs a node", hint="name one, or leave 'nodes' out for those of the settings")
    given = {"nodes": named, **({"model": model} if model else {}), **options}
    values = {**settings.model_dump(exclude={"nodes"}, exclude_unset=True), **given}
    return Settings(**values)
