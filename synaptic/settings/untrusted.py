"""What the settings of a folder may choose before the person trusts it: what is answered, and what that may cost.

They may not say where calls go, what runs here, which secrets are sent, or name a file outside the folder. All that is
not listed is left out, a setting that is new as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from synaptic import paths
from synaptic.errors import ConfigError
from synaptic.settings.anchored import anchored
from synaptic.settings.file import read_settings_file
from synaptic.settings.sources import Layer, file_layer
from synaptic.settings.trusted import is_trusted, left_out_line
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synaptic.settings.check import Given

FOLDER_MAY_CHOOSE: Final = frozenset(
    {
        "model",
        "agent_models",
        "pipeline",
        "pipeline_inputs",
        "pool_queue",
        "pool_max_wait",
        "pool_recovery_wait",
        "failovers",
        "first_token_timeout",
        "idle_timeout",
        "call_timeout",
        "retries",
        "max_parallel",
        "model_parallel",
        "num_ctx",
        "think",
        "temperature",
        "max_tokens",
        "overflow",
    }
)

_PATTERN: Final = frozenset("*?[")
_MAY_BE_PATHS: Final = frozenset({"pipeline", "pipeline_inputs"})
_NAME_MODELS: Final = frozenset({"model", "agent_models"})


class FolderText(str):
    """A text out of the settings of a folder that is not trusted: as a path, it must not lead out of the folder.

    Attributes:
        folder: The folder; the working directory unless it is said.
    """

    __slots__ = ("folder",)
    folder: Path

    def __new__(cls, text: str, folder: Path | None = None) -> Self:
        """Return the text with its folder."""
        made = super().__new__(cls, text)
        made.folder = Path() if folder is None else folder
        return made


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """The settings file of a folder.

    Attributes:
        claims: What it needs trust for.
    """

    text: str
    claims: tuple[Given, ...]


def folder_settings(folder: Path) -> FolderSettings | None:
    """Return the settings file of a folder, ``None`` if there is none.

    Raises:
        ConfigError: If it has a mistake.
    """
    name = paths.project_settings_file()
    document = read_settings_file(folder / name, shown=f"./{name}")
    if document is None:
        return None
    layer = file_layer(document)
    if layer.problems:
        raise ConfigError.of(layer.problems)
    claims = (given for given in layer.givens if _needs_trust(given, folder) or _has_pattern(given))
    return FolderSettings(document.text, tuple(claims))


def folder_layer(folder: Path, own_file: Path | None, environ: Mapping[str, str]) -> tuple[Layer, str]:
    """Return what the settings file of a folder gives, and one line about what of it does not count ("" if all does).

    Args:
        folder: Where it is looked for.
        own_file: The file with the person's own settings; where the two are one, it is read as that.
        environ: The environment.
    """
    name = paths.project_settings_file()
    try:
        document = read_settings_file(folder / name, shown=f"./{name}")
    except ConfigError as exc:
        return Layer(problems=exc.problems), ""
    if document is None:
        return Layer(), ""
    if own_file is not None and os.path.realpath(own_file) == os.path.realpath(folder / name):
        return Layer(), ""
    layer = file_layer(document)
    if is_trusted(folder, str(name), document.text, environ):
        return replace(layer, givens=tuple(anchored(given, folder) for given in layer.givens)), ""
    left_out, kept = [], []
    for given in layer.givens:
        if _needs_trust(given, folder):
            left_out.append(f"{dotted(given)} ({given.place})")
        else:
            kept.append(anchored(_confined(given, folder), folder))
    return replace(layer, givens=tuple(kept)), left_out_line(folder, left_out)


def dotted(given: Given) -> str:
    """Return the name of a setting, or of an entry of a table, as messages show it."""
    return ".".join(excerpt(part) for part in given.path)


def _needs_trust(given: Given, folder: Path) -> bool:
    name = given.path[0]
    if name not in FOLDER_MAY_CHOOSE:
        return True
    if name in _NAME_MODELS:  # a model's file is read by llama.cpp, which trusts it
        return any(map(paths.names_model_file, _texts(given.value)))
    return name in _MAY_BE_PATHS and any(_leads_out(text, folder) for text in _texts(given.value))


def _has_pattern(given: Given) -> bool:
    """Return whether an input may be a pattern: what it will match, also through links, is not known yet."""
    return given.path[0] == "pipeline_inputs" and any(_PATTERN.intersection(text) for text in _texts(given.value))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _leads_out(text: str, folder: Path) -> bool:
    """Return whether a text, or one that a comma separates in it, is the path of something outside the folder."""
    root = os.path.realpath(folder)
    try:
        for part in {text, *text.split(",")}:
            place = os.path.realpath(Path(root) / paths.expanded(part.strip()))
            if place != root and not place.startswith(root.rstrip(os.sep) + os.sep):
                return True
    except (OSError, ValueError):
        return False  # what is no path cannot be opened either
    return False


def _confined(given: Given, folder: Path) -> Given:
    """Return inputs of pipelines such that no path in them can lead out, also one that a pattern matches."""
    return replace(given, value=_marked(given.value, folder)) if given.path[0] == "pipeline_inputs" else given


def _marked(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return FolderText(value, folder)
    if isinstance(value, list):
        return [_marked(item, folder) for item in value]
    return {key: _marked(item, folder) for key, item in value.items()} if isinstance(value, dict) else value
