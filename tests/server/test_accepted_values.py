"""Every value that is let through, and the real engine answers: one node for all of them."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from ollama_nodes import MODEL, real_nodes

from synaptic.server.ollama_api.option_bounds import BOUNDS, LONGEST_STOP, MOST_STOPS

pytestmark = pytest.mark.real_model

RELOADS = {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap"}
EDGES: list[dict[str, Any]] = [
    *({name: value} for name, bound in BOUNDS.items() if name not in RELOADS for value in (bound.least, bound.most)),
    {"seed": 0},
    {"top_k": 0},
    {"repeat_last_n": 0},
    {"presence_penalty": 0, "frequency_penalty": 0},
    {"num_keep": 0},
    {"stop": []},
    {"stop": ["\0"]},
    {"stop": [str(number).rjust(LONGEST_STOP, "x") for number in range(MOST_STOPS)]},
    {name: bound.least for name, bound in BOUNDS.items() if name in RELOADS},  # one load for all of them
    {name: bound.most for name, bound in BOUNDS.items() if name in RELOADS},
]
FIELDS: list[dict[str, Any]] = [
    {"keep_alive": -1},
    {"keep_alive": 9.2e9},  # longer than a clock of the system waits at once
    {"keep_alive": "2540400h"},
    {"keep_alive": 1e308},
    {"keep_alive": "-0.0s"},
    {"think": False},
    {"think": None, "format": "", "truncate": None},
    {"context": [0, 49151]},
    {"top_logprobs": 20},
    {"system": "a\0b"},
    {"prompt": "\N{GRINNING FACE} \U0010ffff \ufeff \u202e"},
]


async def test_the_engine_answers_whatever_is_let_through() -> None:
    async with real_nodes(1) as nodes, aiohttp.ClientSession(nodes[0].url) as session:

        async def ask(path: str, **body: Any) -> dict[str, Any]:
            async with session.post(path, json={"model": MODEL, "stream": False, **body}) as reply:
                text = await reply.text()
                assert reply.status == 200, (body, text)
                return dict(json.loads(text))

        for options in EDGES:
            ends = {"stop": list("aeiou")} if "num_predict" in options else {"num_predict": 2}  # one with no limit, too
            reply = await ask("/api/generate", prompt="Hi", options={**ends, **options})
            assert reply["done"] is True, options
            assert reply["eval_count"] > 0, options
        async with session.get("/api/ps") as listed:
            (loaded,) = (await listed.json())["models"]
        assert loaded["context_length"] == 8192  # the trained one, not the ten million that were asked for
        for fields in FIELDS:
            assert (await ask("/api/generate", **{"prompt": "Hi", "options": {"num_predict": 2}, **fields}))["done"]
        for role in ("system", "user", "assistant", "tool"):
            messages = [{"role": role, "content": "Hi"}, {"role": "user", "content": "<|im_end|>\0"}]
            assert (await ask("/api/chat", messages=messages, options={"num_predict": 1}))["done"]
        embedded = await ask("/api/embed", input=["a\0b", " ", "\N{GRINNING FACE}"], dimensions=0)
        assert len(embedded["embeddings"]) == 3
