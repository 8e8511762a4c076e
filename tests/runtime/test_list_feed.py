"""Items of a list that is still being written."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.agents.shape import Shape
from synaptic.runtime.list_feed import ListFeed

SHAPE = Shape.parse({"title": "string", "items": "list[string(1..20)](1..5)", "scores": "list[integer]"})
NESTED = Shape.parse({"people": "list[{name: string, items: list[string]}]", "items": "list[string]"})


def feed(*pieces: str, field: str = "items", shape: Shape = SHAPE) -> ListFeed:
    made = ListFeed(shape, field)
    for piece in pieces:
        made.write(piece)
    return made


def test_an_item_is_there_as_soon_as_it_is_complete():
    made = feed('{"title": "x", "items": ["on', 'e", "t')
    assert made.items == ["one"]
    made.write('wo"')
    assert made.items == ["one", "two"]


def test_a_field_of_that_name_further_inside_is_another_one():
    made = feed('{"people": [{"name": "a", "items": ["inner"]}], "items": ["outer"', shape=NESTED)
    assert made.items == ["outer"]
    people = feed('{"people": [{"name": "a", "items": ["x"]}, {"na', field="people", shape=NESTED)
    assert people.items == [{"name": "a", "items": ["x"]}]


def test_numbers_wait_for_their_last_digit():
    made = feed('{"scores": [1', field="scores")
    assert made.items == []
    made.write("2, 3")
    assert made.items == [12]


@pytest.mark.parametrize(
    "text", ['{"items": ["ok", }', '{"items": ["ok", 7, "after"]}', '{"items": ["ok", ""]', "hello"]
)
def test_what_is_wrong_ends_the_reading_and_is_left_to_the_check_of_the_whole(text: str):
    assert feed(text).items in (["ok"], [])


def test_a_reset_forgets_the_items_and_counts():
    made = feed('{"items": ["one"')
    made.reset()
    assert (made.items, made.generation) == ([], 1)
    made.write('{"items": ["new"')
    assert made.items == ["new"]
    untouched = feed('{"items": [')
    untouched.reset()
    assert untouched.generation == 0


async def test_everybody_who_waits_learns_of_a_change():
    made = feed('{"items": [')
    waiting = [asyncio.create_task(made.changed()) for _ in range(2)]
    await asyncio.sleep(0)
    made.write('"one"')
    await asyncio.wait_for(asyncio.gather(*waiting), 20)
    final = asyncio.create_task(made.changed())
    await asyncio.sleep(0)
    made.finish(["one"])
    await asyncio.wait_for(final, 20)
    assert made.final == ["one"]


def test_only_lists_are_fed():
    with pytest.raises(TypeError, match="title"):
        ListFeed(SHAPE, "title")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_any_cutting_gives_the_same_items(items, data):
    import json

    text = json.dumps({"title": "t", "items": items}, ensure_ascii=data.draw(st.booleans()))
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        return
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert feed(*pieces).items == items
