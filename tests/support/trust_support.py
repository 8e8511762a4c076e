"""Trusts the folder of a test, as a person does it who has looked at what is in there."""

from pathlib import Path

from synaptic.settings import trust_folder
from synaptic.ui.commands.trust import examined


def trust(folder: Path | None = None) -> None:
    """Trust a folder, the working directory unless it is named, with the files that it has now."""
    place = folder or Path()
    trust_folder(place, examined(place)[0])
