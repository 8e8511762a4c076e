"""A run that is killed with SIGKILL at a hundred random moments, and resumed each time. Prints JSON.

The run has a map, samples, a loop, a race, a used pipeline and a tool; a scripted node that speaks Ollama's API counts
its calls. A call is *finished* if the node had sent its reply whole ``tests/support/kill_trials.GRACE`` seconds before
the kill, *late* if it had later: of these the journal may not know. Goals: no finished call is made again, none is
lost, and the answer is the one of a run that was not killed (the node's replies depend on every word that is asked).

    python benchmarks/durable_kills.py [KILLS] [SEED] [TOKENS]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from kill_trials import GRACE, CountingNode, Trial, Trials

KILLS = 100
TOKENS = 12
"""Replies this short are over before their text gets into the journal; 80 show how calls go on."""
TOKEN = 0.01
"""Seconds."""


async def kills(count: int, seed: int, tokens: int) -> dict[str, Any]:
    """Return what came of so many kills of a run whose replies are so long."""
    moments = random.Random(seed)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder:
        async with CountingNode(seconds_per_token=TOKEN, tokens=tokens, seconds_per_call=0.02) as node:
            rows = Trials(Path(folder), node)
            await rows.measure()
            for number in range(count):
                trial = await rows.trial(moments.uniform(0, rows.seconds))
                while trial.ended:
                    trial = await rows.trial(moments.uniform(0, rows.seconds))
                trials.append(trial)
                print(f"{number + 1}/{count}", end="\r", file=sys.stderr)
    return {
        "kills": count,
        "seed": seed,
        "grace_seconds": GRACE,
        "calls_of_a_run": rows.whole.total(),
        "seconds_of_a_run": round(rows.seconds, 2),
        "not_recorded_yet": sum(not trial.recorded for trial in trials),
        "finished_calls": sum(trial.finished for trial in trials),
        "finished_calls_repeated": sum(trial.repeated for trial in trials),
        "late_calls": sum(trial.late for trial in trials),
        "late_calls_repeated": sum(trial.repeated_late for trial in trials),
        "calls_lost": sum(trial.lost for trial in trials),
        "other_answers": sum(not trial.same for trial in trials),
        "tool_calls": sum(trial.notes for trial in trials),
        "tokens_of_a_reply": tokens,
        "calls_that_went_on": sum(trial.continued for trial in trials),
        "most_seconds_of_tokens_generated_again": round(max(trial.again for trial in trials) * TOKEN, 2),
        "bad": [asdict(trial) for trial in trials if trial.repeated or trial.lost or not trial.same],
    }


def main() -> None:
    """Print the figures."""
    numbers = [int(word) for word in sys.argv[1:]]
    count, seed, tokens = [*numbers, *(KILLS, 0, TOKENS)[len(numbers) :]]
    print(json.dumps(asyncio.run(kills(count, seed, tokens)), indent=2))


if __name__ == "__main__":
    main()
