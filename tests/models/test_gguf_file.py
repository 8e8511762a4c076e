"""What a model is, from its files: sizes of layers and caches of each kind of architecture, split models, refusals."""

import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
from engine_support import real_files
from gguf_support import LLAMA_LAYER, VOCABULARY, WIDTH, write_gguf, write_parts

from synaptic.backends.distributed.engine.engine import EngineFiles, check_engine_knows
from synaptic.errors import ExitCode, ModelFileError
from synaptic.models.download import ModelStore
from synaptic.models.gguf_architectures import NEWER, NOT_GENERATING
from synaptic.models.gguf_file import large_tensors, part_paths, read_shape
from synaptic.models.layers import LayerShape, ModelShape

F16 = 2
EMBEDDINGS = VOCABULARY * WIDTH * F16
NORM = WIDTH * 4
LAYER = (2 * WIDTH * WIDTH + 2 * 16 * WIDTH + 3 * 128 * WIDTH) * F16 + 2 * NORM


def shape_of(tmp_path: Path, **kwargs) -> ModelShape:
    return read_shape("model", [write_gguf(tmp_path / "model.gguf", **kwargs)])


def layers_of(tmp_path: Path, **kwargs) -> tuple[LayerShape, ...]:
    return shape_of(tmp_path, **kwargs).layers


def test_a_llama(tmp_path: Path):
    file = write_gguf(tmp_path / "model.gguf", tied=False)
    layer = LayerShape(weight_bytes=LAYER, active_bytes=LAYER, kv_bytes_per_token=(16 + 16) * 2)
    assert read_shape("my model", [file]) == ModelShape(
        name="my model",
        files=(file,),
        architecture="llama",
        layers=(layer, layer),
        input_bytes=EMBEDDINGS,
        output_bytes=EMBEDDINGS + NORM,
        tied=False,
        embedding_length=WIDTH,
        vocabulary=VOCABULARY,
        trained_context=4096,
        quantization="F16",
        parameters=sum(tensor.n_elements for tensor in gguf.GGUFReader(file).tensors),
    )


def test_a_tied_head_is_the_embeddings_once_more(tmp_path: Path):
    shape = shape_of(tmp_path)
    assert shape.tied
    assert shape.output_bytes == EMBEDDINGS + NORM
    assert shape.weight_bytes == EMBEDDINGS + 2 * LAYER


@pytest.mark.real_model
async def test_the_real_model():
    file = await ModelStore().ensure(lambda message: None)
    shape = read_shape("smollm2:135m", [file])
    assert (len(shape.layers), shape.embedding_length, shape.vocabulary) == (30, 576, 49_152)
    assert (shape.architecture, shape.quantization, shape.tied, shape.trained_context) == ("llama", "Q4_1", True, 8192)
    assert shape.layers[0].kv_bytes_per_token == 2 * 3 * 64 * 2
    assert shape.parameters == 134_515_008
    assert 0.96 * file.stat().st_size < shape.weight_bytes < file.stat().st_size
    assert [name for name, *_ in large_tensors([file])] == ["token_embd.weight"]


def test_tensors_of_no_layer_are_in_front_or_behind(tmp_path: Path):
    extra = {"per_layer_token_embd.weight": (VOCABULARY, 8), "position_embd.weight": (4, 8), "output_b.weight": (2, 16)}
    shape = shape_of(tmp_path, others=extra)
    assert shape.input_bytes == EMBEDDINGS + VOCABULARY * 8 * F16 + 4 * 8 * F16
    assert shape.output_bytes == EMBEDDINGS + NORM + 2 * 16 * F16


