"""When two names mean the same model."""

from __future__ import annotations


def full_name(model: str) -> str:
    """Return a model's name with its tag: ``llama3.2`` is ``llama3.2:latest``."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"
