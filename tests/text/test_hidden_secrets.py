"""Secrets in what others wrote: every spelling is found, whatever stands around it, and nothing else is."""

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest

from synaptic.text import quoted_without_secrets, spelled, without_secrets

SECRETS = ("sk-very-secret-1234", 'correct "horse" <battery> st\\aple', "pässwörd%20+/=", "two  blanks and\ta tab")
SPELLINGS = {
    "as it is": str,
    "in one line": lambda text: " ".join(text.split()),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "Python": repr,
    "HTML": html.escape,
    "a path": quote,
    "a part of a URL": lambda text: quote(text, safe=""),
    "a query": quote_plus,
    "a query in small letters": lambda text: re.sub("%..", lambda hex_: hex_[0].lower(), quote_plus(text)),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_it_is_hidden_however_it_is_spelled(secret: str, spell):
    said = without_secrets(f"you sent {spell(secret)}, did you not?", spelled([secret]))
    assert said.replace('\\"', "").replace('"', "").replace("'", "") == "you sent [secret], did you not?"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_a_text_around_it_gives_none_of_its_letters_away(secret: str, encode):
    for before in ("", "u:", "ada:", "Bearer "):
        for after in ("", "!", "!!"):
            packed = encode(f"{before}{secret}{after}".encode()).decode()
            left, hidden, right = without_secrets(packed, spelled([secret])).partition("[secret]")
            assert hidden
            assert len(left) <= len(before) * 8 // 6 + 1
            assert len(right) <= 6


def test_a_secret_that_was_cut_is_hidden_to_its_last_letter():
    spellings = spelled([SECRETS[0]])
    assert quoted_without_secrets("it was 'sk-very-sec…'", spellings) == "it was '[secret]…'"
    assert quoted_without_secrets("it was sk-very, you know…", spellings) == "it was sk-very, you know…"


def test_what_is_too_short_to_be_one_spoils_no_text():
    assert spelled(["", "a", "abc", "é"]) == ()
    assert without_secrets("an abc", spelled(["abc"])) == "an abc"
