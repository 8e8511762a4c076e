"""When two names mean the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.messages import ModelInfo


def full_name(model: str) -> str:
    """Return a model's name with its tag: ``llama3.2`` is ``llama3.2:latest``."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def has_model(models: Iterable[ModelInfo], model: str | None) -> bool:
    """Return whether ``model`` is among them (``llama3`` is ``llama3:latest``); with none named, whether any is."""
    if model is None:
        return any(True for _ in models)
    return full_name(model) in {full_name(info.name) for info in models}
