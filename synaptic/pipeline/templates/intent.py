"""What a person meant by a template that Jinja2 cannot read: the place, what is wrong, and what to write instead.

People come from JavaScript, shells, Go templates, Handlebars and GitHub Actions, and write what is right there. The
signs and words of these are tables here; what is left are brackets, quotes and tags without their ends. Pure, and
asked only once a template has failed, so that nothing here can refuse a right one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from synaptic.pipeline.templates.source_tokens import PAIRS, Region, Token, parts_of, tokens_of
from synaptic.text import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


class Intent(NamedTuple):
    """What is wrong at a place of the template, and what to write instead."""

    offset: int
    message: str
    suggestion: str


TAGS: Final = ("for", "if", "set", "with", "filter", "raw")
_EXAMPLE = "write for example steps.a.score > 0.5"
_MEANS_NOTHING = "means nothing in an expression"

_STRAIGHT: Final = "write straight quotes: '…'"

_SIGNS: Final = {
    "&&": "write 'and'",
    "||": "write 'or'",
    "&": "write 'and'",
    "!": "write 'not'",
    "===": "write ==",
    "!==": "write !=",
    "<>": "write !=",
    "=>": "write >=, or put a filter in the place of the function",
    "=<": "write <=",
    "<=>": "write == or <",
    "=~": "write 'part' in x, to look for a text in another one",
    "!~": "write 'part' not in x, to look for a text in another one",
    ":=": "write ==, or {% set x = … %}",
    "+=": "write {% set x = x + 1 %}",
    "-=": "write {% set x = x - 1 %}",
    "++": "write x + 1",
    "--": "write x - 1",
    "??": "write x or y, or x | default(y)",
    "?:": "write x or y",
    "?.": "write a dot alone: nothing of what was skipped is nothing again",
    "?": "write A if condition else B",
    "->": "write a dot",
    "::": "write a dot",
    "..": "write one dot; a range is x >= 1 and x <= 3",
    "...": "write x >= 1 and x <= 3",
    ";": "leave it out",
    "$": "leave it out",
    "@": "leave it out",
    "#": "leave it out; a comment stands between {# and #}",
    "^": "write ** for a power",
    "\\": "leave it out",
    "`": _STRAIGHT,
    **dict.fromkeys("“”„«»\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{ACUTE ACCENT}", _STRAIGHT),
    "\N{EN DASH}": "write a minus sign: -",
    "\N{EM DASH}": "write a minus sign: -",
    "≥": "write >=",
    "≤": "write <=",
    "≠": "write !=",
    "\N{MULTIPLICATION SIGN}": "write *",
    "÷": "write /",
    "…": "write what is meant",
}

_WORDS: Final = {
    **dict.fromkeys(("AND", "And"), "write 'and'"),
    **dict.fromkeys(("OR", "Or"), "write 'or'"),
    **dict.fromkeys(("NOT", "Not"), "write 'not'"),
    **dict.fromkeys(("IN", "In"), "write 'in'"),
    **dict.fromkeys(("IS", "Is"), "write 'is'"),
    **dict.fromkeys(("eq", "equals", "equal", "EQ"), "write =="),
    **dict.fromkeys(("ne", "neq", "NE"), "write !="),
    **dict.fromkeys(("gt", "greater", "more", "bigger", "above", "over", "GT"), "write >"),
    **dict.fromkeys(("lt", "less", "smaller", "below", "under", "fewer", "LT"), "write <"),
    **dict.fromkeys(("ge", "gte", "GE"), "write >="),
    **dict.fromkeys(("le", "lte", "LE"), "write <="),
    **dict.fromkeys(("contains", "includes", "has", "matches", "like", "LIKE"), "write 'part' in x"),
    **dict.fromkeys(("startswith", "startsWith", "starts"), "write x.startswith('…')"),
    **dict.fromkeys(("endswith", "endsWith", "ends"), "write x.endswith('…')"),
    **dict.fromkeys(("then", "do", "begin"), "leave it out"),
    "xor": "write (a or b) and not (a and b)",
    "between": "write x >= 1 and x <= 3",
    "unless": "write 'if not'",
    "of": "write 'in'",
    "div": "write //",
    "mod": "write %",
}
"""Words that stand where an operator should, and the operator."""

_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "is", "if", "else"})
_BINARY: Final = frozenset(
    {"and", "or", "in", "is", "else", "==", "!=", "<=", ">=", "<", ">", "*", "/", "//", "%", "**", "~", "|", "=", "."}
)
"""What has something on either side; ``+`` and ``-`` may stand alone before a number."""
_STRING_PREFIXES: Final = frozenset({"f", "F", "r", "b", "rf", "fr", "u"})
_ELSE_IF: Final = frozenset({"elseif", "elsif", "elsewhen", "elif_"})
_MIDDLE: Final = {"else": ("if", "for"), "elif": ("if",)}
_LOOP_WORDS: Final = frozenset({"foreach", "each", "loop", "while", "repeat"})
_NEEDS_SOMETHING: Final = {
    "if": "write {% if steps.a %}",
    "elif": "write {% elif steps.a %}",
    "for": "write {% for item in steps.a %}",
    "set": "write {% set name = steps.a %}",
    "with": "write {% with name = steps.a %}",
    "filter": "write {% filter upper %}",
}


def diagnose_template(source: str) -> Intent | None:
    """Return the first thing in a template that is wrong for a reason known here."""
    open_tags: list[tuple[str, int]] = []
    for part in parts_of(source):
        found = _tag_problem(part, open_tags) if part.kind == "tag" and part.end is not None else None
        found = found or _part_problem(part, source)
        if found is not None:
            return found
    if open_tags:
        name, offset = open_tags[-1]
        return Intent(offset, f"the tag {name!r} has no end", f"write {{% end{name} %}} behind what belongs to it")
    return None


def diagnose_expression(source: str) -> Intent | None:
    """Return the first thing in an expression, with or without braces, that is wrong for a reason known here."""
    text = source.strip()
    start = source.index(text)
    if text.startswith("${{"):
        return Intent(start, f"'$' {_MEANS_NOTHING}", "leave it and the braces out")
    if text.startswith("${"):
        return Intent(start, f"'${{' {_MEANS_NOTHING}", "write the name alone, without $ and braces")
    if text.startswith("{{"):
        part = next(parts_of(source))
        if part.end is not None and not source[part.end :].strip():
            return _part_problem(part, source)
        return Intent(part.offset, "braces stand around a whole expression", "leave them out")
    if "{{" in text:
        return Intent(source.index("{{"), "braces stand around a whole expression", "leave them out")
    if text.startswith("{%"):
        return Intent(start, "a tag stands in a template; this is an expression", _EXAMPLE)
    tokens = tuple(tokens_of(source))
    return _tokens_problem(tokens, start + len(text))


# -- one part ----------------------------------------------------------------------------------------------


def _part_problem(part: Region, source: str) -> Intent | None:
    if part.kind == "comment":
        if part.end is None:
            return Intent(
                part.offset,
                "the comment that '{#' begins has no end",
                "write {{ '{#' }} for the signs, or #} behind it",
            )
        return None
    if part.kind == "raw":
        return None if part.end else Intent(part.offset, "the tag 'raw' has no end", "write {% endraw %} behind it")
    if part.kind == "hole":
        found = _of_another_language(part, source)
        if found is not None:
            return found
    lone = _lone_percent(part, source)
    if part.end is None and (lone is not None or not part.tokens):
        return lone or _unclosed(part, None)
    tokens = part.tokens if part.kind == "hole" else _condition_of(part)
    end = part.end - 2 if part.end else (part.stray.offset if part.stray else len(source))
    found = _tokens_problem(tokens, end, assigns=_assigns(part), empty=part.kind == "hole")
    bracket = _open_bracket(part.tokens)
    brace = part.end is None and found is not None and source[found.offset] == "}"
    if found is not None and not brace and (part.end is not None or bracket is None or found.offset < bracket.offset):
        return found
    if part.end is None:
        return _unclosed(part, bracket)
    return None


def _lone_percent(part: Region, source: str) -> Intent | None:
    """Return that a tag ends with half of its sign."""
    for token in part.tokens if part.kind == "tag" else ():
        if token.text == "%" and source[token.end :][:1] in {"", "\n"}:
            return Intent(token.offset, "'{%' ends with '%}', and here is one sign", "write %}")
    return None


def _unclosed(part: Region, bracket: Token | None) -> Intent:
    sign, end = ("{{", "}}") if part.kind == "hole" else ("{%", "%}")
    if part.stray is not None:
        message = f"{part.stray.text!r} ends what {sign!r} begins"
        return Intent(part.stray.offset, message, f"write {end}")
    if bracket is not None:
        return _no_end(bracket)
    single = next((token for token in part.tokens if token.text == "}"), None)
    if single is not None:
        return Intent(single.offset, f"{sign!r} ends with {end!r}, and here is one brace", f"write {end}")
    what = "the expression" if part.kind == "hole" else "the tag"
    return Intent(part.offset, f"{what} that {sign!r} begins has no end", f"write {end} behind it")


def _of_another_language(part: Region, source: str) -> Intent | None:
    """Return what is wrong with a hole that Handlebars, Go or Jinja's own tags would have."""
    first = part.tokens[0] if part.tokens else None
    if first is None:
        return None
    if first.text in {"#", "/", "^", ">", "&"} and first.offset <= part.offset + 3:
        return Intent(part.offset, f"'{{{{{first.text}' is not of this language", "write {% if … %} … {% endif %}")
    if first.text in {*TAGS, "end", "endif", "endfor", "elif"} and len(part.tokens) > (first.text not in {"if", "for"}):
        return Intent(first.offset, f"{first.text!r} is a tag", f"write it between {{% and %}}: {{% {first.text} … %}}")
    if first.text == "{" and source.startswith("{{{", part.offset):
        return Intent(part.offset, "an expression stands in two braces, and here are three", "write {{ … }}")
    if first.text == "." and len(part.tokens) > 1:
        return Intent(first.offset, "a name is missing before the dot", f"write inputs.{part.tokens[1].text}")
    return None


