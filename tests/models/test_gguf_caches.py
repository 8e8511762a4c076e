"""The sizes of caches that are read from a file are those that the real llama-server makes, for each kind of layer."""

from pathlib import Path
from typing import Any

import gguf
import pytest
from engine_support import real_files
from gguf_support import LLAMA_LAYER, WIDTH, cache_mebibytes, generate, write_gguf

from synaptic.models.gguf_file import read_shape

CONTEXT = 4096
FEED_FORWARD = {name: shape for name, shape in LLAMA_LAYER.items() if name.startswith("ffn_")}
HEAD_NORMS = {"attn_q_norm.weight": (16,), "attn_k_norm.weight": (16,)}
GEMMA = {**LLAMA_LAYER, **HEAD_NORMS, "post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
MAMBA = {
    "attn_norm.weight": (WIDTH,),
    "ssm_in.weight": (256, WIDTH),
    "ssm_conv1d.weight": (128, 4),
    "ssm_conv1d.bias": (128,),
    "ssm_x.weight": (4 + 2 * 64, 128),
    "ssm_dt.weight": (128, 4),
    "ssm_dt.bias": (128,),
    "ssm_a": (128, 64),
    "ssm_d": (128,),
    "ssm_out.weight": (WIDTH, 128),
}
LATENT = {
    "attn_norm.weight": (WIDTH,),
    "attn_q_a.weight": (32, WIDTH),
    "attn_q_a_norm.weight": (32,),
    "attn_q_b.weight": (96, 32),
    "attn_kv_a_mqa.weight": (40, WIDTH),
    "attn_kv_a_norm.weight": (32,),
    "attn_k_b.weight": (4, 32, 16),
    "attn_v_b.weight": (4, 16, 32),
    "attn_output.weight": (WIDTH, 64),
    **FEED_FORWARD,
}
CONVOLUTION = {
    "attn_norm.weight": (WIDTH,),
    "shortconv.conv.weight": (WIDTH, 3),
    "shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
    "shortconv.out_proj.weight": (WIDTH, WIDTH),
    **FEED_FORWARD,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {
        "layers": [LLAMA_LAYER] * 5,
        "values": {},
    },
    "gemma3": {
        "layers": [GEMMA] * 26,
        "values": {"attention.sliding_window": 512, "attention.key_length": 16, "attention.value_length": 16},
    },
    "mamba": {
        "layers": [MAMBA] * 16,
        "values": {
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 128,
            "ssm.state_size": 64,
            "ssm.time_step_rank": 4,
            "attention.head_count": None,
            "attention.head_count_kv": None,
        },
    },
    "deepseek2": {
        "layers": [LATENT] * 4,
        "values": {
            "attention.kv_lora_rank": 32,
            "attention.q_lora_rank": 32,
            "attention.key_length": 40,
            "attention.value_length": 32,
            "attention.key_length_mla": 24,
            "attention.value_length_mla": 16,
            "rope.dimension_count": 8,
            "leading_dense_block_count": 4,
            "expert_count": 0,
            "expert_used_count": 0,
            "expert_feed_forward_length": 8,
            "expert_shared_count": 0,
            "expert_weights_scale": 1.0,
        },
    },
    "lfm2": {
        "layers": [CONVOLUTION, {**LLAMA_LAYER, **HEAD_NORMS}] * 2,
        "values": {"shortconv.l_cache": 3, "attention.head_count_kv": [0, 1, 0, 1]},
        "others": {"token_embd_norm.weight": (WIDTH,), "output_norm.weight": ()},
    },
}


@pytest.mark.parametrize("architecture", MODELS)
async def test_caches_are_as_large_as_the_engine_makes_them(tmp_path: Path, architecture: str):
    engine = real_files()
    model = MODELS[architecture]
    file = write_gguf(tmp_path / "m.gguf", architecture=architecture, type_=gguf.GGMLQuantizationType.F32, **model)
    reply, log = await generate(engine, file, "-c", str(CONTEXT), "-np", "1")
    assert reply["tokens_predicted"] > 0
    shape = read_shape("m", [file])
    ours = sum(layer.kv_bytes_per_token * CONTEXT + layer.state_bytes for layer in shape.layers)
    assert ours > 0
    assert cache_mebibytes(log) == pytest.approx(ours / (1 << 20), abs=0.012)
