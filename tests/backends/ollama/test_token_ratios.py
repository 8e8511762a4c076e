"""Tokens a character of a prompt, as servers have counted them."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from faulty_node import FaultyNode
from pool_support import MODEL, ask, pool_over, question

from synaptic.backends.ollama.backend import OllamaBackend
from synaptic.backends.ollama.token_ratios import KEPT, LEAST_CHARACTERS, TokenRatios

LONG = "word " * 200


def test_the_most_of_the_latest_calls_counts():
    ratios = TokenRatios()
    assert ratios.of("m") is None
    for tokens in (300, 200, 0):
        ratios.learn("m", question(LONG), tokens)
    assert (ratios.of("m"), ratios.of("n")) == (pytest.approx(0.3), None)
    for _ in range(KEPT):
        ratios.learn("m", question(LONG), 200)
    assert ratios.of("m") == pytest.approx(0.2)


def test_a_short_prompt_teaches_nothing():
    ratios = TokenRatios()
    ratios.learn("m", question("x" * (LEAST_CHARACTERS - 1)), 400)
    assert ratios.of("m") is None


@asynccontextmanager
async def asking(how, node):
    if how == "pool":
        async with pool_over([node]) as trial:
            yield trial.pool
    else:
        async with OllamaBackend(node.url) as backend:
            yield backend


@pytest.mark.parametrize("how", ["pool", "one server"])
async def test_it_is_learned_from_calls(how):
    async with FaultyNode() as node, asking(how, node) as backend:
        told = backend.capabilities.tokens_a_character
        assert told(question()) is None
        await ask(backend, question(LONG))
        assert told(question()) == pytest.approx(0.2, abs=0.01)
        assert told(question(model=f"library/{MODEL}")) == told(question())
        assert told(question(model="other")) is told(question(model=None)) is None