def _assigns(part: Region) -> bool:
    return part.kind == "tag" and bool(part.tokens) and part.tokens[0].text in {"set", "with"}


def _condition_of(part: Region) -> tuple[Token, ...]:
    """Return the expression in a tag: what stands behind its name, of a loop behind ``in``."""
    words = [token.text for token in part.tokens]
    if not words:
        return ()
    if words[0] in {"if", "elif", "set", "with", "filter"}:
        return part.tokens[1:]
    if words[0] == "for" and "in" in words:
        return tuple(token for token in part.tokens[words.index("in") + 1 :] if token.text != "recursive")
    return ()


# -- an expression -----------------------------------------------------------------------------------------


def _tokens_problem(tokens: Sequence[Token], end: int, *, assigns: bool = False, empty: bool = True) -> Intent | None:
    """Return the first thing that is wrong with an expression that ends at ``end``."""
    if not tokens:
        return Intent(end, "there is no expression here", _EXAMPLE) if empty else None
    brackets: list[Token] = []
    for index, token in enumerate(tokens):
        before = tokens[index - 1] if index else None
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        found = _bracket_problem(token, brackets) or _sign_problem(token, before, after, brackets, assigns=assigns)
        if found is None and before is not None:
            found = _pair_problem(tokens, index)
        if found is None and before is None and after is not None and token.text in {"if", "when", "unless"}:
            found = Intent(token.offset, f"{token.text!r} does not begin an expression", "leave it out")
        if found is None and token.text in _BINARY and (before is None or before.text in {"(", "[", "{", ","}):
            found = Intent(token.offset, f"something is missing before {token.text!r}", _EXAMPLE)
        if found is not None:
            return found
    if brackets:
        return _no_end(brackets[-1])
    last = tokens[-1]
    if last.text == "%" and len(tokens) > 1 and tokens[-2].kind == "number":
        return Intent(last.offset, "'%' is no percent sign here", f"write {float(tokens[-2].text) / 100:g}")
    if last.text in _BINARY | {"not", "if", "+", "-"}:
        return Intent(last.offset, f"something is missing behind {last.text!r}", _EXAMPLE)
    if last.text == ",":
        return Intent(last.offset, "the comma makes a list of it", "leave it out")
    return None


