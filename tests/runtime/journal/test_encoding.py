"""What is told of values and events is what they were, whatever is in them."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.messages import ChatRequest, Message, Timeouts
from synaptic.runtime.events import StepAsked
from synaptic.runtime.journal.encoding import Decoder, Encoder
from synaptic.runtime.journal.kept_texts import (
    AGAINST_BASE,
    RunTexts,
    hash_of,
    lengths,
    lengths_read,
    name_spelled,
    spelled_name,
    to_bytes,
    to_text,
    unpack,
)

TEXTS = st.text(st.characters(codec=None), max_size=400)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
KEYS = TEXTS | st.sampled_from(["@", "$", "$j", "@x", "rest", "parts"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


class Kept:
    """Texts as a file would have them."""

    def __init__(self) -> None:
        self.texts: dict[bytes, str] = {}
        self.encoder = Encoder(self.put, lambda text: text)
        self.decoder = Decoder(self.texts.__getitem__)

    def put(self, text: str, near: bytes | None = None) -> bytes:
        name = hash_of(to_bytes(text))
        self.texts[name] = text
        return name


@settings(deadline=None)
@given(VALUES)
def test_every_value_comes_back(value: object):
    kept = Kept()

    told = json.loads(json.dumps(kept.encoder.value(value)))

    assert kept.decoder.value(told) == value


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(0, 400), max_size=6), VALUES, st.none() | st.floats(0, 2))
def test_every_request_comes_back_with_what_was_filled_in(text: str, at: list[int], schema: object, heat: object):
    places = sorted({min(each, len(text)) for each in at})
    spans = tuple(zip(places[::2], places[1::2], strict=False))
    schema = schema if isinstance(schema, dict) else None
    messages = (Message("system", "x"), Message("user", text, spans))
    sampling = {"schema": schema, "temperature": heat, "seed": 0, "think": False, "timeouts": Timeouts(first_token=1.0)}
    request = ChatRequest(messages=messages, model="m", tag="a[1].b", rank=2, **sampling)
    asked = StepAsked("a[1].b", "ab" * 32, request, digest="d")
    kept = Kept()

    told = json.loads(json.dumps(kept.encoder.event(asked)))

    assert kept.decoder.event("StepAsked", told) == asked


def test_requests_that_differ_beside_their_texts_are_kept_apart():
    kept = Kept()
    roles = [Message("system", role) for role in ("x", "y")]
    requests = [
        ChatRequest(messages=(roles[at % 2], Message("user", "why")), model="m", seed=seed, schema=schema)
        for at, (seed, schema) in enumerate([(1, None), (1, None), (2, None), (1, {"type": "object"}), (1, None)])
    ]

    told = [json.loads(json.dumps(kept.encoder.event(StepAsked("a", "ab", request)))) for request in requests]

    assert [kept.decoder.event("StepAsked", each).request for each in told] == requests


@settings(deadline=None)
@given(st.lists(st.text(max_size=900), max_size=6), st.integers(0, 5), TEXTS)
def test_texts_are_packed_against_earlier_ones_and_come_back(texts: list[str], which: int, more: str):
    run = RunTexts()
    texts = [*texts, more + "".join(texts[which : which + 1]) + more]
    for text in texts:
        run.put(text)
    fresh, used = run.taken()

    bodies: dict[bytes, bytes] = {}
    for each in fresh:
        bodies[each.hash] = unpack(each.packed, each.size, each.body, lambda each=each: bodies[each.base])
    assert {to_text(body) for body in bodies.values()} == set(texts)
    assert {each.base for each in fresh if each.base} <= set(used)


def test_a_prompt_with_an_answer_in_it_costs_next_to_nothing():
    run = RunTexts()
    answer = " ".join(f"word{number * number % 9973}" for number in range(600))
    run.put(answer)
    run.put(json.dumps({"notes": answer, "score": 0.5}))

    _, packed = run.taken()[0]
    assert packed.packed == AGAINST_BASE
    assert packed.size > 4000
    assert len(packed.body) < 120


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), max_size=80))
def test_numbers_come_back(numbers: list[int]):
    assert lengths_read(lengths(numbers)) == numbers


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16))
def test_names_come_back(name: bytes):
    assert name_spelled(spelled_name(name)) == name