def test_of_experts_a_token_reads_its_share_and_shared_ones_whole(tmp_path: Path):
    experts = {
        "attn_k.weight": (16, WIDTH),
        "ffn_gate_exps.weight": (8, 32, WIDTH),
        "ffn_up_exps.weight": (8, 32, WIDTH),
        "ffn_down_exps.weight": (8, WIDTH, 32),
        "ffn_up_shexp.weight": (32, WIDTH),
        "ffn_gate_inp.weight": (8, WIDTH),
    }
    routed = 3 * 8 * 32 * WIDTH * F16
    whole = (16 * WIDTH + 32 * WIDTH + 8 * WIDTH) * F16
    values = {"expert_count": 8, "expert_used_count": 2}
    dense, sparse = layers_of(tmp_path, architecture="qwen3moe", layers=[LLAMA_LAYER, experts], values=values)
    assert dense.active_bytes == dense.weight_bytes == LAYER
    assert (sparse.weight_bytes, sparse.active_bytes) == (whole + routed, whole + routed // 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"attention.head_count_kv": None}, [256, 256]),
        ({"attention.head_count_kv": [2, 0]}, [128, 0]),
        ({"attention.key_length": 32, "attention.value_length": 8}, [80, 80]),
        ({"attention.head_count": [4, 0], "attention.head_count_kv": [1, 0]}, [64, 0]),
        ({"attention.shared_kv_layers": 1}, [64, 0]),
        ({"nextn_predict_layers": 1}, [64, 0]),
    ],
)
def test_keys_and_values_of_a_token(tmp_path: Path, values: dict[str, object], expected: list[int]):
    assert [layer.kv_bytes_per_token for layer in layers_of(tmp_path, values=values)] == expected


def test_layers_that_predict_further_tokens_are_held_and_not_run(tmp_path: Path):
    run, held = layers_of(tmp_path, values={"nextn_predict_layers": 1})
    assert run.active_bytes == run.weight_bytes == held.weight_bytes
    assert held.active_bytes == 0


def test_latent_attention_keeps_one_vector_a_token(tmp_path: Path):
    layer = {"attn_kv_a_mqa.weight": (40, WIDTH), "attn_k_b.weight": (16, 32)}
    values = {
        "attention.kv_lora_rank": 32,
        "rope.dimension_count": 8,
        "attention.key_length_mla": 24,
        "attention.key_length": 40,
    }
    assert layers_of(tmp_path, architecture="deepseek2", layers=[layer], values=values)[0].kv_bytes_per_token == 80
    values["attention.indexer.key_length"] = 16
    assert layers_of(tmp_path, architecture="deepseek32", layers=[layer], values=values)[0].kv_bytes_per_token == 112


@pytest.mark.parametrize(
    ("architecture", "values", "windowed"),
    [
        ("gemma3", {"attention.sliding_window": 512}, [1, 1, 1, 1, 1, 0, 1]),
        ("gemma3", {"attention.sliding_window": 512, "attention.sliding_window_pattern": 2}, [1, 0, 1, 0, 1, 0, 1]),
        ("smallthinker", {"attention.sliding_window": 512}, [0, 1, 1, 1, 0, 1, 1]),
        ("gemma3", {}, [0] * 7),
        ("llama", {"attention.sliding_window": 512}, [0] * 7),
        (
            "gemma4",
            {"attention.sliding_window": 512, "attention.sliding_window_pattern": [True, False] * 3 + [True]},
            [1, 0, 1, 0, 1, 0, 1],
        ),
    ],
)
def test_a_windowed_layer_keeps_its_window_however_long_the_context(
    tmp_path: Path, architecture: str, values: dict[str, object], windowed: list[int]
):
    layers = layers_of(tmp_path, architecture=architecture, layers=[LLAMA_LAYER] * 7, values=values)
    assert [(layer.kv_bytes_per_token, layer.state_bytes) for layer in layers] == [
        (0, 64 * (512 + 512)) if window else (64, 0) for window in windowed
    ]


def test_a_window_and_heads_of_their_own(tmp_path: Path):
    values = {
        "attention.sliding_window": 100,
        "attention.sliding_window_pattern": [True, False],
        "attention.key_length_swa": 8,
        "attention.value_length_swa": 8,
    }
    layers = layers_of(tmp_path, architecture="gemma4", values=values)
    assert [(layer.kv_bytes_per_token, layer.state_bytes) for layer in layers] == [(0, 32 * 768), (64, 0)]


SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16}


@pytest.mark.parametrize(
    ("architecture", "layer", "values", "expected"),
    [
        ("mamba", {"ssm_in.weight": (256, WIDTH)}, SSM, (0, 4 * (3 * 128 + 16 * 128))),
        ("mamba2", {"ssm_in.weight": (8, 32)}, {**SSM, "ssm.group_count": 2}, (0, 4 * (3 * (128 + 64) + 2048))),
        ("falcon-h1", {"ssm_in.weight": (8, 32), "attn_k.weight": (8, 32)}, SSM, (64, 4 * (3 * 128 + 2048))),
        ("qwen3next", {"ssm_a": (8, 32), "attn_qkv.weight": (8, 32)}, SSM, (0, 4 * (3 * 128 + 2048))),
        ("kimi-linear", {"ssm_a": (8, 32)}, {"ssm.conv_kernel": 4, "kda.head_dim": 16}, (0, 4 * 4 * 16 * (9 + 16))),
        ("rwkv7", {"time_mix_key.weight": (8, 32)}, {"wkv.head_size": 16}, (0, 4 * WIDTH * (2 + 16))),
        ("lfm2", {"shortconv.conv.weight": (8, 32)}, {"shortconv.l_cache": 3}, (0, 4 * WIDTH * 2)),
        ("phi3", {"attn_qkv.weight": (8, 32)}, {}, (64, 0)),
        ("llama", {"ffn_up.weight": (8, 32)}, {}, (0, 0)),
    ],
)
def test_recurrent_layers_keep_a_state_for_each_sequence(tmp_path: Path, architecture, layer, values, expected):
    (shape,) = layers_of(tmp_path, architecture=architecture, layers=[layer], values=values)
    assert (shape.kv_bytes_per_token, shape.state_bytes) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"general.file_type": 15}, "Q4_K_M"),
        ({"general.file_type": 15 | 1024}, "Q4_K_M"),
        ({"general.file_type": 0}, "F32"),
        ({"general.file_type": 999}, "F16"),
        ({"general.file_type": None}, "F16"),
    ],
)
def test_the_quantization_as_people_write_it(tmp_path: Path, values: dict[str, object], expected: str):
    assert shape_of(tmp_path, values=values).quantization == expected


@pytest.mark.parametrize(
    ("values", "tokens", "expected"), [({}, None, VOCABULARY), ({"vocab_size": 300}, None, 300), ({}, 310, 310)]
)
def test_the_vocabulary_is_counted_where_it_is(tmp_path: Path, values, tokens, expected):
    assert shape_of(tmp_path, values=values, tokens=tokens).vocabulary == expected


