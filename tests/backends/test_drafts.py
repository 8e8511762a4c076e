"""What is learned of drafts: whether they pay, kept between programs."""

import json
from pathlib import Path

import pytest

from synaptic import paths
from synaptic.backends.drafts import (
    ENOUGH,
    REMEMBERED,
    TRIED_AGAIN,
    DraftRecord,
    DraftStanding,
    DraftTally,
    kind_of,
    match_for,
)
from synaptic.messages import ChatRequest, Finished, Message, OfferedTool, Timings, Usage

COST = 0.4
ASK = ChatRequest(messages=(Message("user", "Hi"),))
WRONG = DraftTally(tokens=400, drafted=ENOUGH, accepted=ENOUGH // 4)
RIGHT = DraftTally(tokens=400, drafted=ENOUGH, accepted=ENOUGH // 2)


@pytest.fixture
def record(tmp_path: Path) -> DraftRecord:
    return DraftRecord("m", tmp_path / "drafts.json")


def test_the_end_of_a_call_tells_what_came_of_its_drafts() -> None:
    usage = Usage(10, 50)
    assert DraftTally.of(Finished("stop")) == DraftTally()
    assert DraftTally.of(Finished("stop", usage=usage, timings=Timings(generation_seconds=1.0))) == DraftTally(
        tokens=50
    )
    drafted = DraftTally.of(Finished("stop", usage=usage, timings=Timings(drafted_tokens=44, accepted_tokens=35)))
    assert drafted == DraftTally(tokens=50, drafted=44, accepted=35)
    assert drafted.acceptance == pytest.approx(35 / 44)
    assert drafted.tokens_a_pass == pytest.approx(50 / 15)
    assert DraftTally().acceptance is None
    assert DraftTally().tokens_a_pass == 1.0


def test_a_draft_needs_less_where_it_costs_less() -> None:
    assert [match_for(cost) for cost in (None, 0.4, 0.25, 0.1)] == [6, 6, 6, 4]


def test_calls_are_of_three_kinds() -> None:
    assert kind_of(ASK) == "text"
    assert kind_of(ChatRequest(messages=ASK.messages, schema={"type": "object"})) == "schema"
    assert kind_of(ChatRequest(messages=ASK.messages, tools=(OfferedTool("look", "", {}),))) == "tools"


def test_drafts_are_left_only_once_enough_of_them_were_wrong(record: DraftRecord) -> None:
    assert record.why_not(COST) == ""
    record.take("text", DraftTally(tokens=100, drafted=ENOUGH - 1, accepted=0))
    assert record.why_not(COST) == ""
    record.take("schema", DraftTally(tokens=9, drafted=1, accepted=0))
    assert record.why_not(COST) == f"0 of {ENOUGH} drafted tokens were right, and 40% would have to be"
    assert record.by_kind == (
        ("schema", DraftTally(tokens=9, drafted=1)),
        ("text", DraftTally(tokens=100, drafted=ENOUGH - 1)),
    )


def test_what_pays_depends_on_what_a_drafted_token_costs(record: DraftRecord) -> None:
    record.take("text", DraftTally(tokens=400, drafted=200, accepted=60))
    assert record.why_not(0.4)
    assert record.why_not(0.2) == ""


def test_it_is_known_to_the_next_program_and_tried_again_a_day_later(tmp_path: Path) -> None:
    file = tmp_path / "drafts.json"
    first = DraftRecord("m", file)
    first.take("text", WRONG)
    assert first.why_not(COST, now=1e9)
    assert DraftRecord("other", file).why_not(COST, now=1e9) == ""
    again = DraftRecord("m", file)
    assert again.total == WRONG
    assert again.why_not(COST, now=1e9 + TRIED_AGAIN - 1)
    assert again.why_not(COST, now=1e9 + TRIED_AGAIN) == ""
    assert DraftRecord("m", file).total == DraftTally()


def test_they_come_back_as_soon_as_they_would_pay(record: DraftRecord) -> None:
    record.take("text", WRONG)
    assert record.why_not(COST, now=1e9)
    record.take("text", RIGHT + RIGHT)
    assert record.why_not(COST, now=1e9) == ""


def test_older_calls_count_less(record: DraftRecord) -> None:
    record.take("text", DraftTally(tokens=REMEMBERED, drafted=REMEMBERED, accepted=0))
    record.take("text", DraftTally(tokens=REMEMBERED, drafted=REMEMBERED, accepted=REMEMBERED))
    assert record.total.drafted == REMEMBERED
    record.take("text", DraftTally(tokens=REMEMBERED, drafted=REMEMBERED, accepted=REMEMBERED))
    assert record.total.acceptance == pytest.approx(0.75)


@pytest.mark.parametrize(
    "kept",
    ["no JSON", "[]", json.dumps({"m": 7}), json.dumps({"m": {"kinds": {"text": [1]}, "off_since": None}})],
)
def test_a_damaged_record_is_as_if_nothing_had_been_learned(tmp_path: Path, kept: str) -> None:
    file = tmp_path / "drafts.json"
    file.write_text(kept)
    record = DraftRecord("m", file)
    assert record.total == DraftTally()
    record.take("text", RIGHT)
    assert DraftRecord("m", file).total == RIGHT


def test_a_record_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    record = DraftRecord("m", tmp_path / "file" / "drafts.json")
    record.take("text", WRONG)
    assert record.why_not(COST)


def test_it_is_kept_in_the_cache_and_a_standing_adds_up_its_kinds(own_home: Path) -> None:
    record = DraftRecord("m")
    record.take("text", RIGHT)
    record.save()
    assert paths.draft_record_file().is_file()
    assert paths.draft_record_file().is_relative_to(own_home)
    standing = DraftStanding(on=True, by_kind=(("schema", RIGHT), ("text", WRONG)))
    assert standing.total == RIGHT + WRONG
