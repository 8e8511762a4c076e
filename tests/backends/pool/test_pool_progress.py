"""How a call that broke off goes on elsewhere."""

from __future__ import annotations

import pytest

from synaptic.backends.pool.calls.progress import Progress
from synaptic.messages import ChatRequest, Chunk, Message, Usage

ASK = ChatRequest(messages=(Message("user", "Say it."),), model="m", max_tokens=20)


def fed(progress, *texts):
    return [taken.text for text in texts if (taken := progress.take(Chunk(text=text))) is not None]


def test_a_text_is_continued_from_what_was_said():
    progress = Progress(ASK)
    assert fed(progress, "Once", " upon") == ["Once", " upon"]
    assert progress.break_off()
    request = progress.request()
    assert request.messages[-1] == Message("assistant", "Once upon")
    assert request.max_tokens == 18
    assert fed(progress, " a", " time") == [" a", " time"]
    assert progress.text == "Once upon a time"
    assert progress.usage(Usage(30, 2, 5)) == Usage(30, 4, 5)


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
    progress = Progress(ASK)
    fed(progress, before)
    progress.break_off()
    assert progress.request().messages[-1].content == before.rstrip()
    fed(progress, *after)
    assert progress.text == whole


def test_it_may_break_off_more_than_once():
    progress = Progress(ASK)
    for word in ("a", " b", " c"):
        fed(progress, word)
        assert progress.break_off()
    assert progress.request().messages[-1].content == "a b c"
    assert progress.request().max_tokens == 17
    assert len(progress.request().messages) == 2


@pytest.mark.parametrize("text", [[], [" ", "\n"]])
def test_nothing_said_is_begun_anew(text):
    progress = Progress(ASK)
    fed(progress, *text)
    assert not progress.break_off()
    assert progress.request() is ASK
    assert progress.text == ""


def test_what_a_schema_constrains_is_begun_anew():
    request = ChatRequest(messages=ASK.messages, schema={"type": "object"})
    progress = Progress(request)
    fed(progress, '{"a":')
    assert not progress.break_off()
    assert progress.request() is request
    assert progress.text == ""


def test_thoughts_alone_are_begun_anew_and_not_repeated_after_text():
    progress = Progress(ASK)
    assert progress.take(Chunk(thinking="hm")) is not None
    assert not progress.break_off()
    fed(progress, "Yes")
    assert progress.break_off()
    assert progress.take(Chunk(thinking="hm again")) is None


def test_the_token_limit_may_be_reached_where_it_broke_off():
    progress = Progress(ChatRequest(messages=ASK.messages, max_tokens=2))
    fed(progress, "a", " b")
    progress.break_off()
    assert progress.is_exhausted
    assert not Progress(ASK).is_exhausted
