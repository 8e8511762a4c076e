"""What each layer of a model weighs and keeps, from its metadata and tensors.

Sizes of caches follow llama.cpp: keys and values at 16 bits, recurrent states at 32 (``llama-hparams.cpp``,
``llama-kv-cache*.cpp``). Where the file does not say enough, the larger size is taken.

* Attention: ``head_count_kv * (key_length + value_length)`` values a token; each may differ from layer to layer.
* Multi-head latent attention (files with ``attention.key_length_mla``): one latent vector and its rotary part a
  token, ``kv_lora_rank + rope.dimension_count``; values are a view of it. An indexer keeps its keys besides.
* Sliding window: such a layer keeps its window and one batch of a prompt, however long the context; that is counted
  as state. Which layers those are is in ``attention.sliding_window_pattern``, or fixed for the architecture; where
  it is neither, every layer counts with the whole context.
* Recurrent layers (``ssm_*``, ``time_mix_*``, ``shortconv.*``): a state for each sequence, and no keys and values
  unless the layer has attention besides.
* Layers for predicting several tokens (``nextn_predict_layers``) weigh what they weigh and are not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.errors import ModelFileError
from synaptic.models.layers import LayerShape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from synaptic.models.gguf_header import TensorInfo, Value

KV_BYTES: Final = 2
STATE_BYTES: Final = 4
UBATCH: Final = 512  # tokens; llama.cpp's default batch, which a windowed cache holds besides its window
CACHE_STEP: Final = 256  # tokens; caches are rounded up to it
LARGEST: Final = 1 << 40  # of any number that sizes are computed from

WINDOW_PERIODS: Final = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
    "smallthinker": 4,
}
"""Architectures in which every layer but one of so many is windowed (``set_swa_pattern`` in llama.cpp)."""
FULL_LAYER_FIRST: Final = frozenset({"smallthinker"})
"""Where that one is the first of them, and not the last."""
FIXED_WINDOWS: Final = {"llama4": 8192}
"""Windows that llama.cpp does not read from the file."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Numbers of a model, each checked. Keys are given without the architecture in front."""

    path: Path
    architecture: str
    values: Mapping[str, Value]

    def has(self, key: str) -> bool:
        """Whether the file says it."""
        return f"{self.architecture}.{key}" in self.values

    def number(self, key: str, default: int | None = None) -> int:
        """Return a whole number.

        Raises:
            ModelFileError: If it is not such a number, or missing and there is no default.
        """
        value = self._found(key, default)
        return self._checked(key, value)

    def of_layer(self, key: str, layer: int, default: int | None = None) -> int:
        """Return a whole number that may be one for each layer.

        Raises:
            ModelFileError: As :meth:`number`, or if there are fewer than layers.
        """
        value = self._found(key, default)
        if isinstance(value, list):
            if layer >= len(value):
                raise ModelFileError(
                    f"{self.path} is damaged: {self.architecture}.{key} has {len(value)} values, none for layer {layer}"
                )
            value = value[layer]
        return self._checked(key, value)

    def _found(self, key: str, default: int | None) -> Value:
        value = self.values.get(f"{self.architecture}.{key}", default)
        if value is None:
            raise ModelFileError(
                f"{self.path} does not say its {self.architecture}.{key}, without which llama.cpp does not load it",
                hint="take a complete GGUF file of the model",
            )
        return value

    def _checked(self, key: str, value: Value) -> int:
        if not isinstance(value, int) or not 0 <= value <= LARGEST:
            raise ModelFileError(f"{self.path} is damaged: {self.architecture}.{key} is {value!r}")
        return int(value)


