"""The word that was meant: one that is near, and none where nothing is."""

import pytest

from synaptic.text import misspelt, nearest

COMMANDS = ["agents", "batch", "chat", "config", "distributed", "doctor", "engine", "serve", "trust", "workers"]
KEYS = [
    "agent",
    "as",
    "choose",
    "default",
    "description",
    "foreach",
    "join",
    "max_tokens",
    "needs",
    "num_ctx",
    "prompt",
]
KEYS += ["race", "retries", "retry", "temperature", "tool", "use", "when"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("promt", "prompt"),
        ("jion", "join"),
        ("Agnet", "agent"),
        ("tmeperature", "temperature"),
        ("temp", "temperature"),
        ("desc", "description"),
        ("dscr", "description"),
        ("tmpr", "temperature"),
        ("tokens", "max_tokens"),
        ("token", "max_tokens"),
        ("ctx", "num_ctx"),
        ("retry_count", "retry"),
        ("retrys", "retry"),
        ("needss", "needs"),
        ("foreach_", "foreach"),
        ("whn", "when"),
        ("ass", "as"),
    ],
)
def test_a_slip_a_beginning_and_a_part_are_near(typed: str, meant: str):
    assert nearest(typed, KEYS) == meant


@pytest.mark.parametrize("typed", ["first", "secret", "speed", "level", "seed", "order", "song", "question", "merge"])
def test_words_that_share_letters_are_not_near(typed: str):
    assert nearest(typed, COMMANDS) is None


@pytest.mark.parametrize(("typed", "other"), [("foo", "first_token_timeout"), ("port", "pool_recovery_wait")])
def test_a_few_letters_of_a_long_word_are_no_abbreviation(typed: str, other: str):
    assert nearest(typed, [other]) is None


@pytest.mark.parametrize("typed", ["bad", "last", "on", "house", "poem", "import", "write", "x", "", "的"])
def test_short_words_are_not_near_to_everything(typed: str):
    assert nearest(typed, [key for key in KEYS if key != "choose"]) is None


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [("", "", True), ("a", "b", False), ("ab", "ba", False), ("abc", "abd", True), ("abcdef", "badcef", True)],
)
def test_a_slip_in_every_third_letter(one: str, other: str, *, near: bool):
    assert misspelt(one, other) is misspelt(other, one) is near


def test_of_ten_thousand_names():
    names = [f"{index:05d}-minutes.txt" for index in range(10_000)]

    assert nearest("01234-minutse.txt", names) == "01234-minutes.txt"
