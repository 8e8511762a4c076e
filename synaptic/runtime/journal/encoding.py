"""Events as rows of the journal: plain JSON, with a name in the place of every text that is kept by its content.

An event or a part of one is told field by field, defaults left out, so that a new field is recorded and read back
without a word here. What a row cannot hold (a plan, an exception) is told in :mod:`synaptic.runtime.journal.bookends`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

from synaptic import pipeline as pipelines
from synaptic.messages import (
    BackendNotice,
    BackendProgress,
    ChatRequest,
    Message,
    Timeouts,
    Timings,
    Usage,
)
from synaptic.runtime import events
from synaptic.runtime.journal.kept_texts import name_spelled, spelled_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

    from synaptic.runtime.journal.kept_texts import Hash

CLASS: Final = "@"
TEXT: Final = "$"
"""Marks the name of a text."""
DATA: Final = "$j"
"""Marks the name of a text that is JSON."""

_LONG: Final = 200
"""Characters of a text in a field or in data that are kept by their content."""
_VALUES: Final = frozenset({"output", "value", "answer", "content", "question"})
"""Fields whose texts always are: they are what people look for."""

_PARTS: Final = (Usage, Timings, Timeouts, ChatRequest, BackendNotice, BackendProgress, events.StepResult)
_OWN: Final = frozenset({"messages", "tag", "rank", "unread"})
"""What of a request is its own, or nothing that can be kept."""

_REST_OF_REQUEST: Final = attrgetter(*(field.name for field in fields(ChatRequest) if field.name not in _OWN))

_FIELDS: Final[dict[type, tuple[tuple[str, Any], ...]]] = {}
_BOOKENDS: Final = frozenset({"RunStarted", "RunFinished"})


@cache
def kinds() -> dict[str, type]:
    """Return by name the classes that can be read back: events, but for those that a row cannot hold, and parts."""
    found = [each for each in vars(events).values() if isinstance(each, type) and is_dataclass(each)]
    return {each.__name__: each for each in (*found, *_PARTS, pipelines.LongInput) if each.__name__ not in _BOOKENDS}


def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    known = _FIELDS.get(kind)
    if known is None:
        known = _FIELDS[kind] = tuple(
            (field.name, field.default) for field in fields(cast("type[DataclassInstance]", kind))
        )
    return known


class Encoder:
    """Tells events and values as JSON.

    Args:
        put: Keeps a text, which may be much like another one, and returns its name.
        cleaned: Takes out of a text what may not be kept.
    """

    def __init__(self, put: Callable[[str, Hash | None], Hash], cleaned: Callable[[str], str]) -> None:
        self._put = put
        self.cleaned = cleaned
        self._names: dict[str, str] = {}
        self._rest: tuple[Any, str] = (None, "")
        self._roles: dict[Message, dict[str, Any]] = {}

    def event(self, event: Any, leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        told: dict[str, Any] = {}
        for name, default in _fields(type(event)):
            value = getattr(event, name)
            if value is default or name in leave_out:
                continue
            if isinstance(value, str):
                told[name] = self.text(value) if name in _VALUES or len(value) > _LONG else self.cleaned(value)
            elif isinstance(value, (int, float)) or value is None:
                if value != default or default is MISSING:
                    told[name] = value
            else:
                told[name] = self._part(value)
        return told

    def text(self, text: str, near: Hash | None = None) -> dict[str, str]:
        """Keep a text and return its name."""
        return {TEXT: self._name(text, near)}

    def _name(self, text: str, near: Hash | None = None) -> str:
        name = self._names.get(text)
        if name is None:
            name = spelled_name(self._put(self.cleaned(text), near))
            if len(text) <= _LONG:  # what a step says, the next ones are asked
                self._names[text] = name
        return name

    def value(self, value: Any) -> Any:
        """Return any JSON-like value; texts and data are kept by their content."""
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if isinstance(value, str):
            return self.text(value)
        return {DATA: spelled_name(self._put(json.dumps(self._data(value), ensure_ascii=False), None))}

    def _part(self, value: Any) -> Any:
        if isinstance(value, Message):
            return self._message(value)
        if isinstance(value, ChatRequest):
            own = {"messages": self._part(value.messages), "tag": self.cleaned(value.tag), "rank": value.rank}
            return {CLASS: "ChatRequest", **own, "rest": self._rest_of(value)}
        if is_dataclass(value):
            return {CLASS: type(value).__name__, **self.event(value)}
        if isinstance(value, tuple):
            return {CLASS: "tuple", "of": [self._part(item) for item in value]}
        return self.value(value)

    def _rest_of(self, request: ChatRequest) -> str:
        """Keep what a request has beside its text, and return its name: it is the same in many."""
        rest = _REST_OF_REQUEST(request)
        if rest != self._rest[0]:
            self._rest = rest, spelled_name(self._put(json.dumps(self.event(request, _OWN)), None))
        return self._rest[1]

    def _message(self, message: Message) -> dict[str, Any]:
        if message.role != "system":
            return {CLASS: "Message", "role": message.role, **self._content(message)}
        told = self._roles.get(message)  # an agent says the same in all its calls
        if told is None:
            told = self._roles[message] = {CLASS: "Message", "role": message.role, **self._content(message)}
        return told

    def _content(self, message: Message) -> dict[str, Any]:
        """Return a message's text in parts: what stands in the template, and what was filled in, by turns."""
        text, parts, at = message.content, [], 0
        for start, end in message.values:
            if not at <= start <= end <= len(text):
                return {"parts": [self._name(text)], "values": [list(span) for span in message.values]}
            parts += [self._name(text[at:start]), self._name(text[start:end])]
            at = end
        parts.append(self._name(text[at:]))
        return {"parts": parts}

    def _data(self, value: Any) -> Any:
        """Return data for JSON: long texts in it are kept by themselves, where other steps will find them again."""
        if isinstance(value, str):
            return self.text(value) if len(value) > _LONG else self.cleaned(value)
        if isinstance(value, Mapping):
            told = {self.cleaned(str(key)): self._data(item) for key, item in value.items()}
            return {CLASS: list(told.items())} if any(key.startswith((CLASS, TEXT)) for key in told) else told
        if isinstance(value, (list, tuple)):
            return [self._data(item) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.cleaned(str(value))


class Decoder:
    """Reads back what an :class:`Encoder` told.

    Args:
        get: Returns a kept text by its name.
    """

    def __init__(self, get: Callable[[Hash], str]) -> None:
        self._get = get

    def event(self, kind: str, told: Mapping[str, Any]) -> Any:
        """Return an event or a part of one; ``None`` for one that is not known here.

        Raises:
            JournalError: If a text of it is damaged.
        """
        made = kinds().get(kind)
        if made is None:
            return None
        known = {name for name, _ in _fields(made)}
        return made(**{name: self.value(value) for name, value in told.items() if name in known})

    def value(self, told: Any) -> Any:
        """Return a value.

        Raises:
            JournalError: If a text of it is damaged.
        """
        if not isinstance(told, dict):
            return told
        if TEXT in told:
            return self._get(name_spelled(told[TEXT]))
        if DATA in told:
            return self._data(json.loads(self._get(name_spelled(told[DATA]))))
        kind = told.get(CLASS, "")
        if "rest" in told:
            told = {**told, **json.loads(self._get(name_spelled(told["rest"])))}
        if kind == "tuple":
            return tuple(self.value(item) for item in told["of"])
        if kind == "Message":
            return self._message(told)
        return self.event(kind, {name: value for name, value in told.items() if name != CLASS})

    def _message(self, told: Mapping[str, Any]) -> Message:
        parts = [self._get(name_spelled(part)) for part in told["parts"]]
        if "values" in told:
            return Message(told["role"], "".join(parts), tuple((start, end) for start, end in told["values"]))
        spans, at = [], 0
        for number, part in enumerate(parts):
            if number % 2:
                spans.append((at, at + len(part)))
            at += len(part)
        return Message(told["role"], "".join(parts), tuple(spans))

    def _data(self, told: Any) -> Any:
        if isinstance(told, list):
            return [self._data(item) for item in told]
        if not isinstance(told, dict):
            return told
        if TEXT in told:
            return self._get(name_spelled(told[TEXT]))
        if CLASS in told:
            return {key: self._data(item) for key, item in told[CLASS]}
        return {key: self._data(item) for key, item in told.items()}
