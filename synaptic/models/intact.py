"""Whether a model's file still is what was fetched: its content against the digest that is pinned, or in its name.

Ollama's store and the cache of Hugging Face call a file by the SHA-256 of its content. A file that a person names and
that is called otherwise has no digest to be compared with: what is in it counts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synaptic.processes import Digests

REGISTER: Final = "digests.json"
"""The file, in the cache of models, in which their digests are kept."""
SHORT: Final = 12
_NAMED: Final = re.compile(r"(?:sha256[-:])?([0-9a-f]{64})")


def digest_in_name(file: Path) -> str | None:
    """Return the SHA-256 that a file, or what a link leads to, is called by; ``None`` if it is called otherwise."""
    match = _NAMED.fullmatch(Path(os.path.realpath(file)).name)
    return match and match[1]


def damage(file: Path, expected: str, digests: Digests, *, size: int | None = None) -> str | None:
    """Return what is wrong with a file's content, ``None`` if nothing is. Blocking.

    Args:
        file: Which. It is read only if it has changed since it was last read.
        expected: Its SHA-256, in hex.
        digests: What is known of files.
        size: Its bytes, where that is known.
    """
    try:
        actual = file.stat().st_size
        if size is not None and actual != size:
            return f"it has {actual} bytes instead of {size}"
        found = digests.of(file)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return None if found == expected else said(found, expected)


def said(found: str, expected: str) -> str:
    """Return what is wrong with a file of that SHA-256."""
    return f"its SHA-256 begins with {found[:SHORT]} instead of {expected[:SHORT]}"
