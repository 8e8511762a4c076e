"""A model under any of its names is the same model on all nodes, and a node is asked for it by its own spelling."""

from __future__ import annotations

import pytest
from faulty_node import FaultyNode
from pool_support import ask, ask_many, pool_over, question

from synaptic.backends.router import open_backend
from synaptic.errors import ModelNotFound
from synaptic.messages import ignore_report
from synaptic.settings import NodeSettings, Settings


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        ("MyLlama:Latest", "myllama"),
        ("MyLlama:Latest", "library/MYLLAMA"),
        ("llama3.2:latest", "registry.ollama.ai/library/llama3.2"),
        ("registry.ollama.ai/library/llama3.2:latest", "llama3.2"),
        ("user/model:latest", "User/Model"),
        ("registry.example.com:5000/team/llama:8b", "registry.example.com:5000/team/Llama:8B"),
        ("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "hf.co/bartowski/llama-3.2-1b-instruct-gguf:q4_k_m"),
    ],
)
async def test_a_model_is_found_under_any_of_its_names(listed: str, asked: str) -> None:
    async with FaultyNode(models=[listed]) as node, pool_over([node]) as trial:
        answer = await ask(trial.pool, question(model=asked))
        assert (answer.error, answer.ends) == (None, 1)
        assert await trial.pool.context_length(question(model=asked)) == 4096
        assert trial.pool.refusals(asked) == []
        assert node.asked[-1].outcome == "ok", "a node of an older release knows its own spelling alone"


async def test_nodes_that_spell_a_model_differently_share_its_calls() -> None:
    async with (
        FaultyNode(models=["MyLlama"], seconds_per_call=0.05) as one,
        FaultyNode(models=["library/myllama"], seconds_per_call=0.05) as other,
        pool_over([one, other]) as trial,
    ):
        answers = await ask_many(trial.pool, 6, model="MYLLAMA:latest")
        assert [answer.error for answer in answers] == [None] * 6
        assert {answer.node for answer in answers if answer.node} and all((one.asked, other.asked))
        assert [info.name for info in await trial.pool.models()] == ["MyLlama:latest"]
        assert {decision.model for decision in trial.pool.decisions()} == {"MYLLAMA:latest"}


async def test_a_name_that_no_node_has_brings_the_near_ones_that_they_have() -> None:
    async with FaultyNode(models=["llama3.2:3b"]) as one, FaultyNode(models=["Qwen2.5:7b"]) as other:
        async with pool_over([one, other]) as trial:
            answer = await ask(trial.pool, question(model="qwen2.5-7b"))
        nodes = [NodeSettings(url=node.url) for node in (one, other)]
        with pytest.raises(ModelNotFound) as routed:
            await open_backend(Settings(model="llama3.2", nodes=nodes), ignore_report)
    assert isinstance(answer.error, ModelNotFound)
    assert answer.error.hint == ("did you mean 'Qwen2.5:7b'? If not, run on one of them: ollama pull qwen2.5-7b:latest")
    assert routed.value.hint == "did you mean 'llama3.2:3b'? If not, run on one of them: ollama pull llama3.2"
