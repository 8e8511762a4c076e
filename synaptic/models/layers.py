"""What the placement has to know of a model: how large each of its layers is, and what a token costs in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """One repeating layer (``blk.N``).

    Attributes:
        weight_bytes: All of its tensors, as they lie in the file.
        active_bytes: What of them a token reads; less than ``weight_bytes`` for a mixture of experts.
        kv_bytes_per_token: Keys and values of one token of context, at 16 bits a value; 0 for a layer without.
        state_bytes: What a recurrent layer keeps for each sequence, however long.
    """

    weight_bytes: int
    active_bytes: int
    kv_bytes_per_token: int
    state_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A model, as far as its placement is concerned.

    Attributes:
        name: What the person called it.
        files: Its GGUF files in order; the first is the one that ``llama-server`` is given.
        architecture: ``general.architecture`` (``llama``, ``qwen3moe``).
        layers: The repeating layers, in order.
        input_bytes: Token embeddings and what else stays in front of the layers.
        output_bytes: Norm and head behind the layers; with tied embeddings the head is the embeddings once more.
        tied: Whether the head shares the token embeddings' tensor.
        embedding_length: Values of a hidden state.
        vocabulary: Number of tokens.
        trained_context: The longest context, in tokens, that it was trained for.
        quantization: As people write it: ``Q4_K_M``.
    """

    name: str
    files: tuple[Path, ...]
    architecture: str
    layers: tuple[LayerShape, ...]
    input_bytes: int
    output_bytes: int
    tied: bool
    embedding_length: int
    vocabulary: int
    trained_context: int
    quantization: str
    parameters: int

    @property
    def file(self) -> Path:
        """The file to load."""
        return self.files[0]

    @property
    def weight_bytes(self) -> int:
        """All weights that are held in memory, a tied head counted once."""
        output = 0 if self.tied else self.output_bytes
        return self.input_bytes + sum(layer.weight_bytes for layer in self.layers) + output
