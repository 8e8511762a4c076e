"""What a model in GGUF files is: its shape for the placement, and where its large tensors lie.

Only headers are read. A model in several files (``NAME-00001-of-00003.gguf``) is found from any of them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from synaptic.errors import ModelFileError
from synaptic.models.gguf_architectures import check_generates
from synaptic.models.gguf_header import AGAIN, Header, TensorInfo, Value, read_header
from synaptic.models.gguf_layers import Metadata, layer_shape
from synaptic.models.layers import ModelShape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LARGE: Final = 10 << 20
"""Bytes above which llama.cpp's RPC client asks a worker's cache for a tensor (``HASH_THRESHOLD``)."""
MOST_LAYERS: Final = 512
"""``LLAMA_MAX_LAYERS``; llama.cpp writes beyond its arrays for some files with more."""
PART: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
LAYER: Final = re.compile(r"blk\.(\d{1,9})\..")
NAMED: Final = 5
"""How many of the missing files a message names."""
EMBEDDINGS: Final = "token_embd.weight"
HEAD: Final = "output.weight"
INPUT_TENSORS: Final = ("token_", "position_embd", "per_layer_")
"""What llama.cpp keeps in front of the layers; the tables of per-layer embeddings are among it."""
MEDIA_TENSORS: Final = ("v.", "a.", "mm.")
"""What belongs into a projector's file (mmproj)."""
GUESSED: Final = 1024
"""A bit of ``general.file_type``: the quantization was guessed from the tensors."""


def read_shape(name: str, files: Sequence[Path]) -> ModelShape:
    """Return the shape of the model in ``files``. Blocking: it reads the headers, about 0.2 s for a large vocabulary.

    Args:
        name: What the person called it.
        files: The GGUF file, any one of those of a split model, or all of them.

    Raises:
        ModelFileError: If a file is missing, cannot be read, is damaged or cut off, or no text can be generated
            with it; says which, why, and what to do.
    """
    headers = read_headers(files)
    first = headers[0]
    architecture = first.values.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelFileError(f"{first.path} does not say its architecture (general.architecture)", hint=AGAIN)
    check_generates(first.path, architecture, str(first.values.get("general.type", "")))
    metadata = Metadata(first.path, architecture, first.values)
    _check_causal(metadata)
    tensors = [tensor for header in headers for tensor in header.tensors]
    if not tensors:
        raise ModelFileError(f"{first.path} holds a vocabulary and no weights", hint="name the file of the whole model")
    embeddings = next((tensor for tensor in tensors if tensor.name == EMBEDDINGS), None)
    if embeddings is None:
        raise ModelFileError(f"{first.path} has no {EMBEDDINGS}, which every language model has", hint=AGAIN)
    layers, others = _by_layer(metadata, tensors)
    _check_text_only(first.path, others)
    input_bytes = sum(tensor.size for tensor in others if tensor.name.startswith(INPUT_TENSORS))
    tied = all(tensor.name != HEAD for tensor in tensors)
    output_bytes = sum(tensor.size for tensor in others) - input_bytes + (embeddings.size if tied else 0)
    return ModelShape(
        name=name,
        files=tuple(header.path for header in headers),
        architecture=architecture,
        layers=tuple(layer_shape(metadata, number, len(layers), layer) for number, layer in enumerate(layers)),
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        tied=tied,
        embedding_length=metadata.number("embedding_length"),
        vocabulary=_vocabulary(metadata, first, embeddings),
        trained_context=metadata.number("context_length"),
        quantization=_quantization(first.values, tensors),
        parameters=sum(tensor.elements for tensor in tensors),
    )


def large_tensors(files: Sequence[Path]) -> Iterator[tuple[str, int, int, Path]]:
    """Yield the tensors that workers keep in their cache: name, offset in the file, size in bytes, file. Blocking.

    Raises:
        ModelFileError: As :func:`read_shape` does for the files themselves.
    """
    for header in read_headers(files):
        for tensor in header.tensors:
            if tensor.size > LARGE:
                yield tensor.name, tensor.offset, tensor.size, header.path


def part_paths(path: Path) -> tuple[Path, ...]:
    """Return the paths of all files of the model that ``path`` is, or is a part of, in order. It looks at no disk."""
    match = PART.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count:
        return (path,)
    names = (f"{match['stem']}-{number:05}-of-{match['count']}{match['suffix']}" for number in range(1, count + 1))
    return tuple(path.with_name(name) for name in names)


