"""Names of models: which mean the same one as Ollama sees it, and which are near to one that is there."""

from __future__ import annotations

import pytest

from synaptic.messages import ModelInfo
from synaptic.models.names import did_you_mean_model, full_name, has_model, name_key, near_models
from synaptic.models.ollama_store import parse_name

ONE_MODEL = [
    "llama3.2",
    "llama3.2:latest",
    "Llama3.2",
    "LLAMA3.2:Latest",
    "library/llama3.2",
    "Library/Llama3.2:LATEST",
    "registry.ollama.ai/library/llama3.2",
    "Registry.Ollama.AI/library/llama3.2:latest",
    "https://registry.ollama.ai/library/llama3.2:latest",
    " llama3.2 ",
]


@pytest.mark.parametrize("name", ONE_MODEL)
def test_all_names_of_one_model_are_the_same(name: str) -> None:
    assert name_key(name) == "llama3.2:latest"
    assert has_model([ModelInfo(name=name)], "llama3.2")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("llama3.2", "llama3.2:1b"),
        ("user/llama3.2", "llama3.2"),
        ("user/llama3.2", "other/llama3.2"),
        ("hf.co/library/llama3.2", "llama3.2"),
        ("registry.example.com:5000/library/llama3.2", "llama3.2"),
        ("registry.example.com:5000/team/llama:8b", "registry.example.com/team/llama:8b"),
        ("registry.ollama.ai/llama3.2", "llama3.2"),
        ("/models/A.gguf", "/models/a.gguf"),
        ("~/A.gguf", "~/a.gguf"),
        ("C:\\models\\A.gguf", "c:\\models\\a.gguf"),
    ],
)
def test_names_of_different_models_stay_apart(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("llama3", "llama3:latest"),
        ("MyLlama:Latest", "MyLlama:Latest"),
        ("library/llama3:8B", "llama3:8B"),
        ("user/model", "user/model:latest"),
        ("registry.ollama.ai/user/model", "user/model:latest"),
        ("registry.example.com:5000/team/llama", "registry.example.com:5000/team/llama:latest"),
        ("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"),
        ("hf.co/a/B-GGUF:b-Q4.gguf", "hf.co/a/B-GGUF:b-Q4.gguf"),
        ("/models/x.gguf", "/models/x.gguf"),
        ("models/x.GGUF", "models/x.GGUF"),
    ],
)
def test_a_full_name_is_the_shortest_one_with_its_tag_in_its_own_letters(name: str, full: str) -> None:
    assert full_name(name) == full


KNOWN = ["llama3.2:3b", "llama3.2:1b", "qwen2.5:7b", "Mistral:latest", "hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("llama3.2", ["llama3.2:1b", "llama3.2:3b"]),
        ("llama3.2:8b", ["llama3.2:1b", "llama3.2:3b"]),
        ("lama3.2:3b", ["llama3.2:3b"]),
        ("qwen2.5-7b", ["qwen2.5:7b"]),
        ("mistrall", ["Mistral:latest"]),
        ("user/mistral", ["Mistral:latest"]),
        ("Llama-3.2-1B-GGUF", ["hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M"]),
        ("hf.co/bartowski/Llama-3.2-1B-GGUF", ["hf.co/bartowski/Llama-3.2-1B-GGUF:Q4_K_M"]),
        ("phi4", []),
    ],
)
def test_near_names_are_found(name: str, near: list[str]) -> None:
    assert near_models(name, KNOWN)[: max(len(near), 1)] == near


def test_what_was_meant_is_one_question() -> None:
    assert did_you_mean_model("mistrall", KNOWN) == "did you mean 'Mistral:latest'?"
    assert did_you_mean_model("qwen2.5", KNOWN) == "did you mean 'qwen2.5:7b'?"
    assert did_you_mean_model("llama3.2", ["llama3.2:1b", "llama3.2:3b"]) == (
        "did you mean 'llama3.2:1b' or 'llama3.2:3b'?"
    )
    assert did_you_mean_model("phi4", KNOWN) == did_you_mean_model("phi4", []) == ""


@pytest.mark.parametrize("name", ["", "a//b", "a/b/c/d", "/a", "a/", ":x", "a b", "ä"])
def test_what_cannot_be_a_name_of_a_stored_model(name: str) -> None:
    assert parse_name(name) is None
