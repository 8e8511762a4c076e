"""Go's ``text/template`` as chat templates use it: from the text to its nodes.

What a chat template has no use for (``define``, ``template``, ``block``) is refused, as is everything that Go refuses.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

MOST_CHARACTERS: Final = 100_000
DEEPEST: Final = 40
"""Branches and parentheses within each other."""

_WHITE = " \t\r\n"
_ACTION = re.compile(r"\{\{(-(?=\s))?")
_COMMENT = re.compile(r"\s*/\*.*?\*/\s*?(?P<trim>(?<=\s)-)?\}\}", re.DOTALL)
_NAME = r"[^\W\d]\w*"
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+)
  | (?P<end>-?\}}\}})
  | (?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
  | (?P<number>[-+]?\d+(?:\.\d+)?)
  | (?P<variable>\$\w*)
  | (?P<field>\.{_NAME})
  | (?P<dot>\.)
  | (?P<word>{_NAME})
  | (?P<sign>:=|[=,|()])
    """,
    re.VERBOSE,
)


class GoTemplateError(Exception):
    """The text is not a template that is understood here, or cannot be rendered."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A text, a number, ``true``, ``false`` or ``nil``."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class FieldPath:
    """``.Field.Field``, ``$name.Field``, ``(pipe).Field``; without a start it is the dot's."""

    fields: tuple[str, ...]
    start: str | Pipe | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """The name of a function."""

    name: str


Operand: TypeAlias = "Constant | FieldPath | Function | Pipe"


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each of which gets the result of the one before; what comes out goes into the variables.

    Attributes:
        names: Of the variables, without ``$``.
        declares: Whether they are new (``:=``).
    """

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True, slots=True)
class RawText:
    """What stands between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A pipe whose result is written, unless it goes into a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """``if``, ``with`` or ``range``, with what else there is."""

    kind: Literal["if", "with", "range"]
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """``break`` or ``continue``."""

    kind: Literal["break", "continue"]


Node: TypeAlias = RawText | Action | Branch | Jump


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def parse(text: str) -> tuple[Node, ...]:
    """Return the nodes of a template.

    Raises:
        GoTemplateError: If it is none, or has what no chat template needs.
    """
    if len(text) > MOST_CHARACTERS:
        raise GoTemplateError("it is too long")
    parts = _split(text)
    parser = _Nodes(parts)
    nodes, end = parser.until(frozenset(), 0)
    assert not end, "only the end of the text ends the outermost list"
    return nodes


def _split(text: str) -> list[str | list[_Token]]:
    """Return texts and actions in their order, without comments, and with the white space trimmed that is to be."""
    parts: list[str | list[_Token]] = []
    at, trim = 0, False
    while (begin := _ACTION.search(text, at)) is not None:
        before = text[at : begin.start()]
        before = before.lstrip(_WHITE) if trim else before
        parts.append(before.rstrip(_WHITE) if begin[1] else before)
        if (comment := _COMMENT.match(text, begin.end())) is not None:
            at, trim = comment.end(), comment["trim"] is not None
            continue
        tokens, at, trim = _tokens(text, begin.end())
        parts.append(tokens)
    rest = text[at:]
    parts.append(rest.lstrip(_WHITE) if trim else rest)
    return parts


def _tokens(text: str, at: int) -> tuple[list[_Token], int, bool]:
    """Return the tokens of an action, where it ends, and whether it trims what follows."""
    tokens: list[_Token] = []
    while (match := _TOKEN.match(text, at)) is not None:
        at, kind = match.end(), match.lastgroup or ""
        if kind == "end":
            if match[0].startswith("-") and not (tokens and tokens[-1].kind == "space"):
                break
            return tokens, at, match[0].startswith("-")
        tokens.append(_Token(kind, match[0]))
    raise GoTemplateError(f"not understood: {text[at : at + 20]!r}")


class _Nodes:
    """Reads the parts of a template one after the other."""

    def __init__(self, parts: list[str | list[_Token]]) -> None:
        self._parts = iter(parts)

    def until(self, ends: frozenset[str], depth: int) -> tuple[tuple[Node, ...], list[_Token]]:
        """Return the nodes up to an action that begins with one of ``ends``, and that action; without ends, all."""
        if depth > DEEPEST:
            raise GoTemplateError("it is nested too deep")
        nodes: list[Node] = []
        for part in self._parts:
            if isinstance(part, str):
                nodes += [RawText(part)] if part else []
                continue
            action = _without_outer_space(part)
            word = action[0].text if action and action[0].kind == "word" else ""
            if word in ends:
                return tuple(nodes), action
            nodes.append(self._node(word, action, depth))
        if ends:
            raise GoTemplateError("an {{ end }} is missing")
        return tuple(nodes), []

    def _node(self, word: str, action: list[_Token], depth: int) -> Node:
        match word:
            case "if" | "with" | "range":
                return self._branch(word, action[1:], depth)
            case "break" | "continue" if len(action) == 1:
                return Jump(word)
            case "end" | "else" | "define" | "template" | "block":
                raise GoTemplateError(f"{word} is not expected here")
        return Action(_Pipes(action).whole())

    def _branch(self, kind: Literal["if", "with", "range"], head: list[_Token], depth: int) -> Branch:
        pipe = _Pipes(head).whole(several=kind == "range")
        body, end = self.until(frozenset({"else", "end"}), depth + 1)
        if end[0].text == "end":
            return Branch(kind, pipe, body)
        more = _without_outer_space(end[1:])
        if more:
            word = more[0].text
            if word not in {"if", "with"} or kind == "range":
                raise GoTemplateError(f"else {word} is not understood")
            chained: Literal["if", "with"] = "if" if word == "if" else "with"
            return Branch(kind, pipe, body, (self._branch(chained, more[1:], depth + 1),))
        otherwise, _ = self.until(frozenset({"end"}), depth + 1)
        return Branch(kind, pipe, body, otherwise)


