"""The output notation: parsing, the JSON Schema, the decoding schema, the pydantic model, and validation."""

from __future__ import annotations

import json
from typing import Any

import pytest
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
from synaptic.agents.shape import Shape, is_complete_json
from synaptic.errors import AgentError, OutputInvalid

EVERYTHING = {
    "key_facts": "list[string(1..160)](1..5)",
    "score": "number(0..1)",
    "verdict": "enum(accept, revise)",
    "note?": "string(..200)",
    "source": {"title": "string", "year": "integer(1900..2100)"},
    "people": "list[{name: string, role?: string}]",
    "ok": "boolean",
}


def valid(**changes: Any) -> dict[str, Any]:
    """A value of the shape above."""
    value = {
        "key_facts": ["a fact"],
        "score": 0.5,
        "verdict": "accept",
        "source": {"title": "t", "year": 2000},
        "people": [{"name": "Ada"}],
        "ok": True,
    }
    return value | changes


def mistakes_of(notation: object) -> list[str]:
    with pytest.raises(AgentError) as caught:
        Shape.parse(notation)
    return [str(problem) for problem in caught.value.problems]


# --- the notation ---------------------------------------------------------------------------------------------------


def test_the_notation_is_read_whole() -> None:
    assert Shape.parse(EVERYTHING).root == ObjectType(
        (
            Field("key_facts", ListType(StringType(1, 160), 1, 5)),
            Field("score", NumberType(0, 1)),
            Field("verdict", EnumType(("accept", "revise"))),
            Field("note", StringType(0, 200), optional=True),
            Field("source", ObjectType((Field("title", StringType()), Field("year", IntegerType(1900, 2100))))),
            Field(
                "people",
                ListType(ObjectType((Field("name", StringType()), Field("role", StringType(), optional=True)))),
            ),
            Field("ok", BooleanType()),
        )
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("string", StringType(0, STRING_DEFAULT_MAXIMUM)),
        ("string(5)", StringType(5, 5)),
        ("string(5..)", StringType(5, STRING_DEFAULT_MAXIMUM)),
        ("string(500..)", StringType(500, 2000)),
        ("string ( 1 .. 2 )", StringType(1, 2)),
        ("list[string]", ListType(StringType(), 0, LIST_DEFAULT_MAXIMUM)),
        ("list[ boolean ](3)", ListType(BooleanType(), 3, 3)),
        ("list[boolean](20..)", ListType(BooleanType(), 20, 64)),
        ("list[list[integer](2)](..3)", ListType(ListType(IntegerType(), 2, 2), 0, 3)),
        ("integer", IntegerType()),
        ("integer(-5..)", IntegerType(-5, None)),
        ("number(..0.25)", NumberType(None, 0.25)),
        ("number(-1.5..-0.5)", NumberType(-1.5, -0.5)),
        ("enum(in progress, done)", EnumType(("in progress", "done"))),
        ('enum("no, never", "a \\"quoted\\" word", yes,)', EnumType(("no, never", 'a "quoted" word', "yes"))),
        ("{a: string, b?:boolean}", ObjectType((Field("a", StringType()), Field("b", BooleanType(), optional=True)))),
    ],
)
def test_a_type_is_read(text: str, expected: FieldType) -> None:
    assert Shape.parse({"x": text}).lookup("x") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strng", "output.x:1: unknown type 'strng'; did you mean 'string'?"),
        ("int", "output.x:1: unknown type 'int'; did you mean 'integer'?"),
        ("zebra", "output.x:1: unknown type 'zebra'; known: boolean, enum, integer, list, number, string"),
        ("list[str](1..2)", "output.x:6: unknown type 'str'; did you mean 'string'?"),
        ("array[string]", "output.x:1: unknown type 'array'; did you mean 'list'?"),
        ("list", "output.x:1: a list needs the type of its items; write for example 'list[string]'"),
        ("list[string", "output.x:12: ']' is expected here, not the end; put ']' after the type of the items"),
        ("enum", "output.x:1: an enum needs its values; write for example 'enum(yes, no)'"),
        ("enum()", "output.x:1: an enum needs its values; write for example 'enum(yes, no)'"),
        ("enum(a, a)", "output.x:9: the value 'a' stands here twice; remove one of them"),
        ("enum(a b", "output.x:9: ')' is expected here, not the end; put ')' or ','"),
        (
            "enum(?)",
            'output.x:6: a value is expected here; plain words, or text in double quotes: enum(yes, "no: never")',
        ),
        ('enum("")', "output.x:6: a value is 1 to 100 printable characters; write for example 'enum(yes, no)'"),
        (
            r'enum("\q")',
            r"""output.x:6: "\q" is not text in double quotes as JSON has it; remove the backslash""",
        ),
        ("string()", "output.x:7: the bounds are empty; write for example (1..5), (1..) or (..5)"),
        ("string(5..1)", "output.x:7: the lower bound 5 is above the upper bound 1; write (1..5)"),
        ("string(2001)", "output.x:7: a string of 2001 characters is too long; at most 2000 characters"),
        ("string(2001..)", "output.x:7: a string of 2001 characters is too long; at most 2000 characters"),
        ("string(2000)", "output.x:7: the lower bound leaves no room; at most 1999"),
        ("string(..0)", "output.x:7: a string of 0 characters says nothing; remove the field, or allow at least 1"),
        ("string(-1..5)", "output.x:7: the bound '-1' is not a length; write a whole number such as 5"),
        ("string(1..5", "output.x:12: ')' is expected here, not the end; put ')' at the end of the bounds, such as (1..5)"),  # noqa: E501
        ("list[string](..65)", "output.x:13: a list of 65 items is too long; at most 64 items"),
        ("boolean(1)", "output.x:8: a boolean takes no bounds; write 'boolean'"),
        ("string(10-120)", "output.x:8: a range is written with two dots; write (10..120)"),
        ("integer(1-10)", "output.x:9: a range is written with two dots; write (1..10)"),
        ("integer(-5--1)", "output.x:9: a range is written with two dots; write (-5..-1)"),
        ("number(0, 1)", "output.x:8: a range is written with two dots; write (0..1)"),
        ("number(0...1.5)", "output.x:8: a range is written with two dots; write (0..1.5)"),
        ("number(0 to 1)", "output.x:8: a range is written with two dots; write (0..1)"),
        ("integer(1:5)", "output.x:9: a range is written with two dots; write (1..5)"),
        ("integer(>=1)", "output.x:9: a range is written with two dots; write (1..)"),
        ("string(max=20)", "output.x:8: a range is written with two dots; write (..20)"),
        ("string(min=3, max=20)", "output.x:8: a range is written with two dots; write (3..20)"),
        ("list[string](1-3)", "output.x:14: a range is written with two dots; write (1..3)"),
        ("list[string(1,3)](4)", "output.x:13: a range is written with two dots; write (1..3)"),
        ("number(5)", "output.x:7: number(5) is not a range; write number(0..5)"),
        ("number(1e9..)", "output.x:7: the bound '1e9' fits no number; write up to 9 digits and 6 decimals"),
        ("integer(0.5..)", "output.x:8: the bound '0.5' fits no integer; write up to 15 digits"),
        ("integer(9..3)", "output.x:8: the lower bound 9 is above the upper bound 3; write (3..9)"),
        ("string?", "output.x:7: '?' is not expected here; the ? of an optional field belongs to its name, as in 'note?: string'"),  # noqa: E501
        ("string | integer", "output.x:8: '| integer' is not expected here; alternatives are written 'enum(yes, no)'"),
        ("string[5]", "output.x:7: '[5]' is not expected here; bounds stand in parentheses, and a list is written 'list[string]'"),  # noqa: E501
        ("string.", "output.x:7: '.' is not expected here; remove it"),
        ("", "output.x:1: a type is expected here; one of string, integer, number, boolean, enum, list or {...}"),
        ("{}", "output.x:1: it has no fields; write for example 'title: string'"),
        ("{a string}", "output.x:4: ':' is expected here, not 's'; put ':' after the field name 'a'"),
        ("{a: string", "output.x:11: '}' is expected here, not the end; put '}' or ','"),
        ("{a: string, :", "output.x:13: '}' is expected here, not ':'; put '}' or a field name"),
        ("{a: string, a?: string}", "output.x:13: the field 'a' stands here twice; remove one of them"),
        ("{1: string}", "output.x:2: '1' is not a field name; use letters, digits and underscores, first a letter, at most 64"),  # noqa: E501
        ("list[" * 9 + "string" + "]" * 9, "output.x:41: more than 8 levels of nesting; flatten the output"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_type_says_where_and_what_to_write(text: str, message: str) -> None:
    assert mistakes_of({"x": text}) == [message]


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("list[string]", "output: an output is a mapping of field names to types; give it a field, such as 'result: list[string]'"),  # noqa: E501
        (None, "output: an output is a mapping of field names to types; write for example 'title: string'"),
        ({}, "output: it has no fields; write for example 'title: string'"),
        ({"a": {}}, "output.a: it has no fields; write for example 'title: string'"),
        ({"a": None}, "output.a: a type is text or a mapping, not nothing; write for example 'string', or 'list[string]' for a list"),  # noqa: E501
        ({"a": ["string"]}, "output.a: a type is text or a mapping, not a list; write 'list[string]'"),
        ({"a": ["good", "bad"]}, "output.a: a type is text or a mapping, not a list; write 'enum(good, bad)'"),
        ({"a": {"type": "string", "maxLength": 9}}, "output.a: this is JSON Schema; write 'string(..9)'"),
        ({"a": {"type": "integer", "minimum": 1}}, "output.a: this is JSON Schema; write 'integer(1..)'"),
        ({"a": {"type": "string", "enum": ["x", "y"]}}, "output.a: this is JSON Schema; write 'enum(x, y)'"),
        ("json", "output: an output is a mapping of field names to types; give it a field, such as 'result: string'"),
        ({"a": 5}, "output.a: a type is text or a mapping, not int 5; write for example 'string', or 'list[string]' for a list"),  # noqa: E501
        ({5: "string"}, "output.5: the field name 5 is not text; put it in quotes"),
        ({"_a": "string"}, "output._a: '_a' is not a field name; use letters, digits and underscores, first a letter, at most 64"),  # noqa: E501
        ({"a": "string", "a?": "string"}, "output.a?: the field 'a' stands here twice; remove one of them"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_mapping_names_the_field(notation: object, message: str) -> None:
    assert mistakes_of(notation) == [message]


def test_every_mistake_is_reported_once() -> None:
    assert mistakes_of({"a": "strng", "b": {"c": "list", "d": "string"}, "e": "{f: int, g: bool}"}) == [
        "output.a:1: unknown type 'strng'; did you mean 'string'?",
        "output.b.c:1: a list needs the type of its items; write for example 'list[string]'",
        "output.e:5: unknown type 'int'; did you mean 'integer'?",
        "output.e:13: unknown type 'bool'; did you mean 'boolean'?",
    ]


def test_what_is_too_much_is_refused() -> None:
    deep: Any = "string"
    for _ in range(10):
        deep = {"a": deep}
    assert mistakes_of(deep) == ["output.a.a.a.a.a.a.a.a: more than 8 levels of nesting; flatten the output"]
    assert mistakes_of({f"f{n}": "string" for n in range(65)}) == ["output: more than 64 fields; ask for less"]
    many = ", ".join(f"v{n}" for n in range(65))
    assert mistakes_of({"a": f"enum({many})"}) == ["output.a:1: more than 64 values; use 'string' for open text"]


# --- the schemas ----------------------------------------------------------------------------------------------------


def test_the_json_schema_is_exact() -> None:
    assert Shape.parse(EVERYTHING).json_schema() == {
        "type": "object",
        "properties": {
            "key_facts": {
                "type": "array",
                "items": {"type": "string", "minLength": 1, "maxLength": 160},
                "minItems": 1,
                "maxItems": 5,
            },
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "verdict": {"enum": ["accept", "revise"]},
            "note": {"type": ["string", "null"], "maxLength": 200},
            "source": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": 300},
                    "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
                },
                "required": ["title", "year"],
                "additionalProperties": False,
            },
            "people": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "maxLength": 300},
                        "role": {"type": ["string", "null"], "maxLength": 300},
                    },
                    "required": ["name"],
                    "additionalProperties": False,
                },
                "maxItems": 8,
            },
            "ok": {"type": "boolean"},
        },
        "required": ["key_facts", "score", "verdict", "source", "people", "ok"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("number(0..1)", {"enum": [0, *(round(step * 0.05, 2) for step in range(1, 20)), 1]}),
        ("number(0..10)", {"enum": [step / 2 for step in range(21)]}),
        ("number(0.3..0.3)", {"enum": [0.3]}),
        ("number(0..)", {"type": "number", "minimum": 0}),
        ("integer(0..9)", {"type": "integer", "minimum": 0, "maximum": 9}),
        ("string(..2000)", {"type": "string", "maxLength": 1999}),
        ("enum(a, b)", {"enum": ["a", "b"]}),
        ("list[number(0..2)](1)", {"type": "array", "items": {"enum": [n / 10 for n in range(21)]}, "minItems": 1, "maxItems": 1}),  # noqa: E501
    ],
)  # fmt: skip
def test_the_decoding_schema_says_only_what_llama_cpp_enforces(text: str, schema: dict[str, Any]) -> None:
    assert Shape.parse({"x": text}).decoding_schema()["properties"]["x"] == schema


