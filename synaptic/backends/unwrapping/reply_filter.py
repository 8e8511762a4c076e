"""A streamed reply without what a model's template put around the answer; pure, and safe at every chunk boundary.

Thinking becomes thinking, the marks of turns and channels go away, and with the first mark that ends the turn the
reply ends. :mod:`synaptic.backends.unwrapping.speech` tells marks that work from those that an answer speaks of. Under
a schema the answer is one JSON value, in which nothing is a mark; what stands before and behind it goes away.

A piece of text that cannot hold a mark passes as it came. Other text is held back for as long as it may become one.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from synaptic.backends.unwrapping.code_places import CodePlace
from synaptic.backends.unwrapping.json_value import NEAR_AN_END, ValueEnd, is_wrapping, opening_bracket, value_start
from synaptic.backends.unwrapping.marks import FINDER, FIRST_CHARACTERS, MARKS, REFLECTION_ENDS, ROLES, Mark, MarkKind
from synaptic.backends.unwrapping.speech import (
    SENTENCE_ENDS,
    SUBJECT_ENDS,
    MarkVerdict,
    begins_a_sentence,
    is_clear,
    judge,
)
from synaptic.backends.unwrapping.thinking_end import closers, last_line
from synaptic.messages import Delta, ThoughtSoFar

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.messages import JsonSchema

_CHANNEL: Final = re.compile(r"<\|channel\|>\s*([a-z]+)[^<]{0,200}(?:<\|constrain\|>[^<]{0,200})?<\|message\|>")
_CHANNEL_CHARACTERS: Final = 480
_ROLE: Final = re.compile(
    r"[ \t]*(?:(?P<own>assistant|model|ai|bot)|" + "|".join(ROLES) + r")\b(?P<head>:|[ \t]+to=\S{1,64})?",
    re.IGNORECASE,
)
_ROLE_CHARACTERS: Final = 120
_ROLE_ENDS: Final = re.compile(r"[<\n]")
_BLANKS: Final = re.compile(r"\A[\s\ufeff]+")
_PHRASES: Final = (
    ("here is my thought process:", ("here is my response:", "here's my response:")),
    ("here's my thought process:", ("here is my response:", "here's my response:")),
    ("analysis", ("assistantfinal",)),
)
"""Granite 3.2 says in words where it thinks; gpt-oss, where a server leaves its special tokens out, by names alone."""

_ALWAYS_DROPPED: Final = {"<|begin_of_box|>", "<|end_of_box|>", "<|begin_of_solution|>", "<|end_of_solution|>"}
_EVERY_CLOSER: Final = closers(tuple(mark.text for mark in MARKS if mark.kind is MarkKind.CLOSES))
_OUTPUT: Final = "<output>"

Given = tuple[Delta | ThoughtSoFar, ...]


class _Mode(Enum):
    BEGIN = "before the answer"
    THINK = "in thinking"
    ANSWER = "in the answer"
    LEAD = "before the JSON value of the answer"
    VALUE = "in that value"
    TAIL = "behind it"
    ENDED = "behind the end of the turn"


class ReplyFilter:
    """One reply on its way to its reader.

    Args:
        schema: What the answer is constrained to.
        opened: Whether the prompt is known to open the thinking, so that the reply begins in it.

    Attributes:
        was_opened: Whether the reply closed a thinking that it had not opened.
        thought: Whether any of it was thinking.
    """

    __slots__ = (
        "_bracket",
        "_closers",
        "_given",
        "_held",
        "_last_thought",
        "_mode",
        "_pieces",
        "_place",
        "_said",
        "_speaks",
        "_tentative",
        "_value",
        "_wrapped_by",
        "thought",
        "was_opened",
    )

    def __init__(self, *, schema: JsonSchema | None = None, opened: bool = False) -> None:
        self.was_opened = self.thought = False
        self._bracket = opening_bracket(schema)
        self._mode = _Mode.THINK if opened else _Mode.BEGIN
        self._closers = _EVERY_CLOSER
        self._last_thought = ""
        self._tentative: list[str] | None = [] if opened else None
        self._given: list[Delta | ThoughtSoFar] = []
        self._held = ""
        self._said = False
        self._pieces: list[str] = []
        self._place = CodePlace()
        self._speaks = False
        self._value = ValueEnd()
        self._wrapped_by = ""

    @property
    def ended(self) -> bool:
        """Whether the model has ended its turn: what the server still sends is not part of the reply."""
        return self._mode is _Mode.ENDED

    def take(self, delta: Delta) -> Given:
        """Take what the server sent; return what of it the reader gets."""
        text = delta.text
        if self._mode is _Mode.ANSWER and not self._held and FIRST_CHARACTERS.search(text) is None:
            self._place.append(text)
            return (delta,)
        if self._mode is _Mode.VALUE and not NEAR_AN_END.search(text) and not self._value.is_escaped:
            return (delta,)
        if delta.thinking:
            self.thought = True
            self._given.append(Delta(thinking=delta.thinking))
        if text and self._mode is not _Mode.ENDED:
            self._held += text
            self._pieces.append(text)
            self._read(at_end=False)
        return self._give()

    def finish(self, *, cut: bool = False) -> Given:
        """Return what was held back: no more will come. With ``cut``, because a limit was reached."""
        if cut and self._mode is _Mode.THINK:
            self._keep_thinking()
        self._read(at_end=True)
        return self._give()

    def _give(self) -> Given:
        given, self._given = self._given, []
        if not self._held:
            self._pieces.clear()
        return tuple(given)

    def _read(self, *, at_end: bool) -> None:
        """Go through what is held, as far as it can be decided."""
        while (self._held or at_end) and (step := self._STEPS.get(self._mode)) is not None:
            if not step(self, at_end=at_end):
                break

    def _say(self, text: str) -> None:
        if text:
            self._said = True
            self._place.append(text)
            self._given.append(Delta(text))

    def _say_thinking(self, text: str) -> None:
        if text:
            self.thought = True
            self._given.append(Delta(thinking=text))

    def _begin(self, *, at_end: bool) -> bool:
        """Take the marks before the answer away, until something else stands there."""
        body = _BLANKS.sub("", self._held)
        if not body:
            if at_end:
                self._say(self._held.strip())
                self._held = ""
            return False
        found = FINDER.at(body, 0)
        if found.may_grow and not at_end:
            return False
        if found.mark is None:
            return self._begin_with_words(body, at_end=at_end)
        after = body[len(found.mark.text) :]
        if (not after or after.startswith(SUBJECT_ENDS)) and not at_end and not is_clear(after):
            return False
        if begins_a_sentence(after):
            self._speaks = True
            return self._begin_answer()
        return self._begin_at(found.mark, body, at_end=at_end)

    def _begin_at(self, mark: Mark, body: str, *, at_end: bool) -> bool:
        """Do what the mark at the beginning of ``body`` says."""
        after = body[len(mark.text) :]
        match mark.kind:
            case MarkKind.CHANNEL:
                return self._begin_channel(body, mark, at_end=at_end)
            case MarkKind.ROLE:
                return self._begin_role(after, at_end=at_end)
            case MarkKind.OPENS:
                self._enter_thinking(mark.closed_by, after)
            case MarkKind.REFLECTS if self.thought and not self._bracket:
                self._enter_thinking(mark.closed_by, after, tentative=mark.text)
            case MarkKind.TURN:
                self._end()
            case _ if not self._may_stand_first(mark, after):
                return self._begin_answer()
            case _:
                if mark.kind is MarkKind.UNWRAPS:
                    self._wrapped_by = mark.closed_by[0]
                self._said, self._held = True, after
        return True

    def _may_stand_first(self, mark: Mark, after: str) -> bool:
        """Tell whether a mark before the answer is one of the template's: tags of other names may be the answer's."""
        if mark.kind is MarkKind.UNWRAPS:
            return self.thought or mark.text in _ALWAYS_DROPPED
        if mark.kind is MarkKind.REFLECTS:
            return False
        if mark.kind is MarkKind.REWRAPS:
            return mark.text == self._wrapped_by
        return mark.text != "<s>" or after[:1] in {"", " ", "[", "<"}

    def _begin_with_words(self, body: str, *, at_end: bool) -> bool:
        start = body[:32].lower().replace("\u2019", "'")
        for phrase, ends in _PHRASES:
            if start.startswith(phrase):
                follows = body[len(phrase) : len(phrase) + 1]
                if not follows and not at_end:
                    return False
                if phrase.endswith(":") or (follows and not follows.islower() and not follows.isspace()):
                    self._enter_thinking(ends, body[len(phrase) :], tentative=body[: len(phrase)])
                    return True
            elif phrase.startswith(start) and not at_end:
                return False
        return self._begin_answer()

    def _begin_channel(self, body: str, mark: Mark, *, at_end: bool) -> bool:
        header = _CHANNEL.match(body)
        if header is None:
            if len(body) < _CHANNEL_CHARACTERS and not at_end:
                return False
            self._speaks = True
            return self._begin_answer()
        after = body[header.end() :]
        if header.group(1) == "final":
            self._said, self._held = True, after
        else:
            self._enter_thinking(mark.closed_by, after)
        return True

    def _begin_role(self, after: str, *, at_end: bool) -> bool:
        """Take the head of the assistant's own turn away; somebody else's ends the reply."""
        line = _ROLE_ENDS.split(after[:_ROLE_CHARACTERS], maxsplit=1)[0]
        if len(line) == len(after) < _ROLE_CHARACTERS and not at_end:
            return False
        role = _ROLE.match(line)
        if role is None:
            self._held = after
        elif role["head"] is None and begins_a_sentence(line[role.end() :]):
            self._speaks = True
            return self._begin_answer()
        elif role["own"] is None:
            self._end()
        else:
            self._said, self._held = True, after[role.end() :]
        return True

    def _begin_answer(self) -> bool:
        """Go over to the answer. White space at the beginning of a reply stays, that behind a mark goes."""
        if self.thought or self._said:
            self._held = self._held.lstrip()
        self._mode = _Mode.LEAD if self._bracket else _Mode.ANSWER
        if self._mode is _Mode.ANSWER and FIRST_CHARACTERS.search(self._held) is None:
            whole = self._held == "".join(self._pieces)
            for piece in self._pieces if whole else [self._held]:  # a piece stays a piece: some count them
                self._say(piece)
            self._held = ""
        return True

    def _enter_thinking(self, ends: tuple[str, ...], after: str, *, tentative: str | None = None) -> None:
        """Go over to thinking; with ``tentative``, the mark's own text, it is none unless a mark closes it."""
        self._mode, self._closers, self._held, self._last_thought = _Mode.THINK, closers(ends), after, ""
        self._tentative = None if tentative is None else [tentative]

    def _think(self, *, at_end: bool) -> bool:
        held = self._held
        end = self._closers.find(held, self._last_thought, at_end=at_end)
        thinking = held[: end.thinking]
        if self._tentative is not None:
            self._tentative.append(thinking)
        if self._tentative is None or self._closers is _EVERY_CLOSER:
            self._say_thinking(thinking)
        self._last_thought = last_line(self._last_thought, thinking)
        if end.behind is not None:
            self.was_opened |= self._closers is _EVERY_CLOSER
            self._keep_thinking()
            self.thought, self._held, self._mode = True, held[end.behind :], _Mode.BEGIN
            if held[: end.behind].lower().endswith(_OUTPUT):
                self._held = _OUTPUT + self._held  # it opens the answer, too
            return True
        self._held = held[end.thinking :]
        if at_end and self._tentative is not None:
            self._take_back(self._tentative)
            return True
        return False

    def _keep_thinking(self) -> None:
        """Have no more doubts that this is thinking."""
        kept, self._tentative = self._tentative, None
        if kept is not None and self._closers is not _EVERY_CLOSER:
            self._say_thinking("".join(kept[1:]))

    def _take_back(self, kept: list[str]) -> None:
        """Make an answer of what looked like thinking: no mark has closed it."""
        self._tentative = None
        self._held = "".join(kept)
        if self._closers is closers(REFLECTION_ENDS):
            self._mode = _Mode.ANSWER
            return
        self.thought = False
        presumed = self._closers is _EVERY_CLOSER
        self._speaks = not presumed
        self._mode = _Mode.BEGIN if presumed else _Mode.ANSWER

    def _answer(self, *, at_end: bool) -> bool:
        held, place = self._held, 0
        while (start := FIRST_CHARACTERS.search(held, place)) is not None:
            found = FINDER.at(held, start.start())
            undecided = found.may_grow and not at_end
            if undecided or found.mark is not None:
                self._say(held[: start.start()])
                self._held = held[start.start() :]
                return not undecided and found.mark is not None and self._at_mark(found.mark, at_end=at_end)
            place = start.end()
        self._say(held)
        self._held = ""
        return False

    def _at_mark(self, mark: Mark, *, at_end: bool) -> bool:
        """Decide on the mark at the beginning of what is held."""
        text, after = self._held[: len(mark.text)], self._held[len(mark.text) :]
        self._place.read()
        in_code = self._place.in_block or bool(self._place.open_span)
        if mark.kind in {MarkKind.UNWRAPS, MarkKind.REWRAPS, MarkKind.REFLECTS}:
            dropped = mark.text == self._wrapped_by or (mark.text in _ALWAYS_DROPPED and not in_code)
            self._say("" if dropped else text)
            self._held = after
            return True
        verdict = MarkVerdict.SPOKEN_OF if self._speaks else judge(self._place, mark, after, at_end=at_end)
        if mark.kind is MarkKind.OPENS and verdict is MarkVerdict.WORKS and not self._stands_alone():
            verdict = MarkVerdict.SPOKEN_OF
        if verdict is MarkVerdict.UNDECIDED:
            return False
        if verdict is MarkVerdict.SPOKEN_OF:
            self._speaks |= not in_code
            self._say(text)
            self._held = after
        elif mark.kind is MarkKind.OPENS:
            self._enter_thinking(mark.closed_by, after, tentative=text)
        elif mark.kind is MarkKind.CLOSES:
            self._rethink(after)
        else:
            self._end()
        return True

    def _stands_alone(self) -> bool:
        """Tell whether thinking may open here in the middle of an answer: on a line of its own, behind a sentence.

        Behind a tag it is an element of an answer in XML.
        """
        above = self._place.last_above
        return not self._place.line.strip() and above != ">" and (not above or above in SENTENCE_ENDS)

    def _rethink(self, after: str) -> None:
        """Take all text so far for thinking: what closes it was seen, what opened it was in the prompt."""
        self._given.append(ThoughtSoFar())
        self.was_opened = self.thought = True
        self._place = CodePlace()
        self._value = ValueEnd()
        self._mode, self._held = _Mode.BEGIN, after

    def _end(self) -> None:
        self._mode, self._held = _Mode.ENDED, ""

    def _lead(self, *, at_end: bool) -> bool:
        """Drop what a model says before its JSON."""
        start = value_start(self._held, self._bracket)
        end = _EVERY_CLOSER.find(self._held, "", at_end=at_end)
        if end.behind is not None and (start is None or end.thinking < start):
            self._say_thinking(self._held[: end.thinking])
            self.was_opened = self.thought = True
            self._held, self._mode = self._held[end.behind :], _Mode.BEGIN
            return True
        if start is not None:
            self._held, self._mode = self._held[start:], _Mode.VALUE
            return True
        if at_end:
            self._say(self._held)
            self._held = ""
        return False

    def _in_value(self, *, at_end: bool) -> bool:  # noqa: ARG002  (one signature for all modes)
        end = self._value.find(self._held)
        self._say(self._held[:end])
        self._held = "" if end is None else self._held[end:]
        if end is not None:
            self._mode = _Mode.TAIL
        return end is not None

    def _tail(self, *, at_end: bool) -> bool:
        """Hold what comes behind the value: mere words are dropped, a second value makes the reply no answer."""
        behind = self._held.lstrip("` \t\r\n")
        found = FINDER.at(behind, 0)
        if (
            found.mark is not None
            and found.mark.kind in {MarkKind.ENDS, MarkKind.TURN, MarkKind.ROLE}
            and not found.may_grow
        ):
            self._end()
            return False
        end = _EVERY_CLOSER.find(self._held, "", at_end=at_end)
        if end.behind is not None:
            self._rethink(self._held[end.behind :])
            return True
        if at_end:
            self._say("" if is_wrapping(self._held) else self._held)
            self._held = ""
        return False

    _STEPS: ClassVar[dict[_Mode, Callable[..., bool]]] = {
        _Mode.BEGIN: _begin,
        _Mode.THINK: _think,
        _Mode.ANSWER: _answer,
        _Mode.LEAD: _lead,
        _Mode.VALUE: _in_value,
        _Mode.TAIL: _tail,
    }
