"""Which pipelines of a folder call tools: what a person looks at before they trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import PipelineError
from synaptic.pipeline.loader import MAX_PIPELINE_BYTES, read_leniently
from synaptic.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synaptic.text import KeyPath

_ENDINGS: Final = frozenset({".yaml", ".yml"})
_KEY: Final = "tool"


@dataclass(frozen=True, slots=True)
class CallingPipeline:
    """A pipeline that calls tools.

    Attributes:
        name: Of its file.
        calls: Each tool with the line that names it.
    """

    name: str
    text: str
    calls: tuple[tuple[str, int], ...]


def calling_pipelines(folder: Path) -> Iterator[CallingPipeline]:
    """Yield the pipelines right in a folder that call tools; what is no pipeline is passed over."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _ENDINGS or not path.is_file():
            continue
        try:
            document, _ = read_leniently(
                read_text(path, "pipeline", PipelineError, limit=MAX_PIPELINE_BYTES), path.name
            )
        except PipelineError:
            continue
        calls = tuple(
            (name, document.values[where][0]) for where, name in _named(document.value.get("steps"), ("steps",))
        )
        if calls:
            yield CallingPipeline(path.name, document.text, calls)


def _named(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield each tool that is named in a part of a pipeline, with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == _KEY and isinstance(item, str):
                yield (*path, key), item
            yield from _named(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _named(item, (*path, index))
