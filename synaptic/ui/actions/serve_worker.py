"""A worker in the foreground, for the coordinator of another machine: what it says, until it is told to end."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from synaptic.backends.distributed import ManagedWorker, current_engine, workers
from synaptic.backends.embedded import usable_threads
from synaptic.errors import BackendUnavailable, UsageError
from synaptic.messages import BackendNotice
from synaptic.models import large_tensors, open_model
from synaptic.processes import told_to_end
from synaptic.text import plural, size

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from synaptic.backends.distributed import Engine
    from synaptic.messages import BackendReport

ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - compared with, not bound to
LASTING_SECONDS: Final = 1.0
"""A coordinator makes a dozen short connections when it starts; one that lasts is told."""
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How to serve a worker.

    Attributes:
        host: The IPv4 address to listen at.
        threads: ``None`` for one a core.
        memory_bytes: What layers may take; ``None`` for what the machine has.
        cache_dir: Where tensors are kept; ``None`` keeps none.
        model: A model of this machine whose tensors are put there first: a path, or a name of Ollama's.
    """

    host: str
    port: int
    threads: int | None
    memory_bytes: int | None
    cache_dir: Path | None
    cache_bytes: int
    model: str | None = None


async def serve_worker(serving: Serving, say: Callable[[str], None]) -> None:
    """Run a worker until this process is told to end (Ctrl-C, SIGTERM, SIGHUP), or the worker fails for good.

    Raises:
        EngineUnavailable: If there is no engine that works.
        BackendUnavailable: If the worker does not start, its port is taken, or it ends again and again.
        UsageError: If the address is not one of this machine.
    """
    with told_to_end() as ended:
        worker = _worker(await current_engine(), serving, say)
        ending = asyncio.create_task(ended.wait())
        try:
            if serving.model is not None and serving.cache_dir is not None:
                await _unless(ending, _prefill(serving, serving.model, say))
            await _unless(ending, worker.start())
            if not ending.done():
                with workers.recorded(worker.endpoint):
                    _introduce(worker, say)
                    await _unless(ending, _tell_of_clients(worker, say))
        finally:
            ending.cancel()
            await worker.stop()


def check_listens_in_private(host: str, allowed: Collection[str]) -> None:
    """Check that a worker may listen at an address.

    Args:
        host: An IPv4 address.
        allowed: Hosts outside private networks that the settings allow (``public_workers``).

    Raises:
        UsageError: If it may not.
    """
    if not workers.public_ones(host, (host,), allowed):
        return
    what = "stands for all networks of this machine" if host == ANY_ADDRESS else "is in no private network"
    raise UsageError(
        f"--host {host}: {host} {what}, and whoever reaches a worker can run code as you",
        hint="write this machine's address in a private network ('ip -4 addr' lists them), or listen at 127.0.0.1 and "
        f"use a tunnel (ssh -L); to allow it all the same: {workers.allowing(host)}",
    )


def public_warning(host: str) -> str | None:
    """Return the warning that belongs to an address, ``None`` for one that only programs of this machine reach."""
    if ipaddress.IPv4Address(host).is_loopback:
        return None
    where = "every network of this machine" if host == ANY_ADDRESS else f"whoever reaches {host}"
    return (
        f"the worker listens to {where}, and its protocol knows no password: who connects can run code as you. "
        "Let a firewall admit the coordinator's machine only, or listen at 127.0.0.1 and use a tunnel (ssh -L)"
    )


def settings_line(host: str, port: int, memory_bytes: int) -> str:
    """Return the command that names a worker in the settings of the coordinator's machine.

    Args:
        host: The worker's address, as that machine knows it.
        port: The worker's.
        memory_bytes: What layers may take there. A CPU would tell the whole memory of its machine.
    """
    gib = max(0.1, int(memory_bytes / GIB * 10) / 10)
    return f'synaptic config set rpc_backends \'[{{"host": "{host}", "port": {port}, "memory_gib": {gib:g}}}]\''


def _worker(engine: Engine, serving: Serving, say: Callable[[str], None]) -> ManagedWorker:
    def report(what: BackendReport) -> None:
        if isinstance(what, BackendNotice):
            say(what.message)

    return ManagedWorker(
        engine,
        host=serving.host,
        port=serving.port,
        threads=serving.threads or usable_threads(),
        memory_bytes=serving.memory_bytes,
        cache_dir=serving.cache_dir,
        cache_bytes=serving.cache_bytes,
        name=f"port-{serving.port}",
        report=report,
    )


async def _prefill(serving: Serving, model: str, say: Callable[[str], None]) -> None:
    assert serving.cache_dir is not None
    shape = await open_model(model)
    cache = workers.TensorCache(serving.cache_dir, limit_bytes=serving.cache_bytes)
    say(f"reading the tensors of {model}, so that they need not be sent")
    try:
        added = await asyncio.to_thread(lambda: cache.prefill(large_tensors(shape.files)))
    except OSError as error:
        raise BackendUnavailable(
            f"the tensors of {model} cannot be kept in {serving.cache_dir}: {error.strerror or error}",
            hint="free some space, or leave --prefill out",
        ) from error
    say(f"{size(added)} were added to the tensor cache")


def _introduce(worker: ManagedWorker, say: Callable[[str], None]) -> None:
    facts = worker.facts()
    host, port = worker.endpoint
    warning = public_warning(host)
    say(
        f"a worker listens at {worker.endpoint}: RPC {worker.engine.facts.rpc_version}, {facts.device}, "
        f"{plural(facts.threads, 'thread')}, {facts.memory_bytes / GIB:.1f} GiB for layers (Ctrl-C ends it)"
    )
    if warning is None:
        say(f"only this machine reaches it; on another one: ssh -N -L {port}:{host}:{port} THIS-MACHINE, and then")
    else:
        say(f"warning: {warning}")
        say("on the machine of the coordinator:")
    shown = "ADDRESS-OF-THIS-MACHINE" if host == ANY_ADDRESS else host
    say(f"  {settings_line(shown, port, facts.memory_bytes)}")


async def _tell_of_clients(worker: ManagedWorker, say: Callable[[str], None]) -> None:
    """Say when a coordinator stays connected, and when it has gone; until the worker fails for good."""
    told = False
    while worker.failure is None:
        try:
            async with asyncio.timeout(None if worker.serving == told else LASTING_SECONDS):
                await worker.changed()
        except TimeoutError:
            pass
        else:
            continue
        told = worker.serving
        say(f"in use by {', '.join(worker.clients()) or 'a coordinator'}" if told else "free again")
    raise worker.failure


async def _unless(ending: asyncio.Task[Any], work: Any) -> None:
    """Do some work, broken off when this process is told to end."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
