"""Asks for approvals as its argument says, and prints the decisions; for tests on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import json
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from synaptic.agents.shape import Shape
from synaptic.runtime.approval import ApprovalRequest
from synaptic.ui.screen.approver import make_approver

if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT = Shape.parse({"title": "string(1..20)", "points": "list[string]", "score": "number(0..1)"})
VALUE = {"title": "Pumps", "points": ["one", "two\nlines"], "score": 0.5}
FORM = Shape.parse({"name": "string(1..20)", "size": "enum(small, big)", "parts": "list[integer]", "new?": "boolean"})
PLACE = Shape.parse(
    {
        "at": {"zip": "integer", "x?": "string"},
        "owner?": {"name": "string(1..20)"},
        "spans": "list[{a: integer, b: enum(x, y)}]",
    }
)
FILLED = {"name": "P1", "size": "big", "parts": [1], "new": True}
REQUESTS = {
    "prompt": ApprovalRequest(path="letter", what="prompt", value="Write to Bob.\nBe \x1b[31mkind."),
    "output": ApprovalRequest(path="team[0].report", what="output", value=VALUE, shape=REPORT),
    "list": ApprovalRequest(path="words", what="output", value=["a", ["b", "c"], {"k": None}, {}]),
    "question": ApprovalRequest(path="confirm", what="answer", value=None, question="Which \x1b[31mcity?"),
    "proposal": ApprovalRequest(path="confirm", what="answer", value="Berlin", question="Which city?"),
    "form": ApprovalRequest(path="team[0].report", what="answer", value=None, shape=FORM, question="Which pump?"),
    "filled": ApprovalRequest(path="filled", what="answer", value=FILLED, shape=FORM, question="Which pump?"),
    "place": ApprovalRequest(path="place", what="answer", value=None, shape=PLACE, question="Where?"),
    "wrong": ApprovalRequest(path="wrong", what="answer", value=None, question="Which?", problem="no such city"),
    "second": ApprovalRequest(path="second", what="output", value="another text"),
}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def paused() -> Iterator[None]:
    """Say when the view of the run would be off the terminal."""
    say("<paused>")
    yield
    say("<resumed>")


async def main(names: list[str]) -> None:
    """Ask for all of them at once."""
    approver = make_approver(accept_all=False, paused=paused)
    if approver is None:
        say("nobody to ask")
        return
    if names[0] == "early":
        say("type now")
        select.select([sys.stdin], [], [])  # until something was typed
    wanted = [REQUESTS[name] for name in names if name in REQUESTS]
    task = asyncio.gather(*(approver(request) for request in wanted))
    try:
        answers = await (asyncio.wait_for(task, 0.5) if names[0] == "timeout" else task)
    except TimeoutError:
        say("gone")
        return
    for request, answer in zip(wanted, answers, strict=True):
        say(f"{request.path} {json.dumps([answer.decision, answer.value, answer.reason])}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
