"""Drafts: guesses of how a text goes on, which one pass of the model checks all at once (speculative decoding).

llama.cpp guesses without a second model: where the last few tokens came before, in this text or in another
call's, what followed them then is the draft (``ngram-mod``). A draft that is right saves the passes of its tokens; one
that is wrong costs what its tokens cost to check. Texts that repeat others gain much, other texts hardly ever have a
draft. Each token is still the model's own choice.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic import paths
from synaptic.processes import only_one, read_json, replace_json

if TYPE_CHECKING:
    from pathlib import Path

    from synaptic.messages import ChatRequest, Finished

MATCH: Final = 6
"""Tokens that have to be the same for what followed them to be a draft."""
EAGER_MATCH: Final = 4
"""The same where checking a drafted token costs less than :data:`CHEAP`: more drafts, of which fewer are right."""
CHEAP: Final = 0.25
SHORTEST: Final = 4
LONGEST: Final = 8
"""Tokens of a draft. Longer ones send more rows of logits and cost more where they are wrong."""
SPEC_TYPE: Final = "ngram-mod"

COST: Final = 0.4
"""What checking a drafted token is taken to cost where it was not predicted, as a part of a pass of the model: that of
a processor, which computes while it reads the weights."""
ENOUGH: Final = 160
"""Drafted tokens before it is decided whether they pay."""
REMEMBERED: Final = 1280
"""Drafted tokens after which older ones count half."""
TRIED_AGAIN: Final = 24 * 3600.0
"""Seconds until drafts that did not pay are tried again: other texts may be asked for by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTally:
    """What came of drafts.

    Attributes:
        tokens: All that were generated, in calls with or without drafts.
        drafted: Tokens that were drafted.
        accepted: Those of them that were right.
    """

    tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    def __add__(self, other: DraftTally) -> DraftTally:
        return DraftTally(
            tokens=self.tokens + other.tokens,
            drafted=self.drafted + other.drafted,
            accepted=self.accepted + other.accepted,
        )

    @classmethod
    def of(cls, last: Finished) -> DraftTally:
        """Return what the end of a call tells."""
        tokens = last.usage.completion_tokens if last.usage else 0
        timings = last.timings
        if timings is None:
            return cls(tokens=tokens)
        return cls(tokens=tokens, drafted=timings.drafted_tokens or 0, accepted=timings.accepted_tokens or 0)

    @property
    def acceptance(self) -> float | None:
        """The part of the drafted tokens that was right; ``None`` while there is none."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_a_pass(self) -> float:
        """Tokens that came of one pass of the model, on average."""
        return self.tokens / (self.tokens - self.accepted) if self.tokens > self.accepted else 1.0

    def halved(self) -> DraftTally:
        """Return half of each."""
        return DraftTally(tokens=self.tokens // 2, drafted=self.drafted // 2, accepted=self.accepted // 2)


_NONE: Final = DraftTally()


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftStanding:
    """How it stands with the drafts of a model.

    Attributes:
        on: Whether the server that serves now drafts.
        why_off: Why it does not, "" if it does.
        by_kind: What came of them, by kind of call: ``text``, ``schema``, ``tools``.
    """

    on: bool
    why_off: str = ""
    by_kind: tuple[tuple[str, DraftTally], ...] = ()

    @property
    def total(self) -> DraftTally:
        """All kinds together."""
        return sum((tally for _, tally in self.by_kind), _NONE)


def match_for(cost: float | None) -> int:
    """Return how many tokens have to be the same for a draft.

    Measured with SmolLM2-135M, six paragraphs revised: four tokens instead of six save a seventh of the passes and
    draft a seventh more. On a processor without a slow link that is no gain, and texts of their own lose 1 % by it.

    Args:
        cost: Of checking a drafted token, as a part of a pass of the model; ``None`` where that is not known.
    """
    return EAGER_MATCH if cost is not None and cost < CHEAP else MATCH


def kind_of(request: ChatRequest) -> str:
    """Return which kind of call it is, as far as that decides how much of a reply can be guessed."""
    if request.tools:
        return "tools"
    return "text" if request.schema is None else "schema"


class DraftRecord:
    """What came of the drafts of one model, kept in the person's cache between programs.

    Args:
        model: What it is kept under.
        file: Where; ``None`` for the person's cache.
    """

    def __init__(self, model: str, file: Path | None = None) -> None:
        self._model = model
        self._file = file or paths.draft_record_file()
        self._by_kind: dict[str, DraftTally] = {}
        self._off_since: float | None = None
        self._new = 0
        self._read()

    @property
    def by_kind(self) -> tuple[tuple[str, DraftTally], ...]:
        """What came of them, by kind of call."""
        return tuple(sorted(self._by_kind.items()))

    @property
    def total(self) -> DraftTally:
        """All kinds together."""
        return sum(self._by_kind.values(), _NONE)

    def take(self, kind: str, tally: DraftTally) -> None:
        """Take note of a call; what was learned is written from time to time, and by :meth:`save`."""
        self._by_kind[kind] = self._by_kind.get(kind, _NONE) + tally
        if self.total.drafted > REMEMBERED:
            self._by_kind = {name: each.halved() for name, each in self._by_kind.items()}
        self._new += tally.drafted
        if self._new >= ENOUGH:
            self.save()

    def why_not(self, cost: float, now: float | None = None) -> str:
        """Return why the next server should not draft, "" if it should.

        Args:
            cost: Of checking a drafted token, as a part of a pass of the model: drafts pay if more of them are right.
            now: Seconds since the epoch, of now unless given.
        """
        now = time.time() if now is None else now
        total = self.total
        if total.acceptance is None or total.drafted < ENOUGH or total.acceptance >= cost:
            self._off_since = None
            return ""
        if self._off_since is None:
            self._off_since = now
            self.save()
        elif not 0 <= now - self._off_since < TRIED_AGAIN:
            self._by_kind, self._off_since = {}, None
            self.save()
            return ""
        return f"{total.accepted} of {total.drafted} drafted tokens were right, and {cost:.0%} would have to be"

    def save(self) -> None:
        """Write what is known; a cache that cannot be written is no failure."""
        self._new = 0
        kinds = {name: [each.tokens, each.drafted, each.accepted] for name, each in self._by_kind.items()}
        with suppress(OSError), only_one(self._file):
            replace_json(self._file, {**self._all(), self._model: {"kinds": kinds, "off_since": self._off_since}})

    def _read(self) -> None:
        with suppress(LookupError, TypeError, ValueError, AttributeError):  # of another version: as if never learned
            entry = self._all()[self._model]
            self._by_kind = {
                str(name): DraftTally(tokens=int(tokens), drafted=int(drafted), accepted=int(accepted))
                for name, (tokens, drafted, accepted) in entry["kinds"].items()
            }
            since = entry["off_since"]
            self._off_since = None if since is None else float(since)

    def _all(self) -> dict[str, Any]:
        try:
            document = read_json(self._file, missing={})
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}
