"""What ``llama-server`` says of its buffers while it loads, and whether that is what the placement asked for. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.placement import buffer_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.backends.distributed.placement import Placement

_MIB: Final = 1024 * 1024
_LINE: Final = re.compile(r"(?<!\S)(\S+) +(model|KV|compute|output|RS) buffer size *= *(\d+(?:\.\d+)?) MiB")
_TOLERATED_SHARE: Final = 0.02
_TOLERATED: Final = 2 * _MIB
"""Tensors are aligned, and sizes are said with two digits."""


def parse_buffer_sizes(lines: Iterable[str], kind: str = "model") -> dict[str, int]:
    """Return the bytes of the buffers that are reported, by the names that llama.cpp has for the memory of devices.

    Args:
        lines: What it wrote, at verbosity 4 or more.
        kind: ``model``, ``KV``, ``compute``, ``output`` or ``RS`` (recurrent states).
    """
    sizes: Counter[str] = Counter()
    for line in lines:
        found = _LINE.search(line)
        if found is not None and found[2] == kind:
            sizes[found[1]] += round(float(found[3]) * _MIB)
    return dict(sizes)


def check_buffers(placement: Placement, lines: Iterable[str]) -> str:
    """Return what is wrong with where the weights are; "" if they are as planned, or nothing was said of them.

    ``lines`` is what ``llama-server`` wrote until it had loaded.
    """
    held = parse_buffer_sizes(lines)
    if not held:
        return ""
    planned: Counter[str] = Counter()
    for share in placement.shares:
        planned[buffer_name(share)] += share.weight_bytes
    wrong = []
    for name, size in planned.items():
        has = held.get(name, 0)
        if abs(has - size) > max(_TOLERATED, _TOLERATED_SHARE * size):
            wrong.append(f"{name} holds {has / _MIB:.1f} MiB of weights instead of {size / _MIB:.1f}")
    wrong += [
        f"{name} holds {held[name] / _MIB:.1f} MiB of weights instead of none" for name in _strangers(held, planned)
    ]
    return f"the layers are not where they were planned: {'; '.join(wrong)}" if wrong else ""


def _strangers(held: dict[str, int], planned: Counter[str]) -> list[str]:
    """Return who holds weights without being planned to; the coordinator itself (CPU) may hold embeddings."""
    return [name for name in held if name not in planned and "RPC" in name]