def test_the_decoding_schema_writes_short_numbers_in_the_order_of_the_fields() -> None:
    written = json.dumps(Shape.parse({"b?": "boolean", "a": "number(0..1)"}).decoding_schema())
    assert '"enum": [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3,' in written
    assert written.index('"b"') < written.index('"a"')
    assert "null" not in written


# --- validation -----------------------------------------------------------------------------------------------------


def test_a_valid_value_comes_back_as_plain_data_with_every_field() -> None:
    result = Shape.parse(EVERYTHING).validate_text(json.dumps(valid(score=1, source={"title": "t", "year": 2000.0})))
    assert result == valid(
        score=1.0, note=None, source={"title": "t", "year": 2000}, people=[{"name": "Ada", "role": None}]
    )
    assert isinstance(result["source"]["year"], int)


def test_a_validated_value_is_valid_again() -> None:
    shape = Shape.parse(EVERYTHING)
    once = shape.validate(valid())
    assert shape.validate(once) == once


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_facts": []}, "key_facts: expected a list of 1 to 5 items, each a text of 1 to 160 characters, got []"),
        (
            {"key_facts": ["a", "b" * 161]},
            f'key_facts[1]: expected a text of 1 to 160 characters, got "{"b" * 59}… (163 characters)',
        ),
        ({"score": True}, "score: expected a number from 0 to 1, got true"),
        ({"score": 1.01}, "score: expected a number from 0 to 1, got 1.01"),
        ({"score": "1"}, 'score: expected a number from 0 to 1, got "1"'),
        ({"ok": 1}, "ok: expected true or false, got 1"),
        ({"verdict": "acept"}, 'verdict: expected one of "accept", "revise", got "acept"'),
        ({"verdict": None}, 'verdict: expected one of "accept", "revise", got null'),
        (
            {"source": {"title": "t", "year": "2000"}},
            'source.year: expected a whole number from 1900 to 2100, got "2000"',
        ),
        ({"source": {"title": "t"}}, "source.year is missing; expected a whole number from 1900 to 2100"),
        ({"people": [{"name": "Ada", "rol": "x"}]}, "people[0].rol is not a field; did you mean 'role'?"),
        (
            {"people": {}},
            'people: expected a list of at most 8 items, each an object with "name", "role" (may be missing), got {}',
        ),
    ],
)  # fmt: skip
def test_an_invalid_value_is_refused_with_the_field_and_what_was_expected(change: dict[str, Any], message: str) -> None:
    text = json.dumps(valid(**change))
    with pytest.raises(OutputInvalid) as caught:
        Shape.parse(EVERYTHING).validate_text(text)
    assert caught.value.message == f"the reply does not have the right shape: {message}"
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("string(5)", "a text of 5 characters"),
        ("string(..1)", "a text of at most 1 character"),
        ("integer", "a whole number"),
        ("number(..1000000)", "a number of at most 1000000"),
        ("integer(..7)", "a whole number of at most 7"),
        ("number(0.5..)", "a number of at least 0.5"),
        ("list[boolean](2)", "a list of 2 items, each true or false"),
    ],
)
def test_a_model_that_is_asked_again_is_told_the_bounds_in_words(text: str, words: str) -> None:
    with pytest.raises(OutputInvalid, match=f"a: expected {words}, got null"):
        Shape.parse({"a": text}).validate({"a": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the reply is empty; JSON was asked for"),
        ('{"a": ', 'the reply is not JSON: Expecting value at character 7: {"a":'),
        ("Sure! {}", "the reply is not JSON: Expecting value at character 1: Sure! {}"),
        ('{"a": NaN}', "the reply is not valid: NaN, Infinity and integers of thousands of digits are not accepted"),
        ("9" * 5000, "the reply is not valid: NaN, Infinity and integers of thousands of digits are not accepted"),
        ("[" * 100_000, "the reply is not valid: it is nested too deeply"),
        ("[1]", 'the reply does not have the right shape: the whole: expected an object with "a", got [1]'),
        ('{"a": 1e999}', "the reply does not have the right shape: a: expected a number, got Infinity"),
        ('{"a": "\\ud800"}', 'the reply does not have the right shape: a: expected a number, got "?"'),
    ],
)
def test_text_that_is_no_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(OutputInvalid) as caught:
        Shape.parse({"a": "number"}).validate_text(text)
    assert caught.value.message == message
    assert caught.value.text == text


