"""What a GGUF file says of its model: the key-value pairs and the tensors' names, types and shapes; no weights.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES = dict(
    enumerate(("F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K"))
) | {13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16"}
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, type and shape of one tensor; the fastest-varying dimension first, as the file has it."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything in the file but its weights."""

    values: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """For example ``llama``."""
        return str(self.values.get("general.architecture", "unknown"))

    @property
    def parameter_count(self) -> int:
        """How many numbers the tensors hold."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def file_type(self) -> str:
        """How most weights are quantized, as in the name of the file."""
        return FILE_TYPES.get(self.values.get("general.file_type", -1), "unknown")

    def of_architecture(self, name: str) -> int | None:
        """Return the integer ``<architecture>.<name>``, for example ``context_length``; ``None`` if it is not there."""
        value = self.values.get(f"{self.architecture}.{name}")
        return value if isinstance(value, int) else None

    def cache_bytes(self, tokens: int, bytes_per_value: float) -> int:
        """Return the size of the keys and values of ``tokens`` tokens of context."""
        heads = self.of_architecture("attention.head_count") or 1
        width = (self.of_architecture("embedding_length") or 0) // heads
        values = 2 * (self.of_architecture("attention.head_count_kv") or heads) * width
        return int(tokens * (self.of_architecture("block_count") or 0) * values * bytes_per_value)


def read(path: Path) -> Metadata:
    """Read the metadata of the GGUF file at ``path``.

    Raises:
        ConfigError: If the file cannot be read or is not GGUF of a version that is known.

    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).metadata()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a GGUF file of version 2 or 3: {error}") from error


class _Reader:
    """A cursor over the mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def metadata(self) -> Metadata:
        magic = self._data[: len(MAGIC)]
        self._at = len(MAGIC)
        version = self._number("I")
        if magic != MAGIC or version not in VERSIONS:
            raise ValueError(f"it starts with {magic!r} and version {version}")
        tensors, pairs = self._number("Q"), self._number("Q")
        values = {self._string(): self._value(self._number("I")) for _ in range(pairs)}
        return Metadata(values, tuple(self._tensor() for _ in range(tensors)))

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> str:
        length = self._number("Q")
        raw = self._data[self._at : self._at + length]
        self._at += length
        return raw.decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        inner, count = self._number("I"), self._number("Q")
        if inner in _SCALARS:
            code = f"<{count}{_SCALARS[inner]}"
            values = list(struct.unpack_from(code, self._data, self._at))
            self._at += struct.calcsize(code)
            return values
        return [self._value(inner) for _ in range(count)]

    def _tensor(self) -> Tensor:
        name, dimensions = self._string(), self._number("I")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        kind = self._number("I")
        self._number("Q")  # where its weights are
        return Tensor(name, TENSOR_TYPES.get(kind, str(kind)), shape)
