"""How a text that broke off goes on: white space at the seam, echoes, replays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synaptic.messages import ChatRequest, Delta, Message, Usage
from synaptic.waiting import Continuation, Departed, Way
from synaptic.waiting.continuation import REPLAY_SECONDS

ASK = ChatRequest(messages=(Message("user", "Say it."),), model="m", max_tokens=20)


def fed(call, *texts):
    return [taken.text for text in texts if (taken := call.take(Delta(text=text))) is not None]


def test_a_text_is_continued_from_what_was_said():
    call = Continuation(ASK)
    assert fed(call, "Once", " upon") == ["Once", " upon"]
    assert call.break_off() is Way.PREFILL
    request = call.request()
    assert request.messages[-1] == Message("assistant", "Once upon")
    assert request.max_tokens == 18
    assert fed(call, " a", " time") == [" a", " time"]
    assert call.text == "Once upon a time"
    assert call.usage(Usage(30, 2, 5)) == Usage(30, 4, 5)


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("One.\n\n", ["\n\n", "Two."], "One.\n\nTwo."),  # said again
        ("One.\n\n", ["\n\nTwo."], "One.\n\nTwo."),
        ("One.\n\n", ["Two."], "One.\n\nTwo."),  # not said again
        ("One. ", [" Two."], "One. Two."),
        ("One.", [" Two."], "One. Two."),  # not part of the seam
        ("One. ", ["  Two."], "One.  Two."),
        ("- a\n  ", ["\n", "  - b"], "- a\n  - b"),
    ],
)
def test_white_space_at_the_seam_is_neither_doubled_nor_lost(before, after, whole):
    call = Continuation(ASK)
    fed(call, before)
    call.break_off()
    assert call.request().messages[-1].content == before.rstrip()
    fed(call, *after)
    assert call.text == whole


@pytest.mark.parametrize(
    ("said", "prefill"),
    [
        ("a time", "Once upon a time"),
        ("Once upon a time", "Once upon a time"),  # by a server that repeats what it continues
    ],
)
def test_an_answer_that_the_caller_had_begun_stays_one_message(said: str, prefill: str):
    user, begun = ASK.messages[0], Message("assistant", "Once upon ")
    call = Continuation(ChatRequest(messages=(user, begun)))
    fed(call, said)
    assert call.break_off() is Way.PREFILL
    assert call.request().messages == (user, Message("assistant", prefill))
    assert fed(call, " there") == [" there"]


def test_it_may_break_off_more_than_once():
    call = Continuation(ASK)
    for word in ("a", " b", " c"):
        fed(call, word)
        assert call.break_off() is Way.PREFILL
    assert call.request().messages[-1].content == "a b c"
    assert call.request().max_tokens == 17
    assert len(call.request().messages) == 2


@pytest.mark.parametrize("text", [[], [" ", "\n"]])
def test_nothing_said_begins_again(text):
    call = Continuation(ASK)
    fed(call, *text)
    assert call.break_off() is Way.BEGIN
    assert call.request() is ASK
    assert call.text == ""


def test_what_a_schema_constrains_begins_again():
    request = ChatRequest(messages=ASK.messages, schema={"type": "object"})
    call = Continuation(request)
    fed(call, '{"a":')
    assert call.break_off() is Way.BEGIN
    assert call.request() is request
    assert call.text == ""


def test_thoughts_alone_begin_again_and_not_repeated_after_text():
    call = Continuation(ASK)
    assert call.take(Delta(thinking="hm")) is not None
    assert call.break_off() is Way.BEGIN
    fed(call, "Yes")
    assert call.break_off() is Way.PREFILL
    assert call.take(Delta(thinking="hm again")) is None


def test_the_token_limit_may_be_reached_where_it_broke_off():
    call = Continuation(ChatRequest(messages=ASK.messages, max_tokens=2))
    fed(call, "a", " b")
    call.break_off()
    assert call.is_exhausted
    assert not Continuation(ASK).is_exhausted


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("One.\n\n", ["One.", "\n\n", "Two."], "One.\n\nTwo."),  # the echo, then the white space
        ("One.\n\n", ["One.\n\nTwo."], "One.\n\nTwo."),  # all of it at once
        ("One.\n\n", ["One.", "Two."], "One.\n\nTwo."),  # the echo, and the white space is not said again
        ("One.\n\n", ["\n", "\nTwo."], "One.\n\nTwo."),  # no echo after all
        ("One. ", ["One.", "  Two."], "One.  Two."),
        ("ha", ["ha", "ha"], "haha"),
    ],
)
def test_echo_and_seam_are_both_taken_off(before, after, whole):
    call = Continuation(ASK, echoes=True)
    fed(call, before)
    assert call.break_off() is Way.PREFILL
    assert call.request().messages[-1].content == before.rstrip()
    fed(call, *after)
    assert call.text == whole


LONG = "Rivers are indeed one of the most fascinating systems"


@pytest.mark.parametrize("size", [1, 2, 5, 40])
@pytest.mark.parametrize("echoes", [True, False])
def test_an_echo_comes_in_pieces_of_any_size_and_a_long_one_from_any_server(*, echoes: bool, size: int):
    call = Continuation(ASK, echoes=echoes)
    fed(call, LONG)
    call.break_off()
    call.request()
    more = LONG + " on our planet."
    fed(call, *(more[at : at + size] for at in range(0, len(more), size)))
    assert call.rest() is None
    assert call.text == LONG + " on our planet."


def test_white_space_before_an_echo_belongs_to_it():
    call = Continuation(ASK)
    fed(call, "\n" + LONG)
    call.break_off()
    call.request()
    assert fed(call, " ", LONG + " on") == [" on"]


@pytest.mark.parametrize("pieces", [["Rivers", " are", " long."], ["Rivers are long."], ["R", "I"], [" Rivers", "!"]])
def test_what_only_begins_like_an_echo_is_said(pieces: list[str]):
    call = Continuation(ASK)
    fed(call, LONG)
    call.break_off()
    call.request()
    fed(call, *pieces)
    assert call.rest() is None
    assert call.text == LONG + "".join(pieces)


def test_what_was_held_back_as_the_reply_ended_is_said():
    call = Continuation(ASK)
    fed(call, LONG)
    call.break_off()
    call.request()
    assert fed(call, "Rivers", " are") == []
    assert call.rest() == Delta("Rivers are")
    assert call.text == LONG + "Rivers are"
    assert call.rest() is None


def test_what_is_held_back_when_it_breaks_again_was_never_said():
    call = Continuation(ASK)
    fed(call, LONG)
    call.break_off()
    call.request()
    assert fed(call, "Rivers") == []
    assert call.break_off() is Way.PREFILL
    assert call.request().messages[-1].content == LONG
    assert fed(call, LONG, ".") == ["."]


def test_the_tokens_of_an_echo_were_not_generated():
    call = Continuation(ASK, echoes=True)
    fed(call, "Once", " upon", " a", " time")
    call.break_off()
    assert call.request().max_tokens == 16
    fed(call, "Once", " upon a", " time", " there")
    call.break_off()
    assert call.request().max_tokens == 15


def test_where_nothing_echoes_a_text_may_begin_as_it_began_before():
    call = Continuation(ASK)
    fed(call, "ha")
    call.break_off()
    call.request()
    assert fed(call, "ha") == ["ha"]
    assert call.text == "haha"


def test_a_call_that_was_replayed_and_then_continued_minds_its_seam():
    call = Continuation(ASK, echoes=True)
    fed(call, "One.", "\n")
    assert call.break_off(0.1) is Way.REPLAY
    assert fed(call, "One.") == []
    assert call.break_off() is Way.PREFILL
    assert call.request().messages[-1] == Message("assistant", "One.")
    assert call.request().max_tokens == 18
    assert fed(call, "One.", "\n", "Two.") == ["Two."]
    assert call.text == "One.\nTwo."


def request(limit: int | None = None, **options: object) -> ChatRequest:
    return ChatRequest(messages=(Message("user", "count"),), max_tokens=limit, **options)  # type: ignore[arg-type]


def told(continuation: Continuation, *texts: str) -> list[str]:
    chunks = [continuation.take(Delta(text=text)) for text in texts]
    return [chunk.text for chunk in chunks if chunk is not None]


def test_a_call_that_has_said_nothing_begins_again():
    call = Continuation(request(), echoes=True)
    assert call.break_off(1.0) is Way.BEGIN
    assert call.request() == request()


def test_a_text_that_is_dear_goes_on_by_prefill_and_the_echo_is_taken_off():
    call = Continuation(request(10), echoes=True)
    assert told(call, "one ", "two ") == ["one ", "two "]
    assert call.break_off(REPLAY_SECONDS) is Way.PREFILL
    asked = call.request()
    assert asked.messages[-1] == Message("assistant", "one two")
    assert asked.max_tokens == 8
    assert told(call, "one two", " one ") == ["one "]
    assert call.text == "one two one "
    assert call.usage(Usage(30, 8)) == Usage(30, 10)
    assert call.break_off(REPLAY_SECONDS) is Way.PREFILL
    assert call.request().max_tokens == 7


def test_an_echo_with_more_behind_it_and_a_server_without_one():
    for first, expected in (("abc", "c"), ("cd", "cd")):
        call = Continuation(request(), echoes=True)
        told(call, "ab")
        call.break_off(REPLAY_SECONDS + 1)
        call.request()
        assert told(call, first) == [expected]


def test_who_thinks_again_before_going_on_is_not_heard():
    call = Continuation(request(), echoes=True)
    call.take(Delta(thinking="hm"))
    told(call, "ab")
    call.break_off(REPLAY_SECONDS + 1)
    call.request()
    assert call.take(Delta(thinking="hm")) is None
    assert told(call, "abc") == ["c"]


def test_a_text_that_is_cheap_is_repeated_and_goes_on_where_it_broke():
    call = Continuation(request(10), echoes=True)
    call.take(Delta(thinking="hm"))
    assert told(call, "one ", "two ") == ["one ", "two "]
    assert call.break_off(0.1) is Way.REPLAY
    assert call.request() == request(10)
    assert call.take(Delta(thinking="h")) is None
    assert call.take(Delta(thinking="m")) is None
    assert told(call, "one", " two thr", "ee") == ["thr", "ee"]
    assert call.text == "one two three"
    assert call.usage(Usage(30, 9)) == Usage(30, 9)


def test_a_call_that_breaks_while_it_is_repeated_has_lost_nothing():
    call = Continuation(request(10), echoes=True)
    told(call, "a", "b", "c")
    call.break_off(0.1)
    assert told(call, "a") == []
    assert call.break_off(100.0) is Way.PREFILL
    assert call.request().max_tokens == 7
    assert told(call, "abc", "d") == ["d"]


@pytest.mark.parametrize("texts", [("x",), ("a", "x"), ("ax",), ("ab", "cx", "y", "zz")])
def test_a_replay_that_departs_is_given_up(texts: tuple[str, ...]):
    call = Continuation(request(), echoes=True)
    told(call, "ab", "cd")
    call.break_off(0.1)
    with pytest.raises(Departed):
        told(call, *texts)
    assert call.break_off() is Way.PREFILL
    assert call.request().messages[-1].content == "abcd"


def test_what_a_schema_constrains_is_repeated_or_begun_again_but_never_prefilled():
    call = Continuation(request(schema={"type": "object"}), echoes=True)
    told(call, '{"a": ')
    assert call.break_off(1e6) is Way.REPLAY
    assert call.break_off() is Way.BEGIN
    assert not call.delivered


def test_thoughts_without_a_text_cannot_be_prefilled():
    call = Continuation(request(), echoes=True)
    call.take(Delta(thinking="hm"))
    assert call.break_off(1e6) is Way.BEGIN
    assert not call.delivered


def test_a_call_that_broke_at_its_limit_is_complete():
    call = Continuation(request(2), echoes=True)
    told(call, "a", "b")
    call.break_off(1e6)
    assert call.is_exhausted


CHARACTERS = st.one_of(st.sampled_from("a \n"), st.characters())


@settings(deadline=None)
@given(
    echoes=st.booleans(),
    pieces=st.lists(st.text(CHARACTERS, min_size=1, max_size=3), min_size=1, max_size=8),
    data=st.data(),
)
def test_however_often_it_breaks_the_text_is_whole(*, echoes: bool, pieces: list[str], data: st.DataObject):
    whole = "".join(pieces)
    call = Continuation(request(), echoes=echoes)
    heard = ""

    def attempt(upto: int) -> str:
        """Return what is heard of an attempt that comes to some place of the whole text, from the server's view."""
        asked = call.request()
        if call.way is Way.PREFILL:
            echo = asked.messages[-1].content
            sent = whole[len(echo) : max(upto, len(call.text) + 1)]
            return "".join(told(call, *([echo] if call.echoes else []), sent))
        return "".join(told(call, *whole[:upto]))

    for _ in range(data.draw(st.integers(0, 4))):
        heard += attempt(data.draw(st.integers(0, len(whole))))
        if call.break_off(0.1 if data.draw(st.booleans()) else 1e6) is Way.BEGIN:
            heard = ""
    heard += attempt(len(whole))
    assert call.text == whole
    assert heard == whole


def test_text_that_turns_out_to_be_thinking_is_not_continued():
    continuation = Continuation(ChatRequest(messages=(Message("user", "q"),)))
    continuation.take(Delta("Okay."))
    continuation.thought_so_far()

    assert continuation.delivered
    assert continuation.break_off() is Way.BEGIN

    continuation.take(Delta("Okay."))
    continuation.thought_so_far()
    continuation.take(Delta("Par"))
    assert continuation.break_off() is Way.PREFILL
    assert continuation.request().messages[-1] == Message("assistant", "Par")
