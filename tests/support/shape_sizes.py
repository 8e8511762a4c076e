"""How long outputs of a shape can become: what an agent's ``max_tokens`` has to have room for."""

from __future__ import annotations

from synaptic.agents.notation import (
    BooleanType,
    EnumType,
    FieldType,
    IntegerType,
    ListType,
    NumberType,
    StringType,
)
from synaptic.agents.shape import _compact as compact
from synaptic.agents.shape import _grid as grid

_INTEGER_CHARACTERS = 17
"""A sign and 16 digits: what llama.cpp's grammar lets through where there are no bounds."""
_NUMBER_CHARACTERS = 52
"""The same for a number: two integers, a point, 16 decimals and ``e``."""


def longest_decoded(kind: FieldType) -> int:
    """Return the characters of the longest compact JSON that decoding lets through.

    An escape counts as the one character that it stands for, and space between tokens is not counted.
    """
    match kind:
        case StringType():
            return kind.maximum + 2
        case IntegerType():
            bounded = kind.minimum is not None and kind.maximum is not None
            return max(len(str(kind.minimum)), len(str(kind.maximum))) if bounded else _INTEGER_CHARACTERS
        case NumberType():
            bounded = kind.minimum is not None and kind.maximum is not None
            return max(len(compact(value)) for value in grid(kind)) if bounded else _NUMBER_CHARACTERS
        case BooleanType():
            return len("false")
        case EnumType():
            return max(len(compact(value)) for value in kind.values)
        case ListType():
            return kind.maximum * (longest_decoded(kind.item) + 1) + 1
    return sum(len(field.name) + 4 + longest_decoded(field.type) for field in kind.fields) + 1
