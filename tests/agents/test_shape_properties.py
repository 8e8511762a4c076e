"""Properties of the output notation that hold for every shape and every value."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st
from shape_sizes import longest_decoded

from synaptic.agents.notation import (
    LIST_DEFAULT_MAXIMUM,
    STRING_DEFAULT_MAXIMUM,
    BooleanType,
    EnumType,
    Field,
    FieldType,
    IntegerType,
    ListType,
    NumberType,
    ObjectType,
    StringType,
)
from synaptic.agents.shape import Shape
from synaptic.errors import AgentError, OutputInvalid

# Shapes take longest to draw; the machine may be busy.
settings.register_profile("shapes", max_examples=50, deadline=None)
PROPERTY = settings.get_profile("shapes")

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12)


@st.composite
def string_types(draw: st.DrawFn) -> FieldType:
    lower = draw(st.integers(0, 12))
    return StringType(lower, draw(st.sampled_from([max(lower, 1), max(lower, 1) + 3, STRING_DEFAULT_MAXIMUM])))


@st.composite
def integer_types(draw: st.DrawFn) -> FieldType:
    low, high = sorted(draw(st.tuples(st.integers(-(10**14), 10**14), st.integers(-1000, 1000))))
    return IntegerType(draw(st.sampled_from([low, None])), draw(st.sampled_from([high, None])))


@st.composite
def number_types(draw: st.DrawFn) -> FieldType:
    decimals = st.decimals(-(10**8), 10**8, places=6).map(float)
    low, high = sorted(draw(st.tuples(decimals, st.integers(-5, 5).map(float))))
    return NumberType(draw(st.sampled_from([low, None])), draw(st.sampled_from([high, None])))


def enum_types() -> st.SearchStrategy[FieldType]:
    printable = WORDS.filter(str.isprintable)
    return st.lists(printable, min_size=1, max_size=4, unique=True).map(lambda values: EnumType(tuple(values)))


@st.composite
def list_types(draw: st.DrawFn, items: st.SearchStrategy[FieldType]) -> FieldType:
    lower = draw(st.integers(0, 3))
    return ListType(draw(items), lower, draw(st.sampled_from([max(lower, 1), lower + 1, LIST_DEFAULT_MAXIMUM])))


def object_types(members: st.SearchStrategy[FieldType]) -> st.SearchStrategy[ObjectType]:
    fields = st.builds(Field, NAMES, members, st.booleans())
    return st.lists(fields, min_size=1, max_size=4, unique_by=lambda field: field.name).map(
        lambda chosen: ObjectType(tuple(chosen))
    )


SCALARS: st.SearchStrategy[FieldType] = st.one_of(
    string_types(), integer_types(), number_types(), st.just(BooleanType()), enum_types()
)
TYPES: st.SearchStrategy[FieldType] = st.recursive(
    SCALARS, lambda inner: st.one_of(list_types(inner), object_types(inner)), max_leaves=5
)
SHAPES = object_types(TYPES).map(Shape)


def values_of(kind: FieldType) -> st.SearchStrategy[Any]:
    """Values of a type; strings without characters that JSON escapes."""
    match kind:
        case StringType():
            plain = st.characters(codec="utf-8", categories=("L", "N"))
            return st.text(plain, min_size=kind.minimum, max_size=min(kind.maximum, kind.minimum + 5))
        case IntegerType():
            low = -(10**6) if kind.minimum is None else kind.minimum
            high = low + 10**6 if kind.maximum is None else kind.maximum
            return st.integers(min(low, high), high)
        case NumberType():
            return st.floats(kind.minimum, kind.maximum, allow_nan=False, allow_infinity=False)
        case BooleanType():
            return st.booleans()
        case EnumType():
            return st.sampled_from(kind.values)
        case ListType():
            return st.lists(values_of(kind.item), min_size=kind.minimum, max_size=min(kind.maximum, kind.minimum + 2))
    required = {field.name: values_of(field.type) for field in kind.fields if not field.optional}
    optional = {field.name: st.none() | values_of(field.type) for field in kind.fields if field.optional}
    return st.fixed_dictionaries(required, optional=optional)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5000),
    st.floats(-2, 2, allow_nan=False),
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.just([]),
    st.just({}),
    st.just("x" * 301),
    st.lists(st.integers(), min_size=9, max_size=9),
)


def mutated(value: Any, draw: st.DrawFn) -> Any:
    """Change one place of a value: replace, add or remove."""
    if isinstance(value, dict) and draw(st.booleans()):
        if not value or draw(st.integers(0, 3)) == 0:
            return {**value, draw(NAMES): draw(JUNK)}
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 3)) == 0:
            return {name: member for name, member in value.items() if name != key}
        return {**value, key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw(st.booleans()):
        return [*value[:-1], mutated(value[-1], draw)]
    return draw(JUNK)


def model_accepts(shape: Shape, value: Any) -> bool:
    try:
        shape.validate(value)
    except OutputInvalid:
        return False
    return True


def schema_accepts(schema: dict[str, Any], value: Any) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@PROPERTY
@given(SHAPES)
def test_a_shape_survives_being_written_and_read(shape: Shape) -> None:
    assert Shape.parse(shape.notation) == shape
    assert Shape.parse(json.loads(json.dumps(shape.notation))) == shape


@PROPERTY
@given(SHAPES)
def test_the_schemas_are_json_schema(shape: Shape) -> None:
    jsonschema.Draft202012Validator.check_schema(shape.json_schema())
    jsonschema.Draft202012Validator.check_schema(shape.decoding_schema())


@PROPERTY
@given(SHAPES, st.data())
def test_values_of_a_shape_are_valid_by_schema_and_by_model(shape: Shape, data: st.DataObject) -> None:
    value = data.draw(values_of(shape.root))
    assert schema_accepts(shape.json_schema(), value)
    result = shape.validate_text(json.dumps(value))
    assert tuple(result) == shape.field_names()
    assert schema_accepts(shape.json_schema(), result)


@PROPERTY
@given(SHAPES, st.data())
def test_schema_and_model_agree_on_changed_values(shape: Shape, data: st.DataObject) -> None:
    value = mutated(data.draw(values_of(shape.root)), data.draw)
    assert model_accepts(shape, value) == schema_accepts(shape.json_schema(), value)


@PROPERTY
@given(SHAPES, st.data())
def test_what_decoding_lets_through_is_valid(shape: Shape, data: st.DataObject) -> None:
    """The decoding schema accepts a subset: of its values, of changed ones, and of the ends of its grids."""
    schema = shape.decoding_schema()
    for value in (data.draw(values_of(shape.root)), decoded(shape.root, data.draw)):
        for candidate in (value, mutated(value, data.draw)):
            if schema_accepts(schema, candidate):
                assert schema_accepts(shape.json_schema(), candidate)
    assert schema_accepts(schema, value)
    assert len(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) <= longest_decoded(shape.root)


def decoded(kind: FieldType, draw: st.DrawFn) -> Any:
    """Draw a value as constrained decoding produces it."""
    match kind:
        case NumberType(minimum=float(), maximum=float()):
            return draw(
                st.sampled_from(Shape(ObjectType((Field("x", kind),))).decoding_schema()["properties"]["x"]["enum"])
            )
        case ListType():
            return [decoded(kind.item, draw) for _ in range(draw(st.integers(kind.minimum, kind.maximum)))]
        case ObjectType():
            chosen = [field for field in kind.fields if not field.optional or draw(st.booleans())]
            return {field.name: decoded(field.type, draw) for field in chosen}
    return draw(values_of(kind))


@PROPERTY
@given(
    st.one_of(
        st.text(),
        st.text('listrngenum[](){},:.?0123456789"\\ -'),
        st.sampled_from(["list[", "{a:", "enum("]).map(lambda part: part * 50),
    )
)
def test_any_text_is_a_shape_or_an_agent_error(text: str) -> None:
    """Reading never fails in another way, and what can be read can be written."""
    try:
        shape = Shape.parse({"x": text})
    except AgentError as error:
        assert error.problems
    else:
        assert Shape.parse(shape.notation) == shape


@PROPERTY
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_any_notation_is_a_shape_or_an_agent_error(notation: object) -> None:
    try:
        shape = Shape.parse(notation)
    except AgentError as error:
        assert error.problems
    else:
        assert Shape.parse(shape.notation) == shape
