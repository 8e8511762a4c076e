"""What a person meant by a text that is no YAML: the place, what is wrong there, and what to write instead.

The parser names its own state (``while parsing a block mapping did not find expected key``) and often a place far
behind the mistake. Here the lines around that place are read as a person would read them: a quote without its end, a
colon without a space, a line that is indented too far. Asked only once a text has been refused, so that nothing here
can refuse a right one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import yaml

from synaptic.text.words import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SCANNED: Final = 1 << 18
"""Characters of a text whose tokens are looked at: PyYAML's own scanner is slow."""
_SHOWN: Final = 60

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_TAB_INDENT = re.compile(r" *\t")
_KEY_LINE = re.compile(r"\s*(?:- +)?[\w-]+:(?:\s|$)")
_NO_SPACE = re.compile(r"([\w-]+):(?=[^\s:/])")
_BLOCK_HEADER = re.compile(r"([\w-]+):\s+[|>][-+0-9]*\s*(?:#.*)?$")
_KEY_ALONE = re.compile(r"([\w-]+):\s*$")
_BEGINS_LINE = re.compile(r"\s*(?:- +)*$")
_ODD: Final = {
    "\u00a0": ("a no-break space stands here", "write an ordinary space"),
    "\u2003": ("a wide space stands here", "write an ordinary space"),
    "\u3000": ("a wide space stands here", "write an ordinary space"),
    "\u200b": ("a character without width stands here", "remove it"),
    "\ufeff": ("a character without width stands here", "remove it"),
    "\N{FULLWIDTH COLON}": ("a wide colon stands here", "write ':' and a space"),
    "\N{FULLWIDTH COMMA}": ("a wide comma stands here", "write ','"),
}
_CURLY_QUOTE = re.compile("(?::\\s+|^\\s*)([\u201c\u201d\u201e\u2018\u2019\u00ab])")
_CLOSING: Final = {"{": "}", "[": "]"}
_LOOK: Final = "look at the indentation, the quotes and the colons of this line and of the one before"


class Fault(NamedTuple):
    """What is wrong at a place; line and column are zero-based."""

    line: int
    column: int
    message: str
    suggestion: str