def _bracket_problem(token: Token, brackets: list[Token]) -> Intent | None:
    if token.kind != "sign":
        return None
    if token.text in PAIRS:
        brackets.append(token)
    elif token.text in PAIRS.values():
        if not brackets:
            return Intent(token.offset, f"{token.text!r} closes nothing", "leave it out")
        opening = brackets.pop()
        if PAIRS[opening.text] != token.text:
            return _no_end(opening)
    return None


def _no_end(bracket: Token) -> Intent:
    return Intent(bracket.offset, f"{bracket.text!r} has no end", f"write {PAIRS[bracket.text]} behind what it holds")


def _open_bracket(tokens: Sequence[Token]) -> Token | None:
    brackets: list[Token] = []
    for token in tokens:
        if _bracket_problem(token, brackets) is not None:
            return None
    return brackets[-1] if brackets else None


def _sign_problem(
    token: Token, before: Token | None, after: Token | None, brackets: Sequence[Token], *, assigns: bool
) -> Intent | None:
    if token.kind == "quote":
        return Intent(token.offset, "the text that begins with this quote has no end", f"write {token.text} behind it")
    if token.kind != "sign":
        return None
    if token.text == "=":
        named = brackets and brackets[-1].text == "("
        if named or (assigns and not brackets):
            return None
        truth = after is not None and after.text.lower() in {"true", "false"}
        alone = ", or the name alone: true needs no comparison" if truth else ""
        return Intent(token.offset, "'=' does not compare", f"write =={alone}")
    if token.text == "%" and before is None and after is not None and after.kind == "name":
        return Intent(token.offset, f"'%' {_MEANS_NOTHING}", "leave it out")
    if token.text in {"<", ">"} and after is not None and after.text in {"<", ">"} and after.offset > token.end:
        return Intent(after.offset, "two operators follow one another", "keep one")
    advice = _SIGNS.get(token.text)
    if advice is None and not token.text.isascii():
        advice = "leave it out, or put it in quotes"
    return None if advice is None else Intent(token.offset, f"{token.text!r} {_MEANS_NOTHING}", advice)


