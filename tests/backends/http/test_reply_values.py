"""Values of a server's JSON, whatever they are."""

import pytest

from synaptic.backends.http import count_in, name_in, seconds_in, text_in, texts_in

ODD = [None, True, False, "9", [], {}, -1, 0, 2**63, 10**400, float("inf"), float("nan"), -0.5, 1e300]


@pytest.mark.parametrize("value", ODD)
def test_what_is_no_count_is_none(value: object):
    assert count_in(value) == 0


@pytest.mark.parametrize(("value", "count"), [(1, 1), (9.0, 9), (2**63 - 1, 2**63 - 1), (1.5, 0)])
def test_a_count_is_a_whole_number_of_64_bits(value: object, count: int):
    assert count_in(value) == count


@pytest.mark.parametrize("value", [value for value in ODD if value != 0 or value is False])
def test_what_is_no_duration_is_none(value: object):
    assert seconds_in(value, a_second=1000) is None


@pytest.mark.parametrize(("value", "seconds"), [(0, 0.0), (1500, 1.5), (2.5, 0.0025)])
def test_a_duration_comes_in_seconds(value: object, seconds: float):
    assert seconds_in(value, a_second=1000) == seconds


def test_a_text_is_a_text_and_a_name_is_one_short_line():
    assert [text_in(value) for value in ("a\nb", 1, None)] == ["a\nb", "", ""]
    assert texts_in(["a", 1, "b"]) == ["a", "b"]
    assert texts_in("ab") == []
    assert name_in("m:1b\n\x1b[2J") == "m:1b [2J"
    assert len(name_in("x" * 10_000)) == 200
    assert name_in({"a": 1}) == ""
