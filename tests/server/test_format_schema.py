"""Schemas of ``format``: which would stop the engine, which it would ignore, and whether a reply kept to one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_nodes import MODEL, real_nodes

from synaptic.server.ollama_api.format_schema import (
    LONGEST_TEXT,
    MOST_ITEMS,
    MOST_LENGTH,
    MOST_MEMBERS,
    MOST_OBJECTS,
    MOST_TEXT,
    begins_json,
    check_schema,
    not_enforced,
)
from synaptic.server.ollama_api.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

Schema = dict[str, Any]
STRING: Schema = {"type": "string"}


def chain(links: int, link: Callable[[Schema], Schema]) -> Schema:
    """A definition that refers to the next, and so on: a path that is as long as the text."""
    definitions = {f"a{number}": link({"$ref": f"#/$defs/a{number + 1}"}) for number in range(links)}
    return {"$defs": definitions | {f"a{links}": {"type": "array"}}, "$ref": "#/$defs/a0"}


def chained(links: int, wide: Callable[[int], Schema]) -> Schema:
    return {"allOf": [wide(number) for number in range(links)]}


def members(count: int, **more: Any) -> Schema:
    return {"type": "object", "properties": {f"p{number}": STRING for number in range(count)}, **more}


def items(item: Schema, **counts: float) -> Schema:
    return {"type": "array", "items": item, **counts}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (items(STRING, minItems=10**9), "format.minItems must be from 0 to 1000"),
        (items(STRING, maxItems=10**9), "format.maxItems must be from 0 to 1000"),
        (items(STRING, maxItems=-1), "format.maxItems must be from 0 to 1000"),
        (members(0, properties={"properties": items(STRING, maxItems=1e18)}), "format.properties.properties.maxItems"),
        ({"type": "string", "maxLength": 10**18}, "format.maxLength must be from 0 to 1000000"),
        ({"type": "string", "minLength": MOST_LENGTH + 1}, "format.minLength must be from 0 to 1000000"),
        ({"type": "string", "pattern": "^a{1000000000}$"}, "format.pattern: more than 1000 repetitions"),
        ({"type": "string", "pattern": "^a{2,1001}$"}, "format.pattern: more than 1000 repetitions"),
        ({"type": "string", "pattern": "a" * 501}, "format.pattern: more than 500 characters"),
        (members(10_000), "format.properties: more than 200 members"),
        ({"enum": [f"v{number}" for number in range(5001)]}, "format: more than 5000 entries of lists"),
        ({"enum": ["v" * 1_000_000]}, "format.enum[0]: more than 5000 characters"),
        ({"title": "v" * 1_000_000}, "format.title: more than 5000 characters"),
        ({"enum": ["v" * LONGEST_TEXT] * 11}, "format: more than 50000 characters"),
        (members(0, properties={"v" * 1_000_000: STRING}), "format.properties: more than 5000 characters in a name"),
        (chain(3000, items), "format.$defs: more than 200 members"),
        ({"anyOf": [STRING] * MOST_OBJECTS}, "format: more than 500 objects"),
    ],
)
def test_a_schema_that_would_stop_the_engine_is_refused(schema: Schema, said: str) -> None:
    with pytest.raises(Refusal) as caught:
        check_schema(schema)
    assert caught.value.status == 400
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (members(0, properties={"a": {"not": STRING}}), "format.properties.a.not: this engine cannot enforce it"),
        (items({"type": "object", "if": {}, "then": {}}), "format.items.if: this engine cannot enforce it"),
        (items(STRING, uniqueItems=True), "format.uniqueItems: this engine cannot enforce it"),
        (members(0, properties={"not": {"type": "strng"}}), "format: this engine cannot enforce the schema"),
        ({"enum": [{"not": 1}]}, "format: this engine cannot enforce the schema"),
    ],
)
def test_a_keyword_that_is_ignored_is_named(schema: Schema, said: str) -> None:
    assert not_enforced(schema).message.startswith(said)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(JSON, st.integers(0, 200), st.booleans())
def test_every_beginning_of_json_is_one(value: Any, length: int, ascii_only: bool) -> None:  # noqa: FBT001
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert begins_json(text, whole=True)
    assert begins_json(text[:length], whole=False)


@pytest.mark.parametrize(
    "text", ["{n}, where n is", "6. This is a classic", " friends", "{'a'", '{"a" 1', "truth", "[1,,"]
)
def test_what_no_json_begins_with_is_none(text: str) -> None:
    assert not begins_json(text, whole=False)


@pytest.mark.parametrize("text", ["", "{", '"abc', '{"a": 1', "[tr", "-"])
def test_a_reply_that_ended_by_itself_is_whole(text: str) -> None:
    assert begins_json(text, whole=False)
    assert not begins_json(text, whole=True)


LARGEST: dict[str, Schema] = {
    "members": members(MOST_MEMBERS),
    "enum": {"enum": [f"v{number}" for number in range(5000)]},
    "texts": {"enum": [f"{number}" + "v" * (LONGEST_TEXT - 2) for number in range(MOST_TEXT // LONGEST_TEXT)]},
    "items": items(items(items(STRING, minItems=MOST_ITEMS), minItems=MOST_ITEMS), minItems=MOST_ITEMS),
    "lengths": {"type": "string", "minLength": 0, "maxLength": MOST_LENGTH},
    "pattern": {"type": "string", "pattern": "^((a{1,1000}b){1,1000}c){1,1000}$"},
    "alternatives": {"anyOf": [{"const": number} for number in range(MOST_OBJECTS - 1)]},
    "chain of items": chain(199, items),
    "chain of members": chain(160, lambda to: {"type": "object", "properties": {"a": to}, "required": ["a"]}),
    "chain of anyOf": chain(199, lambda to: {"anyOf": [to]}),
    "optional": members(0, properties={f"q{number}": members(14) for number in range(30)}),
    "recursion": {"$defs": {"n": members(0, properties={"n": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}})}}
    | {"$ref": "#/$defs/n"},
    "anything": {},
    "small": members(
        0,
        properties={
            "day": {"type": "string", "format": "date"},
            "mixed": {"enum": [1, "a", None, True, [1], {"a": 1}]},
        },
        title="T",
        required=["day"],
        **{"$schema": "https://json-schema.org/draft/2020-12/schema"},
    ),
}
SURVIVED: dict[str, Schema] = {
    "allOf": chain(199, lambda to: {"allOf": [to]}),
    "oneOf fan": chain(160, lambda to: {"oneOf": [to, to]}),
    "merging": chained(12, lambda n: {"anyOf": [members(0, properties={f"a{n}": {"const": to}}) for to in range(6)]}),
    "multiples": {"type": "integer", "multipleOf": 99991, "minimum": 1, "maximum": 10**15},
}
IGNORED: dict[str, Schema] = {
    "type": {"type": "strng"},
    "type of another kind": {"type": 5},
    "keyword": {"not": STRING},
    "reference": {"$ref": "#/$defs/missing"},
    "address": {"$ref": "http://127.0.0.1:9/x.json"},
    "loop": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "pattern": {"type": "string", "pattern": "("},
    "look-ahead": {"type": "string", "pattern": "^(?=a)b"},
    "bounds": items(STRING, minItems=5, maxItems=2),
    "overlap": {"oneOf": [STRING, {"type": "string", "maxLength": 5}]},
    "members": {"type": "object", "properties": []},
    "nothing": {"enum": []},
}


def engines(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


@pytest.mark.real_model
async def test_the_engine_keeps_to_what_is_let_through_and_survives_all_of_it() -> None:
    async with real_nodes(1) as nodes, aiohttp.ClientSession(nodes[0].url) as session:

        async def ask(schema: Schema, tokens: int = 3) -> tuple[int, dict[str, Any]]:
            body = {"model": MODEL, "prompt": "Say hello to the", "raw": True, "stream": False, "format": schema}
            body["options"] = {"num_predict": tokens, "temperature": 0}
            async with session.post("/api/generate", json=body) as reply:
                return reply.status, await reply.json()

        await ask(STRING)
        first = engines(nodes[0].pid)
        for name, schema in LARGEST.items():
            status, reply = await ask(schema)
            assert status == 200, (name, reply)
            assert begins_json(reply["response"], whole=False), name
        for name, schema in SURVIVED.items():
            status, reply = await ask(schema, 6)
            assert status == 200 or (status == 400 and reply["error"].startswith("format: ")), (name, reply)
        for name, schema in IGNORED.items():
            status, reply = await ask(schema)
            assert status == 400, (name, reply)
            assert "this engine cannot enforce" in reply["error"]
        assert engines(nodes[0].pid) == first
