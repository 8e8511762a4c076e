"""DBOS's side of ``durable.py``: a workflow of steps, in the SQLite file that it has when nothing else is set.

A step's output is recorded, and what the workflow was given; what a step was asked is not, as ours is.
``python -m sides.durable_dbos CASE PARAMETERS``, one JSON object on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbos import DBOS

from sides.durable_texts import Texts, bytes_under, home

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 2

left: Iterator[str] = iter(())


@DBOS.step()
def say(_before: str, _document: str) -> str:
    """Return the next text."""
    return next(left)


@DBOS.workflow()
def chain(steps: int, document: str) -> str:
    """Run steps that each read the answer of the one before."""
    said = ""
    for _ in range(steps):
        said = say(said, document)
    return said


def launch() -> None:
    """Begin in an empty folder."""
    file = Path(home()) / "dbos.sqlite"
    DBOS(config={"name": "durable", "system_database_url": f"sqlite:///{file}", "log_level": "ERROR"})
    DBOS.launch()


def size(*, steps: int, answer: int, document: int, kind: str) -> dict[str, Any]:
    """Return the bytes that a run takes on the disk, by the bytes that its steps and its caller gave it."""
    global left  # noqa: PLW0603 - a step's function is registered before there is anything to say
    texts = Texts(kind, answer, steps)
    whole = Texts(kind, document, 1).next() if document else ""
    left = iter(texts.next, None)
    launch()
    chain(steps, whole)
    DBOS.destroy()
    return {"stored": bytes_under(home()), "data": texts.bytes + len(whole.encode()), "steps": steps}


def step(*, steps: int) -> dict[str, Any]:
    """Return microseconds a step of the fastest of a few runs."""
    global left  # noqa: PLW0603 - as in size()
    launch()
    laps = []
    for _ in range(ROUNDS):
        left = iter(Texts("words", 40, steps).next, None)
        begin, busy = time.perf_counter(), time.process_time()
        chain(steps, "")
        laps.append((time.perf_counter() - begin, time.process_time() - busy))
    DBOS.destroy()
    return {
        "wall": round(min(wall for wall, _ in laps) / steps * 1e6, 1),
        "cpu": round(min(cpu for _, cpu in laps) / steps * 1e6, 1),
    }


if __name__ == "__main__":
    print(json.dumps({"size": size, "step": step}[sys.argv[1]](**json.loads(sys.argv[2]))))
