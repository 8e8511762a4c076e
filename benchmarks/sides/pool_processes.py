"""The processes of the sides and of the scripted nodes, as benchmarks/pool.py uses them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sides.processes import FOREIGN, HERE, peers_python

sys.path.append(str(HERE.parent / "tests" / "support"))  # the scripted nodes are the tests' own

from faulty_node_child import ChildNode, child_node

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

PATIENCE_SECONDS = 120.0
LONGEST_LINE = 2**26
REQUIREMENTS = HERE / "requirements-pool.txt"
SIDES = {
    "ours": ("ours", {}),
    "ours, hedging": ("ours", {"hedge": True}),
    "aiohttp": ("floor", {}),
    "aiohttp in turn": ("floor", {"in_turn": True}),
    "SOLLOL": ("sollol", {}),
    "SOLLOL async": ("sollol", {"asynchronous": True}),
    "SOLLOL least loaded": ("sollol", {"strategy": "least_loaded"}),
    "SOLLOL round robin": ("sollol", {"strategy": "round_robin"}),
    "SOLLOL latency first": ("sollol", {"strategy": "latency_first"}),
    "SOLLOL fairness": ("sollol", {"strategy": "fairness"}),
}
"""Modules and options of what can be measured. SOLLOL without more is ``chat`` with the strategy of its default."""


class Side:
    """The process of one side."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self.versions: dict[str, str] = {}

    async def ask(self, do: str, **parameters: Any) -> Any:
        """Have something done and return the answer.

        Raises:
            RuntimeError: If the process has ended; what went wrong stands on standard error.

        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
        return await self.answer()

    async def open(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Make a new pool over ``nodes``."""
        await self.ask("open", nodes=list(nodes), **SIDES[self.name][1])

    async def answer(self) -> Any:
        """Return the next answer."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {await self._process.wait()}; see above")
        return json.loads(line)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid


class Workshop:
    """Starts sides and nodes.

    Attributes:
        versions: Of what each side was made, as far as it was started.

    """

    def __init__(self, home: str, *, peers: bool) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        places = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"), home)
        self.environment = {**kept, **places}
        self.peers = peers_python(REQUIREMENTS) if peers else None
        self.versions: dict[str, dict[str, str]] = {}

    def interpreter(self, name: str) -> str | None:
        """Return the Python of a side; ``None`` where its environment was not asked for."""
        return self.peers if SIDES[name][0] == "sollol" else sys.executable

    @asynccontextmanager
    async def sides(self, names: Iterable[str]) -> AsyncGenerator[list[Side]]:
        """Run the sides that there are, and end them with this block."""
        running: list[Side] = []
        processes: list[asyncio.subprocess.Process] = []
        try:
            for name in names:
                if (python := self.interpreter(name)) is None:
                    continue
                process = await asyncio.create_subprocess_exec(
                    *(python, "-m", "sides.pool_worker", SIDES[name][0]),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=LONGEST_LINE,
                    cwd=HERE,
                    env=self.environment,
                )
                processes.append(process)
                running.append(Side(name, process))
            for side in running:
                self.versions[SIDES[side.name][0]] = side.versions = await side.answer()
            yield running
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.communicate()


@asynccontextmanager
async def nodes(configs: Iterable[dict[str, Any]]) -> AsyncGenerator[list[ChildNode]]:
    """Run scripted nodes that have the model ``m`` loaded; ``num_predict`` says how long a reply is."""
    common = {"models": ["m"], "loaded": ["m"], "tokens": None}
    contexts = [child_node(**common, **config) for config in configs]
    try:
        yield await asyncio.gather(*(context.__aenter__() for context in contexts))
    finally:
        await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))


def described(running: Iterable[ChildNode]) -> list[dict[str, Any]]:
    """Return nodes as a pool is told of them."""
    return [{"url": node.url, "parallel": node.config.get("parallel", 1)} for node in running]
