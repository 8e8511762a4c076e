"""YAML with positions: plain data, and the line and column of every key and value in it.

PyYAML's parser gives events with marks; building the data from them ourselves, in one pass and without recursion,
means that duplicate keys, merge keys, tags, bottomless nesting and bombs of aliases are refused instead of obeyed.
Scalars follow the YAML 1.2 core schema: ``yes`` and ``on`` are text, as people expect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synaptic.errors import Problem
from synaptic.text.decoding import NotTextError, decoded
from synaptic.text.regular_file import broken_link, read_regular
from synaptic.text.words import one_line
from synaptic.text.written import written_number
from synaptic.text.yaml_anchors import AnchorFault, Anchors
from synaptic.text.yaml_places import Span, offset_of, place_of, position

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path as FilePath

    import yaml

    from synaptic.errors import UsageError
    from synaptic.text.problems import KeyPath

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
_SHOWN = 60

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
_OPENING = re.compile(r"[\[{]")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_STANDARD_TAG = "tag:yaml.org,2002:"
_NO_SPACE = re.compile(r"([\w-]+):([^\s:/].*)")
_ANCHOR = re.compile(r"&\S+\s+")
_MERGE = "merge keys (<<) are not read: which of two values holds would not be seen in the file"
_NO_MERGE = "write the keys out, or give a whole value an alias, as in 'retry: *name'"


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """What a YAML text says, and where it says it. Lines and columns are one-based.

    Attributes:
        spans: Where each scalar begins and ends in ``text``.
    """

    source: str
    value: Any
    keys: dict[KeyPath, tuple[int, int]]
    values: dict[KeyPath, tuple[int, int]]
    text: str = field(default="", repr=False)
    spans: dict[KeyPath, Span] = field(default_factory=dict, repr=False)

    @property
    def blocks(self) -> frozenset[KeyPath]:
        """The paths of block scalars (``|``, ``>``), whose text begins on the line after their position."""
        return frozenset(path for path, span in self.spans.items() if span.style in {"|", ">"})

    def problem(self, message: str, path: KeyPath, *, at_key: bool = True, suggestion: str | None = None) -> Problem:
        """Return a problem located at ``path``, or at the nearest thing above it that has a position."""
        return Problem(message, self.source, *self._nearest(path, at_key=at_key), suggestion)

    def inside(self, path: KeyPath, offset: int) -> tuple[int, int]:
        """Return line and column of a character of the text at ``path``, counted in the text as it was read."""
        span, value = self.spans.get(path), self._text_at(path)
        if span is None or value is None:
            return self._nearest(path, at_key=False)
        return place_of(self.text, span, value, offset)

    def locate(self, path: KeyPath, line: int = 1, token: str | None = None) -> tuple[int, int]:
        """Return line and column of ``token`` on a line of the text at ``path``; ``line`` is one-based.

        Without a token this is the line's first character that belongs to the text.
        """
        value = self._text_at(path)
        return self.inside(path, 0 if value is None else offset_of(value, line, token))

    def _text_at(self, path: KeyPath) -> str | None:
        value = self.value
        for part in path:
            try:
                value = value[part]
            except (TypeError, KeyError, IndexError):
                return None
        return value if isinstance(value, str) else None

    def _nearest(self, path: KeyPath, *, at_key: bool) -> tuple[int, int]:
        places = (self.keys, self.values) if at_key else (self.values, self.keys)
        for length in range(len(path), -1, -1):
            for positions in places:
                if path[:length] in positions:
                    return positions[path[:length]]
        return 1, 1


def read_text(path: FilePath, what: str, error: type[UsageError], *, limit: int = MAX_BYTES) -> str:
    """Return the text of the file, without a byte order mark; ``what`` names its kind in messages.

    Raises:
        UsageError: The given subclass, if it is missing, unreadable, a directory, too large or not UTF-8.
    """
    data = read_data(path, what, error, limit=limit)
    try:
        return decoded(data)
    except NotTextError as exc:
        raise error.of([Problem(f"the file {exc}", str(path), exc.line, exc.column, exc.hint)]) from None


def read_data(path: FilePath, what: str, error: type[UsageError], *, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of the file; ``what`` names its kind in messages.

    Raises:
        UsageError: The given subclass, if it is missing, unreadable, a directory or too large.
    """
    try:
        data = read_regular(path, limit)
        size = max(path.stat().st_size, len(data))
    except OSError as exc:
        reason = {
            FileNotFoundError: "there is no such file",
            IsADirectoryError: f"this is a directory, not a {what} file",
            PermissionError: "the file may not be read; check its permissions",
        }.get(type(exc), exc.strerror or str(exc))
        raise error.of([Problem(reason, str(path), suggestion=broken_link(path))]) from exc
    except ValueError as exc:
        raise error.of([Problem("this is not a usable path", repr(str(path)))]) from exc
    if len(data) > limit:
        raise error.of([Problem(f"the file has {size:,} bytes; a {what} has at most {limit:,}", str(path), 1, 1)])
    return data


