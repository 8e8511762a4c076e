"""All slash commands, in the order of ``/help``. A new command goes into the file of its group and is then here."""

from __future__ import annotations

from typing import Final

from synaptic.ui.repl import (
    commands_distributed,
    commands_help,
    commands_nodes,
    commands_run,
    commands_session,
    commands_settings,
)
from synaptic.ui.repl.registry import Registry

_MODEL, _PIPELINE, _SET, _CONFIG = commands_settings.COMMANDS

REGISTRY: Final = Registry(
    (
        *commands_help.COMMANDS,
        _MODEL,
        _PIPELINE,
        *commands_run.COMMANDS,
        _SET,
        _CONFIG,
        *commands_nodes.COMMANDS,
        *commands_distributed.COMMANDS,
        *commands_session.COMMANDS,
    )
)
