"""What a change to the settings file comes to, where another source of settings goes before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from synaptic.settings import LoadedSettings
    from synaptic.ui.actions.voice import Voice


def mention_origin(voice: Voice, path: Path, loaded: LoadedSettings, name: str = "nodes") -> None:
    """Say so where another source than the file that was just written gives the setting that applies."""
    origin = loaded.origins.get(name, "default")
    if origin != "default" and not origin.startswith(str(path)):
        voice.warn(f"{name} comes from {origin} now, which goes before {path}")
