"""Machines over a real sshd: how long it takes to add one, which ports are open, and what the tunnel costs.

``python benchmarks/machines.py`` prints a table to standard error and one JSON document to standard output. It needs an
engine (``synaptic engine install``), sshd (Debian: openssh-server), iproute2, and root for hosts of their own network
namespaces. State, keys and the homes of the machines are in an empty directory; the engine is this user's.

How it is measured. ``add`` is the whole command, from a machine that has nothing but sshd, and again when the engine is
there. ``ports`` are the addresses beyond loopback that something listens at on either end meanwhile, without sshd.
``decode`` has SmolLM2-135M on two workers of one thread each on this host, reached through SSH and without it, asked in
turns, another one first in each, the first turn not counted; rates are the server's count of tokens by its own clock.
``trip`` has no model: the messages of a token to a worker and back, through each kind of tunnel, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import platformdirs
from sides import token_trip
from sides.bare_distributed import worker
from sides.distributed_product import CONTEXT, GIB, ask, least_memory
from sides.distributed_rows import in_turns
from sides.pool_report import OURS, Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from machine_site import Site
from network_hosts import Hosts
from ssh_server import near_server

from synaptic.backends.distributed.backend import DistributedBackend
from synaptic.backends.distributed.engine.store import current_engine
from synaptic.backends.distributed.placement.types import ServingNeeds
from synaptic.cluster import Machine, UnknownHostKey, connected, forget, keep, machines, trust, upgrade
from synaptic.messages import ignore_report
from synaptic.models.download import ModelStore
from synaptic.models.model_source import open_model
from synaptic.processes import free_port
from synaptic.settings.load import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_SECONDS: Final = {"engine here": 60.0, "engine there": 8.0}
LEAST_DECODE: Final = 0.97
WITHOUT: Final = "without a tunnel"
BY_HAND: Final = "ssh -L by hand"
POLL_SECONDS: Final = 0.1
KINDS: Final = ("add", "decode", "trip")
TRIPS: Final = 200


def add(folder: Path) -> list[Row]:
    """Add a machine, twice, and look meanwhile who listens where."""
    row = Row("add", "seconds of machines add", goal="at most 60, and 8 where the engine is there", compare="seconds")
    ports = Row("ports", "listening beyond loopback, on both ends", goal="none", compare="ports")
    with Hosts(3) as hosts:
        site = Site(hosts, folder)
        seen: set[str] = set()
        for name, most in MOST_SECONDS.items():
            began = time.perf_counter()
            _add(site, seen)
            seconds = time.perf_counter() - began
            row.add(name, {"seconds": round(seconds, 2), "at most": most})
        row.met = all(side["seconds"] <= side["at most"] for side in row.sides.values())
    ports.add(OURS, {"ports": len(seen)})
    ports.notes += sorted(seen)
    ports.judge(OURS, "ports", at_most=0)
    return [row, ports]


def _add(site: Site, seen: set[str]) -> None:
    """Add host 2, and note the addresses beyond loopback at which something listens on it and on host 1."""
    process = site.hosts.start(
        1,
        *(sys.executable, "-m", "synaptic", "machines", "add", f"root@{site.hosts.address(2)}", "--name", "m2"),
        *("--threads", "1", "--no-ollama", "--fingerprint", site.servers[2].fingerprint),
        env=site.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        for host in (1, 2):
            seen |= {f"host {host}: {at}" for at in site.listening(host) if not _expected(at)}
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"machines add ended with {process.returncode}")


def _expected(address: str) -> bool:
    return address.startswith(("127.", "[::1]")) or address.endswith(":22")


async def decode(folder: Path, rounds: int, tokens: int) -> Row:
    """Generate over two workers of this host, through SSH and without it."""
    row = Row(
        "decode",
        "tokens a second of one stream, 2 workers of one thread on loopback",
        goal=f"at least {LEAST_DECODE} of what it is without",
        compare="tokens/s",
    )
    engine = await current_engine()
    model = await ModelStore().ensure(ignore_report)
    shape = await open_model(str(model))
    gib = least_memory(shape, 2, ServingNeeds(context=CONTEXT, slots=1)) / GIB
    usual: dict[str, Any] = {"model": str(model), "distributed_context": CONTEXT, "distributed_parallel": 1}
    usual |= {"coordinator_idle": None, "local_workers": 0}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(near_server(folder / "near"))
        names = ("near1", "near2")
        said: list[object] = []
        for name in names:  # one host may be two machines
            port = free_port(avoid=[one.local_port for one in machines()])
            machine = Machine(
                name=name, host=server.address, port=server.port, memory_gib=gib, threads=1, local_port=port
            )
            await _trust(machine)
            keep(machine)
        await upgrade(machine, engine, said.append)
        ours = DistributedBackend(Settings(**usual), said.append)
        stack.push_async_callback(ours.aclose)
        await ours.start()
        for name in names:
            forget(name)  # the other side has none of them
        backends = []
        for _ in names:
            endpoint, _log = await stack.enter_async_context(worker(engine, threads=1))
            backends.append({"host": "127.0.0.1", "port": int(endpoint.rpartition(":")[2]), "memory_gib": gib})
        bare = DistributedBackend(Settings(**usual, rpc_backends=backends))
        stack.push_async_callback(bare.aclose)
        await bare.start()
        sides = {OURS: ours, WITHOUT: bare}
        rates = await in_turns(rounds, {name: _rate(side, tokens) for name, side in sides.items()})
        texts = {name: (await ask(side, tokens)).text for name, side in sides.items()}
    base = statistics.median(rates[WITHOUT])
    for name, each in rates.items():
        median = statistics.median(each)
        row.add(name, {"tokens/s": round(median, 2), "of without": round(median / base, 3)})
    row.judge(OURS, "of without", at_least=LEAST_DECODE)
    row.met = bool(row.met) and texts[OURS] == texts[WITHOUT]
    return row


async def trip(folder: Path, rounds: int, count: int) -> Row:
    """Send the messages of a token through SSH and without it."""
    row = Row(
        "trip",
        "microseconds of a token's messages, to a worker in the middle and to the last one; of the fastest tenth",
        goal="none: what any tunnel of SSH costs, beside what ours does",
        compare="last",
    )
    async with AsyncExitStack() as stack:
        server = stack.enter_context(near_server(folder / "near"))
        near = Machine(name="near", host=server.address, port=server.port, local_port=free_port())
        await _trust(near)
        script = [sys.executable, token_trip.__file__]
        worker = await asyncio.create_subprocess_exec(*script, "serve", stdout=subprocess.PIPE)
        stack.callback(worker.kill)
        assert worker.stdout is not None
        there = int(await worker.stdout.readline())
        ports = {WITHOUT: there}
        connection = await stack.enter_async_context(connected(near))
        listener = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", there)
        ports[OURS] = listener.get_port()
        ports[BY_HAND] = near.local_port
        by_hand = await asyncio.create_subprocess_exec(
            *("ssh", "-F", "none", "-p", str(near.port), "-i", str(Path.home() / ".ssh" / "id_ed25519")),
            *("-o", f"UserKnownHostsFile={Path.home() / '.ssh' / 'known_hosts'}", "-o", "ExitOnForwardFailure=yes"),
            *("-L", f"127.0.0.1:{near.local_port}:127.0.0.1:{there}", "-c", "aes128-gcm@openssh.com"),
            *(near.host, "echo up; exec cat >/dev/null"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.callback(by_hand.kill)
        assert by_hand.stdout is not None
        await by_hand.stdout.readline()
        best: dict[tuple[str, int], int] = {}
        for _ in range(rounds):
            for name, port in ports.items():
                for size in (token_trip.MIDDLE, token_trip.LAST):
                    words = [*script, "ask", str(port), str(count), str(size)]
                    asking = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
                    said, _ = await asking.communicate()
                    best[name, size] = min(int(said), best.get((name, size), int(said)))
    for name in ports:
        row.add(name, {"middle": best[name, token_trip.MIDDLE], "last": best[name, token_trip.LAST]})
    return row


async def _trust(machine: Machine) -> None:
    try:
        async with connected(machine):
            pass
    except UnknownHostKey as unknown:
        trust(unknown)


def _rate(side: DistributedBackend, tokens: int) -> Callable[[], Awaitable[float]]:
    async def rate() -> float:
        return (await ask(side, tokens)).rate

    return rate


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side that count")
    parser.add_argument("--tokens", type=int, default=64, help="of a call")
    arguments = parser.parse_args()
    busy, rows = os.getloadavg()[0], []
    os.environ["XDG_CACHE_HOME"] = str(Path(platformdirs.user_cache_dir("synapticllamas")).parent)
    for name in (arguments.only,) if arguments.only else KINDS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HOME"] = folder
            os.environ["XDG_STATE_HOME"] = f"{folder}/state"
            os.environ["XDG_CONFIG_HOME"] = f"{folder}/config"
            if name == "add":
                rows += add(Path(folder))
            elif name == "trip":
                rows.append(asyncio.run(trip(Path(folder), arguments.rounds, TRIPS)))
            else:
                rows.append(asyncio.run(decode(Path(folder), arguments.rounds, arguments.tokens)))
    for row in rows:
        print(row.table(), file=sys.stderr)
    document = {
        "benchmark": "machines",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average_before": round(busy, 2),
        "rows": {row.name: row.document() for row in rows},
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