class _Pipes:
    """Reads the tokens of one action."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = _without_outer_space(tokens)
        self._at = 0
        self._depth = 0

    def whole(self, *, several: bool = False) -> Pipe:
        """Return the one pipe that the tokens are; ``several`` variables may be named, as a range does."""
        names, declares = self._names(several=several)
        pipe = Pipe(self._commands(), names, declares)
        if self._at < len(self._tokens):
            raise GoTemplateError(f"unexpected {self._tokens[self._at].text!r}")
        return pipe

    def _names(self, *, several: bool) -> tuple[tuple[str, ...], bool]:
        """Read ``$a :=``, ``$a =`` or ``$a, $b :=``, if that is how it begins."""
        solid = [(index, token) for index, token in enumerate(self._tokens) if token.kind != "space"]
        names: list[str] = []
        for (_, token), (index, sign) in zip(solid[::2], solid[1::2], strict=False):
            if token.kind != "variable" or sign.text not in {":=", "=", ","}:
                break
            names.append(token.text[1:])
            if sign.text == ",":
                continue
            if len(names) > (2 if several else 1) or not all(names):
                raise GoTemplateError("these are too many variables")
            self._at = index + 1
            return tuple(names), sign.text == ":="
        return (), False

    def _commands(self) -> tuple[tuple[Operand, ...], ...]:
        commands: list[tuple[Operand, ...]] = []
        while True:
            operands: list[Operand] = []
            self._skip_space()
            while (token := self._peek()) is not None and token.text not in {"|", ")"}:
                operands.append(self._operand())
                if (after := self._peek()) is not None and after.kind != "space" and after.text not in {"|", ")"}:
                    raise GoTemplateError(f"unexpected {after.text!r}")
                self._skip_space()
            if not operands:
                raise GoTemplateError("a command is missing")
            commands.append(tuple(operands))
            if (token := self._peek()) is None or token.text != "|":
                return tuple(commands)
            self._at += 1

    def _operand(self) -> Operand:
        token = self._take()
        match token.kind:
            case "text":
                return Constant(_unquoted(token.text))
            case "number":
                return Constant(float(token.text) if "." in token.text else int(token.text))
            case "variable":
                return FieldPath(self._fields(), token.text[1:])
            case "field":
                self._at -= 1
                return FieldPath(self._fields())
            case "dot":
                return FieldPath(())
            case "word":
                return Constant(_WORDS[token.text]) if token.text in _WORDS else Function(token.text)
        if token.text != "(":
            raise GoTemplateError(f"unexpected {token.text!r}")
        return self._in_parentheses()

    def _in_parentheses(self) -> Operand:
        self._depth += 1
        if self._depth > DEEPEST:
            raise GoTemplateError("it is nested too deep")
        pipe = Pipe(self._commands())
        if self._take().text != ")":
            raise GoTemplateError("a parenthesis is not closed")
        self._depth -= 1
        fields = self._fields()
        return FieldPath(fields, pipe) if fields else pipe

    def _fields(self) -> tuple[str, ...]:
        """Return the fields that follow without white space."""
        fields: list[str] = []
        while (token := self._peek()) is not None and token.kind == "field":
            fields.append(token.text[1:])
            self._at += 1
        return tuple(fields)

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self) -> _Token:
        token = self._peek()
        if token is None:
            raise GoTemplateError("an action ends too early")
        self._at += 1
        return token

    def _skip_space(self) -> None:
        while (token := self._peek()) is not None and token.kind == "space":
            self._at += 1


_WORDS: Final = {"true": True, "false": False, "nil": None}


def _without_outer_space(tokens: list[_Token]) -> list[_Token]:
    begin = 1 if tokens and tokens[0].kind == "space" else 0
    end = len(tokens) - 1 if len(tokens) > begin and tokens[-1].kind == "space" else len(tokens)
    return tokens[begin:end]


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    try:
        return str(ast.literal_eval(text))  # the escapes of a Go string are Python's
    except (ValueError, SyntaxError) as error:
        raise GoTemplateError(f"{text} is not a text") from error
