"""The header of one GGUF file: its metadata and where its tensors lie. No tensor's data is read.

The ``gguf`` library's own reader makes several objects of every token of the vocabulary: it took 23 seconds and 750 MB
for 150 000 tokens with their merges. This one steps over what no caller asks for, and takes from the library what
changes with every release: the tensor types, the kinds of values, the architectures. It reads nothing that it has not
found to lie within the file, and keeps nothing large, so that no file, however wrong, makes it hang or take memory.

The layout is in the GGUF specification (``docs/gguf.md`` of ggml): little-endian, magic ``GGUF``, version 2 or 3,
number of tensors, number of values, the values, the tensors' descriptions, then, aligned, the data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from synaptic.errors import ModelFileError
from synaptic.text import NotRegularFile, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
"""Those that llama.cpp loads; version 1 is gone from it."""
DEFAULT_ALIGNMENT: Final = 32  # bytes
WINDOW: Final = 1 << 18  # bytes that are read at once
KEPT_TEXT: Final = 1024  # bytes; longer values (chat templates, licences) are stepped over
KEPT_ITEMS: Final = 4096  # numbers; longer arrays (token scores) are stepped over; what is per layer is shorter
MOST_VALUES: Final = 1 << 16
MOST_TENSORS: Final = 1 << 17
MOST_STRINGS: Final = 1 << 24  # of all arrays together; the largest vocabularies with merges have less than 2^20
MOST_DIMENSIONS: Final = 4  # GGML_MAX_DIMS
LONGEST_NAME: Final = 64  # bytes, GGML_MAX_NAME, its closing zero included
LONGEST_KEY: Final = 1 << 16  # bytes
LARGEST_TYPE: Final = 1 << 63

Value = bool | int | float | str | list[bool | int | float] | list[str]
"""A value of the metadata that is kept: a number, a text, an array of numbers or texts."""

AGAIN = "fetch or copy it again, and compare its size with the original's"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor lies and what it is.

    Attributes:
        dimensions: Innermost first, as in the file.
        type_name: ``F16``, ``Q4_K``.
        offset: Of its data from the beginning of the file, in bytes.
        size: Of its data, in bytes.
    """

    name: str
    dimensions: tuple[int, ...]
    type_name: str
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """Number of weights."""
        total = 1
        for dimension in self.dimensions:
            total *= dimension
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What one file says of itself.

    Attributes:
        values: Metadata. Long texts, long arrays and arrays of texts are here only if the whole header was asked for.
        lengths: Of every array, by its key: also of those that are not in ``values``.
        tensors: In the order of the file.
        file_size: In bytes.
    """

    path: Path
    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: tuple[TensorInfo, ...]
    file_size: int


def read_header(path: Path, *, whole: bool = False) -> Header:
    """Return the header of the GGUF file at ``path``, after checking that every tensor lies within the file.

    Args:
        path: The file.
        whole: Whether long texts, long arrays and arrays of texts (chat template, vocabulary) are kept, too; they may
            take as much memory as the header is long.

    Raises:
        ModelFileError: If it cannot be read, is not a GGUF file that llama.cpp loads, or is cut off or damaged.
    """
    try:
        with open_regular(path) as stream:
            return _HeaderReader(path, stream, whole=whole).read()
    except (IsADirectoryError, NotRegularFile) as error:
        what = "it is a directory" if isinstance(error, IsADirectoryError) else error.strerror
        raise ModelFileError(f"{path} is no GGUF file: {what}", hint="name the .gguf file") from error
    except PermissionError as error:
        raise ModelFileError(
            f"{path} may not be read by you ({error.strerror})",
            hint=f"run: sudo chmod a+r {path}  (and a+x for the directories above it), or copy the file",
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from error


class _HeaderReader:
    """Steps through a header; ``position`` is where it is in the file."""

    def __init__(self, path: Path, stream: BinaryIO, *, whole: bool) -> None:
        self.path = path
        self.stream = stream
        self.whole = whole
        self.file_size = stream.seek(0, 2)
        self.position = 0
        self.window = b""
        self.window_start = 0
        self.strings_left = MOST_STRINGS

    def read(self) -> Header:
        self.check_start()
        tensor_count, value_count = self.count("tensors", MOST_TENSORS), self.count("values", MOST_VALUES)
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(value_count):
            key = self.text("a key", LONGEST_KEY)
            if key in values or key in lengths:
                raise self.damaged(f"the key {key!r} is there twice")
            self.read_value(key, values, lengths)
        tensors = [self.tensor() for _ in range(tensor_count)]
        alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self.damaged(f"general.alignment is {alignment!r}, not a power of two")
        data = -(-self.position // alignment) * alignment
        return Header(
            path=self.path,
            values=values,
            lengths=lengths,
            tensors=tuple(self.placed(tensors, data, alignment)),
            file_size=self.file_size,
        )

    def check_start(self) -> None:
        """Check magic and version."""
        if not self.file_size:
            raise ModelFileError(f"{self.path} is empty", hint=AGAIN)
        self.stream.seek(0)
        magic = self.stream.read(len(MAGIC))
        if magic != MAGIC:
            raise ModelFileError(
                f"{self.path} is not a GGUF file: it starts with {magic!r}, not with {MAGIC!r}",
                hint="llama.cpp loads models in the GGUF format only; its convert_hf_to_gguf.py makes them of others",
            )
        self.position = len(MAGIC)
        version = self.number("<I")
        if version == 0:
            raise ModelFileError(f"{self.path} is not a GGUF file, or a damaged one: it names no version")
        if version & 0xFFFF == 0:
            raise ModelFileError(
                f"{self.path} is a big-endian GGUF file, which llama.cpp does not load on this machine",
                hint="convert it with the gguf library: gguf-convert-endian FILE little",
            )
        if version not in VERSIONS:
            raise ModelFileError(
                f"{self.path} is GGUF version {version}; versions {VERSIONS[0]} and {VERSIONS[1]} can be read",
                hint="convert the model again with a llama.cpp of this year" if version < VERSIONS[0] else None,
            )

    def read_value(self, key: str, values: dict[str, Value], lengths: dict[str, int]) -> None:
        """Read one value, or step over it."""
        kind = self.number("<I")
        if kind == _ARRAY:
            item_kind, length = self.number("<I"), self.number("<Q")
            lengths[key] = length
            items = self.array(key, item_kind, length)
            if items is not None:
                values[key] = items
        elif kind == _STRING:
            size = self.number("<Q")
            if self.whole or size <= KEPT_TEXT:
                values[key] = self.take(size).decode(errors="replace")
            else:
                self.skip(size)
                lengths[key] = size
        else:
            values[key] = struct.unpack("<" + self.scalar(key, kind), self.take(_SIZES[kind]))[0]

    def array(self, key: str, kind: int, length: int) -> list[bool | int | float] | list[str] | None:
        """Read an array, or step over one that is not kept."""
        if kind == _STRING:
            self.check_strings(length)
            if self.whole:
                return [self.text(f"a text of {key}", self.file_size) for _ in range(length)]
            self.skip_strings(length)
            return None
        code = self.scalar(key, kind)
        size = length * _SIZES[kind]
        if length > KEPT_ITEMS and not self.whole:
            self.skip(size)
            return None
        return list(struct.unpack(f"<{length}{code}", self.take(size)))

    def check_strings(self, length: int) -> None:
        """Refuse more texts than any model has."""
        if length > self.strings_left:
            self.need(length * 8)  # cut off is the better explanation
            raise self.damaged(f"an array has {length} texts")
        self.strings_left -= length

    def skip_strings(self, length: int) -> None:
        """Step over ``length`` texts."""
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(length):
            start = self.position - self.window_start
            if start + 8 > len(self.window):
                self.refill(8)
                start = 0
            (size,) = unpack(self.window, start)
            self.position += 8 + size
        self.need(0)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read one tensor's description: name, dimensions, number of its type, offset in the data."""
        name = self.text("a tensor's name", LONGEST_NAME - 1)
        number = self.number("<I")
        if number > MOST_DIMENSIONS:
            raise self.damaged(f"tensor {name} has {number} dimensions")
        dimensions = struct.unpack(f"<{number}Q", self.take(8 * number))
        return name, dimensions, self.number("<I"), self.number("<Q")

    def placed(
        self, tensors: list[tuple[str, tuple[int, ...], int, int]], data: int, alignment: int
    ) -> Iterator[TensorInfo]:
        """Turn descriptions into places in the file, each checked as llama.cpp checks it."""
        expected = 0
        end = 0
        seen: set[str] = set()
        for name, dimensions, kind, offset in tensors:
            if name in seen:
                raise self.damaged(f"the tensor {name} is there twice")
            seen.add(name)
            type_name, size = self.stored(name, dimensions, kind)
            if offset != expected:
                raise self.damaged(f"tensor {name} is at {offset} of the data instead of at {expected}")
            expected += -(-size // alignment) * alignment
            end = data + offset + size
            yield TensorInfo(name=name, dimensions=dimensions, type_name=type_name, offset=data + offset, size=size)
        if end > self.file_size:
            raise self.cut_off(end, "of its tensors")

    def stored(self, name: str, dimensions: tuple[int, ...], kind: int) -> tuple[str, int]:
        """Return the name of a tensor's type and the size of its data in bytes."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415 - imports numpy

        try:
            tensor_type = GGMLQuantizationType(kind)
            block, block_bytes = GGML_QUANT_SIZES[tensor_type]
        except (ValueError, KeyError):
            raise ModelFileError(
                f"{self.path}: tensor {name} is of type {kind}, which the gguf library here does not know",
                hint="llama.cpp dropped that type, or it is newer than this program: quantize again, or update",
            ) from None
        elements = 1
        for dimension in dimensions:
            elements *= dimension
        if elements >= LARGEST_TYPE or (dimensions and dimensions[0] % block):
            shape = " x ".join(map(str, dimensions))
            raise self.damaged(f"tensor {name} is {shape}, which {tensor_type.name} cannot be")
        return tensor_type.name, elements // block * block_bytes

    def scalar(self, key: str, kind: int) -> str:
        if kind not in _CODES:
            raise self.damaged(f"the value of {key!r} is of kind {kind}, which there is not")
        return _CODES[kind]

    def count(self, what: str, most: int) -> int:
        number = self.number("<Q")
        if number > most:
            raise self.damaged(f"it says that it has {number} {what}")
        return number

    def text(self, what: str, longest: int) -> str:
        size = self.number("<Q")
        if size > longest:
            raise self.damaged(f"{what} is said to be {size} bytes long")
        return self.take(size).decode(errors="replace")

    def number(self, code: str) -> int:
        (number,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return int(number)

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        start = self.position - self.window_start
        if start + size > len(self.window):
            self.refill(size)
            start = 0
        self.position += size
        return self.window[start : start + size]

    def skip(self, size: int) -> None:
        self.need(size)
        self.position += size

    def refill(self, size: int) -> None:
        """Read on from where we are, at least ``size`` bytes."""
        self.need(size)
        self.stream.seek(self.position)
        self.window = self.stream.read(max(size, WINDOW))
        self.window_start = self.position
        if len(self.window) < size:  # the file became shorter while it was read
            raise ModelFileError(f"{self.path} became shorter while it was read", hint=AGAIN)

    def need(self, size: int) -> None:
        """Refuse to go beyond the end of the file."""
        if self.position + size > self.file_size:
            raise self.cut_off(self.position + size, "of its header")

    def cut_off(self, end: int, what: str) -> ModelFileError:
        missing = end - self.file_size
        return ModelFileError(
            f"{self.path} is cut off: it has {self.file_size} bytes, and {missing} more bytes {what} are missing",
            hint=AGAIN,
        )

    def damaged(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path} is damaged: {what} (before byte {self.position})", hint=AGAIN)


_STRING: Final = 8
_ARRAY: Final = 9
_CODES: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""From GGUF's number of a kind of value to that of :mod:`struct`; fixed by the specification."""
_SIZES: Final = {kind: struct.calcsize("<" + code) for kind, code in _CODES.items()}
