"""The context length that a server is asked for, so that it keeps a model loaded as it is."""

from __future__ import annotations

import pytest

from synaptic.backends.ollama.asked_context import ContextReason, context_to_ask, loaded_contexts, own_context

WANTED, LOADED, OWN, TRAINED, SERVER = ContextReason


@pytest.mark.parametrize(
    ("wanted", "loaded", "own", "trained", "asked"),
    [
        (4096, None, None, None, (4096, WANTED)),
        (4096, 8192, None, None, (8192, LOADED)),
        (4096, 4096, None, None, (4096, LOADED)),
        (8192, 4096, None, None, (8192, WANTED)),
        (4096, None, 16384, None, (16384, OWN)),
        (4096, 4096, 16384, None, (16384, OWN)),
        (4096, 32768, 16384, None, (32768, LOADED)),
        (4096, None, None, 2048, (2048, TRAINED)),
        (4096, 2048, None, 2048, (2048, LOADED)),
        (4096, 3000, None, 2048, (3000, LOADED)),
        (4096, None, 16384, 8192, (8192, TRAINED)),
        (None, 8192, None, None, (8192, LOADED)),
        (None, None, 2048, None, (2048, OWN)),
        (None, None, None, 8192, (None, SERVER)),
    ],
)
def test_never_less_than_is_loaded_or_the_modelfile_says(wanted, loaded, own, trained, asked):
    assert context_to_ask(wanted, loaded=loaded, own=own, trained=trained) == asked


@pytest.mark.parametrize(
    ("parameters", "own"),
    [
        ("num_ctx                        16384", 16384),
        ('stop                           "num_ctx 5"\nnum_ctx 8192\ntemperature 1', 8192),
        ("num_ctx 4096\nnum_ctx 8192", 8192),
        ('stop "<|end|>"', None),
        ("num_ctx 0", None),
        ("num_ctx many", None),
        (["num_ctx 1"], None),
        (None, None),
    ],
)
def test_the_parameter_of_the_modelfile(parameters, own):
    assert own_context({"parameters": parameters}) == own


def test_what_is_loaded_with_which_context():
    ps = {"models": [{"name": "Library/M", "context_length": 8192}, {"name": "old:1b"}, "junk"]}
    assert loaded_contexts(ps) == {"m:latest": 8192, "old:1b": None}
    assert loaded_contexts({}) == {}