@dataclass(frozen=True)
class _Refused:
    """A text that the parser has refused, and where."""

    text: str
    words: str
    line: int
    column: int
    index: int
    begin: tuple[int, int] | None
    lines: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The line of the place."""
        return self.lines[self.line] if self.line < len(self.lines) else ""

    @property
    def sign(self) -> str:
        """The character at the place."""
        return self.shown[self.column : self.column + 1]

    @property
    def begins_line(self) -> bool:
        """Whether nothing but white space stands before the place."""
        return not self.shown[: self.column].strip()

    @cached_property
    def tokens(self) -> list[yaml.Token]:
        """What stands in the text, as far as it can be taken apart."""
        found: list[yaml.Token] = []
        text = self.text if len(self.text) <= MAX_SCANNED else self.text[: self.index]
        try:
            if len(text) <= MAX_SCANNED:
                found.extend(yaml.scan(text, Loader=yaml.SafeLoader))
        except yaml.YAMLError:
            pass  # the place is known already
        return found

    @cached_property
    def last(self) -> yaml.Token | None:
        """The last token with text of its own that ends before the place, or at it."""
        shown = [
            token
            for token in self.tokens
            if token.end_mark.index <= self.index and token.end_mark.index > token.start_mark.index
        ]
        return shown[-1] if shown else None

    @property
    def scalar(self) -> yaml.ScalarToken | None:
        """The same, where it is text."""
        return self.last if isinstance(self.last, yaml.ScalarToken) else None

    @cached_property
    def open_brackets(self) -> list[yaml.Token]:
        """The brackets that are open at the place, the innermost last."""
        found: list[yaml.Token] = []
        for token in self.tokens:
            if token.start_mark.index >= self.index:
                break
            if isinstance(token, (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)):
                found.append(token)
            elif found and isinstance(token, (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)):
                found.pop()
        return found

    @property
    def balanced(self) -> bool:
        """Whether every bracket of the text has its end."""
        kinds = [token.__class__.__name__ for token in self.tokens if token.__class__.__name__.startswith("Flow")]
        starts = sum(kind.endswith("StartToken") for kind in kinds)
        return starts <= len([kind for kind in kinds if kind.endswith("EndToken")])

    def here(self, message: str, suggestion: str) -> Fault:
        """Return a fault at the place."""
        return Fault(self.line, self.column, message, suggestion)


def fault_of(error: yaml.MarkedYAMLError, text: str) -> Fault:
    """Return what is wrong with a text that the parser has refused."""
    mark, begin = error.problem_mark or error.context_mark, error.context_mark
    refused = _Refused(
        text,
        " ".join(part for part in (error.context, error.problem) if part),
        mark.line if mark else 0,
        mark.column if mark else 0,
        mark.index if mark else 0,
        (begin.line, begin.column) if begin else None,
        _BREAK.split(text),
    )
    for rule in _RULES:
        found = rule(refused)
        if found is not None:
            return found
    return refused.here("this cannot be read as YAML", _LOOK)


# -- characters --------------------------------------------------------------------------------------------


def _tab(refused: _Refused) -> Fault | None:
    for line in dict.fromkeys((refused.line, refused.begin[0] if refused.begin else refused.line)):
        match = _TAB_INDENT.match(refused.lines[line]) if line < len(refused.lines) else None
        if match is not None:
            return Fault(line, match.end() - 1, "a tab stands in the indentation", "indent with spaces, not tabs")
    return None


def _odd_character(refused: _Refused) -> Fault | None:
    scalar = refused.scalar
    first = scalar.start_mark.line if scalar is not None else refused.line
    for line in range(min(first, refused.line), refused.line + 1):
        shown = refused.lines[line] if line < len(refused.lines) else ""
        place = next((index for index, letter in enumerate(shown) if letter in _ODD), None)
        if place is not None:
            return Fault(line, place, *_ODD[shown[place]])
        quote = _CURLY_QUOTE.search(shown)
        if quote is not None:
            return Fault(
                line, quote.start(1), f"the quote {quote[1]} is a letter for YAML", "write straight quotes: '…'"
            )
    return None


def _unusable_beginning(refused: _Refused) -> Fault | None:
    if "cannot start any token" not in refused.words:
        return None
    if refused.shown[refused.column - 1 : refused.column] == "{" and refused.sign == "%":
        return Fault(
            refused.line, refused.column - 1, "a brace begins a mapping", "put a text that begins with '{%' in quotes"
        )
    return refused.here(f"a text cannot begin with {refused.sign!r}", "put it in single quotes: '…'")


def _star(refused: _Refused) -> Fault | None:
    for name, sign in (("an alias", "*"), ("an anchor", "&")):
        if name in refused.words and refused.begin is not None:
            advice = f"put a text that begins with '{sign}' in quotes"
            return Fault(*refused.begin, f"{sign!r} does not begin a text", advice)
    return None


def _escape(refused: _Refused) -> Fault | None:
    if "unknown escape" not in refused.words and "decimal number" not in refused.words:
        return None
    begin = refused.shown.rfind("\\", 0, refused.column + 1)
    column = begin if begin >= 0 else refused.column
    shown = refused.shown[column : column + 2]
    return Fault(refused.line, column, f"{shown} means nothing in double quotes", "put the value in single quotes")


def _directive(refused: _Refused) -> Fault | None:
    if refused.shown.startswith("%") or "directive" in refused.words or "incompatible" in refused.words:
        return Fault(refused.line, 0, "a line that begins with '%' is not read", "remove it")
    if "document start" in refused.words:
        return refused.here("more stands behind the end of the document", "remove the line '...'")
    return None


# -- quotes ------------------------------------------------------------------------------------------------


def _quote(refused: _Refused) -> Fault | None:
    if "quoted scalar" in refused.words and ("end of stream" in refused.words or "document" in refused.words):
        begin = refused.begin or (refused.line, refused.column)
        quote = refused.lines[begin[0]][begin[1] : begin[1] + 1]
        return _no_end(*begin, quote)
    scalar = refused.scalar
    if scalar is None or scalar.style not in {"'", '"'} or scalar.end_mark.line != refused.line:
        return None
    if not ("block" in refused.words or "flow" in refused.words) or refused.begins_line:
        return None
    start, end = scalar.start_mark, scalar.end_mark
    if start.line < end.line and _KEY_LINE.match(refused.lines[end.line][: end.column - 1]):
        return _no_end(start.line, start.column, scalar.style)
    if "flow" in refused.words and refused.sign in {'"', "'", ":"}:
        return None
    advice = 'put the text in single quotes, or write \\" for a quote in it'
    if scalar.style == "'":
        advice = "write '' for a quote in it, or put the text in double quotes"
    return Fault(end.line, end.column - 1, "the text ends at this quote, and more follows", advice)


def _no_end(line: int, column: int, quote: str) -> Fault:
    return Fault(line, column, "the text that begins with this quote has no end", f"write {quote} at its end")


# -- brackets ----------------------------------------------------------------------------------------------


def _bracket(refused: _Refused) -> Fault | None:
    if refused.sign in {"}", "]"} and "quoted" not in refused.words:
        opened = [refused.text[token.start_mark.index] for token in refused.open_brackets]
        if refused.sign not in [_CLOSING[sign] for sign in opened]:
            return refused.here(f"{refused.sign!r} closes nothing", "remove it")
        return _unclosed(refused)
    last = refused.last
    if isinstance(last, (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)) and not refused.begins_line:
        return _behind_bracket(refused, last)
    if "flow" not in refused.words or not refused.open_brackets:
        return None
    scalar = refused.scalar
    between = None if scalar is None or scalar.style else refused.text[scalar.end_mark.index : refused.index]
    template = refused.text.startswith("{{", refused.index) and between is not None and not between.strip()
    if refused.sign in {"[", "{"} and (between == "" or template):
        assert scalar is not None
        start = scalar.start_mark
        return Fault(start.line, start.column, "a value with brackets in it ends at them", "put it in quotes")
    if not refused.balanced:
        return _unclosed(refused)
    if refused.sign == ":" and scalar is not None:
        value = one_line(scalar.value, _SHOWN)
        word = one_line((scalar.value.split() or [scalar.value])[-1], _SHOWN)
        message = f"':' stands inside the value {value!r}"
        return refused.here(message, f"put the value in quotes, or a comma before {word!r}")
    return refused.here("a comma is missing before this", "write ', ' between the entries")


def _behind_bracket(refused: _Refused, last: yaml.Token) -> Fault | None:
    if "block" not in refused.words:
        return None
    line = refused.lines[last.start_mark.line][: last.start_mark.column]
    begin = line.find("{{")
    if begin >= 0:
        return Fault(
            last.start_mark.line, begin, "a brace begins a mapping", "put a text that begins with '{{' in quotes"
        )
    return refused.here("more follows behind the bracket", "put the whole text in quotes")


def _unclosed(refused: _Refused) -> Fault:
    opening = refused.open_brackets[-1].start_mark
    sign = refused.lines[opening.line][opening.column : opening.column + 1]
    return Fault(
        opening.line, opening.column, f"{sign!r} has no end", f"write {_CLOSING.get(sign, '}')} behind what it holds"
    )


# -- colons and keys ---------------------------------------------------------------------------------------


def _colon(refused: _Refused) -> Fault | None:
    if "mapping values are not allowed" not in refused.words:
        return None
    scalar = refused.scalar
    if scalar is None or scalar.style:
        return refused.here("':' stands where no key is", "put a value that has ': ' in it in quotes")
    start = scalar.start_mark
    before = refused.lines[start.line][: start.column]
    if _BEGINS_LINE.match(before) and start.line < refused.line:
        return _no_key(refused, start.line, start.column)
    if start.line < refused.line:
        key = before.split(":")[0].strip().removeprefix("- ")
        column = len(refused.shown) - len(refused.shown.lstrip())
        advice = f"indent it like {key!r}, or put the text in quotes"
        return Fault(refused.line, column, f"this line is indented as if it went on with the text of {key!r}", advice)
    return refused.here("a ':' stands inside a value", "put a value that has ': ' in it in quotes")


def _no_key(refused: _Refused, line: int, column: int) -> Fault:
    """Return what is wrong with a line on which a key should stand, and none does."""
    shown = refused.lines[line][column:].rstrip()
    joined = _NO_SPACE.match(shown)
    if joined is not None:
        place = column + joined.end()
        return Fault(
            line, place, f"a space is missing behind '{joined[1]}:'", f"write '{joined[1]}: {shown[joined.end() :]}'"
        )
    owner = _KEY_ALONE.search(refused.lines[line - 1]) if line else None
    if owner is not None and shown.count(" ") > 1:
        message = f"a text of several lines begins below {owner[1]!r}"
        return Fault(line, column, message, f"write '{owner[1]}: |' above it, and its lines indented alike")
    first, _, rest = shown.partition(" ")
    written = f"{first}: {rest.strip()}".rstrip()
    return Fault(line, column, f"a colon is missing behind {first!r}", f"write '{written}'")


def _no_colon(refused: _Refused) -> Fault | None:
    if "could not find expected ':'" not in refused.words:
        return None
    line, column = refused.begin or (refused.line, refused.column)
    key = _text_above(refused, line, column)
    if key is not None:
        return Fault(line, column, f"the text of {key!r} is not indented", f"indent it further than {key!r}")
    return _no_key(refused, line, column)


def _text_above(refused: _Refused, line: int, column: int) -> str | None:
    """Return the key whose text below ``|`` ends, or should begin, at this line."""
    for number in range(line - 1, -1, -1):
        shown = refused.lines[number]
        if not shown.strip():
            continue
        indent = len(shown) - len(shown.lstrip())
        header = _BLOCK_HEADER.search(shown)
        if header is not None and indent >= column - 2:
            return header[1]
        if indent <= column and number < line - 1 and header is None:
            return None
        if indent <= column and header is None:
            return None
    return None


def _block_header(refused: _Refused) -> Fault | None:
    if "block scalar" not in refused.words:
        return None
    sign = "|" if "|" in refused.shown[: refused.column] else ">"
    return refused.here(f"text stands on the line of '{sign}'", "begin it on the next line, indented")


# -- indentation -------------------------------------------------------------------------------------------


def _indentation(refused: _Refused) -> Fault | None:
    if "block" not in refused.words or not refused.begins_line:
        return None
    last = refused.last
    if isinstance(last, yaml.ScalarToken) and last.style in {"|", ">"}:
        header = refused.lines[last.start_mark.line]
        if refused.column > len(header) - len(header.lstrip()):
            message = "this line is indented less than the first one of its text"
            return refused.here(message, "indent all lines of the text alike")
    if refused.sign == "-" and "mapping" in refused.words:
        return refused.here("an item of a list stands among keys", "indent it below the key that it belongs to")
    if refused.begin is not None and "collection" in refused.words:
        return refused.here("a key stands among the items of a list", "begin it with '- ', or indent it otherwise")
    columns = [len(line) - len(line.lstrip()) for line in refused.lines[: refused.line] if line.strip()]
    nearest = min(reversed(columns), key=lambda column: abs(column - refused.column), default=0)
    advice = f"indent it by {nearest} {'space' if nearest == 1 else 'spaces'}, as a line above"
    return refused.here("the indentation of this line fits none above it", advice)


_RULES: Final[tuple[Callable[[_Refused], Fault | None], ...]] = (
    _tab,
    _directive,
    _odd_character,
    _quote,
    _escape,
    _unusable_beginning,
    _star,
    _block_header,
    _bracket,
    _colon,
    _no_colon,
    _indentation,
)