def _pair_problem(tokens: Sequence[Token], index: int) -> Intent | None:
    """Return what is wrong with two tokens that follow one another."""
    before, token = tokens[index - 1], tokens[index]
    if token.text == "." and index + 1 < len(tokens) and tokens[index + 1].kind == "number" and before.text in _BINARY:
        return Intent(token.offset, "a number begins with a digit", f"write 0.{tokens[index + 1].text}")
    if token.text == ":" and tokens[max(0, index - 2)].text == "|":
        return _argument_of(before, tokens[index + 1 :], token)
    if before.text == "." and token.kind != "name":
        return Intent(before.offset, "a name is missing behind the dot", "write for example inputs.query")
    if before.text == "|" and token.kind != "name":
        return Intent(before.offset, "a filter is missing behind '|'", "write for example | upper; 'or' is a word")
    operators = before.text in _BINARY and token.text in _BINARY and (before.text, token.text) != ("is", "in")
    if operators and (token.kind == "sign" or before.text not in {"is", "|", "."}):
        return Intent(token.offset, "two operators follow one another", "keep one")
    if _is_value(before, end=True) and _is_value(token, end=False):
        return _side_by_side(tokens, index)
    return None


def _side_by_side(tokens: Sequence[Token], index: int) -> Intent | None:
    """Return what is wrong with two values that have no operator between them."""
    before, token = tokens[index - 1], tokens[index]
    touching = before.end == token.offset
    if before.text in _STRING_PREFIXES and token.kind == "text" and touching:
        return Intent(before.offset, f"there are no {before.text}-strings here", "join the parts with ~")
    if before.kind == "text" and token.kind == "name" and touching:
        quote = '"' if before.text[0] == "'" else "'"
        message = f"the text ends at the second {before.text[0]}"
        return Intent(token.offset, message, f"put it in the other quotes: {quote}…{quote}")
    word = before if before.text in _WORDS else token
    advice = _WORDS.get(word.text)
    if advice is not None:
        return Intent(word.offset, f"{word.text!r} {_MEANS_NOTHING}", advice)
    if _in_test(tokens, index):
        return None
    if tokens[max(0, index - 2)].text == "|":
        return _argument_of(before, tokens[index:], token)
    message = f"an operator is missing between {before.text!r} and {token.text!r}"
    return Intent(token.offset, message, "write for example 'and' or ==")


