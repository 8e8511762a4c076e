"""How long the embedded engine's context is: the model's own, as far as memory allows."""

from pathlib import Path

import pytest

from synaptic.backends.embedded.backend import EmbeddedBackend
from synaptic.backends.embedded.context_size import OwnContext, choose_context, own_context
from synaptic.messages import BackendNotice, BackendReport, ChatRequest
from synaptic.models import ModelStore, read_shape
from synaptic.settings import Settings

GIB = 1 << 30


@pytest.mark.parametrize(
    ("wanted", "own", "slots", "available", "tokens"),
    [
        (None, OwnContext(8192), 4, 8 * GIB, 8192),
        (None, OwnContext(None), 4, 8 * GIB, 4096),
        (None, OwnContext(32_768, 16_384), 4, 64 * GIB, 32_768),
        (None, OwnContext(131_072, 65_536), 4, 16 * GIB, 16_384),  # a quarter of the memory, for four calls
        (None, OwnContext(131_072, 65_536), 4, GIB, 4096),  # not less than this
        (None, OwnContext(2048, 65_536), 4, GIB, 2048),
        (1024, OwnContext(8192), 4, 8 * GIB, 1024),
        (16_384, OwnContext(8192), 4, 8 * GIB, 8192),  # never more than the model's own
        (16_384, OwnContext(None), 4, 8 * GIB, 16_384),
        (131_072, OwnContext(131_072, 65_536), 4, 64 * GIB, 131_072),
        (131_072, OwnContext(131_072, 65_536), 4, 16 * GIB, 49_152),  # three quarters of the memory, at the most
        (10_485_760, OwnContext(None, 65_536), 1, GIB, 12_288),
        (8192, OwnContext(8192, 65_536), 64, 1, 256),
    ],
)
def test_which_context_is_chosen(wanted: int | None, own: OwnContext, slots: int, available: int, tokens: int):
    assert choose_context(wanted, own, slots, available) == tokens


def test_a_file_that_cannot_be_read_says_nothing_of_its_context(tmp_path: Path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF\x03")

    assert own_context(file) == OwnContext(None)


async def test_more_than_the_models_own_context_is_not_given_and_that_is_said():
    reports: list[BackendReport] = []
    backend = EmbeddedBackend(Settings(embedded_context=9000), reports.append)

    assert [await backend.context_length(ChatRequest(messages=())) for _ in range(2)] == [8192, 8192]
    assert [report.message for report in reports if isinstance(report, BackendNotice)] == [
        "embedded_context is 9000, and the model's own context is 8192: that is used"
    ]


@pytest.mark.real_model
async def test_what_is_said_of_our_model_is_what_its_file_says():
    path = await ModelStore().ensure(lambda _: None)

    assert read_shape("ours", (path,)).trained_context == 8192
