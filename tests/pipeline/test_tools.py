"""Tools: what a function takes and gives, what is found before it runs, and where tools come from."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import gc
import re
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from weakref import ref

import pytest
from pydantic import BaseModel, Field, RootModel, computed_field, field_serializer

from synaptic.errors import ToolError, UsageError
from synaptic.pipeline.templates.static_types import (
    BOOLEAN,
    NUMBER,
    TEXT,
    UNKNOWN,
    ListOf,
    Number,
    Record,
    StaticType,
    Text,
)
from synaptic.pipeline.templates.values import SKIPPED
from synaptic.pipeline.tools import LATER, TEXT_LATER, Tool, tool, tool_name


class Place(BaseModel):
    city: str
    weight: int = 1


@dataclass
class Point:
    x: float
    y: float = 0.0


class Entry(TypedDict):
    title: str
    note: NotRequired[str]


class Colour(Enum):
    RED = "red"


def search(
    query: str,
    *,
    count: int = 3,
    ratio: float = 0.5,
    exact: bool = False,
    tags: list[str] | None = None,
    mixed: int | str = 0,
    place: Place | None = None,
    point: Point | None = None,
    level: Literal["low", "high"] = "low",
    colour: Colour = Colour.RED,
    day: date | None = None,
    small: Annotated[int, Field(ge=1, le=9)] = 1,
    places: list[Place] | None = None,
    anything=None,
) -> Entry:
    """Search the archive.

    At length.
    """
    del ratio, exact, tags, mixed, point, level, colour, day, small, places, anything
    return {"title": f"{query} {count} {place.city if place else ''}".strip()}


SEARCH = Tool.of(search)


def returning(result: object) -> Tool:
    return Tool.of(lambda: result, name="it")


def test_a_tool_says_what_its_signature_says():
    parameters = SEARCH.parameters

    assert (SEARCH.name, SEARCH.description) == ("search", "Search the archive.")
    assert SEARCH.origin.startswith(__file__)
    assert [name for name, parameter in parameters.items() if parameter.required] == ["query"]
    assert parameters["count"].default == 3
    assert {name: parameter.type for name, parameter in parameters.items()} == {
        "query": "text",
        "count": "a whole number",
        "ratio": "a number",
        "exact": "true or false",
        "tags": "a list of texts or nothing",
        "mixed": "a whole number or text",
        "place": "a mapping with 'city', 'weight' or nothing",
        "point": "a mapping with 'x', 'y' or nothing",
        "level": "one of 'low', 'high'",
        "colour": "'red'",
        "day": "text (date) or nothing",
        "small": "a whole number",
        "places": "a list or nothing",
        "anything": "anything",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": ""},
        {"query": "q", "ratio": 1},
        {"query": "q", "tags": ["a"], "exact": True},
        {"query": "q", "place": {"city": "Oslo"}, "point": {"x": 1}},
        {"query": "q", "level": "high", "colour": "red", "day": "2024-02-29"},
        {"query": "q", "mixed": "a", "places": [{"city": "a", "weight": 2}], "anything": {"a": [None, 1.5]}},
        {"query": LATER, "count": LATER, "place": {"city": LATER}, "tags": [TEXT_LATER]},
        {"query": TEXT_LATER, "mixed": TEXT_LATER, "level": TEXT_LATER, "anything": TEXT_LATER, "day": TEXT_LATER},
    ],
)
def test_json_like_values_are_right(arguments: dict[str, object]):
    assert SEARCH.complaints(arguments) == []


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("count", "3", "must be a whole number, not text ('3')"),
        ("count", 1.5, "must be a whole number, not a number (1.5)"),
        ("count", True, "must be a whole number, not true"),
        ("count", None, "must be a whole number, not nothing"),
        ("ratio", "0.5", "must be a number, not text ('0.5')"),
        ("exact", 1, "must be true or false, not a number (1)"),
        ("exact", "yes", "must be true or false, not text ('yes')"),
        ("tags", "a, b", "must be a list, not text ('a, b')"),
        ("mixed", 1.5, "must be a whole number or text, not a number (1.5)"),
        ("place", "Oslo", "must be a mapping, not text ('Oslo')"),
        ("level", "mid", "must be low or high, not 'mid'"),
        ("small", 10, "must be at most 9, not 10"),
        ("query", "\ud800", "is no plain data"),
        ("anything", object(), "is no plain data: object is not a JSON type"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(argument: str, value: object, message: str):
    ((name, text, _),) = SEARCH.complaints({"query": "q", argument: value})

    assert name == argument
    assert text.startswith(f"the tool 'search': argument {argument!r} {message}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([{"city": "a", "weight": "b"}], "argument 'places[0].weight' must be a whole number, not text ('b')"),
        ([{"city": "a"}, {}], "argument 'places[1]' lacks 'city'"),
        ([3], "argument 'places[0]' must be a mapping, not a number (3)"),
    ],
)
def test_a_mistake_inside_a_value_says_where(value: object, message: str):
    ((_, text, _),) = SEARCH.complaints({"query": "q", "places": value})

    assert text == f"the tool 'search': {message}"


def test_a_list_inside_of_other_types_says_all_that_it_may_hold():
    def mixed(values: list[int | str]) -> None:
        """Take several."""

    ((_, text, _),) = Tool.of(mixed).complaints({"values": ["a", 1, 1.5]})

    assert text == "the tool 'mixed': argument 'values[2]' must be a whole number or text, not a number (1.5)"


def test_a_misspelt_argument_is_one_complaint():
    assert SEARCH.complaints({"quary": "q"}) == [
        ("quary", "the tool 'search' has no argument 'quary'", "did you mean 'query'?")
    ]


def test_what_is_missing_and_what_is_unknown_are_one_mistake():
    (found,) = SEARCH.complaints({"zzz": 1})

    assert found == ("zzz", "the tool 'search' has no argument 'zzz'", "did you mean 'query'?")


def test_text_for_something_else_is_found_before_anything_runs():
    ((name, text, advice),) = SEARCH.complaints({"query": "q", "count": TEXT_LATER})

    assert (name, text) == (
        "count",
        "the tool 'search': argument 'count' must be a whole number, but this template gives text",
    )
    assert advice == 'write one reference alone, as in "{{ steps.a.count }}"'


class Hidden:
    """A type that JSON does not know."""


def test_every_argument_that_cannot_be_given_is_found():
    def wrong(a: int, /, b: Hidden, *c: int, d: Callable[[], int], **e: int) -> None:
        """Take too much."""

    with pytest.raises(UsageError) as caught:
        Tool.of(wrong)

    texts = [str(problem) for problem in caught.value.problems]
    assert len(texts) == 5
    assert all(text.startswith(f"{__file__}:") and "the tool 'wrong': the argument" in text for text in texts)
    assert "'a' is positional-only" in texts[0]
    assert "'b' has the type Hidden, which no value of a pipeline has" in texts[1]


def test_a_name_that_cannot_be_resolved_is_an_error_with_its_place():
    def wrong(a: Missing) -> None:  # noqa: F821
        """Name what is not there."""

    with pytest.raises(UsageError, match=r"test_tools\.py:\d+: .*name 'Missing' is not defined; import what it names"):
        Tool.of(wrong)


@pytest.mark.parametrize("value", [3, Hidden, max])
def test_what_has_no_signature_is_no_tool(value: Any):
    with pytest.raises(UsageError):
        Tool.of(value)


# --- the result's type


class Forecast(BaseModel):
    place: Place
    days: list[int]
    secret: str = Field("s", exclude=True)
    stamp: date = date(2024, 1, 1)

    @computed_field
    @property
    def label(self) -> str:
        return self.place.city

    @field_serializer("stamp")
    def _stamp(self, value: date) -> int:
        return value.year


class Open(BaseModel, extra="allow"):
    a: int


@dataclass
class Tree:
    children: list[Tree]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, TEXT),
        (int, Number(whole=True)),
        (float, NUMBER),
        (bool, BOOLEAN),
        (list, ListOf(UNKNOWN)),
        (list[str], ListOf(TEXT)),
        (tuple[int, ...], ListOf(Number(whole=True))),
        (Sequence[bool], ListOf(BOOLEAN)),
        (tuple[int, str], UNKNOWN),
        (Annotated[str, "x"], TEXT),
        (Literal["a", "b"], Text(("a", "b"))),
        (Literal["a", 1], UNKNOWN),
        (dict[str, int], UNKNOWN),
        (str | None, UNKNOWN),
        (Any, UNKNOWN),
        (None, UNKNOWN),
        (Open, UNKNOWN),
        (RootModel[int], UNKNOWN),
    ],
)
def test_a_simple_result_is_known_before_it_comes(annotation: Any, expected: StaticType):
    def give():
        """Give it."""

    give.__annotations__["return"] = annotation

    assert Tool.of(give).returns == expected


@pytest.mark.parametrize(
    ("annotation", "fields"),
    [
        (Entry, {"title": TEXT, "note": UNKNOWN}),
        (Point, {"x": NUMBER, "y": NUMBER}),
        (Place, {"city": TEXT, "weight": Number(whole=True)}),
    ],
)
def test_a_records_fields_are_known(annotation: Any, fields: dict[str, StaticType]):
    def give():
        """Give it."""

    give.__annotations__["return"] = annotation

    assert Tool.of(give).returns == Record(fields, "the output of the tool 'give' has no {name}")


async def test_what_is_known_of_a_model_is_what_is_dumped_of_it():
    def forecast() -> Forecast:
        return Forecast(place=Place(city="Oslo"), days=[1])

    made = Tool.of(forecast)

    assert isinstance(made.returns, Record)
    assert made.returns.fields.keys() == {"place", "days", "stamp", "label"}
    assert made.returns.fields["stamp"] == UNKNOWN
    assert await made.call({}) == {
        "place": {"city": "Oslo", "weight": 1},
        "days": [1],
        "stamp": 2024,
        "label": "Oslo",
    }


def test_a_type_that_holds_itself_comes_to_an_end():
    def tree() -> Tree:
        return Tree([])

    assert isinstance(Tool.of(tree).returns, Record)


# --- calls


async def test_arguments_come_as_the_types_that_are_annotated():
    seen = []

    def take(*, place: Place, point: Point, colour: Colour, day: date, pair: tuple[int, int], ratio: float) -> None:
        seen.extend([place, point, colour, day, pair, type(ratio)])

    await Tool.of(take).call(
        {"place": {"city": "a"}, "point": {"x": 1}, "colour": "red", "day": "2024-02-29", "pair": [1, 2], "ratio": 1}
    )

    assert seen == [Place(city="a"), Point(1.0), Colour.RED, date(2024, 2, 29), (1, 2), float]


async def test_a_plain_function_runs_beside_the_event_loop_with_its_context():
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("kept")

    def where() -> list[Any]:
        return [variable.get(), threading.current_thread() is threading.main_thread()]

    assert await Tool.of(where).call({}) == ["kept", False]


async def test_an_async_function_is_awaited_where_it_is():
    async def where(word: str) -> list[Any]:
        await asyncio.sleep(0)
        return [word, threading.current_thread() is threading.main_thread()]

    assert await Tool.of(where).call({"word": "w"}) == ["w", True]
    assert await Tool.of(lambda: where("x"), name="wrapped").call({}) == ["x", True]


async def test_defaults_are_the_functions_own():
    assert await SEARCH.call({"query": "q"}) == {"title": "q 3"}


async def test_of_a_skipped_step_there_is_nothing():
    def say(word: str | None, others: list[str | None]) -> str:
        return f"{word} {others}"

    assert await Tool.of(say).call({"word": SKIPPED, "others": ["a", SKIPPED]}) == "None ['a', None]"
    with pytest.raises(ToolError, match="argument 'query' must be text, not the output of a step that was skipped"):
        await SEARCH.call({"query": SKIPPED})


@pytest.mark.parametrize("arguments", [{}, {"query": 3}, {"query": "q", "x": 1}])
async def test_wrong_arguments_at_run_time_are_an_error_of_the_tool(arguments: dict[str, object]):
    with pytest.raises(ToolError, match="the tool 'search'"):
        await SEARCH.call(arguments)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("too small"), "raised ValueError: too small"),
        (KeyError("x"), "raised KeyError: 'x'"),
        (StopIteration(), "raised StopIteration"),
        (SystemExit(3), "raised SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_whatever_it_raises_is_an_error_of_the_tool(error: BaseException, text: str, *, is_async: bool):
    def plain_one() -> None:
        raise error

    async def async_one() -> None:
        raise error

    if is_async and isinstance(error, StopIteration):
        text = "raised RuntimeError: coroutine raised StopIteration"
    made = Tool.of(async_one if is_async else plain_one, name="it")

    with pytest.raises(ToolError) as caught:
        await made.call({})

    assert caught.value.message == f"the tool 'it' {text}"
    assert caught.value.__cause__ is not None
    if "RuntimeError" not in text:
        assert caught.value.__cause__ is error


async def test_a_task_that_is_cancelled_inside_a_tool_does_not_cancel_the_step():
    async def lose() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    with pytest.raises(ToolError, match="was cancelled by something inside it"):
        await Tool.of(lose).call({})


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_step_that_is_cancelled_does_not_wait_for_its_tool(*, is_async: bool):
    started, release = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        release.wait()

    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Tool.of(wait if is_async else block).call({}))
    while not started.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        release.set()


def test_a_tool_that_never_returns_does_not_keep_the_program_from_ending(tmp_path: Path):
    import subprocess

    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, threading\n"
        "from synaptic import Tool\n"
        "async def main():\n"
        "    try:\n"
        "        await asyncio.wait_for(Tool.of(lambda: threading.Event().wait(), name='x').call({}), 0.05)\n"
        "    except TimeoutError:\n"
        "        print('went on')\n"
        "asyncio.run(main())\n"
    )

    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_result_that_comes_after_the_loop_has_ended_is_dropped():
    release, ended = threading.Event(), threading.Event()

    def late() -> None:
        release.wait()
        ended.set()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Tool.of(late).call({}), 0.01)

    asyncio.run(leave())
    release.set()

    assert ended.wait(30)
    gc.collect()


async def test_many_calls_at_once_all_come_to_their_end():
    def number(n: int) -> int:
        return n

    made = Tool.of(number)

    assert await asyncio.gather(*(made.call({"n": n}) for n in range(200))) == list(range(200))


def test_calls_that_waited_for_a_thread_keep_no_event_loop_alive():
    async def many() -> ref[asyncio.AbstractEventLoop]:
        made = Tool.of(lambda: 1)
        await asyncio.gather(*(made.call({}) for _ in range(100)))
        return ref(asyncio.get_running_loop())

    loop = asyncio.run(many())
    gc.collect()

    assert loop() is None


@pytest.mark.parametrize(
    ("result", "plain"),
    [
        (None, None),
        (True, True),
        ("text", "text"),
        ((1, 2.5), [1, 2.5]),
        ({"a": [None, {"b": False}]}, {"a": [None, {"b": False}]}),
        (Place(city="x"), {"city": "x", "weight": 1}),
        ([Point(1.0)], [{"x": 1.0, "y": 0.0}]),
        (10**30, 10**30),
    ],
)
async def test_the_result_is_plain_data(result: object, plain: object):
    assert await returning(result).call({}) == plain


SELF: list[Any] = []
SELF.append(SELF)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (object(), "returned a value of the type object, which is no JSON-like data"),
        ({1, 2}, "returned a value of the type set, which is no JSON-like data"),
        (b"x", "returned a value of the type bytes"),
        (Path("x"), "returned a value of the type pathlib."),
        (Colour.RED, "returned a value of the type test_tools.Colour"),
        (Place, "returned a value of the type"),
        ({"a": [date(2024, 1, 1)]}, "returned a value of the type datetime.date"),
        ({1: 2}, "returned a mapping with the key 1, which is no text"),
        (float("nan"), "returned nan, which is no number that JSON knows"),
        (SELF, "returned data nested more than 100 levels deep"),
        ((item for item in "ab"), "returned a value of the type generator"),
    ],
)
async def test_any_other_result_is_an_error_that_says_what_came(result: object, text: str):
    with pytest.raises(ToolError) as caught:
        await returning(result).call({})

    assert caught.value.message.startswith(f"the tool 'it' {text}")


# --- the mark


def test_the_mark_leaves_a_function_as_it_is():
    @tool
    def one(a: int) -> int:
        return a + 1

    @tool(name="other-name")
    def two() -> None:
        """Do nothing."""

    assert one(1) == 2
    assert [tool_name(one), tool_name(two), tool_name(max)] == ["one", "other-name", None]
    assert Tool.of(two).name == "other-name"


@pytest.mark.parametrize("value", [3, Hidden])
def test_only_a_function_is_marked(value: Any):
    with pytest.raises(UsageError, match="@tool is for functions"):
        tool(value)


@pytest.mark.parametrize("name", ["", "a b", "1a", "ä", "x" * 65])
def test_a_name_is_one_word(name: str):
    with pytest.raises(UsageError, match="is not a usable name"):
        tool(name=name)(lambda: None)


# --- the manual


def test_the_example_of_a_tool_runs():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "library.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Tool.of" in block]
    scripted = "synaptic.Session(synaptic.Settings(), backend=synaptic.ScriptedBackend(), tools="
    source = "import synaptic\n" + example.replace("Session(tools=", scripted)
    names: dict[str, Any] = {}
    asyncio.run(eval(compile(source, "library.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names))

    assert names["result"].answer == "It has 17.5 degrees in Oslo. What to wear?"
