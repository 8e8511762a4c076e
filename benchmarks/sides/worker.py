"""The process of one side: answers each line on standard input with one line, and is idle in between.

``python -m sides.worker MODULE`` says hello with its versions; then each request ``{"case": NAME, "with": {...}}`` is
answered with the laps of one turn, ``{LAYER: [wall, cpu]}`` in seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from sides.shapes import Case


def main(name: str) -> None:
    """Serve until standard input ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not come between the replies
    side = import_module(f"sides.{name}")
    cases: dict[str, Case] = side.CASES
    say(replies, {"python": platform.python_version(), **{package: version(package) for package in side.PACKAGES}})
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            request = json.loads(line)
            gc.collect()  # what the turn before left behind is not this one's to clear away
            laps = runner.run(cases[request["case"]](**request["with"]))
            say(replies, {layer: [lap.wall, lap.cpu] for layer, lap in laps.items()})


def say(replies: TextIO, answer: dict[str, object]) -> None:
    """Answer with one line."""
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