def layer_shape(metadata: Metadata, layer: int, layers: int, tensors: Sequence[TensorInfo]) -> LayerShape:
    """Return the shape of one layer.

    ``tensors`` are those of this layer (``blk.N.*``).

    Raises:
        ModelFileError: If the metadata do not make sense.
    """
    weight = sum(tensor.size for tensor in tensors)
    if layer >= layers - metadata.number("nextn_predict_layers", 0):
        return LayerShape(weight_bytes=weight, active_bytes=0, kv_bytes_per_token=0)
    parts = frozenset(tensor.name.split(".", 2)[2] for tensor in tensors)
    kv = KV_BYTES * _kv_values(metadata, layer, layers, parts)
    state = STATE_BYTES * _state_values(metadata, layer, parts)
    window = _window(metadata, layer)
    if window:
        state += kv * (-(-(window + UBATCH) // CACHE_STEP) * CACHE_STEP)
        kv = 0
    return LayerShape(
        weight_bytes=weight,
        active_bytes=_active_bytes(metadata, layer, tensors),
        kv_bytes_per_token=kv,
        state_bytes=state,
    )


def _active_bytes(metadata: Metadata, layer: int, tensors: Sequence[TensorInfo]) -> int:
    """Return what a token reads: of the routed experts its share, everything else whole."""
    experts = metadata.of_layer("expert_count", layer, 0)
    used = min(metadata.of_layer("expert_used_count", layer, experts), experts)
    routed = sum(tensor.size for tensor in tensors if "_exps." in tensor.name) if experts else 0
    whole = sum(tensor.size for tensor in tensors) - routed
    return whole + (routed * used // experts if experts else 0)


def _kv_values(metadata: Metadata, layer: int, layers: int, parts: frozenset[str]) -> int:
    """Return how many values a token of context takes in this layer's cache."""
    recurrent = any(part.startswith("ssm_") for part in parts)
    attends = any(part.startswith("attn_k") or (part.startswith("attn_qkv.") and not recurrent) for part in parts)
    if not attends or layer >= layers - metadata.number("attention.shared_kv_layers", 0):
        return 0
    indexer = metadata.number("attention.indexer.key_length", 0)
    if metadata.has("attention.key_length_mla"):
        return metadata.number("attention.kv_lora_rank") + metadata.number("rope.dimension_count") + indexer
    heads = metadata.of_layer("attention.head_count", layer)
    width = metadata.number("embedding_length") // heads if heads else 0
    kv_heads = metadata.of_layer("attention.head_count_kv", layer, heads)
    keys = metadata.of_layer("attention.key_length", layer, width)
    values = metadata.of_layer("attention.value_length", layer, width)
    if _window(metadata, layer):
        keys = metadata.of_layer("attention.key_length_swa", layer, keys)
        values = metadata.of_layer("attention.value_length_swa", layer, values)
    return kv_heads * (keys + values) + indexer


def _window(metadata: Metadata, layer: int) -> int:
    """Return the tokens that a windowed layer looks back at; 0 for a layer that sees the whole context."""
    fixed = FIXED_WINDOWS.get(metadata.architecture, 0)
    window = metadata.of_layer("attention.sliding_window", layer, fixed)
    pattern = "attention.sliding_window_pattern"
    period = WINDOW_PERIODS.get(metadata.architecture, 0)
    if not window:
        return 0
    if metadata.has(pattern):
        if isinstance(metadata.values[f"{metadata.architecture}.{pattern}"], list):
            return window if metadata.of_layer(pattern, layer) else 0
        period = metadata.number(pattern)
    if not period:
        return 0
    full = 0 if metadata.architecture in FULL_LAYER_FIRST else period - 1
    return 0 if layer % period == full else window


def _state_values(metadata: Metadata, layer: int, parts: frozenset[str]) -> int:
    """Return how many values a sequence takes in a recurrent layer, however long it is."""
    embedding = metadata.number("embedding_length")
    if any(part.startswith("ssm_") for part in parts):
        convolution = max(metadata.number("ssm.conv_kernel", 1) - 1, 0)
        if metadata.has("kda.head_dim"):
            head = metadata.number("kda.head_dim")
            heads = metadata.of_layer("attention.head_count", layer)
            return heads * head * (3 * convolution + head)
        inner, state = metadata.number("ssm.inner_size"), metadata.number("ssm.state_size")
        groups = metadata.number("ssm.group_count", 0)
        return convolution * (inner + 2 * groups * state) + state * inner
    if any(part.startswith("time_mix_") for part in parts):
        return embedding * (metadata.number("token_shift_count", 2) + metadata.number("wkv.head_size"))
    if any(part.startswith("shortconv.") for part in parts):
        return embedding * max(metadata.number("shortconv.l_cache") - 1, 0)
    return 0
