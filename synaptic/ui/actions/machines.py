"""What can be said of the machines that are lent, for several commands alike."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING

from synaptic import cluster
from synaptic.backends import Finding
from synaptic.backends.distributed import Endpoint, current_engine
from synaptic.errors import EngineUnavailable, SynapticError, UsageError
from synaptic.text import plural, size

if TYPE_CHECKING:
    from synaptic.backends.distributed import Engine


def machine_endpoints() -> dict[str, Endpoint]:
    """Return where the worker of each machine is reached on this one, while a program has it.

    Raises:
        UsageError: If the file that names the machines cannot be read.
    """
    return {one.name: Endpoint("127.0.0.1", one.local_port) for one in cluster.machines()}


def facts_line(facts: cluster.MachineFacts) -> str:
    """Return what a machine is, in one line."""
    parts = [
        facts.system,
        plural(facts.processors, "processor") + (f" ({facts.processor})" if facts.processor else ""),
        f"{size(facts.free_bytes)} of {size(facts.memory_bytes)} free",
        f"{size(facts.disk_bytes)} of disk",
        *facts.graphics,
    ]
    return ", ".join(parts)


async def machine_findings() -> list[Finding]:
    """Return how each machine stands; all are asked at once, and nothing is started there."""
    try:
        known = cluster.machines()
    except UsageError as error:
        return [Finding("machines", "problem", error.message, error.hint)]
    if known and find_spec("asyncssh") is None:
        said = "asyncssh, with which they are reached, is not installed"
        return [Finding("machines", "missing", said, cluster.SSH_EXTRA)]
    try:
        engine: Engine | None = await current_engine()
    except EngineUnavailable:
        engine = None  # of which another finding speaks
    return list(await asyncio.gather(*(_finding(one, engine) for one in known)))


async def _finding(machine: cluster.Machine, engine: Engine | None) -> Finding:
    try:
        stands = await cluster.standing_of(machine, engine)
    except SynapticError as error:
        return Finding("machines", "missing", error.message, error.hint)
    what = f"{machine.name}: {facts_line(stands.facts)}"
    if stands.engine_there is False:
        later = "it has another engine, or none: the first call sends this one"
        return Finding("machines", "note", f"{what}; {later}", f"now: synaptic machines upgrade {machine.name}")
    return Finding("machines", "ok", what)
