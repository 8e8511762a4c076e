"""What several commands need: the settings, with what is to be said about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synaptic.settings import LoadedSettings, load_settings
from synaptic.ui import screen

if TYPE_CHECKING:
    from synaptic.ui.options import Options


def load(options: Options) -> LoadedSettings:
    """Return the settings that the files, the environment and the command line give.

    Raises:
        ConfigError: If anything in them is wrong.

    """
    return load_settings(config_path=options.config_path, overrides=options.overrides, flags=options.flags)


def load_with_notices(options: Options) -> LoadedSettings:
    """Return the settings, and print what a person should know about them.

    Raises:
        ConfigError: If anything in them is wrong.

    """
    loaded = load(options)
    if loaded.notices and not options.quiet:
        screen.show_notices(screen.stderr_console(), loaded.notices)
    return loaded
