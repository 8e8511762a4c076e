"""Small GGUF files for tests, written with the gguf library, and what the real engine makes of them."""

import asyncio
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np

from synaptic.backends.distributed.engine.engine import EngineFiles, engine_command
from synaptic.processes.child import ChildProcess

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "sides"))

WIDTH = 64
VOCABULARY = 320
LLAMA_LAYER = {
    "attn_norm.weight": (WIDTH,),
    "attn_q.weight": (WIDTH, WIDTH),
    "attn_k.weight": (16, WIDTH),
    "attn_v.weight": (16, WIDTH),
    "attn_output.weight": (WIDTH, WIDTH),
    "ffn_norm.weight": (WIDTH,),
    "ffn_gate.weight": (128, WIDTH),
    "ffn_up.weight": (128, WIDTH),
    "ffn_down.weight": (WIDTH, 128),
}
"""Shapes as numpy has them, outermost first."""
NUMBERS = {
    "context_length": 4096,
    "embedding_length": WIDTH,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
Shapes = Mapping[str, tuple[int, ...]]


def write_gguf(
    path: Path,
    *,
    architecture: str | None = "llama",
    layers: Sequence[Shapes] = (LLAMA_LAYER, LLAMA_LAYER),
    tied: bool = True,
    values: Mapping[str, Any] | None = None,
    others: Shapes | None = None,
    tokens: int | None = VOCABULARY,
    type_: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    seed: int = 1,
) -> Path:
    """Write a model. ``values`` adds to, replaces or (``None``) leaves out metadata.

    A key without ``general.``, ``split.`` or ``tokenizer.`` gets the architecture in front. ``others`` are tensors of
    no layer; one with an empty shape is left out.
    """
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, WIDTH)}
    for number, layer in enumerate(layers):
        tensors |= {f"blk.{number}.{name}": shape for name, shape in layer.items()}
    tensors["output_norm.weight"] = (WIDTH,)
    if not tied:
        tensors["output.weight"] = (VOCABULARY, WIDTH)
    metadata: dict[str, Any] = {"general.file_type": 1, "block_count": len(layers), **NUMBERS, **(values or {})}
    every = {name: shape for name, shape in (tensors | dict(others or {})).items() if shape}
    return write_parts([path], every, metadata, architecture=architecture, tokens=tokens, type_=type_, seed=seed)


def write_parts(
    paths: Sequence[Path],
    tensors: Shapes,
    metadata: Mapping[str, Any],
    *,
    architecture: str | None = "llama",
    tokens: int | None = VOCABULARY,
    type_: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    seed: int = 1,
) -> Path:
    """Write a model into one file or several, as llama.cpp splits them: the metadata are in the first."""
    random = np.random.default_rng(seed)
    names = list(tensors)
    share = -(-len(names) // len(paths))
    for number, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, architecture or "llama")
        if architecture is None or number:
            writer.kv_data[0].pop("general.architecture")
        if number == 0:
            add_values(writer, metadata, architecture or "llama")
            if tokens is not None:
                add_vocabulary(writer, tokens)
        if len(paths) > 1:
            writer.add_uint16("split.no", number)
            writer.add_uint16("split.count", len(paths))
            writer.add_int32("split.tensors.count", len(names))
        for name in names[number * share : (number + 1) * share]:
            shape = tensors[name]
            if len(shape) == 1:
                writer.add_tensor(name, np.ones(shape, dtype=np.float32))
            else:
                floats = random.normal(scale=0.1, size=shape).astype(np.float32)
                writer.add_tensor(name, gguf.quants.quantize(floats, type_), raw_dtype=type_)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths[0]


def add_values(writer: gguf.GGUFWriter, values: Mapping[str, Any], architecture: str) -> None:
    for key, value in values.items():
        full = key if key.startswith(("general.", "split.", "tokenizer.")) else f"{architecture}.{key}"
        if value is None:
            continue
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, float):
            writer.add_float32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, value)


def add_vocabulary(writer: gguf.GGUFWriter, tokens: int) -> None:
    from synthetic_gguf import SPECIAL, small_vocabulary

    words, merges = small_vocabulary(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (tokens - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)


QUIET = ("--host", "127.0.0.1", "-t", "1", "--cache-ram", "0", "-fit", "off", "--no-warmup", "-lv", "5")


async def generate(files: EngineFiles, model: Path, *arguments: str) -> tuple[dict, str]:
    """Let the real llama-server generate three tokens; return its reply and its log."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    command = engine_command(files, files.llama_server, ("-m", str(model), *QUIET, "--port", port, *arguments))
    log: list[str] = []
    child = await ChildProcess.start(command, on_line=log.append)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while True:
                assert child.running, log[-20:]
                try:
                    if (await client.get("/health")).is_success:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
            body = {"prompt": "hello there", "n_predict": 3, "temperature": 0, "n_probs": 1}
            return (await client.post("/completion", json=body)).json(), "\n".join(log)
    finally:
        await child.stop()


def cache_mebibytes(log: str) -> float:
    """What llama.cpp says that keys, values and states take together."""
    sizes = re.findall(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB", log)
    return sum(map(float, sizes))
