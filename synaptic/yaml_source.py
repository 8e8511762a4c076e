"""YAML with positions: plain data, and the line and column of every key and value in it.

PyYAML's ``compose`` step gives a node tree with marks, before any Python object is made; walking that tree
ourselves means that duplicate keys, aliases (a bomb in ten lines) and tags are refused instead of obeyed.
Scalars follow the YAML 1.2 core schema: ``yes`` and ``on`` are text, as everybody expects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from synaptic.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path as FilePath

    import yaml

    from synaptic.errors import UsageError

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_INTEGER_DIGITS = 18  # fits 64 bits; longer is text

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says, and where it says it. Lines and columns are one-based.

    ``blocks`` are the paths of block scalars (``|``, ``>``), whose text begins on the line after their position.
    """

    source: str
    value: Any
    keys: dict[KeyPath, tuple[int, int]]
    values: dict[KeyPath, tuple[int, int]]
    blocks: frozenset[KeyPath] = frozenset()

    def problem(self, message: str, path: KeyPath, *, at_key: bool = True, suggestion: str | None = None) -> Problem:
        """Return a problem located at ``path``, or at the nearest thing above it that has a position."""
        places = (self.keys, self.values) if at_key else (self.values, self.keys)
        for length in range(len(path), -1, -1):
            for positions in places:
                if path[:length] in positions:
                    line, column = positions[path[:length]]
                    return Problem(message, self.source, line, column, suggestion)
        return Problem(message, self.source, 1, 1, suggestion)


def read_text(path: FilePath, what: str, error: type[UsageError], *, limit: int = MAX_BYTES) -> str:
    """Return the text of the file, without a byte order mark; ``what`` names its kind in messages.

    Raises:
        UsageError: The given subclass, if it is missing, unreadable, a directory, too large or not UTF-8.

    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        reason = {
            FileNotFoundError: "there is no such file",
            IsADirectoryError: f"this is a directory, not a {what} file",
            PermissionError: "the file may not be read; check its permissions",
        }.get(type(exc), exc.strerror or str(exc))
        raise error.of([Problem(reason, str(path))]) from exc
    if len(data) > limit:
        raise error.of([Problem(f"the file has {len(data):,} bytes; a {what} has at most {limit:,}", str(path))])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise error.of([Problem("the file is not UTF-8; save it as UTF-8", str(path), line)]) from exc


def parse_yaml(text: str, source: str, error: type[UsageError], *, first_line: int = 1) -> Document:
    """Return the document; ``first_line`` is the line of the file on which ``text`` begins.

    Raises:
        UsageError: The given subclass, if the text is broken YAML, or has duplicate keys, aliases or tags.

    """
    import yaml  # noqa: PLC0415  (start-up: a REPL prompt needs no YAML)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        deep = _too_deep(yaml.parse(text, Loader=loader))
        if deep is not None:
            line, column = (deep.start_mark.line, deep.start_mark.column + 1) if deep.start_mark else (0, 1)
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise error.of([Problem(message, source, line + first_line, column)])
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as exc:
        raise error.of([_syntax_problem(exc, text, source, first_line)]) from exc
    except (yaml.YAMLError, RecursionError) as exc:
        first = str(exc).splitlines()[0] if str(exc) else "nested too deeply"
        raise error.of([Problem(f"broken YAML: {first}", source, first_line)]) from exc
    walker = _Walker(source, first_line)
    value = walker.walk(node, ()) if node is not None else None
    if walker.problems:
        raise error.of(walker.problems)
    return Document(source, value, walker.keys, walker.values, frozenset(walker.blocks))


def _too_deep(events: Iterable[yaml.Event]) -> yaml.Event | None:
    """Return where the nesting becomes too deep. Composing it would recurse in C until the process crashes."""
    import yaml  # noqa: PLC0415  (start-up: a REPL prompt needs no YAML)

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return event
    return None


def _syntax_problem(exc: yaml.MarkedYAMLError, text: str, source: str, first_line: int) -> Problem:
    mark = exc.problem_mark or exc.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    shown = lines[line] if line < len(lines) else ""
    what = " ".join(part for part in (exc.context, exc.problem) if part)
    suggestion = "indent with spaces, not tabs" if "\t" in shown else None
    if "mapping values are not allowed" in what:
        suggestion = suggestion or "put a value that has ': ' in it in quotes"
    return Problem(f"broken YAML: {what}", source, line + first_line, column + 1, suggestion)


class _Walker:
    """Turns a node tree into plain data and collects positions and problems."""

    def __init__(self, source: str, first_line: int) -> None:
        self.source = source
        self.offset = first_line
        self.keys: dict[KeyPath, tuple[int, int]] = {}
        self.values: dict[KeyPath, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.blocks: set[KeyPath] = set()
        self._seen: set[int] = set()

    def walk(self, node: yaml.Node, path: KeyPath) -> Any:
        position = self._position(node)
        self.values[path] = position
        if id(node) in self._seen:
            return self._refuse("aliases (*name) are not read", position, "write the value out")
        self._seen.add(id(node))
        if len(path) > MAX_DEPTH:
            return self._refuse(f"nested more than {MAX_DEPTH} levels deep", position)
        kind, content = _kind(node), node.value
        if kind == "mapping":
            return self._mapping(content, path)
        if kind == "sequence":
            return [self.walk(child, (*path, index)) for index, child in enumerate(content)]
        if node.tag.startswith("!"):
            return self._refuse(f"the tag {node.tag} is not read", position, "remove it")
        if getattr(node, "style", None) in {"|", ">"}:
            self.blocks.add(path)
        return _scalar(content, plain=_is_plain(node))

    def _mapping(self, pairs: list[tuple[yaml.Node, yaml.Node]], path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in pairs:
            position = self._position(key_node)
            key = key_node.value
            if _kind(key_node) != "scalar":
                self._refuse("a key must be plain text", position)
                continue
            if key == "<<" and _is_plain(key_node):
                self._refuse("merge keys (<<) are not read", position, "write the keys out")
                continue
            here = (*path, key)
            if key in result:
                line = self.keys[here][0]
                self._refuse(f"the key {key!r} stands twice", position, f"it is first on line {line}; keep one")
                continue
            self.keys[here] = position
            result[key] = self.walk(value_node, here)
        return result

    def _position(self, node: yaml.Node) -> tuple[int, int]:
        return node.start_mark.line + self.offset, node.start_mark.column + 1

    def _refuse(self, message: str, position: tuple[int, int], suggestion: str | None = None) -> None:
        self.problems.append(Problem(message, self.source, *position, suggestion))


def _kind(node: yaml.Node) -> str:
    return str(getattr(node, "id", ""))


def _is_plain(node: yaml.Node) -> bool:
    return not getattr(node, "style", None)


def _scalar(text: str, *, plain: bool) -> Any:
    if not plain:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= MAX_INTEGER_DIGITS else text
    if _NUMBER.fullmatch(text):
        return float(text)
    return text
