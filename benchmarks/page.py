"""The gateway's page over 10,000 recorded runs: first paint, the list, a search; and what an event of a run costs.

Needs a Chromium and Playwright. Prints JSON. ``--quick`` records fewer runs. Goals: first paint at most 300 ms, an
event with the page and a reader at most 20 microseconds. A page of one word is painted beside it each time: so much
is the browser's, and the machine's.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from chromium import chromium

from synaptic.backends import ScriptedBackend
from synaptic.runtime import RunStarted, Session, StepStarted, TokenDelta
from synaptic.server.page import LiveRuns
from synaptic.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synaptic.runtime import Event

QUICK = "--quick" in sys.argv
RUNS, LOADS, EVENTS = (500, 5, 20_000) if QUICK else (10_000, 20, 100_000)
AT_ONCE = 25


async def record(count: int) -> float:
    """Record runs of one call each; return the seconds that it took."""
    began = time.perf_counter()
    settings = Settings(journal_max_bytes=10**10)
    async with Session(settings, backend=ScriptedBackend(lambda request: f"So: {request.messages[-1].content}")) as one:
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                await one.run(f"Question {number} about the thing{number % 997}", pipeline="answer")

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return time.perf_counter() - began


async def cost_of_an_event(count: int) -> dict[str, float]:
    """Return microseconds that a piece of text costs the run, with somebody who follows it."""
    begun: list[Event] = []
    async with Session(Settings(journal="off"), backend=ScriptedBackend(["x"])) as session:
        await session.run("q", pipeline="answer", on_event=begun.append)
    live = LiveRuns()
    hear = live.begin()
    for event in begun:
        if isinstance(event, RunStarted | StepStarted):
            hear(event)
    piece = TokenDelta(next(event.path for event in begun if isinstance(event, StepStarted)), "token ")
    reader = asyncio.create_task(_read(live))
    spent = 0.0
    for at in range(0, count, 100):  # a hundred in a turn of the loop, as a burst of several nodes brings them
        begun_at = time.perf_counter()
        for _ in range(min(100, count - at)):
            hear(piece)
        spent += time.perf_counter() - begun_at
        if at % 2000 == 0:
            await asyncio.sleep(0)
    reader.cancel()
    return {"microseconds_an_event": round(spent / count * 1e6, 2)}


async def _read(live: LiveRuns) -> None:
    place = live.feed.place
    while True:
        news = live.feed.news
        for number, _ in live.feed.since(place) or []:
            place = number
        await news.wait()


@contextmanager
def gateway() -> Iterator[str]:
    """Run ``synaptic serve`` for a block; give its address."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "synaptic", "serve", "--port", "0", "--backend", "scripted"]
        with log.open("w") as written:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=written)
        try:
            while "serving at " not in (said := log.read_text()):
                if process.poll() is not None:
                    raise SystemExit(f"the gateway did not start: {said}")
                time.sleep(0.05)
            yield said.partition("serving at ")[2].split()[0]
        finally:
            process.terminate()
            process.wait(30)


async def look(url: str) -> dict[str, Any]:
    """Return milliseconds from the navigation on: to the first paint, to the first 50 runs; and of a search."""
    paints: list[float] = []
    empty: list[float] = []
    lists: list[float] = []
    searches: list[float] = []
    painted = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    async with chromium() as browser:
        for number in range(LOADS):
            context = await browser.new_context()
            page = await context.new_page()
            await page.goto(f"{url}/healthz")
            await page.wait_for_function(f"{painted} !== undefined")
            empty.append(await page.evaluate(painted))
            await context.close()
            context = await browser.new_context()
            page = await context.new_page()
            await page.goto(f"{url}/#history")
            await page.locator("tbody tr:nth-child(50)").wait_for()
            lists.append(await page.evaluate("performance.now()"))
            paints.append(await page.evaluate(painted))
            began = time.perf_counter()
            await page.get_by_label("Search in all runs").fill(f"thing{number}")
            await page.locator("tbody mark").first.wait_for()
            searches.append((time.perf_counter() - began) * 1e3)
            await context.close()
    return {
        "first_paint_of_a_word_ms": _of(empty),
        "first_paint_ms": _of(paints),
        "first_50_runs_ms": _of(lists),
        "search_ms_with_220_of_waiting_for_the_person": _of(searches),
    }


def _of(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 1), "worst": round(max(values), 1)}


async def main() -> None:
    """Measure, and print."""
    with TemporaryDirectory() as home:
        os.environ["XDG_STATE_HOME"] = home
        seconds = await record(RUNS)
        found: dict[str, Any] = {"runs": RUNS, "seconds_to_record_them": round(seconds, 1)}
        found["event"] = await cost_of_an_event(EVENTS)
        with gateway() as url:
            found |= await look(url)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