def _argument_of(name: Token, given: Sequence[Token], place: Token) -> Intent:
    argument = given[0].text if given and _is_value(given[0], end=False) and len(given) == 1 else "…"
    return Intent(place.offset, "what a filter is given stands in brackets", f"write {name.text}({argument})")


def _is_value(token: Token, *, end: bool) -> bool:
    """Return whether a value may end, or begin, with the token."""
    if token.kind == "name":
        return token.text not in _KEYWORDS
    return token.kind in {"number", "text"} or (end and token.text in {")", "]"})


def _in_test(tokens: Sequence[Token], index: int) -> bool:
    """Return whether the token is the argument of a test, as in ``x is divisibleby 3``."""
    words = [token.text for token in tokens[max(0, index - 3) : index]]
    return words[-2:-1] == ["is"] or words[-3:-1] == ["is", "not"]


# -- tags --------------------------------------------------------------------------------------------------


def _tag_problem(part: Region, open_tags: list[tuple[str, int]]) -> Intent | None:
    """Return what is wrong with a tag among those that are open, which it opens or closes."""
    if not part.tokens:
        return Intent(part.offset, "the tag is empty", "write for example {% if steps.a %}")
    first, rest = part.tokens[0], part.tokens[1:]
    name, top = first.text, open_tags[-1][0] if open_tags else ""
    if name in TAGS:
        found = _opening_problem(first, rest)
        if found is None and not (name == "set" and any(token.text == "=" for token in rest)):
            open_tags.append((name, part.offset))
        return found
    if name in _MIDDLE:
        if name == "else" and rest and rest[0].text == "if":
            return Intent(rest[0].offset, "'else if' is one word here", "write elif")
        if top not in _MIDDLE[name]:
            return Intent(first.offset, f"{name!r} is not inside an 'if'", "write {% if … %} before it")
        return (
            None if name == "else" or rest else Intent(first.offset, "'elif' has no condition", _NEEDS_SOMETHING[name])
        )
    if name.startswith("end"):
        return _end_problem(first, open_tags)
    return Intent(first.offset, f"there is no tag {name!r}", _meant_tag(name, top))


def _end_problem(first: Token, open_tags: list[tuple[str, int]]) -> Intent | None:
    name = first.text
    if not open_tags:
        opened = name.removeprefix("end")
        advice = f"write {{% {opened} … %}} before it, or leave it out" if opened in TAGS else "leave it out"
        return Intent(first.offset, f"{name!r} ends nothing", advice)
    top, offset = open_tags[-1]
    if name == f"end{top}":
        open_tags.pop()
        return None
    if name != "end" and name.removeprefix("end") in [each for each, _ in open_tags]:
        return Intent(offset, f"the tag {top!r} has no end before {name!r}", f"write {{% end{top} %}} before that")
    return Intent(first.offset, f"{name!r} does not end {top!r}", f"write {{% end{top} %}}")


def _opening_problem(first: Token, rest: Sequence[Token]) -> Intent | None:
    name = first.text
    if not rest:
        if name == "raw":
            return None
        return Intent(first.offset, f"{name!r} has nothing to go by", _NEEDS_SOMETHING[name])
    words = [token.text for token in rest]
    if name == "set" and len(rest) > 1 and rest[1].text not in {"=", ",", ".", "|"}:
        return Intent(rest[1].offset, "'set' needs a '='", f"write {{% set {words[0]} = … %}}")
    if name == "for" and "in" not in words:
        other = next((token for token in rest if token.text in {"of", "from", "=", ":"}), None)
        place = other or first
        return Intent(place.offset, "a loop is written with 'in'", "write {% for item in steps.a %}")
    return None


def _meant_tag(name: str, top: str) -> str:
    if name in _ELSE_IF:
        return "write elif"
    if name in _LOOP_WORDS:
        return "write {% for item in steps.a %}"
    if name in {"break", "continue"}:
        return "choose the items beforehand: {% for item in steps.a if … %}"
    if name in {"unless", "when"}:
        return "write {% if not … %}" if name == "unless" else "write {% if … %}"
    if name in {"print", "echo", "var", "let"}:
        return "write {{ … }}" if name in {"print", "echo"} else "write {% set name = … %}"
    near = nearest(name, [*TAGS, *(("else", f"end{top}") if top else ())])
    return f"did you mean {near!r}?" if near else f"known: {', '.join(sorted(TAGS))}"
