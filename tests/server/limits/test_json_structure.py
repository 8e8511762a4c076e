"""How wide and how deep JSON may be, told from its bytes."""

import json

import pytest

from synaptic.server.limits.json_structure import MOST_DEPTH, MOST_ITEMS, count_items


def deep(levels):
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        deep(MOST_DEPTH),
        b"[%s]" % b",".join([deep(MOST_DEPTH - 1)] * 20),
        json.dumps({"text": "," * MOST_ITEMS * 2}).encode(),
        json.dumps({"text": '\\"[{' * MOST_ITEMS}).encode(),
        json.dumps([{"role": "user", "content": '{"a": [1, "\\\\"]}'}] * 1000).encode(),
        json.dumps(list(range(MOST_ITEMS // 2))).encode(),
    ],
)
def test_texts_may_hold_anything_and_lists_may_be_long(raw):
    assert count_items(raw) <= MOST_ITEMS


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (deep(MOST_DEPTH + 1), "deeper than 128"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "deeper than 128"),
        (b'["\\\\",' + deep(MOST_DEPTH) + b"]", "deeper than 128"),
        (b'["\\"[",' + deep(MOST_DEPTH) + b"]", "deeper than 128"),
        (b"[" * 100_000, "deeper than 128"),
        (b"[" + b"[]," * MOST_ITEMS + b"1]", "more than 500000 items"),
        (b"[" + b'"",' * MOST_ITEMS * 2 + b"1]", "more than 500000 items"),
        (b'["' + b'\\\\",",' * MOST_ITEMS + b'"]', "more than 500000 items"),
        (b"," * (MOST_ITEMS + 1) + b'"' * MOST_ITEMS * 5, "more than 500000 items"),
    ],
)
def test_what_is_too_deep_or_too_wide_is_not_built(raw, said):
    with pytest.raises(ValueError, match=said):
        count_items(raw)
