"""A text that grows by pieces."""

from hypothesis import given
from hypothesis import strategies as st

from synaptic.text import GrowingText


@given(st.text(), st.lists(st.tuples(st.text(), st.booleans())))
def test_a_text_is_its_pieces_however_often_it_is_asked_for(first, pieces):
    growing, whole = GrowingText(first), first
    for piece, is_asked in pieces:
        growing.add(piece)
        whole += piece
        assert len(growing) == len(whole)
        if is_asked:
            assert str(growing) == whole
    assert str(growing) == whole


def test_a_text_that_has_not_grown_is_not_joined_again():
    growing = GrowingText("one ")
    growing.add("two")
    joined = str(growing)
    assert str(growing) is joined
