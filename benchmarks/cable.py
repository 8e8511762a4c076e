"""A split model over two machines whose cable is pulled: is each call answered, is each worker usable, is nothing left.

    python benchmarks/cable.py [--seconds 2,20,90] [--cycles 48, which are all]

Three hosts in network namespaces: a program on one loads SmolLM2-135M over workers that it starts on the two others
over SSH (``machines add``). In each cycle a new program is asked; the cable of a machine that holds layers is pulled
for so many seconds: while the model is loaded, just before a call, while its prompt is read or in mid-answer, with its
coordinator alive or killed meanwhile, and with room for the layers on the other machine or without. ``complete``: the
call was answered. ``same``: with a text of calls that nothing disturbed, on a fresh server or not. ``usable``: a second
call, with the cable back, was answered, too. ``orphans``: workers and servers that are there after the program has
ended.
Prints JSON. Linux, root, iproute2, sshd, an engine (``synaptic engine install``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs
import psutil
import pytest
from sides.distributed_product import GIB, least_memory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import split_model_talk
from machine_site import Site
from network_hosts import Hosts
from split_model_talk import PROMPT, Talk

from synaptic.backends.distributed.placement.types import ServingNeeds
from synaptic.cluster import machines
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore
from synaptic.models.model_source import open_model

MOMENTS: Final = ("loading", "idle", "prefill", "answer")
LONG: Final = "Here is a list of what the lighthouse keeper saw that year. " * 24 + PROMPT
TOKENS: Final = 40
PREFILL_SECONDS: Final = 0.2
"""After a call has been sent: its prompt of 300 tokens is being read."""
PATIENCE: Final = 300.0
GONE_WITHIN: Final = 30.0
"""Seconds that workers may be there after their program: a machine whose cable is out hears nothing for 15."""
SEED: Final = 48


@dataclass(frozen=True)
class Cycle:
    """What is done in one."""

    seconds: float
    moment: str
    killed: bool
    room: bool


def run(site: Site, cycle: Cycle, model: Path, texts: dict[str, set[str]]) -> dict[str, Any]:
    """Go through one cycle, and return what came of it."""
    talk = _start(site, model)
    prompt = LONG if cycle.moment == "prefill" else PROMPT
    outcome: dict[str, Any] = {**asdict(cycle), "complete": False, "same": False, "usable": False}
    host = 0
    try:
        if cycle.moment == "loading":
            talk.until(lambda line: '"loading"' in line)
            host = 3
        else:
            host = _holder(talk.answer())
            if cycle.moment != "idle":
                _ask(talk, prompt)
                talk.until(lambda line: ('"sent"' if cycle.moment == "prefill" else '"piece"') in line)
                time.sleep(PREFILL_SECONDS if cycle.moment == "prefill" else 0)
        site.hosts.pull(host)
        if cycle.killed:
            _kill_coordinators(talk)
        if cycle.moment == "idle":
            _ask(talk, prompt)
        time.sleep(cycle.seconds)
        site.hosts.plug(host)
        began = time.monotonic()
        ended = talk.answer()
        outcome["seconds after"] = round(time.monotonic() - began, 1)
        outcome["complete"] = "answer" in ended
        outcome["same"] = ended.get("answer") in texts[prompt]
        outcome["said"] = ended.get("failed", "")
        _ask(talk, PROMPT)
        outcome["usable"] = "answer" in talk.answer()
    except (AssertionError, pytest.fail.Exception) as error:
        outcome["said"] = str(error)[-600:]
    finally:
        if host:
            site.hosts.plug(host)
    outcome["orphans"] = _left(site, talk)
    return outcome


def _undisturbed(site: Site, model: Path) -> dict[str, set[str]]:
    """Return what each prompt is answered by a server that has read another one before, and by a fresh one.

    What is read together rounds together, and this model decides some words by less than that.
    """
    talk, texts = _start(site, model), {PROMPT: set[str](), LONG: set[str]()}
    texts[PROMPT].add(talk.answer()["answer"])
    for prompt in (LONG, PROMPT, LONG, PROMPT):
        _ask(talk, prompt)
        texts[prompt].add(talk.answer()["answer"])
        if prompt == PROMPT:
            _kill_coordinators(talk)
    _left(site, talk)
    return texts


def _start(site: Site, model: Path) -> Talk:
    usual = {"model": str(model), "local_workers": 0, "worker_return_wait": 5.0}
    return Talk(split_model_talk.ask(site.hosts, [], env=site.env, **usual))


def _ask(talk: Talk, prompt: str) -> None:
    assert talk.process.stdin is not None
    talk.process.stdin.write(json.dumps({"prompt": prompt, "tokens": TOKENS}) + "\n")
    talk.process.stdin.flush()


def _holder(ended: dict[str, Any]) -> int:
    """Return the host of the last machine that holds layers."""
    assert "answer" in ended, ended
    ports = {one.local_port: int(one.name.removeprefix("m")) for one in machines()}
    return max(ports[int(worker.rpartition(":")[2])] for worker in ended["workers"])


def _kill_coordinators(talk: Talk) -> None:
    for process in psutil.Process(talk.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() == "llama-server":
                process.kill()


def _left(site: Site, talk: Talk) -> int:
    """End the program, and return how much of it is there afterwards; that is killed."""
    known = psutil.Process(talk.process.pid).children(recursive=True) if talk.process.poll() is None else []
    assert talk.process.stdin is not None
    with contextlib.suppress(OSError):
        talk.process.stdin.close()
    end = time.monotonic() + GONE_WITHIN
    while True:
        talk.process.poll()
        left = [*site.workers(), *(one for one in known if one.is_running())]
        if (not left and talk.process.returncode is not None) or time.monotonic() > end:
            break
        time.sleep(0.2)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    talk.process.kill()
    return len(left)


def go_through(cycles: list[Cycle], model: Path, *, room: bool) -> list[dict[str, Any]]:
    """Go through the cycles that have room for the layers elsewhere, or those that do not, with hosts of their own."""
    shape = asyncio.run(open_model(str(model)))
    gib = least_memory(shape, 1 if room else 2, ServingNeeds(context=512, slots=1, draft=0)) / GIB
    with tempfile.TemporaryDirectory() as folder, Hosts(3) as hosts:
        os.environ |= {"HOME": folder, "XDG_STATE_HOME": f"{folder}/state", "XDG_CONFIG_HOME": f"{folder}/config"}
        site = Site(hosts, Path(folder))
        for number in (2, 3):
            site.add(number, "--memory", str(round(gib, 4)), "--no-ollama")
        texts = _undisturbed(site, model)
        outcomes = []
        for cycle in cycles:
            outcomes.append(run(site, cycle, model, texts))
            print(json.dumps(outcomes[-1]), file=sys.stderr, flush=True)
    return outcomes


def main() -> None:
    """Go through the cycles, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", default="2,20,90", help="that the cable is out")
    parser.add_argument("--cycles", type=int, default=12, help="at most, in an order that is always the same")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the hosts, and what runs on them, go with us
    os.environ["XDG_CACHE_HOME"] = str(Path(platformdirs.user_cache_dir("synapticllamas")).parent)
    split_model_talk.PATIENCE = PATIENCE  # type: ignore[misc]
    model = asyncio.run(ModelStore().ensure(ignore_report))
    seconds = [float(each) for each in arguments.seconds.split(",")]
    cycles = [Cycle(*values) for values in itertools.product(seconds, MOMENTS, (False, True), (False, True))]
    random.Random(SEED).shuffle(cycles)
    cycles = cycles[: arguments.cycles]
    load, outcomes = os.getloadavg()[0], []
    for room in (False, True):
        if chosen := [cycle for cycle in cycles if cycle.room is room]:
            outcomes += go_through(chosen, model, room=room)
    document = {
        "benchmark": "cable",
        "load_average_before": round(load, 2),
        "cycles": len(outcomes),
        **{what: sum(each[what] for each in outcomes) for what in ("complete", "same", "usable", "orphans")},
        "not as they should be": [
            each for each in outcomes if not (each["complete"] and each["same"] and each["usable"]) or each["orphans"]
        ],
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
