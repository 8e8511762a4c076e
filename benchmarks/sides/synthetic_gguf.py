"""Write a model that is mostly weights: a llama with random weights, of any size, that llama.cpp loads and runs.

Its text is noise; its memory, its traffic and its time are those of a real model of that size. The weights are Q8_0
blocks whose scales keep every logit finite; the vocabulary is small, so that nearly all bytes are in the layers. The
rows of the special tokens in the head are zero: greedy decoding never ends early.

    python benchmarks/sides/synthetic_gguf.py /tmp/noise.gguf --gigabytes 1.6
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

BLOCK = 32  # weights of a Q8_0 block
BLOCK_BYTES = 34
BYTES_A_WEIGHT = BLOCK_BYTES / BLOCK
SCALE = 2.7e-4  # of a block: weights of about 0.02, as trained ones have
HEAD_WIDTH = 64
GROUP = 4  # query heads for each key head
STEP = HEAD_WIDTH * GROUP
CONTEXT = 8192
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTROL = 3  # gguf.TokenType.CONTROL
NORMAL = 1


@dataclass(frozen=True, slots=True)
class Widths:
    """What the size of the file is made of."""

    embedding: int
    feed_forward: int
    layers: int
    vocabulary: int
    tied: bool

    @property
    def key_width(self) -> int:
        """Width of the keys of all heads together."""
        return self.embedding // GROUP

    def matrices(self) -> Iterator[tuple[str, int, int]]:
        """Yield the quantized tensors: name, rows, columns."""
        embedding, keys, wide = self.embedding, self.key_width, self.feed_forward
        yield "token_embd.weight", self.vocabulary, embedding
        for layer in range(self.layers):
            shapes = {
                "attn_q": (embedding, embedding),
                "attn_k": (keys, embedding),
                "attn_v": (keys, embedding),
                "attn_output": (embedding, embedding),
                "ffn_gate": (wide, embedding),
                "ffn_up": (wide, embedding),
                "ffn_down": (embedding, wide),
            }
            for name, (rows, columns) in shapes.items():
                yield f"blk.{layer}.{name}.weight", rows, columns
        if not self.tied:
            yield "output.weight", self.vocabulary, embedding

    def norms(self) -> Iterator[str]:
        """Yield the names of the vectors of ones."""
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_norm.weight"
            yield f"blk.{layer}.ffn_norm.weight"
        yield "output_norm.weight"


def widths_for(size: float, *, layers: int, vocabulary: int, tied: bool, embedding: int | None = None) -> Widths:
    """Return the widths of a model of about ``size`` bytes.

    Args:
        size: At least what embeddings, head and the narrowest layers take.
        layers: Number of layers.
        vocabulary: Number of tokens.
        tied: Whether the head is the embeddings.
        embedding: Width of a hidden state, a multiple of 256; ``None`` chooses one that suits the size.

    """
    weights = size / BYTES_A_WEIGHT
    if embedding is None:
        embedding = max(STEP, round(math.sqrt(weights / layers / 10.75) / STEP) * STEP)
    tables = (1 if tied else 2) * vocabulary * embedding
    attention = (2 + 2 / GROUP) * embedding * embedding * layers
    feed_forward = max(STEP, round((weights - tables - attention) / (3 * embedding * layers) / STEP) * STEP)
    return Widths(embedding, feed_forward, layers, vocabulary, tied)


def write_synthetic(
    path: Path,
    *,
    gigabytes: float = 1.6,
    layers: int = 24,
    tied: bool = False,
    vocabulary: int = 4096,
    embedding: int | None = None,
    seed: int = 1,
) -> Path:
    """Write the model to ``path`` and return it; it holds one tensor in memory at a time.

    Args:
        path: Where to; what is there is overwritten.
        gigabytes: About how large the file becomes, in 10^9 bytes.
        layers: Number of layers.
        tied: Whether the head is the embeddings.
        vocabulary: Number of tokens, at least 300.
        embedding: Width of a hidden state, a multiple of 256. A small one makes the feed-forward tensors large:
            ``gigabytes=0.04, layers=1, embedding=512`` has tensors of more than 10 MiB.
        seed: The same one writes the same file.

    """
    widths = widths_for(gigabytes * 1e9, layers=layers, vocabulary=vocabulary, tied=tied, embedding=embedding)
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer, widths)
    ones = np.ones(widths.embedding, dtype=np.float32)
    for name in widths.norms():
        writer.add_tensor_info(name, ones.shape, ones.dtype, ones.nbytes)
    for name, rows, columns in widths.matrices():
        stored = (rows, columns // BLOCK * BLOCK_BYTES)
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), stored[0] * stored[1], gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(seed)
    for _ in widths.norms():
        writer.write_tensor_data(ones)
    for name, rows, columns in widths.matrices():
        blocks = random_blocks(random, rows, columns)
        if name == "output.weight":
            blocks[: len(SPECIAL)] = 0
        writer.write_tensor_data(blocks)
    writer.close()
    return path


def random_blocks(random: np.random.Generator, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Return Q8_0 blocks, row by row: a 16-bit scale and 32 signed bytes each."""
    blocks = np.frombuffer(bytearray(random.bytes(rows * columns // BLOCK * BLOCK_BYTES)), dtype=np.uint8)
    blocks = blocks.reshape(-1, BLOCK_BYTES)
    blocks[:, :2] = np.frombuffer(np.float16(SCALE).tobytes(), dtype=np.uint8)
    return blocks.reshape(rows, -1)


def add_metadata(writer: gguf.GGUFWriter, widths: Widths) -> None:
    """Add what llama.cpp reads before it reads weights."""
    heads = widths.embedding // HEAD_WIDTH
    writer.add_name("synthetic")
    writer.add_block_count(widths.layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(widths.embedding)
    writer.add_feed_forward_length(widths.feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // GROUP)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(widths.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    tokens, merges = small_vocabulary(widths.vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL] * len(SPECIAL) + [NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(SPECIAL.index("<|im_end|>"))
    writer.add_add_bos_token(False)


def small_vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Return tokens and merges of a byte-level BPE: special ones, one a byte, then pairs and triples of letters."""
    tokens = [*SPECIAL, *byte_letters()]
    if size <= len(tokens):
        raise ValueError(f"a vocabulary has at least {len(tokens) + 1} tokens, not {size}")
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    merges = []
    for left, right in itertools.chain(
        itertools.product("\u0120" + letters, letters),  # U+0120 is how byte-level BPE writes a space
        ((a + b, c) for a, b, c in itertools.product("\u0120" + letters, letters, letters)),
    ):
        if len(tokens) == size:
            break
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    tokens.extend(f"<unused{number}>" for number in range(size - len(tokens)))
    return tokens, merges


def byte_letters() -> list[str]:
    """Return the letter that byte-level BPE writes for each byte."""
    printed = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = itertools.count(256)
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


def main() -> None:
    """Write one, and say how large it is and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.6)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--tied", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    path = write_synthetic(
        options.path,
        gigabytes=options.gigabytes,
        layers=options.layers,
        vocabulary=options.vocabulary,
        tied=options.tied,
    )
    print(f"{path}: {path.stat().st_size / 1e9:.3f} GB in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
