"""The parts of a broken template with their places: its text, ``{{ … }}``, ``{% … %}``, and the tokens inside these.

Jinja2's lexer stops at the first sign that it does not know and says only the line. This one goes on, and takes the
signs of other languages (``&&``, ``===``, ``?.``) as tokens, so that what was meant can be said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

TokenKind: TypeAlias = Literal["name", "number", "text", "sign", "quote"]
RegionKind: TypeAlias = Literal["hole", "tag", "comment", "raw"]

_TOKEN = re.compile(
    r"""(?P<quote>['"])
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>&&|\|\||===|!==|<=>|==|!=|<=|>=|<>|=>|=<|=~|!~|\?\?|\?:|\?\.|->|::|:=|\+\+|--|\+=|-=|\.\.\.?|//|\*\*|\S)""",
    re.VERBOSE | re.DOTALL,
)
_RUNS_ON = r"(?!\s[}%]\}|\n)"
"""A text in which this stands has lost its closing quote: the next one, somewhere behind, is another's."""
_IN_A_TEXT = {quote: re.compile(rf"(?:{_RUNS_ON}[^{quote}\\]|\\{_RUNS_ON}.)*", re.DOTALL) for quote in "'\""}
_OPENING = re.compile(r"\{\{|\{%|\{#")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}")
_END_OF_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_ENDS = {"hole": "}}", "tag": "%}", "comment": "#}"}
_KINDS: dict[str, RegionKind] = {"{{": "hole", "{%": "tag", "{#": "comment"}
PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number, text or sign, and where it stands in the template."""

    kind: TokenKind
    text: str
    offset: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.offset + len(self.text)


@dataclass(frozen=True, slots=True)
class Region:
    """What stands between a pair of signs.

    Attributes:
        offset: Where its opening sign stands.
        tokens: What is in it; of a comment and of raw text, nothing.
        end: Behind its closing sign; ``None`` where that is missing.
        stray: The closing sign of another kind that stands in the place of its own, if one does.
    """

    kind: RegionKind
    offset: int
    tokens: tuple[Token, ...]
    end: int | None
    stray: Token | None = None


def tokens_of(text: str, start: int = 0, end: int | None = None) -> Iterator[Token]:
    """Yield the tokens of an expression without braces."""
    end = len(text) if end is None else end
    lost = dict.fromkeys(_IN_A_TEXT, 0)  # up to where no quote of a kind is closed, so that none is looked for again
    while (match := _TOKEN.search(text, start, end)) is not None:
        kind, written, place = match.lastgroup, match.group(), match.start()
        if kind == "quote" and place >= lost[written]:
            inside = _IN_A_TEXT[written].match(text, place + 1, end)
            stop = place + 1 if inside is None else inside.end()
            if stop < end and text[stop] == written:
                kind, written = "text", text[place : stop + 1]
            else:
                lost[written] = stop
        yield Token(kind, written, place)  # type: ignore[arg-type]  # one of the groups' names
        start = place + len(written)


def parts_of(template: str) -> Iterator[Region]:
    """Yield the parts of a template in their order; the last one is that without an end, where there is one."""
    position = 0
    while (opening := _OPENING.search(template, position)) is not None:
        raw = _RAW.match(template, opening.start())
        if raw is not None:
            close = _END_OF_RAW.search(template, raw.end())
            part = Region("raw", opening.start(), (), close and close.end())
        elif opening.group() == "{#":
            found = template.find("#}", opening.end())
            part = Region("comment", opening.start(), (), None if found < 0 else found + 2)
        else:
            part = _part(template, opening.start(), _KINDS[opening.group()])
        yield part
        if part.end is None:
            return
        position = part.end


def _part(template: str, offset: int, kind: RegionKind) -> Region:
    """Return the part that begins here; it ends at its closing sign, also where a bracket in it is still open."""
    sign = _ENDS[kind]
    tokens: list[Token] = []
    start = offset + 2
    if template[start : start + 1] in {"-", "+"}:
        start += 1
    braces = 0
    for token in tokens_of(template, start):
        if braces == 0 and template.startswith(sign, token.offset):
            _drop_trim(tokens, token)
            return Region(kind, offset, tuple(tokens), token.offset + 2)
        if braces == 0 and template.startswith(("}}", "%}"), token.offset):
            return Region(kind, offset, tuple(tokens), None, Token("sign", template[token.offset :][:2], token.offset))
        if braces == 0 and template.startswith(("{{", "{%"), token.offset):
            return Region(kind, offset, tuple(tokens), None)
        braces += (token.text == "{") - (token.text == "}" and braces > 0)
        tokens.append(token)
    return Region(kind, offset, tuple(tokens), None)


def _drop_trim(tokens: list[Token], end: Token) -> None:
    """Leave out the sign of ``-}}``, which is no minus."""
    if tokens and tokens[-1].text in {"-", "+"} and tokens[-1].end == end.offset:
        tokens.pop()
