"""Texts of others that a careless regular expression would look at for hours: each reader is through at once."""

from collections.abc import Callable

import pytest

from synaptic.backends.distributed.coordinator.buffer_report import parse_buffer_sizes
from synaptic.backends.http.answer import page_title
from synaptic.backends.ollama.asked_context import own_context
from synaptic.backends.unwrapping.thinking_end import closers, last_line
from synaptic.server.ollama_api.format_schema import begins_json
from synaptic.settings.check import shown

MANY = 300_000

READERS: dict[str, tuple[Callable[[], object], object]] = {
    "a node's parameters": (lambda: own_context({"parameters": "\n" * MANY + "num_ctx 4096\r\nstop x"}), 4096),
    "a value of a folder's settings": (lambda: "-" * 20 in shown("-" * MANY), True),
    "an address with a password": (lambda: shown("at http://ada:secret@host/"), '"at ***@host/"'),
    "a line of a coordinator": (lambda: parse_buffer_sizes(["x" * MANY]), {}),
    "a size that a coordinator says": (
        lambda: parse_buffer_sizes(["load: CPU_Mapped model buffer size = 2.00 MiB"]),
        {"CPU_Mapped": 2 << 20},
    ),
    "a page of tags that open": (lambda: page_title(b"<html>" + b"<" * MANY)[:1], "<"),
    "quotation marks before the end of thinking": (
        lambda: closers(("</think>",)).find("`" * MANY + "x</think>", last_line("", ""), at_end=True) is not None,
        True,
    ),
    "a number with many digits": (lambda: begins_json("[" + "1" * MANY, whole=False), True),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_long_text_takes_no_longer_than_it_is_long(reader: str):
    read, expected = READERS[reader]
    assert read() == expected