def parse_yaml(text: str, source: str, error: type[UsageError], *, first_line: int = 1) -> YamlDocument:
    """Return the document; ``first_line`` is the line of the file on which ``text`` begins.

    Raises:
        UsageError: The given subclass, if the text is broken YAML, or has duplicate keys, merge keys or tags.
    """
    document, problems = read_yaml(text, source, error, first_line=first_line)
    if problems:
        raise error.of(problems)
    return document


def read_yaml(
    text: str, source: str, error: type[UsageError], *, first_line: int = 1
) -> tuple[YamlDocument, list[Problem]]:
    """Return the document, and mistakes in it in spite of which it is clear what is meant, such as a key twice.

    Raises:
        UsageError: The given subclass, if the text is broken YAML, or it is not clear what it says.
    """
    import yaml  # noqa: PLC0415  (start-up: a REPL prompt needs no YAML)

    text = text.removeprefix("\ufeff")
    if any(len(_OPENING.findall(line)) > MAX_DEPTH for line in text.split("\n")):  # the parser looks a line ahead
        from synaptic.text.yaml_depth import cut_where_too_deep  # noqa: PLC0415  (rare, and imports PyYAML)

        text = cut_where_too_deep(text, MAX_DEPTH)  # what is left ends where the reader stops
    reader = _Reader(source, first_line, text)
    take: dict[type[yaml.Event], Callable[[Any], None]] = {
        yaml.ScalarEvent: reader.scalar,
        yaml.MappingStartEvent: reader.begin_mapping,
        yaml.SequenceStartEvent: reader.begin_sequence,
        yaml.MappingEndEvent: reader.end,
        yaml.SequenceEndEvent: reader.end,
        yaml.AliasEvent: reader.alias,
        yaml.DocumentStartEvent: reader.document,
    }
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            handle = take.get(type(event))
            if handle is not None:
                handle(event)
    except _Stop:
        pass
    except yaml.MarkedYAMLError as exc:
        raise error.of(_with_fault(reader.problems, _syntax_problem(exc, text, source, first_line))) from exc
    except (yaml.YAMLError, UnicodeEncodeError) as exc:
        raise error.of([_character_problem(exc, text, source, first_line)]) from exc
    if reader.unreadable:
        raise error.of(reader.problems)
    return YamlDocument(source, reader.root, reader.keys, reader.values, text, reader.spans), reader.problems


def _with_fault(found: list[Problem], fault: Problem) -> list[Problem]:
    """Return the problems with the one at which reading ended, unless that line has one: it is the same mistake."""
    return found if any(problem.line == fault.line for problem in found) else [*found, fault]


def _syntax_problem(exc: yaml.MarkedYAMLError, text: str, source: str, first_line: int) -> Problem:
    from synaptic.text.yaml_faults import fault_of  # noqa: PLC0415  (rare, and imports PyYAML)

    found = fault_of(exc, text)
    return Problem(found.message, source, found.line + first_line, found.column + 1, found.suggestion)


def _character_problem(exc: yaml.YAMLError | UnicodeEncodeError, text: str, source: str, first_line: int) -> Problem:
    """Return the problem of a character that YAML does not allow: a control character, half of a surrogate pair."""
    code = ord(text[exc.start]) if isinstance(exc, UnicodeEncodeError) else getattr(exc, "character", None)
    index = text.find(chr(code)) if isinstance(code, int) else -1
    if index < 0:
        return Problem("this cannot be read as YAML", source, first_line, 1)
    breaks = list(_LINE_BREAK.finditer(text, 0, index))
    column = index - (breaks[-1].end() if breaks else 0) + 1
    message = f"broken YAML: the character U+{code:04X} is not allowed"
    return Problem(message, source, first_line + len(breaks), column, "remove it")


