"""What no call may carry, because the engine would die of it, hang, or do something else than was asked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from synaptic.models import ModelStore
from synaptic.server.ollama_api.catalogue import Catalogue, check_memory
from synaptic.server.ollama_api.generation_options import (
    GenerationOptions,
    load_options,
    read_options,
    repeat_window,
)
from synaptic.server.ollama_api.option_bounds import BOUNDS
from synaptic.server.ollama_api.refusals import Refusal
from synaptic.server.ollama_api.requests import read_body
from synaptic.server.ollama_api.talk import Talk
from synaptic.shared_bounds import LONGEST_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.server.ollama_api.requests import Body

VOCABULARY = 49152
HUGE = b"9" * 400
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"


def refusal(raw: bytes, read: Callable[[Body], object]) -> str:
    """Return what is said; a refusal is a 400, short, and on one line."""
    with pytest.raises(Refusal) as caught:
        read(read_body(raw))
    assert caught.value.status == 400
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message
    return caught.value.message


def talk(body: Body) -> Talk:
    return Talk.of(body, chat="messages" in body.fields, vocabulary=VOCABULARY)


@pytest.mark.parametrize("name", BOUNDS)
def test_every_number_has_a_least_and_a_most(name: str) -> None:
    bound = BOUNDS[name]
    for value in (bound.least, bound.most, float(bound.least)):
        assert getattr(read_options({name: value}), name) == value
    wrong: list[bytes] = [b"true", b'"1"', b"[]", b"{}", b"1e308", b"-1e308"]
    wrong += [str(bound.least - 1).encode(), str(bound.most + 1).encode()]
    wrong += [b"0.5"] if bound.whole else []
    for value in wrong:
        said = refusal(b'{"options": {"%s": %s}}' % (name.encode(), value), talk)
        assert said.startswith(f'option "{name}" must be ')
        assert f"from {bound.least} to {bound.most}, not " in said
    for value in (b"NaN", b"Infinity", b"-Infinity", b"1e999", HUGE, b"-" + HUGE, b"1.5e400"):
        said = refusal(b'{"options": {"%s": %s}}' % (name.encode(), value), talk)
        assert said.startswith(f"{name}: {value[:50].decode()}")


def test_every_option_is_bounded_and_its_bounds_are_in_the_docs() -> None:
    others = {"stop", "use_mmap"}
    assert set(BOUNDS) == set(GenerationOptions.__dataclass_fields__) - others
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    for name, bound in BOUNDS.items():
        assert rows[name] == str(bound), name
    assert others < set(rows)
    assert BOUNDS["num_ctx"].most == LONGEST_CONTEXT


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('"options": 5', "json: cannot unmarshal number into Go struct field .options"),
        ('"options": {"stop": [""]}', 'option "stop" must hold texts of 1 to 1000 characters, not ""'),
        ('"options": {"stop": ["%s"]}' % ("x" * 1001), 'option "stop" must hold texts of 1 to 1000 characters, not "x'),
        ('"options": {"stop": [%s"x"]}' % ('"x",' * 100), 'option "stop" must hold at most 100 texts, not 101'),
        ('"options": {"use_mmap": "yes"}', 'option "use_mmap" must be of type boolean, not "yes"'),
        ('"think": {}', "think must be a boolean or string"),
        ('"think": []', "think must be a boolean or string"),
        ('"think": 1', "think must be a boolean or string"),
        ('"keep_alive": {}', "Unsupported type: 'map[string]interface {}'"),
        ('"keep_alive": true', "Unsupported type: 'bool'"),
        ('"keep_alive": NaN', "keep_alive: NaN is no number of JSON"),
        ('"keep_alive": ' + HUGE.decode(), "keep_alive: 9999"),
        (f'"keep_alive": "{HUGE.decode()}h"', 'time: invalid duration "9999'),
        ('"keep_alive": "5m\\u0000"', 'time: unknown unit "m\N{REPLACEMENT CHARACTER}"'),
        ('"keep_alive": "1e9h"', 'time: unknown unit "e" in duration "1e9h"'),
        ('"format": 5', 'invalid format: "5"'),
        ('"format": true', 'invalid format: "true"'),
        ('"format": []', 'invalid format: "[]"'),
        ('"format": "%s"' % ("x" * 10_000), 'invalid format: "\\"xxx'),
        ('"context": [-1]', "context[0] must be a token, a whole number from 0 to 49151"),
        ('"context": [1, 49152]', "context[1] must be a token"),
        ('"context": [true]', "context[0] must be a token"),
        ('"context": [1.5]', "context[0] must be a token"),
        ('"context": ["a"]', "context[0] must be a token"),
        ('"top_logprobs": true', "top_logprobs must be between 0 and 20"),
        ('"top_logprobs": 21', "top_logprobs must be between 0 and 20"),
        ('"logprobs": {}', "json: cannot unmarshal object into Go struct field .logprobs of type bool"),
        ('"template": "{{ .Prompt }}"', "'template' is not supported"),
        ('"system": "\\ud800"', "system: half of a surrogate pair"),
        ('"messages": [{"role": "user", "content": "ok \\udfff"}]', "messages[0].content: half of a surrogate pair"),
        ('"messages": [{"role": "nobody", "content": "x"}]', "messages[0].role must be one of system, user, assistant"),
        ('"messages": [{"role": "%s"}]' % ("r" * 100_000), "messages[0].role must be one of"),
        ('"messages": [{"role": "user\\u0000"}]', "messages[0].role must be one of"),
        ('"messages": [{"role": "assistant", "tool_calls": [{}]}]', "m does not support tools"),
        ('"messages": [null]', "json: cannot unmarshal value into Go struct field .messages"),
        ('"messages": [{"role": "user", "content": ["x"]}]', "json: cannot unmarshal array into Go struct field"),
        ('"stream": "no", "raw": 1', "json: cannot unmarshal number into Go struct field .raw of type bool"),
    ],
)
def test_a_field_is_refused_with_what_it_may_be(field: str, said: str) -> None:
    assert refusal(f'{{"model": "m", "prompt": "p", {field}}}'.encode(), talk).startswith(said)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('"dimensions": 5', "'dimensions' is not supported by this server; leave it out"),
        ('"dimensions": {}', "'dimensions' is not supported"),
        ('"input": {}', "invalid input type"),
        ('"input": 0', "invalid input type"),
        ('"input": false', "invalid input type"),
        ('"input": [[]]', "invalid input type"),
        ('"input": ["a", ""]', "input[1] must not be empty"),
        ('"input": ["\\ud800"]', "input[0]: half of a surrogate pair"),
    ],
)
def test_a_field_of_embed_is_refused_with_what_it_may_be(field: str, said: str) -> None:
    def embed(body: Body) -> Any:
        body.refuse("dimensions")
        return body.texts("input")

    assert refusal(f"{{{field}}}".encode(), embed).startswith(said)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"a": 1, "b": {"c": 2, "c": 3}}', 'the key "c" stands twice in one object'),
        (b'{"%s": 1, "%s": 2}' % (b"k" * 10_000, b"k" * 10_000), 'the key "kkk'),
        (b'{"a": "\xed\xa0\x80"}', "invalid UTF-8 in request body: byte 8"),
        (b"\xff\xfe{\x00}\x00", "invalid UTF-8 in request body: byte 1"),
        ("{}".encode("utf-16-be"), "invalid character '\N{REPLACEMENT CHARACTER}' looking for beginning of value"),
        (b"\xef\xbb\xbf{}", "invalid character"),
        (b'{"\\udc00": 1}', "the body: half of a surrogate pair"),
        (b'{"a": [1, %s]}' % HUGE, "9999"),
        (b'{"a": %s}' % (b"9" * 5000), "a: 9999"),
        (b'{"a": 18446744073709551616}', "a: 18446744073709551616 is too large: a whole number is from -922"),
        (b'{"note": "\\"a\\": NaN", "b": NaN}', "b: NaN is no number of JSON"),
        (b'{"a\\"b" : NaN, "c": "', 'a\\"b: NaN is no number of JSON'),
        # Each of these took minutes or more, in which no other client was answered.
        (b'{"a": "%s", "b": NaN}' % (b'\\"' * 200_000), "b: NaN is no number of JSON"),
        (b'{"b": [NaN, "%s' % (b'\\"' * 200_000), "NaN is no number of JSON"),
        (b'{"b": [NaN, "%s' % (b"\\" * 200_001), "NaN is no number of JSON"),
        (b'{"a": %s}' % (b"9" * 1_000_000), "a: 9999"),
    ],
)
def test_a_body_that_two_programs_would_read_in_two_ways_is_refused(raw: bytes, said: str) -> None:
    assert refusal(raw, lambda body: body.fields).startswith(said)


def test_whole_surrogate_pairs_nul_and_64_bits_are_text_and_numbers_as_any() -> None:
    body = read_body(b'{"a": "\\ud83d\\ude00 \\u0000 \\\\ud800", "b": [18446744073709551615, -9223372036854775808]}')
    assert body.fields == {"a": "\N{GRINNING FACE} \0 \\ud800", "b": [2**64 - 1, -(2**63)]}


@pytest.mark.parametrize(
    ("asked", "context", "tokens"), [(-1, 4096, 4096), (64, 4096, 64), (2**31 - 1, 4096, 4096), (0, 8, 0)]
)
def test_the_window_of_repetitions_is_no_longer_than_the_context(asked: int, context: int, tokens: int) -> None:
    assert repeat_window(asked, context) == tokens


def test_a_context_that_memory_does_not_hold_is_refused_with_the_one_that_it_does() -> None:
    model = Catalogue(ModelStore()).facts()
    wanted = load_options(
        read_options({"num_ctx": 8192}), default_context=4096, trained_context=8192, processors=2, shift=True
    )
    check_memory(wanted, 4, model, available=1 << 30)
    with pytest.raises(Refusal) as caught:
        check_memory(wanted, 64, model, available=1 << 30)
    assert caught.value.status == 400
    assert re.fullmatch(
        r"a context of 8192 tokens for 64 calls at once needs 6\.0 GiB of memory, and 1\.0 GiB is free: "
        r"ask for at most (\d+) with num_ctx",
        caught.value.message,
    )
    fits = int(caught.value.message.split()[-3])
    assert 1000 < fits < 1300
    check_memory(replace(wanted, context=fits), 64, model, available=1 << 30)
