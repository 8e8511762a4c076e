"""Characters that a screen obeys or hides, written as what they are. The one place that says which these are.

What a model, a node or a file says may hold commands to the terminal, change the order in which it is read (bidi), or
carry a text that a person does not see and another model reads (zero-width and tag characters, variation selectors).
Joiners and selectors inside scripts and emoji that need them stay.
"""

from __future__ import annotations

import json
import re
from typing import Final

_OBEYED: Final = dict.fromkeys((*range(0x09), *range(0x0B, 0x20), 0x7F))
"""C0 without newline and tab, and DEL. They are left out: what they would have done stands behind them in letters."""

_HIDDEN: Final = (
    r"\x80-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    r"\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
"""C1, bidi controls, what takes no room, fillers that are letters to Unicode, tag characters."""

_LETTERS: Final = r"\u00c0-\u052f\u1e00-\u1fff"
"""Of Latin, Greek, Cyrillic and Armenian, which need neither joiners nor selectors."""
_JOINER: Final = rf"(?<=[\x20-\x7e{_LETTERS}\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?=[\x20-\x7e{_LETTERS}])"
_IDEOGRAPH: Final = r"\u3400-\u9fff\U00020000-\U0003ffff"
_SELECTOR: Final = (
    r"(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f]"
    rf"|(?<![{_IDEOGRAPH}])[\U000e0100-\U000e01ef]"
    rf"|(?<=[\n\x20-\x22\x24-\x29\x2b-\x2f\x3a-\x7e{_LETTERS}])[\ufe00-\ufe0f]|(?<=[0-9#*])[\ufe01-\ufe0d]"
    r"|(?<![\u1820-\u18aa])[\u180b-\u180d\u180f]"
)
"""Variation selectors where they select nothing; digits, # and * have two for emoji, zero has one for its stroke."""
_UNSEEN: Final = re.compile(f"[{_HIDDEN}]|{_JOINER}|{_SELECTOR}")
_LAST_OF_ONE_BYTE: Final = 0xFF
_LAST_OF_TWO: Final = 0xFFFF


def printable(text: str) -> str:
    """Return ``text`` as a terminal may show it: no control characters, hidden ones escaped; newline and tab stay."""
    if text.isascii() and text.isprintable():
        return text
    return visible(text.translate(_OBEYED))


def visible(text: str) -> str:
    """Return ``text`` with hidden characters escaped. Commands to a terminal in ASCII stay: they may be ours."""
    return text if text.isascii() else _UNSEEN.sub(_named, text)


def printable_json(text: str) -> str:
    """Return a JSON document with hidden characters escaped as JSON does it: it stays the same document."""
    return text if text.isascii() else _UNSEEN.sub(_in_json, text)


def _named(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= _LAST_OF_ONE_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _LAST_OF_TWO else f"\\U{code:08x}"


def _in_json(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]
