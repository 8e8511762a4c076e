"""Long texts in parts: where they are cut, and that nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synaptic.pipeline.templates.chunks import chunks, split_text
from synaptic.pipeline.templates.expressions import Expression


def cut(text: str, characters: int) -> list[str]:
    return list(split_text(text, characters))


def test_a_text_is_cut_between_paragraphs_before_sentences_before_words():
    assert cut("One two.\n\nThree four. Five.", 20) == ["One two.", "Three four. Five."]
    assert cut("One two three. Four five.\nSix.", 20) == ["One two three.", "Four five.\nSix."]
    assert cut("one two three four", 10) == ["one two", "three four"]
    assert cut("第一句。第二句。第三句。", 9) == ["第一句。第二句。", "第三句。"]


def test_a_word_that_is_too_long_is_cut_inside():
    assert cut("abcdefgh", 3) == ["abc", "def", "gh"]


def test_an_early_paragraph_does_not_make_a_tiny_part():
    assert cut("Title\n\nOne sentence here. Another one.", 30) == ["Title\n\nOne sentence here.", "Another one."]


def test_parts_know_their_source_and_their_number():
    assert chunks("a. b.", 2) == [
        {"name": "text", "part": 1, "text": "a."},
        {"name": "text", "part": 2, "text": "b."},
    ]
    files = [{"name": "x.txt", "path": "x.txt", "text": "abc"}, "def", {"text": ""}]
    assert [(part["name"], part["part"], part["text"]) for part in chunks(files, 2)] == [
        ("x.txt", 1, "ab"),
        ("x.txt", 2, "c"),
        ("text 2", 1, "de"),
        ("text 2", 2, "f"),
    ]


def test_the_filter_takes_two_thousand_characters_where_nothing_is_said():
    parts = Expression.compile("v | chunks").evaluate({"v": "word " * 1000}, where="x")

    assert [len(part["text"]) for part in parts] == [1999, 1999, 999]


@pytest.mark.parametrize("value", [3, None, {"name": "no text"}, [["nested"]]])
def test_what_is_no_text_is_refused(value: object):
    with pytest.raises(TypeError, match="'chunks' needs text"):
        chunks(value)


@pytest.mark.parametrize("characters", [0, -1, 1.5, True, "9"])
def test_a_part_has_a_positive_number_of_characters(characters: object):
    with pytest.raises(ValueError, match="positive whole number"):
        chunks("a", characters)


@given(st.text("ab .!?\n。", max_size=200), st.integers(1, 40))
def test_nothing_is_lost_and_no_part_is_too_long(text: str, characters: int):
    parts = cut(text, characters)

    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= characters and part == part.strip() for part in parts)
