"""A Ray cluster of which this program is a part: joined, or started here, and left in the end.

Of Ray only nodes and actors are used. It is not loaded unless a cluster is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from synaptic.errors import BackendUnavailable, EngineUnavailable, UsageError
from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOCAL: Final = "local"
"""The address that starts a cluster of this machine alone."""
START_SECONDS: Final = 120.0
"""For an actor, from its order to its first answer: Ray starts a process for it, which loads this package."""
_ANSWER_SECONDS: Final = 10.0
_HINT: Final = "is it up (ray status), of the same versions of Ray and Python, and is its token here (RAY_AUTH_TOKEN)?"
_STORE_BYTES: Final = 80 << 20
"""Of shared memory, about the least that Ray takes: nothing of ours goes through it."""


@dataclass(frozen=True, slots=True)
class RayNode:
    """A machine of the cluster.

    Attributes:
        id: Of Ray; another one after the node was started again.
        name: What it was called at its start, else its address; stays.
        processors: That it lends to Ray.
    """

    id: str
    name: str
    processors: int


@asynccontextmanager
async def joined(address: str) -> AsyncIterator[None]:
    """Be part of a cluster for the time of a block.

    Args:
        address: Of the cluster's head, `host:port`; `auto` for the cluster that this machine is a node of; `local`
            for one that is started here, listens on the loopback only, and ends with the block.

    Raises:
        UsageError: If Ray is not installed, this program is part of a cluster already, or the address is none.
        BackendUnavailable: If the cluster is not reached.
    """
    _check(address)
    ray = _loaded()
    if ray.is_initialized():
        raise UsageError("this program is part of a Ray cluster already", hint="leave that first: ray.shutdown()")
    await _answers(address)
    try:
        await asyncio.to_thread(_join, ray, address)
        yield
    finally:
        await asyncio.to_thread(ray.shutdown)


async def nodes() -> list[RayNode]:
    """Return the machines of the cluster that are up, by name.

    Raises:
        BackendUnavailable: If the cluster does not tell.
    """
    ray = import_module("ray")
    try:
        found = await asyncio.to_thread(ray.nodes)
    except ray.exceptions.RayError as error:
        raise BackendUnavailable(
            f"the Ray cluster does not tell its nodes: {one_line(_last_line(error))}", hint=_HINT, backend="ray"
        ) from error
    return sorted(
        (
            RayNode(node["NodeID"], node["NodeName"], int(node["Resources"].get("CPU", 0)))
            for node in found
            if node["Alive"]
        ),
        key=lambda node: (node.name, node.id),
    )


async def start_actor(kind: type, node: RayNode, *arguments: object, memory_gib: float | None = None) -> Any:
    """Start an actor on a node, and return it; it ends with this program, or when it is killed.

    Args:
        kind: Its class, which the node has to be able to import.
        node: Where.
        arguments: Of the class.
        memory_gib: What is reserved for it there.

    Raises:
        BackendUnavailable: If the node is gone, or has not that much memory left.
        EngineUnavailable: If it cannot import the class.
    """
    ray = import_module("ray")
    strategy = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(node.id, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": strategy, "memory": int((memory_gib or 0) * (1 << 30)) or None}
    actor = ray.remote(kind).options(**options).remote(*arguments)
    try:
        async with asyncio.timeout(START_SECONDS):
            await actor.__ray_ready__.remote()
    except TimeoutError as error:
        end_actor(actor)
        raise unavailable(
            node, f"has started nothing within {START_SECONDS:.0f} s", "see what Ray has left there: ray status"
        ) from error
    except ray.exceptions.RayError as error:
        what = f"starts nothing: {one_line(_last_line(error))}"
        if "No module named 'synaptic" in str(error):
            hint = "pip install 'synapticllamas[ray]' there, in Ray's environment"
            raise EngineUnavailable(_said(node, what), hint=hint, backend="ray", node=node.name) from error
        raise unavailable(node, what) from error
    except BaseException:
        end_actor(actor)
        raise
    return actor


def end_actor(actor: Any) -> None:
    """End an actor at once; nothing happens if that is so already."""
    ray = import_module("ray")
    if ray.is_initialized():
        ray.kill(actor)


def unavailable(node: RayNode, what: str, hint: str | None = None) -> BackendUnavailable:
    """Return the error that a node of the cluster is of no use."""
    return BackendUnavailable(_said(node, what), hint=hint, backend="ray", node=node.name)


def _said(node: RayNode, what: str) -> str:
    return f"Ray's node {node.name} {what}"


def _check(address: str) -> None:
    """See to it that an address is one.

    Raises:
        UsageError: If not.
    """
    host, _, port = address.rpartition(":")
    if address not in {LOCAL, "auto"} and not (host and port.isdecimal()):
        raise UsageError(f"{address!r} is no address of a Ray cluster", hint=f"write host:port, 'auto' or '{LOCAL}'")


def _loaded() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is done here is told to no other party
    try:
        return import_module("ray")
    except ModuleNotFoundError as error:
        raise UsageError("Ray is not installed", hint="pip install 'synapticllamas[ray]'") from error


async def _answers(address: str) -> None:
    """Find out first whether something listens there: Ray itself tries for minutes, and cannot be interrupted.

    Raises:
        BackendUnavailable: If not.
    """
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, OverflowError, TimeoutError) as error:
        reason = one_line(str(error)) or "no answer"
        raise BackendUnavailable(
            f"the Ray cluster {address} is not reached: {reason}", hint=_HINT, backend="ray"
        ) from error
    writer.close()


def _join(ray: Any, address: str) -> None:
    """Join, or start.

    Raises:
        BackendUnavailable: If that fails.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "configure_logging": False}
    if address == LOCAL:
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    if address == LOCAL or address.startswith("127."):
        # By this Ray decides, where it is no cluster of many machines, to listen on the loopback only.
        constants: Any = import_module("ray._private.ray_constants")
        constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise BackendUnavailable(
            f"the Ray cluster {address} is not joined: {one_line(_last_line(error))}",
            hint=_HINT,
            backend="ray",
        ) from error
    if address == LOCAL and ray.util.get_node_ip_address() != "127.0.0.1":
        ray.shutdown()
        raise UsageError(
            "this release of Ray would listen beyond the loopback",
            hint="start a cluster yourself, and name its address",
        )


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
