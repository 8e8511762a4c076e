"""How deep and how wide JSON is, told from its bytes before anything is built from it.

``[[],[],…`` takes three bytes an item on its way here and sixty in memory, so the size of a body bounds nothing.
"""

from __future__ import annotations

from itertools import accumulate

MOST_ITEMS = 500_000
"""Values and containers; the tokens of a context of a quarter of a million are as many items."""

MOST_DEPTH = 128
"""Containers in each other; as deep as Rust's serde_json goes."""

ITEM = 128
"""Bytes of memory that an item takes, about."""

_STRUCTURE = b"[]{},:"
_REST = bytes(sorted(set(range(256)) - set(_STRUCTURE)))
_STEPS = [{"[": 1, "{": 1, "]": -1, "}": -1}.get(chr(code), 0) for code in range(256)]


def count_items(raw: bytes | bytearray) -> int:
    """Return about how many values and containers JSON in UTF-8 has.

    Every step is one pass of a C function over the bytes; the careful ones are only taken where the cheap one does not
    rule out that it is too much.

    Raises:
        ValueError: If it is wider or deeper than is allowed; its text says which.
    """
    items = sum(map(raw.count, (b"[", b"{", b",", b":")))  # those in texts as well
    if items <= MOST_ITEMS and raw.count(b"[") + raw.count(b"{") <= MOST_DEPTH:
        return items
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * MOST_ITEMS:  # a key and a value, two quotes each
        raise ValueError(_TOO_WIDE)
    structure = b"".join(bare.split(b'"')[::2]).translate(None, _REST)
    items = sum(map(structure.count, (b"[", b"{", b",", b":")))
    if items > MOST_ITEMS:
        raise ValueError(_TOO_WIDE)
    if max(accumulate(map(_STEPS.__getitem__, structure)), default=0) > MOST_DEPTH:
        raise ValueError(f"the JSON is nested deeper than {MOST_DEPTH} levels")
    return items


_TOO_WIDE = f"the JSON has more than {MOST_ITEMS} items"
