"""Which pipelines of a folder call tools or load files: what a person looks at before they trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import PipelineError
from synaptic.paths import names_model_file
from synaptic.pipeline.loader import MAX_PIPELINE_BYTES, read_leniently
from synaptic.text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from synaptic.text import KeyPath

_ENDINGS: Final = frozenset({".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class ClaimingPipeline:
    """A pipeline with something in it that takes trust.

    Attributes:
        name: Of its file.
        claims: What it does, with the line that says so.
    """

    name: str
    text: str
    claims: tuple[tuple[str, int], ...]


def claiming_pipelines(folder: Path) -> Iterator[ClaimingPipeline]:
    """Yield the pipelines right in a folder that call tools or load files; what is no pipeline is passed over."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _ENDINGS or not path.is_file():
            continue
        try:
            document, _ = read_leniently(
                read_text(path, "pipeline", PipelineError, limit=MAX_PIPELINE_BYTES), path.name
            )
        except PipelineError:
            continue
        claims = tuple((claim, document.values[where][0]) for where, claim in _claims(document.value, ()))
        if claims:
            yield ClaimingPipeline(path.name, document.text, claims)


def _claims(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield what each text in a part of a pipeline claims, with its place."""
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _claims(item, (*path, key))
    elif isinstance(value, str) and path:
        if path[0] == "steps" and path[-1] == "tool":
            yield path, f"calls the tool {value}"
        elif (path[-1] == "model" or "fallback_models" in path[-2:-1]) and names_model_file(value):
            yield path, f"loads the file {value}"
