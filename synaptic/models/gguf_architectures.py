"""Which architectures a distributed engine can generate text with, and why not the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.errors import ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

NEWER: Final = frozenset(
    {
        *("bailingmoe3", "cohere2moe", "deepseek32", "deepseek4", "dots3note", "glm5-next", "granite_swa"),
        *("graniteswitch", "hrm_text", "hy_v3", "hy_v4", "kimi-k3", "laguna", "maple", "mellum", "minimax-01"),
        *("minimax-m3", "muse-glimmer", "nanbeige", "qwen4exp", "spark2_5", "talkie"),
    }
)
"""Architectures of the pinned llama.cpp that the ``gguf`` library does not list yet."""

_ENCODER: Final = "it turns text into embeddings and generates none"
_DRAFT: Final = "it only drafts tokens for another model"
_DIFFUSION: Final = "it writes by diffusion, which llama-server does not do"
_SPEECH: Final = "it makes sound, not text"
NOT_GENERATING: Final = {
    "bert": _ENCODER,
    "eurobert": _ENCODER,
    "gemma-embedding": _ENCODER,
    "jina-bert-v2": _ENCODER,
    "jina-bert-v3": _ENCODER,
    "llama-embed": _ENCODER,
    "modern-bert": _ENCODER,
    "neo-bert": _ENCODER,
    "nomic-bert": _ENCODER,
    "nomic-bert-moe": _ENCODER,
    "t5encoder": _ENCODER,
    "t5": "it has an encoder of its own besides the layers that can be spread",
    "clip": "it is the image or sound part of another model (mmproj)",
    "dflash": _DRAFT,
    "eagle3": _DRAFT,
    "gemma4-assistant": _DRAFT,
    "dream": _DIFFUSION,
    "llada": _DIFFUSION,
    "llada-moe": _DIFFUSION,
    "rnd1": _DIFFUSION,
    "pockettts": _SPEECH,
    "qwen3tts": _SPEECH,
    "wavtokenizer-dec": _SPEECH,
}
NOT_MODELS: Final = {
    "adapter": "it is a LoRA adapter",
    "imatrix": "it is an importance matrix for quantizing",
    "mmproj": "it is the image or sound part of another model (mmproj)",
    "vocab": "it holds a vocabulary only",
}
"""By ``general.type``."""


def check_generates(path: Path, architecture: str, kind: str) -> None:
    """Refuse a file that no text can be generated with.

    ``architecture`` and ``kind`` are ``general.architecture`` and ``general.type``, "" where the file has none.

    Raises:
        ModelFileError: If the architecture is not one that llama.cpp generates text with.
    """
    from gguf.constants import MODEL_ARCH_NAMES  # noqa: PLC0415 - imports numpy

    reason = NOT_MODELS.get(kind) or NOT_GENERATING.get(architecture)
    if reason is not None:
        raise ModelFileError(
            f"{path} (architecture {architecture!r}) cannot answer: {reason}", hint="name the file of a language model"
        )
    if architecture not in NEWER and architecture not in MODEL_ARCH_NAMES.values():
        raise ModelFileError(
            f"{path} has the architecture {architecture!r}, which llama.cpp does not know",
            hint="Ollama uses names of its own for some models: take the same model as a GGUF file made for llama.cpp",
        )
