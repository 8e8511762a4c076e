"""The synthetic model: its size is what was asked for, and the real llama-server runs it."""

import tracemalloc
from pathlib import Path

import pytest
from engine_support import real_files
from gguf_support import cache_mebibytes, generate
from synthetic_gguf import small_vocabulary, widths_for, write_synthetic

from synaptic.models.gguf_file import read_shape


@pytest.mark.parametrize(("gigabytes", "layers"), [(0.02, 2), (0.1, 6), (1.6, 24), (8, 32)])
@pytest.mark.parametrize("tied", [True, False])
def test_the_size_is_nearly_the_one_that_was_asked_for(gigabytes, layers, tied):
    widths = widths_for(gigabytes * 1e9, layers=layers, vocabulary=4096, tied=tied)
    weights = sum(rows * columns for _, rows, columns in widths.matrices())
    assert weights * 34 / 32 == pytest.approx(gigabytes * 1e9, rel=0.12)


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path):
    tracemalloc.start()
    file = write_synthetic(tmp_path / "m.gguf", gigabytes=0.1, layers=6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    shape = read_shape("m", [file])
    assert file.stat().st_size == pytest.approx(0.1e9, rel=0.1)
    assert sum(layer.weight_bytes for layer in shape.layers) > 0.85 * file.stat().st_size
    assert not shape.tied
    assert peak < 0.35 * file.stat().st_size


def test_the_same_seed_writes_the_same_file(tmp_path: Path):
    files = [
        write_synthetic(tmp_path / str(number), gigabytes=0.005, layers=1, vocabulary=512, seed=seed)
        for number, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other


@pytest.mark.parametrize("size", [260, 512, 4096, 30_000])
def test_the_vocabulary_has_each_token_once(size: int):
    tokens, merges = small_vocabulary(size)
    assert len(tokens) == len(set(tokens)) == size
    known = set(tokens)
    for merge in merges:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= known


def test_a_vocabulary_has_at_least_all_bytes():
    with pytest.raises(ValueError, match="at least 260 tokens"):
        small_vocabulary(259)


async def test_the_real_engine_loads_it_and_generates(tmp_path: Path):
    engine = real_files()
    file = write_synthetic(tmp_path / "m.gguf", gigabytes=0.04, layers=2, vocabulary=2048)
    reply, log = await generate(engine, file, "-c", "4096")
    assert reply["tokens_predicted"] == 3
    assert all(-30 < token["logprob"] <= 0 for token in reply["completion_probabilities"])
    keys_and_values = read_shape("m", [file]).layers[0].kv_bytes_per_token * 2 * 4096
    assert cache_mebibytes(log) == pytest.approx(keys_and_values / (1 << 20), abs=0.01)


async def test_the_real_engine_loads_a_tied_one(tmp_path: Path):
    engine = real_files()
    file = write_synthetic(tmp_path / "m.gguf", gigabytes=0.02, layers=1, tied=True, vocabulary=1024)
    reply, _ = await generate(engine, file, "-c", "256")
    assert reply["tokens_predicted"] == 3