def test_many_invalid_fields_are_summed_up() -> None:
    shape = Shape.parse({f"f{n}": "boolean" for n in range(8)})
    with pytest.raises(OutputInvalid, match=r"f4 is missing; expected true or false; and 3 more$"):
        shape.validate({})


@pytest.mark.parametrize(
    ("text", "complete"),
    [('{"a": 1}', True), (' {"a": 1}\n', True), ('{"a": 1', False), ("", False), ("[" * 100_000, False), ("{} x", False)],  # noqa: E501
)  # fmt: skip
def test_complete_json_is_told_from_cut_json(text: str, complete: bool) -> None:  # noqa: FBT001
    assert is_complete_json(text) is complete


def test_the_model_takes_names_that_pydantic_has_taken() -> None:
    shape = Shape.parse(
        {"copy": "string", "copy_": "string", "class": "string", "model_dump": "string", "schema": "string"}
    )
    value = {"copy": "a", "copy_": "b", "class": "c", "model_dump": "d", "schema": "e"}
    assert shape.validate(value) == value
    assert shape.model is shape.model


def test_fields_are_found_by_path() -> None:
    shape = Shape.parse(EVERYTHING)
    assert shape.field_names() == ("key_facts", "score", "verdict", "note", "source", "people", "ok")
    assert shape.lookup("source.year") == IntegerType(1900, 2100)
    assert shape.lookup(("people", "0", "name")) == StringType()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("scor", "the output has no field 'scor'; did you mean 'score'?"),
        ("source.titel", "'source' has no field 'titel'; did you mean 'title'?"),
        ("people.name", "'people' (list[{name: string, role?: string}]) has no 'name'"),
        ("ok.x", "'ok' (boolean) has no 'x'"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, message: str) -> None:
    with pytest.raises(AgentError) as caught:
        Shape.parse(EVERYTHING).lookup(path)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("string(..10)", 12),
        ("boolean", 5),
        ("integer", 17),
        ("integer(-10..5)", 3),
        ("number", 52),
        ("number(0..1)", 4),
        ("enum(a, abc)", 5),
        ("list[boolean](..2)", len("[false,false]")),
        ("{b: boolean, cc: boolean}", len('{"b":false,"cc":false}')),
    ],
)
def test_the_longest_output_is_known(text: str, characters: int) -> None:
    assert longest_decoded(Shape.parse({"x": text}).root) == len('{"x":}') + characters
