"""What a line that a person types at a question stands for."""

import pytest

from synaptic.agents import Shape
from synaptic.ui.screen.asking import read


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        ("string", "2024", "2024"),
        ("integer", "3", 3),
        ("integer", "three", "three"),
        ("boolean", "Yes", True),
        ("list[string]", "2024", ["2024"]),
        ("list[string]", "true, null", ["true", "null"]),
        ("list[integer]", "4", [4]),
        ("list[integer]", "4, 5", [4, 5]),
        ("list[integer]", "[4, 5]", [4, 5]),
        ("list[string]", "[not json", "[not json"),
    ],
)
def test_a_typed_line_is_read_by_its_type(kind: str, typed: str, value: object):
    assert read(typed, Shape.parse({"field": kind}).root.fields[0].type) == value
