"""What looks like a value in a template, and is plain text: ``{inputs.topic}``, ``$topic``, ``<topic>``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CODE = re.compile(
    r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}",
    re.DOTALL,
)
_IN_BRACES = re.compile(r"[$#%]?\{\s*((?:inputs|steps|previous|run)(?:\.[A-Za-z]\w*)+)\s*\}{1,2}")

_FORMS = (
    r"\$?\{{\s*{0}(?P<braces>(?:\.\w+)*)\s*\}}",
    r"\${0}\b",
    r"<{0}>",
    r"\[{0}\]",
    r"%{0}%",
    r"%\({0}\)s",
)
"""How other languages write that a value belongs here; ``{0}`` is its name."""


@dataclass(frozen=True, slots=True)
class LookAlike:
    """One of them.

    Attributes:
        reference: What is meant: ``inputs.topic``.
        line: One-based, inside the template's text.
        token: How it is written.
    """

    reference: str
    line: int
    token: str


def in_single_braces(source: str) -> Iterator[LookAlike]:
    """Yield each reference that stands in braces of another language."""
    text = _plain(source)
    for match in _IN_BRACES.finditer(text):
        yield LookAlike(match[1], _line(text, match), match[0])


def spoken_of(source: str, name: str, reference: str) -> LookAlike | None:
    """Return where a text seems to speak of a value in the words of another language, or without its braces."""
    text = _plain(source)
    forms = [form.format(re.escape(name)) for form in _FORMS]
    if "." in reference:
        forms.append(rf"(?<![\w.]){re.escape(reference)}(?P<dotted>(?:\.[A-Za-z]\w*)*)(?!\w)")
    match = re.search("|".join(forms), text)
    if match is None:
        return None
    further = "".join(part for part in match.groupdict().values() if part)
    return LookAlike(reference + further, _line(text, match), match[0])


def _plain(source: str) -> str:
    """Return the text with blanks for its tags and holes."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source) if "{" in source else source


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1
