"""``synaptic workers``: the llama.cpp RPC workers that a large model's layers are spread over."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from typing import TYPE_CHECKING, Any

import click

from synaptic import paths
from synaptic.backends.distributed import Endpoint, Worker, WorkerRegistry
from synaptic.backends.distributed import workers as rpc_workers
from synaptic.errors import UsageError
from synaptic.processes import become
from synaptic.settings import MOST_THREADS
from synaptic.ui.actions import (
    Serving,
    check_listens_in_private,
    given_workers,
    named_workers,
    serve_worker,
    show_looks,
)
from synaptic.ui.actions import workers as worker_actions
from synaptic.ui.commands.support import CliVoice, load, note
from synaptic.ui.options import json_option, settings_options, with_options
from synaptic.ui.screen import (
    WORKER_HEADERS,
    look_json,
    served_json,
    served_line,
    worker_json,
    worker_rows,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.distributed import Holder
    from synaptic.ui.options import Options

_CHECK_EPILOG = """\b
As in:
  synaptic workers check                     all workers of the settings
  synaptic workers check 10.0.0.4:50052      one, whether it is in the settings or not
  synaptic workers check --measure           and how fast they and the network are

\b
A worker that a coordinator holds is not contacted: it serves one at a time, and
asking it may end it.

\b
Exit codes: 0 all are well, 1 some are, 3 none is."""

_START_EPILOG = """\b
As in:
  synaptic workers start                       for this machine, or through a tunnel
  synaptic workers start --host 10.0.0.4       for a private network that you trust
  synaptic workers start --prefill llama3:70b  with its tensors at hand already
  sudo synaptic workers start --user llama     as an account that owns nothing

\b
Anybody who reaches the port, every user of this machine included, can run code as
the account of the worker: the RPC protocol knows no password.
Ctrl-C ends the worker, and so does: synaptic workers stop"""

_NAME_ONE = """synaptic config set rpc_backends '["10.0.0.4:50052"]'"""


@click.group()
def workers() -> None:
    """List, check and run the llama.cpp RPC workers that a large model's layers are spread over."""


@workers.command("list", short_help="List the workers of the settings; none is contacted.")
@settings_options
@json_option
@with_options
def list_workers(options: Options) -> None:
    """List the workers of the settings and those that run here for others; none is contacted."""
    named = named_workers(load(options).settings)
    served = {worker.endpoint: worker for worker in rpc_workers.served_workers()}
    endpoints = list(dict.fromkeys([*named, *served]))
    known = [rpc_workers.recall(endpoint) for endpoint in endpoints]
    holders = _holders(endpoints)
    if options.json:
        rows = zip(endpoints, known, holders, strict=True)
        write_json([{**worker_json(*row), **served_json(served.get(row[0]), named=row[0] in named)} for row in rows])
        return
    if endpoints:
        write_table(WORKER_HEADERS, worker_rows(endpoints, known, holders, time.time()))
    for worker in served.values():
        note(options, served_line(worker, time.time()))
    if not endpoints:
        note(options, f"the settings name no workers; to name one: {_NAME_ONE}")


@workers.command(epilog=_CHECK_EPILOG, short_help="Ask each worker how it is.")
@click.argument("which", nargs=-1, metavar="[HOST:PORT]...")
@click.option("--measure", is_flag=True, help="Measure latency, bandwidth and speed, too; some seconds a worker.")
@settings_options
@json_option
@with_options
def check(options: Options, which: tuple[str, ...], *, measure: bool) -> int:
    """Ask each worker, or those given, how it is: version, devices, memory, latency."""
    settings = load(options).settings
    endpoints = given_workers(which) if which else named_workers(settings)
    if not endpoints:
        raise UsageError(
            "there is no worker to check",
            hint=f"name one: synaptic workers check HOST:PORT, or in the settings: {_NAME_ONE}",
        )

    engine, looks = asyncio.run(worker_actions.check(endpoints, allowed=settings.public_workers, measured=measure))
    if not options.json:
        return int(show_looks(CliVoice(options), engine, looks))
    write_json([look_json(look) for look in looks])
    return int(rpc_workers.verdict(looks))


@workers.command(epilog=_START_EPILOG, short_help="Run a worker here, for the coordinator of another machine.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", help="Where to listen. [this machine only]")
@click.option("--port", type=click.IntRange(1, 65535), default=50052, help="Port to listen at. [50052]")
@click.option("--threads", type=click.IntRange(1, MOST_THREADS), help="Threads that compute. [one a core]")
@click.option("--memory", type=click.FloatRange(0, min_open=True), metavar="GIB", help="What layers may take. [all]")
@click.option("--no-cache", is_flag=True, help="Keep no tensors on disk for the next start.")
@click.option("--prefill", metavar="MODEL", help="Put the tensors of a model of this machine into the cache first.")
@click.option("--user", metavar="NAME", help="Run as that account, which should own nothing; needs the administrator.")
@settings_options
@with_options
def start(options: Options, **values: Any) -> None:
    """Run a worker in the foreground; it is started again when it crashes."""
    if (account := values.pop("user")) is not None:
        become(account)
    settings = load(options).settings
    host = _address(values["host"])
    check_listens_in_private(host, settings.public_workers)
    limit = rpc_workers.cache_limit(settings)
    cached = limit > 0 and not values["no_cache"]
    if values["prefill"] is not None and not cached:
        raise UsageError("--prefill needs the tensor cache", hint="leave --no-cache out, or set tensor_cache_gib")
    serving = Serving(
        host=host,
        port=values["port"],
        threads=values["threads"],
        memory_bytes=None if values["memory"] is None else int(values["memory"] * (1 << 30)),
        cache_dir=paths.tensor_cache_dir() if cached else None,
        cache_bytes=limit,
        model=values["prefill"],
    )
    asyncio.run(serve_worker(serving, lambda text: note(options, text)))


@workers.command(short_help="End workers that run on this machine.")
@click.argument("which", nargs=-1, metavar="[HOST:PORT]...")
@settings_options
@with_options
def stop(options: Options, which: tuple[str, ...]) -> None:
    """End the workers that were started here with `workers start`: all of them, or those given."""
    served = rpc_workers.served_workers()
    chosen = given_workers(which)
    for endpoint in chosen:
        if endpoint not in [worker.endpoint for worker in served]:
            here = ", ".join(str(worker.endpoint) for worker in served)
            raise UsageError(
                f"no worker that was started here listens at {endpoint}",
                hint=f"there is {here}" if here else "workers of other machines are ended there",
            )
    ending = [worker for worker in served if not chosen or worker.endpoint in chosen]
    killed = rpc_workers.end(ending)
    for worker in ending:
        note(options, f"{worker.endpoint} was {'killed: it did not end by itself' if worker in killed else 'ended'}")
    if not ending:
        note(options, "no worker was started here")


def _address(text: str) -> str:
    """Return an IPv4 address to listen at.

    Raises:
        UsageError: If it is none.
    """
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError as error:
        raise UsageError(
            f"--host {text!r} is no IPv4 address, and llama.cpp's RPC server takes nothing else",
            hint="write the address of this machine in the coordinator's network; 'ip -4 addr' lists them",
        ) from error


def _holders(endpoints: Sequence[Endpoint]) -> list[Holder | None]:
    """Return who is recorded as the holder of each worker; names are not resolved for that."""
    holders = WorkerRegistry().holders()
    # An IP address is its own address: it is found even if the holder knows the worker by name.
    workers = [Worker(endpoint, (endpoint.host,)) for endpoint in endpoints]
    return [next((holder for holder in holders if holder.holds(worker)), None) for worker in workers]