class _Stop(Exception):
    """The rest of the document is not looked at."""


_NO_KEY = object()
"""A mapping waits for a key."""
_REFUSED = object()
"""The key was refused, so its value is passed over."""


class _Open:
    """A mapping or list whose end has not come yet.

    Attributes:
        in_braces: Whether it is a mapping that is written in braces.
        key_end: Where the last key ended in the text.
        continued: The key whose value goes on behind a comma.
        is_template: Whether it is a template without quotes.
        anchor: Its name, if it has one.
        began: What was counted of the text before it.
        height: Levels of mappings and lists in it so far, itself included.
    """

    __slots__ = (
        "anchor",
        "began",
        "continued",
        "height",
        "in_braces",
        "is_template",
        "items",
        "key",
        "key_end",
        "path",
        "start",
    )

    def __init__(
        self, items: dict[str, Any] | list[Any], path: KeyPath, *, start: int = 0, in_braces: bool = False
    ) -> None:
        self.start = start
        self.is_template = False
        self.items = items
        self.path = path
        self.key: Any = _NO_KEY
        self.in_braces = in_braces
        self.key_end = 0
        self.continued: str | None = None
        self.anchor: str | None = None
        self.began = 0
        self.height = 1


class _Reader:
    """Turns events into plain data and collects positions and problems."""

    def __init__(self, source: str, first_line: int, text: str) -> None:
        self._text = text
        self.root: Any = None
        self.keys: dict[KeyPath, tuple[int, int]] = {}
        self.values: dict[KeyPath, tuple[int, int]] = {}
        self.spans: dict[KeyPath, Span] = {}
        self.problems: list[Problem] = []
        self.unreadable = False
        self._source = source
        self._offset = first_line
        self._stack: list[_Open] = []
        self._passing = 0
        self._documents = 0
        self._anchors = Anchors()

    def document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse("a second document begins here", event, "keep one", understood=True)
            raise _Stop

    def scalar(self, event: yaml.ScalarEvent) -> None:
        if self._passing:
            self._pass_over(event)
            return
        text, style = event.value, event.style or ""
        here = self._stack[-1] if self._stack else None
        if here is not None and type(here.items) is dict and here.key is _NO_KEY:
            self._key(here, event, plain=not style)
            return
        path = self._place(here)
        if path is None:
            self._pass_over(event)
            return
        self.values[path] = self._position(event)
        first, last = event.start_mark, event.end_mark
        if first is not None and last is not None:
            span = Span(first.index, last.index, style, *self.values[path])
            self.spans[path] = span if event.anchor is None else self._behind_anchor(span)
            self.values[path] = self.spans[path].line, self.spans[path].column
        if event.tag is not None:
            self._refuse_tag(event)
        began = self._anchors.size
        self._anchors.count(text)
        if event.anchor is not None:
            self._name(event.anchor, event, path)
            self._anchors.end(event.anchor, began, height=0)
        if here is not None and here.in_braces and self._is_bare(here, event):
            self._bare(here, path)
            return
        if here is not None:
            here.continued = None
        self._put(here, text if style else _scalar(text))

    def _is_bare(self, here: _Open, event: yaml.ScalarEvent) -> bool:
        """Return whether a key in braces has neither a colon nor a value."""
        return not event.value and not event.style and not self._text[here.key_end :].lstrip().startswith(":")

    def _bare(self, here: _Open, path: KeyPath) -> None:
        """Refuse a bare key, and read on with what is meant: a comma has cut a text in two, or a space is missing."""
        assert isinstance(here.items, dict)  # only these have keys
        key = str(path[-1])
        place = self.keys.pop(path)
        here.key = _NO_KEY
        joined = _NO_SPACE.match(key)
        if here.continued is None and joined is not None:
            name, value = joined[1], joined[2]
            self.keys.setdefault((*here.path, name), place)
            self.values.setdefault((*here.path, name), (place[0], place[1] + joined.start(2)))
            here.items.setdefault(name, _scalar(value))
            column = place[1] + joined.start(2)
            message, advice = f"a space is missing behind '{name}:'", f"write '{name}: {value}'"
            self.problems.append(Problem(message, self._source, place[0], column, advice))
            return
        before = here.continued or next(reversed(here.items), None)
        span = None if before is None else self.spans.get((*here.path, before))
        if before is None or span is None or span.style:
            self.unreadable = True
            self.problems.append(Problem(f"{key!r} has no value", self._source, *place, f"write '{key}: …'"))
            return
        if self._text[span.start : span.end + 1 + len(key)] == f"{here.items[before]},{key}" and key.isdecimal():
            where = self.values[(*here.path, before)]
            number = f"{here.items[before]}.{key}"
            self.problems.append(Problem("a number has a point and no comma", self._source, *where, f"write {number}"))
            here.items[before] = float(number)
            return
        if here.continued is None:
            ended = one_line(self._text[span.start : span.end], _SHOWN)
            message = f"the comma ends the value {ended!r}, and {one_line(key, _SHOWN)!r} is no key"
            where = self.values[(*here.path, before)]
            self.problems.append(Problem(message, self._source, *where, "put the whole value in quotes"))
        here.continued = before
        here.items[before] = f"{here.items[before]}, {key}"

    def begin_mapping(self, event: yaml.MappingStartEvent) -> None:
        self._begin({}, event)

    def begin_sequence(self, event: yaml.SequenceStartEvent) -> None:
        self._begin([], event)

    def end(self, event: yaml.CollectionEndEvent) -> None:
        if self._passing:
            self._passing -= 1
        else:
            here = self._stack.pop()
            if self._stack:
                self._stack[-1].height = max(self._stack[-1].height, here.height + 1)
            if here.anchor is not None:
                self._anchors.end(here.anchor, here.began, here.height)
            if here.is_template:
                self._read_as_text(here, event)

    def _read_as_text(self, here: _Open, event: yaml.CollectionEndEvent) -> None:
        """Take ``{{ … }}`` without quotes as the template that is meant."""
        begin, first = self.values[here.path], here.start
        last = event.end_mark.index if event.end_mark is not None else first
        for places in (self.keys, self.values, self.spans):
            for path in [path for path in places if path[: len(here.path)] == here.path and path != here.path]:
                del places[path]
        self.spans[here.path] = Span(first, last, "", *begin)
        outer: Any = self._stack[-1].items
        outer[here.path[-1]] = self._text[first:last]

    def alias(self, event: yaml.AliasEvent) -> None:
        if self._passing:
            return
        here = self._stack[-1] if self._stack else None
        if here is not None and type(here.items) is dict and here.key is _NO_KEY:
            self._refuse("an alias is no key", event, "write the key out, or put it in quotes")
            here.key = _REFUSED
            return
        path = self._place(here)
        if path is not None:
            self._put(here, self._value_of(event, here, path))

    def _value_of(self, event: yaml.AliasEvent, here: _Open | None, path: KeyPath) -> Any:
        """Return a copy of what the alias stands for; the places in it are those of the value itself."""
        self.values[path] = self._position(event)
        name = event.anchor or ""
        if self._anchors.is_refused(name):
            return None
        anchor = self._anchors.use(name)
        if isinstance(anchor, AnchorFault):
            self._refuse(anchor.message, event, anchor.suggestion)
            raise _Stop
        if len(self._stack) + anchor.height > MAX_DEPTH:
            self._refuse(f"with what '*{name}' stands for, this is nested more than {MAX_DEPTH} levels", event)
            raise _Stop
        if here is not None:
            here.height = max(here.height, anchor.height + 1)
            here.continued = None
        value = self.root
        for part in anchor.path:
            value = value[part]
        if anchor.path in self.spans:
            self.spans[path] = self.spans[anchor.path]
        return self._copied(value, anchor.path, path)

    def _copied(self, value: Any, source: KeyPath, target: KeyPath) -> Any:
        """Return a copy of the value at ``source`` for ``target``, with the places of everything in it."""
        if not isinstance(value, (dict, list)):
            return value
        tables: tuple[dict[KeyPath, Any], ...] = (self.keys, self.values, self.spans)
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        copies = {}
        for key, item in items:
            inner, outer = (*source, key), (*target, key)
            for places in tables:
                if inner in places:
                    places[outer] = places[inner]
            copies[key] = self._copied(item, inner, outer)
        return copies if isinstance(value, dict) else list(copies.values())

    def _behind_anchor(self, span: Span) -> Span:
        """Return where a value itself begins whose span begins with its anchor."""
        name = _ANCHOR.match(self._text, span.start, span.end)
        if name is None or name.end() == span.end:
            return span
        line, column = position(self._text, span, name.end())
        return Span(name.end(), span.end, span.style, line, column)

    def _name(self, name: str, event: yaml.NodeEvent, path: KeyPath) -> None:
        """Take the anchor of the value that begins here."""
        refusal = self._anchors.begin(name, path, self._position(event)[0])
        if refusal is not None:
            self._refuse(refusal.message, event, refusal.suggestion, understood=True)

    def _pass_over(self, event: yaml.NodeEvent) -> None:
        """Note the anchor of a value that is not read."""
        if event.anchor is not None:
            self._anchors.refuse(event.anchor)

    def _begin(self, items: dict[str, Any] | list[Any], event: yaml.CollectionStartEvent) -> None:
        if len(self._stack) + self._passing >= MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} levels deep", event)
            raise _Stop
        if self._passing:
            self._pass_over(event)
            self._passing += 1
            return
        here = self._stack[-1] if self._stack else None
        if here is not None and type(here.items) is dict and here.key is _NO_KEY:
            in_braces = isinstance(items, dict) and event.flow_style
            advice = "put a text that begins with '{{' in quotes" if in_braces else None
            template = bool(in_braces and here.in_braces and len(self._stack) > 1)
            self._refuse("a key must be plain text", event, advice, understood=template)
            here.is_template = template
            here.key = _REFUSED
            self._passing = 1
            return
        path = self._place(here)
        if path is None:
            self._pass_over(event)
            self._passing = 1
            return
        self.values[path] = self._position(event)
        if event.tag is not None:
            self._refuse_tag(event)
        self._put(here, items)
        if here is not None:
            here.continued = None
        start = event.start_mark.index if event.start_mark is not None else 0
        braces = isinstance(items, dict) and bool(event.flow_style)
        opened = _Open(items, path, start=start, in_braces=braces)
        opened.began = self._anchors.size
        self._anchors.count()
        if event.anchor is not None:
            self._name(event.anchor, event, path)
            opened.anchor = event.anchor
        self._stack.append(opened)

    def _key(self, here: _Open, event: yaml.ScalarEvent, *, plain: bool) -> None:
        key = event.value
        if key == "<<" and plain:
            self._refuse(_MERGE, event, _NO_MERGE)
        elif key in here.items:
            line = self.keys[(*here.path, key)][0]
            self._refuse(
                f"the key {key!r} stands twice", event, f"it is first on line {line}; keep one", understood=True
            )
        else:
            if event.tag is not None:
                self._refuse_tag(event)
            if event.anchor is not None:
                advice = f"write '{key}: &{event.anchor} …'"
                self._refuse("an anchor stands before a value, not before a key", event, advice, understood=True)
                self._anchors.refuse(event.anchor)
            self._anchors.count(key)
            here.key = key
            here.key_end = event.end_mark.index if event.end_mark is not None else 0
            self.keys[(*here.path, key)] = self._position(event)
            return
        here.key = _REFUSED

    def _place(self, here: _Open | None) -> KeyPath | None:
        """Return the path of the value that comes, or ``None`` where it belongs to a refused key."""
        if here is None:
            return ()
        if type(here.items) is list:
            return (*here.path, len(here.items))
        if here.key is _REFUSED:
            here.key = _NO_KEY
            return None
        return (*here.path, here.key)

    def _put(self, here: _Open | None, value: Any) -> None:
        if here is None:
            self.root = value
        elif isinstance(here.items, list):
            here.items.append(value)
        else:
            here.items[here.key] = value
            here.key = _NO_KEY

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        name = str(event.tag).replace(_STANDARD_TAG, "!!")
        quoted = "put a text that begins with '!' in quotes"
        if "." in name and not name.startswith("!!"):  # a reference with the 'not' of other languages before it
            self._refuse("'!' does not begin a value", event, f"write 'not {name[1:]}', or {quoted}", understood=True)
        else:
            advice = "remove it" if "!!" in name else f"remove it, or {quoted}"
            self._refuse(f"the tag {name} is not read", event, advice)

    def _refuse(
        self, message: str, event: yaml.Event, suggestion: str | None = None, *, understood: bool = False
    ) -> None:
        self.unreadable = self.unreadable or not understood
        self.problems.append(Problem(message, self._source, *self._position(event), suggestion))

    def _position(self, event: yaml.Event) -> tuple[int, int]:
        mark = event.start_mark
        return (mark.line + self._offset, mark.column + 1) if mark else (self._offset, 1)


def _scalar(text: str) -> Any:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    number = written_number(text)
    return text if number is None else number
