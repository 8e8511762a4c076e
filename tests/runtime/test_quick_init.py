"""Frozen dataclasses that are filled through their slots are still frozen dataclasses."""

import dataclasses
import inspect
import pickle

import pytest

from synaptic.messages import ChatRequest, Delta, Finished, Message, Usage
from synaptic.quick_init import quick_init, quick_replace


@quick_init
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@quick_init
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    name: str
    tags: tuple[str, ...] = ()


def test_it_is_filled_as_a_dataclass_is():
    assert Point(1) == Point(x=1, y=0) != Point(1, 2)
    assert repr(Point(1, 2)) == "Point(x=1, y=2)"
    assert dataclasses.replace(Point(1, 2), y=3) == Point(1, 3)
    assert dataclasses.asdict(Named(name="a")) == {"name": "a", "tags": ()}
    assert hash(Point(1)) == hash(Point(1, 0))
    assert pickle.loads(pickle.dumps(Point(1, 2))) == Point(1, 2)


def test_a_copy_with_other_values_is_what_dataclasses_makes():
    asked = ChatRequest(messages=(Message("user", "x"),), model="m", unread=print)
    assert quick_replace(asked, num_ctx=5, model=None) == dataclasses.replace(asked, num_ctx=5, model=None) != asked
    assert quick_replace(asked, num_ctx=5).unread is print  # which is not compared
    assert quick_replace(Named(name="a"), tags=("b",)) == Named(name="a", tags=("b",))
    with pytest.raises(TypeError, match="none"):
        quick_replace(Point(1), none=1)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Point(1).x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Delta("a").text = "b"


@pytest.mark.parametrize("make", [Point, lambda: Point(1, 2, 3), lambda: Point(1, z=2), lambda: Named("a")])
def test_wrong_arguments_are_refused(make):
    with pytest.raises(TypeError, match="__init__"):
        make()


@pytest.mark.parametrize("cls", [Delta, Finished, ChatRequest, Message, Usage])
def test_the_signature_is_the_one_of_dataclasses(cls):
    members = [
        (each.name, each.type, dataclasses.field(default=each.default, kw_only=each.kw_only))
        for each in dataclasses.fields(cls)
    ]
    plain = dataclasses.make_dataclass(cls.__name__, members)
    ours = [(each.name, each.kind, each.default) for each in inspect.signature(cls).parameters.values()]
    theirs = [(each.name, each.kind, each.default) for each in inspect.signature(plain).parameters.values()]
    assert ours == theirs


def test_what_it_would_leave_out_is_refused():
    with pytest.raises(TypeError, match="slots"):
        quick_init(dataclasses.make_dataclass("Loose", ["x"], frozen=True))
    listed = [("x", list, dataclasses.field(default_factory=list))]
    with pytest.raises(TypeError, match="factory"):
        quick_init(dataclasses.make_dataclass("Made", listed, frozen=True, slots=True))
