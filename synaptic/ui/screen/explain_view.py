"""Why calls went where they went: every candidate with what was expected of it. Pure functions over decisions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from synaptic.text import latency, one_line, plural

if TYPE_CHECKING:
    from synaptic.backends.pool import Candidate, Decision

CANDIDATE_HEADERS: Final = ("", "node", "expected", "wait", "load", "run", "cached", "why")
MOST_CANDIDATES: Final = 12
_TAKEN: Final = "*"
_OUT_OF_QUESTION: Final = "–"
_NAME_CELLS: Final = 40
_AT_ONCE_SECONDS: Final = 0.01
_WHY_CELLS: Final = 200


def headline(decision: Decision) -> str:
    """Return what was decided: ``14:03:07  review, attempt 2: llama3:latest to desk after 420 ms in the queue``."""
    clock = time.strftime("%H:%M:%S", time.localtime(decision.at))
    attempt = f", attempt {decision.attempt}" if decision.attempt > 1 else ""
    what = f"{one_line(decision.tag or 'a call', _NAME_CELLS)}{attempt}: {one_line(decision.model, _NAME_CELLS)}"
    if decision.node is None:
        return f"{clock}  {what} left waiting, {latency(decision.waited)} so far"
    waited = f" after {latency(decision.waited)} in the queue" if decision.waited >= _AT_ONCE_SECONDS else " at once"
    return f"{clock}  {what} to {one_line(decision.node.removeprefix('http://'), _NAME_CELLS)}{waited}"


def candidate_rows(decision: Decision) -> list[tuple[str, ...]]:
    """Return a row for each candidate: the one that was taken, then the others by what was expected, then the rest."""
    ranked = sorted(decision.candidates, key=lambda candidate: _rank(candidate, decision))
    rows = [_row(candidate, decision) for candidate in ranked[:MOST_CANDIDATES]]
    left = len(ranked) - len(rows)
    if left:
        rows.append(("", f"… and {plural(left, 'node')} more", *[""] * (len(CANDIDATE_HEADERS) - 2)))
    return rows


def _row(candidate: Candidate, decision: Decision) -> tuple[str, ...]:
    name = one_line(candidate.node.removeprefix("http://"), _NAME_CELLS)
    mark = _TAKEN if candidate.node == decision.node else ""
    why = one_line(candidate.why, _WHY_CELLS)
    if candidate.seconds is None:
        return (mark, name, _OUT_OF_QUESTION, "", "", "", "", why)
    cached = plural(candidate.cached_tokens, "token") if candidate.cached_tokens else ""
    parts = (candidate.seconds, candidate.wait, candidate.load, candidate.run)
    return (mark, name, *(latency(part) for part in parts), cached, why)


def _rank(candidate: Candidate, decision: Decision) -> tuple[bool, bool, float, str]:
    expected = candidate.seconds
    return (candidate.node != decision.node, expected is None, expected or 0.0, candidate.node)