def read_headers(files: Sequence[Path]) -> list[Header]:
    """Return the headers of all files of a model, in order, after checking that they belong together.

    Raises:
        ModelFileError: If one is missing or wrong.
    """
    paths = part_paths(files[0]) if len(files) == 1 else tuple(files)
    _check_present(paths)
    headers = [read_header(path) for path in paths]
    first = headers[0]
    count = first.values.get("split.count", 1)
    if count not in (0, len(headers)):
        raise ModelFileError(
            f"{first.path} is one of {count} files of a model, and {len(headers)} of them were found",
            hint=f"name them as llama.cpp does: NAME-00001-of-{count:05}.gguf" if isinstance(count, int) else AGAIN,
        )
    seen: dict[str, Header] = {}
    for number, header in enumerate(headers):
        if header.values.get("split.no", number) != number or header.values.get("split.count", count) != count:
            raise ModelFileError(
                f"{header.path} is not part {number + 1} of {len(headers)}: it says that it is part "
                f"{_part_number(header)} of {header.values.get('split.count')}",
                hint="give the files the names that they were made with",
            )
        for tensor in header.tensors:
            if tensor.name in seen:
                raise ModelFileError(f"{tensor.name} is in {seen[tensor.name].path} and in {header.path}")
            seen[tensor.name] = header
    total = first.values.get("split.tensors.count", len(seen))
    if len(headers) > 1 and total != len(seen):
        raise ModelFileError(f"the files of {first.path} have {len(seen)} tensors together instead of {total}")
    return headers


def _part_number(header: Header) -> object:
    number = header.values.get("split.no")
    return number + 1 if isinstance(number, int) else number


def _check_present(paths: Sequence[Path]) -> None:
    missing = []
    for path in paths:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            missing.append(path)
        except (OSError, ValueError):
            continue  # reading it will say why
    if not missing:
        return
    if len(paths) == 1:
        raise ModelFileError(f"{paths[0]} does not exist")
    names = ", ".join(path.name for path in missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
    raise ModelFileError(
        f"the model is split into {len(paths)} files, and {len(missing)} of them are not in {paths[0].parent}: {names}",
        hint="fetch the missing files into the same directory",
    )


def _check_causal(metadata: Metadata) -> None:
    """Refuse models of generating architectures that were trained to embed or to rank."""
    pooling = metadata.values.get(f"{metadata.architecture}.pooling_type", 0)
    causal = metadata.values.get(f"{metadata.architecture}.attention.causal", True)
    if pooling or not causal:
        raise ModelFileError(
            f"{metadata.path} cannot answer: it turns text into embeddings or ranks and generates none",
            hint="name the file of a language model",
        )


def _check_text_only(path: Path, tensors: Sequence[TensorInfo]) -> None:
    """Refuse files that hold the image part, too: llama.cpp loads none that has tensors which it does not use."""
    other = next((tensor.name for tensor in tensors if tensor.name.startswith(MEDIA_TENSORS)), None)
    if other is not None:
        raise ModelFileError(
            f"{path} holds an image or sound part besides the language model ({other}), as Ollama writes some models; "
            "llama.cpp does not load that",
            hint="take the same model as a GGUF file made for llama.cpp, which has that part in a file of its own",
        )


def _by_layer(metadata: Metadata, tensors: Sequence[TensorInfo]) -> tuple[list[list[TensorInfo]], list[TensorInfo]]:
    """Return the tensors of each layer, and those of none."""
    count = metadata.number("block_count")
    if not 1 <= count <= MOST_LAYERS:
        raise ModelFileError(f"{metadata.path} says that it has {count} layers; llama.cpp takes 1 to {MOST_LAYERS}")
    layers: list[list[TensorInfo]] = [[] for _ in range(count)]
    others = []
    for tensor in tensors:
        match = LAYER.match(tensor.name)
        if match is None:
            others.append(tensor)
        elif (number := int(match[1])) < count:
            layers[number].append(tensor)
        else:
            raise ModelFileError(f"{metadata.path} is damaged: it says {count} layers and has a tensor {tensor.name}")
    empty = [str(number) for number, layer in enumerate(layers) if not layer]
    if empty:
        raise ModelFileError(
            f"{metadata.path} is not complete: layers without any tensor: {', '.join(empty[:10])}", hint=AGAIN
        )
    return layers, others


def _vocabulary(metadata: Metadata, header: Header, embeddings: TensorInfo) -> int:
    tokens = header.lengths.get("tokenizer.ggml.tokens")
    rows = embeddings.dimensions[1] if len(embeddings.dimensions) > 1 else 0
    return tokens if tokens is not None else metadata.number("vocab_size", rows)


def _quantization(values: Mapping[str, Value], tensors: Sequence[TensorInfo]) -> str:
    """Return the name of the mix that the file says it has, else of the type that most of its bytes have."""
    from gguf.constants import LlamaFileType  # noqa: PLC0415 - imports numpy

    file_type = values.get("general.file_type")
    if isinstance(file_type, int):
        try:
            return LlamaFileType(file_type & ~GUESSED).name.removeprefix("MOSTLY_").removeprefix("ALL_")
        except ValueError:
            pass
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.type_name] += tensor.size
    return sizes.most_common(1)[0][0]
