"""The tokens of a broken template: quotes that are never closed are found once, however many there are."""

import pytest

from synaptic.pipeline.templates.source_tokens import tokens_of


def kinds(source: str) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in tokens_of(source)]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (r"'it\'s'", [("text", r"'it\'s'")]),
        (r"'it\'s", [("quote", "'"), ("name", "it"), ("sign", "\\"), ("quote", "'"), ("name", "s")]),
        ("'a\n'b'", [("quote", "'"), ("name", "a"), ("text", "'b'")]),
        ("'a }} 'b'", [("quote", "'"), ("name", "a"), ("sign", "}"), ("sign", "}"), ("text", "'b'")]),
        ('\'a" "b"', [("quote", "'"), ("name", "a"), ("text", '" "'), ("name", "b"), ("quote", '"')]),
        ("'a\\", [("quote", "'"), ("name", "a"), ("sign", "\\")]),
    ],
)
def test_a_text_ends_at_its_quote_or_is_none(source: str, found: list[tuple[str, str]]):
    assert kinds(source) == found


@pytest.mark.parametrize(
    "source",
    ["'" + r"\'" * 200_000, "'" + r"\'" * 200_000 + "\n'", "'" + "\\'\n" * 100_000 + "'", "'\"" * 150_000],
    ids=["escaped quotes", "a line's end at last", "many lines", "two kinds"],
)
def test_many_quotes_take_no_longer_than_other_signs(source: str):
    """Each looked for its end to the end of the text: this took minutes."""
    assert len(kinds(source)) > 90_000