REFUSED = {
    "image part": ({"others": {"v.blk.0.attn_q.weight": (8, 8)}}, "holds an image or sound part besides"),
    "no architecture": ({"architecture": None}, "does not say its architecture"),
    "unknown": ({"architecture": "glm4moelite"}, "'glm4moelite', which llama.cpp does not know"),
    "encoder": ({"architecture": "nomic-bert"}, "embeddings and generates none"),
    "mmproj": ({"architecture": "clip"}, "image or sound part"),
    "t5": ({"architecture": "t5"}, "an encoder of its own"),
    "adapter": ({"values": {"general.type": "adapter"}}, "a LoRA adapter"),
    "embedder": ({"architecture": "qwen3", "values": {"pooling_type": 3}}, "embeddings or ranks"),
    "not causal": ({"values": {"attention.causal": False}}, "embeddings or ranks"),
    "no block_count": ({"values": {"block_count": None}}, r"does not say its llama\.block_count"),
    "no context": ({"values": {"context_length": None}}, r"does not say its llama\.context_length"),
    "no layers": ({"values": {"block_count": 0}}, "0 layers; llama.cpp takes 1 to 512"),
    "too many layers": ({"values": {"block_count": 513}}, "513 layers"),
    "fewer layers": ({"values": {"block_count": 1}}, "says 1 layers and has a tensor blk.1"),
    "more layers": ({"values": {"block_count": 4}}, "layers without any tensor: 2, 3"),
    "a text": ({"values": {"block_count": "two"}}, r"llama\.block_count is 'two'"),
    "a fraction": ({"values": {"attention.head_count": 4.5}}, r"attention\.head_count is 4\.5"),
    "short array": ({"values": {"attention.head_count_kv": [1]}}, "has 1 values, none for layer 1"),
    "negative": ({"values": {"attention.head_count_kv": [-1, 1]}}, "head_count_kv is -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, name: str):
    kwargs, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=message) as caught:
        shape_of(tmp_path, **kwargs)
    assert str(tmp_path / "model.gguf") in caught.value.message
    assert caught.value.exit_code == ExitCode.NO_BACKEND


def test_a_vocabulary_without_weights(tmp_path: Path):
    file = write_parts([tmp_path / "vocab.gguf"], {}, {"block_count": 2, "embedding_length": 8, "context_length": 8})
    with pytest.raises(ModelFileError, match="a vocabulary and no weights"):
        read_shape("vocab", [file])


def test_weights_without_embeddings(tmp_path: Path):
    file = write_parts([tmp_path / "m.gguf"], {"blk.0.ffn_up.weight": (8, 8)}, {"block_count": 1})
    with pytest.raises(ModelFileError, match=r"has no token_embd\.weight"):
        read_shape("m", [file])


def split(directory: Path, count: int = 3) -> list[Path]:
    tensors = {"token_embd.weight": (VOCABULARY, WIDTH)}
    for number in range(3):
        tensors |= {f"blk.{number}.{name}": shape for name, shape in LLAMA_LAYER.items()}
    metadata = {"block_count": 3, "embedding_length": WIDTH, "context_length": 64, "attention.head_count": 4}
    paths = [directory / f"big model-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    write_parts(paths, tensors, metadata)
    return paths


@pytest.mark.parametrize("named", [0, 1, 2])
def test_any_part_of_a_split_model_finds_all(tmp_path: Path, named: int):
    paths = split(tmp_path)
    shape = read_shape("big", [paths[named]])
    assert shape.files == tuple(paths) and shape.file == paths[0]
    assert len(shape.layers) == 3
    assert shape == read_shape("big", paths)


def test_parts_are_found_by_the_names_they_have_and_not_by_where_links_lead(tmp_path: Path):
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    links.mkdir()
    for number, path in enumerate(split(store)):
        blob = path.rename(store / f"blob{number}")
        (links / path.name).symlink_to(blob)
    assert len(read_shape("big", [links / "big model-00002-of-00003.gguf"]).files) == 3


def test_missing_parts_are_named(tmp_path: Path):
    first, second, third = split(tmp_path)
    first.unlink()
    third.unlink()
    with pytest.raises(ModelFileError, match="split into 3 files, and 2 of them are not in") as caught:
        read_shape("big", [second])
    assert first.name in caught.value.message and third.name in caught.value.message
    assert second.name not in caught.value.message
    with pytest.raises(ModelFileError, match=r"does not exist"):
        read_shape("big", [tmp_path / "none.gguf"])
    with pytest.raises(ModelFileError, match=r"00005-of-00020.gguf, \.\.\."):
        read_shape("big", [tmp_path / "m-00020-of-00020.gguf"])


def test_a_file_that_cannot_be_looked_at_says_why(tmp_path: Path):
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    with pytest.raises(ModelFileError, match="Too many levels"):
        read_shape("loop", [loop])


def test_a_part_under_another_name_says_how_parts_are_named(tmp_path: Path):
    first, *_ = split(tmp_path)
    alone = first.rename(tmp_path / "model.gguf")
    with pytest.raises(ModelFileError, match="one of 3 files of a model, and 1 of them were found") as caught:
        read_shape("big", [alone])
    assert "NAME-00001-of-00003.gguf" in (caught.value.hint or "")


def test_parts_in_the_wrong_order_or_twice(tmp_path: Path):
    first, second, third = split(tmp_path)
    with pytest.raises(ModelFileError, match="is not part 2 of 3: it says that it is part 3 of 3"):
        read_shape("big", [first, third, second])
    whole = write_gguf(tmp_path / "whole.gguf", values={"split.count": 0})
    with pytest.raises(ModelFileError, match=r"is in .*whole.gguf and in"):
        read_shape("big", [whole, shutil.copy(whole, tmp_path / "copy.gguf")])


def test_parts_of_different_models(tmp_path: Path):
    paths = split(tmp_path)
    (tmp_path / "other").mkdir()
    write_parts(
        [tmp_path / "other" / path.name for path in paths],
        {"token_embd.weight": (8, 8), "a": (8, 8), "b": (8, 8)},
        {"block_count": 1},
    )
    shutil.copy(tmp_path / "other" / paths[2].name, paths[2])
    with pytest.raises(ModelFileError, match="tensors together instead of 28"):
        read_shape("big", paths)


@pytest.mark.parametrize("name", ["m.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-1-of-3.gguf"])
def test_other_names_are_single_files(name: str):
    assert part_paths(Path(name)) == (Path(name),)


def test_large_tensors_say_where_their_bytes_are(tmp_path: Path):
    from synthetic_gguf import write_synthetic

    file = write_synthetic(tmp_path / "large.gguf", gigabytes=0.04, layers=1, embedding=512)
    reader = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    found = list(large_tensors([file]))
    assert {name for name, *_ in found} == {f"blk.0.ffn_{kind}.weight" for kind in ("gate", "up", "down")}
    for name, offset, size, path in found:
        assert path == file
        assert file.read_bytes()[offset : offset + size] == reader[name].data.tobytes()


def test_no_architecture_is_let_through_and_refused():
    assert not NEWER & NOT_GENERATING.keys()


def test_the_engine_is_asked_which_architectures_it_knows(tmp_path: Path):
    server, library = tmp_path / "llama-server", tmp_path / "libllama.so"
    server.write_bytes(b"\0llama\0falcon\0")
    files = EngineFiles(directory=tmp_path, llama_server=server, rpc_server=server, libraries=())
    check_engine_knows(Path("m.gguf"), "falcon", files)
    with pytest.raises(ModelFileError, match=r"'mamba', which the engine in .* does not know"):
        check_engine_knows(Path("m.gguf"), "mamba", files)
    library.write_bytes(b"\0mamba\0")
    files = EngineFiles(directory=tmp_path, llama_server=server, rpc_server=server, libraries=(library,))
    check_engine_knows(Path("m.gguf"), "mamba", files)
    windows = tmp_path / "llama.dll"
    library.rename(windows)
    files = EngineFiles(directory=tmp_path, llama_server=server, rpc_server=server, libraries=(windows,))
    check_engine_knows(Path("m.gguf"), "mamba", files)
    windows.unlink()
    with pytest.raises(ModelFileError, match="the engine cannot be read"):
        check_engine_knows(Path("m.gguf"), "mamba", files)


def test_the_real_engine_knows_what_we_let_through():
    engine = real_files()
    for architecture in {*gguf.MODEL_ARCH_NAMES.values()} - {"mmproj"} | NEWER:
        check_engine_knows(Path("m.gguf"), architecture, engine)
    with pytest.raises(ModelFileError, match="does not know"):
        check_engine_knows(Path("m.gguf"), "glm4moelite", engine)


def test_reading_is_what_imports_the_library():
    """The program starts without it: it takes a quarter of a second, and numpy."""
    code = (
        "import sys, synaptic.models.model_source, synaptic.models.gguf_file\n"
        "assert not {'gguf', 'numpy'} & sys.modules.keys(), 'imported'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
