"""Whether a mark works or is only spoken of: an answer about chat templates names the marks that end other answers.

A mark that works stands where a turn ends: behind the last word, at the end of a sentence or on a line of its own, and
then the text ends, a line ends or another mark follows. One that is spoken of stands in code, in quotation marks, in a
list or a table, in the middle of a sentence, or after a colon. Where both are possible the text stays as it is.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Final

from synaptic.backends.unwrapping.marks import FINDER, ROLES, MarkKind

if TYPE_CHECKING:
    from synaptic.backends.unwrapping.code_places import CodePlace
    from synaptic.backends.unwrapping.marks import Mark

LOOK_AHEAD: Final = 64
"""Characters behind a mark that are waited for at most, where a text has no end yet."""

SUBJECT_ENDS: Final = (" ", ",", ":", "=", "→", "⇒", "-")
_GOES_ON: Final = re.compile(
    r"[ \t]*(?:[,:=→⇒]|->|—[ \t]|"
    r"(?:is|are|was|were|and|or|as|has|have|can|should|must|will|in|at|to|for|with|when|that|which)\b|"
    r"(?i:tags?|marks?|marker|tokens?|blocks?|opens?|begins?|starts?|means?|closes?|ends?|stands?|tells?|separates?|"
    r"wraps?|shows?|signals?|indicates?|denotes?|delimits?|terminates?|contains?|comes?|goes|works?)\b)"
)
"""How a sentence goes on whose subject is a mark, or a line that says what a mark is for; "And", "Is" begin anew."""

_ROLE: Final = re.compile(r"[ \t]?(?:" + "|".join(ROLES) + r")(?=\s|<|$)", re.IGNORECASE)
_SPEAKER: Final = re.compile(r"(?:" + "|".join(ROLES) + r"):", re.IGNORECASE)
_ELEMENT: Final = re.compile(r"<([a-z][a-z0-9]*)(?: [^<>]*)?>\Z", re.IGNORECASE)
_FULL_STOPS: Final = ".!?…。！？"
_OPENERS: Final = "“‘«„([{‹『「"
_QUOTES: Final = "\"'*_~"
SENTENCE_ENDS: Final = ".!?…。！？)]}\"'”’»*`|>"
_LISTS: Final = re.compile(r"\s*(?:[-*+•–]|\d{1,3}[.)]|[a-zA-Z][.)]|#{1,6}|>)\s*")
_LEADS: Final = ":=→,;"
_CLOSERS: Final = "\"'”’»)]}.,;:!?*_|"


class MarkVerdict(Enum):
    """What a mark does where it stands."""

    WORKS = "works"
    SPOKEN_OF = "spoken of"
    UNDECIDED = "more of the text is needed"


def judge(place: CodePlace, mark: Mark, after: str, *, at_end: bool) -> MarkVerdict:
    """Return what ``mark`` does.

    ``after`` is the text behind it as far as it has come, ``at_end`` whether no more will come.
    """
    if place.in_block:
        return MarkVerdict.SPOKEN_OF
    if span := place.open_span:
        rest, line_ends, _ = after.partition("\n")
        if span in rest:
            return MarkVerdict.SPOKEN_OF
        if not line_ends and not at_end:
            return MarkVerdict.UNDECIDED
    if _is_introduced(place):
        return MarkVerdict.SPOKEN_OF
    is_enough = len(after) >= LOOK_AHEAD or is_clear(after)
    if not at_end and (not is_enough or FINDER.at(after.lstrip(" \t"), 0).may_grow):
        return MarkVerdict.UNDECIDED
    element = _ELEMENT.search(place.line)
    if element and after.lower().startswith(f"</{element[1]}>".lower()):
        return MarkVerdict.SPOKEN_OF  # "<code></think></code>"
    return _by_what_follows(place, mark, after)


def begins_a_sentence(after: str) -> bool:
    """Tell whether the text behind a mark at the beginning of a reply makes it the subject of a sentence."""
    return after.startswith(SUBJECT_ENDS) and _GOES_ON.match(after) is not None


def is_clear(after: str) -> bool:
    """Tell whether what has come behind a mark is enough to judge by: a word and what follows it, or an empty line."""
    words = after.split()
    return len(words) > 1 or (len(words) == 1 and (after[-1:].isspace() or len(words[0]) > LOOK_AHEAD // 2))


def _is_introduced(place: CodePlace) -> bool:
    """Tell whether what stands before the mark introduces it: an opening quotation mark, a list, a colon."""
    line = place.line
    said = line.rstrip()
    if _LISTS.fullmatch(line) or line.lstrip().startswith("|"):
        return True
    if not said:
        return place.last_above in _LEADS if place.last_above else False
    if said[-1] in _LEADS:
        return said != line or said[-1] in ":="
    if said != line:
        return False
    bare = said.rstrip(_QUOTES)
    quoted = bare != said and (not bare or bare[-1].isspace() or bare[-1] in _OPENERS)
    return quoted or said[-1] in _OPENERS


def _by_what_follows(place: CodePlace, mark: Mark, after: str) -> MarkVerdict:
    line = place.line
    said = line.rstrip()
    follows = after.lstrip(" \t")
    turn_ends = not follows or follows[0] in "\r\n" or FINDER.at(follows, 0).mark is not None
    strikes = mark.is_html and f"<{mark.text[2:]}" in line  # "<s>100</s>" strikes a price through
    is_control = mark.text == "[EOT]" and not said and place.last_above and not _begins_a_turn(after)
    if strikes or is_control:  # "[EOT]" is the name of a control character, too
        return MarkVerdict.SPOKEN_OF
    if said and said != line and said[-1] not in SENTENCE_ENDS:
        works = _begins_a_turn(after) if mark.kind is not MarkKind.CLOSES else turn_ends
        return MarkVerdict.WORKS if works else MarkVerdict.SPOKEN_OF
    turn_ends |= mark.kind is MarkKind.ENDS and _SPEAKER.match(follows) is not None
    if turn_ends or (mark.kind is MarkKind.ROLE and _ROLE.match(after)):
        return MarkVerdict.WORKS
    if mark.is_html:
        works = mark.kind is MarkKind.TURN and said[-1:] in _FULL_STOPS and _is_new_sentence(after)
        return MarkVerdict.WORKS if said and works else MarkVerdict.SPOKEN_OF
    if mark.kind in {MarkKind.CLOSES, MarkKind.OPENS}:
        return MarkVerdict.SPOKEN_OF if begins_a_sentence(after) else MarkVerdict.WORKS
    if said == line and said:
        return MarkVerdict.SPOKEN_OF if after[0] in _CLOSERS else MarkVerdict.WORKS
    return MarkVerdict.SPOKEN_OF if after[0].isspace() or after[0] in _CLOSERS else MarkVerdict.WORKS


def _is_new_sentence(after: str) -> bool:
    first = after.lstrip()[:1]
    return after[:1].isspace() and first.isalnum() and not first.islower() and not begins_a_sentence(after)


def _begins_a_turn(after: str) -> bool:
    """Tell whether somebody else's turn begins behind the mark: a mark with a role."""
    follows = after.lstrip()
    found = FINDER.at(follows, 0).mark
    return found is not None and found.kind in {MarkKind.TURN, MarkKind.ROLE}
