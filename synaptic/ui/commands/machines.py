"""``synaptic machines``: computers that are reached over SSH and lend their memory and processors."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from synaptic import cluster, paths
from synaptic.backends.distributed import Endpoint, current_engine, service
from synaptic.errors import BackendUnavailable, ExitCode, SynapticError, UsageError
from synaptic.processes import free_port
from synaptic.settings import settings_path, stored_nodes
from synaptic.text import plural, read_text
from synaptic.ui.actions import machines as machine_actions
from synaptic.ui.actions import nodes as node_actions
from synaptic.ui.actions import workers as worker_actions
from synaptic.ui.commands.log_lines import show_logs
from synaptic.ui.commands.machines_service import install_service
from synaptic.ui.commands.support import CliVoice, mention_origin, note
from synaptic.ui.options import config_option, json_option, with_options
from synaptic.ui.screen import look_lines, show_error, stderr_console, write_json, write_table, write_text
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from synaptic.cluster import Machine
    from synaptic.ui.options import Options

KEY_BYTES: Final = 1 << 16
_ADD_EPILOG: Final = """\b
It looks at the machine, brings the engine of this one there (into a folder of the
account's cache, nothing else is written), starts a worker on its loopback, reaches
it through the SSH connection, and measures it. No port is opened on either side.
From then on distributed inference uses it, and where an Ollama listens on its
loopback, that is a node of the pool, through the same connection.

\b
As in:
  synaptic machines add ada@10.0.0.4
  synaptic machines add desk --memory 12 --threads 8      a name of ~/.ssh/config
  synaptic machines add ada@10.0.0.4 --jump ada@gate
  synaptic machines add ada@10.0.0.4 --no-worker          its Ollama alone
  synaptic machines add ada@attic --reverse 10.0.0.1:2200
                                                          it connects to us: a command
                                                          to run there is printed"""
_OLLAMA_PORT: Final = 11434
_INVITED_SECONDS: Final = 600.0


@click.group()
def machines() -> None:
    """Add, list, check, upgrade and remove machines that are reached over SSH and lend memory to large models."""


machines.add_command(install_service)


@machines.command("add", epilog=_ADD_EPILOG)
@click.argument("address", metavar="[USER@]HOST[:PORT]")
@click.option("--name", help="What it is called here; the host's name without it.")
@click.option("--identity", metavar="FILE", help="Private key, where the agent and the usual ones do not do.")
@click.option("--jump", metavar="[USER@]HOST", help="Host on the way, as in ssh -J.")
@click.option("--memory", "memory_gib", type=click.FloatRange(0, min_open=True), metavar="GIB", help="For layers.")
@click.option("--threads", type=click.IntRange(1, 1024), help="That compute there; all its processors without it.")
@click.option("--fingerprint", metavar="SHA256:...", help="Trust this key of the machine, where there is no terminal.")
@click.option("--ollama", "ollama_port", type=click.IntRange(1, 65535), metavar="PORT", help="Of its Ollama. [11434]")
@click.option("--no-ollama", is_flag=True, help="Leave an Ollama there alone.")
@click.option("--reverse", metavar="HOST:PORT", help="It connects to this address of ours, being behind NAT.")
@click.option("--no-worker", is_flag=True, help="Use its Ollama alone; no engine is brought there.")
@config_option
@with_options
def add(
    options: Options,
    *,
    address: str,
    name: str | None,
    fingerprint: str | None,
    reverse: str | None,
    no_ollama: bool,
    no_worker: bool,
    **limits: Any,
) -> int:
    """Lend a machine: bring the engine there, start a worker, and prove that it works; use its Ollama, too."""
    if no_worker and no_ollama:
        raise UsageError("--no-worker and --no-ollama leave nothing to use", hint="leave one of them out")
    user, host, port = cluster.parse_address(address)
    if limits["identity"] is not None:
        key = paths.expanded(limits["identity"])
        read_text(key, "private key", UsageError, limit=KEY_BYTES)
        limits["identity"] = str(key.absolute())
    known = {one.name: one for one in cluster.machines()}
    name = cluster.check_name(name or host)
    taken = {used for one in known.values() for used in one.local_ports}
    local_port = free_port(avoid=taken)
    limits["ollama_port"] = None if no_ollama else limits["ollama_port"] or _OLLAMA_PORT
    machine = cluster.Machine(
        name=name, user=user, host=host, port=port, local_port=local_port, worker=not no_worker, **limits
    )
    if reverse is not None:
        machine = _reversed(machine, reverse, port, known.get(name), {*taken, local_port})
    if name in known and (known[name].host, known[name].port) != (machine.host, machine.port):
        raise UsageError(f"another machine is called {name}: {known[name].shown}", hint="choose another --name")
    began = steady_time()
    machine, version = asyncio.run(_let_in(options, machine, fingerprint))
    if version is None:
        machine = replace(machine, ollama_port=None)
    else:
        before = known[name].node_port if name in known else None
        machine = replace(machine, node_port=before or free_port(avoid={*taken, *machine.local_ports}))
    cluster.keep(machine)
    write_text(f"{name} is lent, after {steady_time() - began:.0f} s")
    if machine.worker:
        note(options, "large models use it once that is on: synaptic config set distributed_inference_enabled true")
    if machine.node_url is not None:
        _add_node(options, machine, machine.node_url)
    return ExitCode.ANSWERED


def _reversed(machine: Machine, reverse: str, port: int, known: Machine | None, taken: set[int]) -> Machine:
    """Return a machine that connects to us: what is its SSH server's port there leads to it from a port here.

    Raises:
        UsageError: If ``reverse`` is no address with a port.
    """
    _, host, door = cluster.parse_address(reverse)
    if not reverse.endswith(f":{door}"):
        raise UsageError(f"--reverse {reverse} has no port", hint=f"write the one to listen at: --reverse {host}:2200")
    before = known.port if known is not None and known.reverse is not None else None
    end = before or free_port(avoid=taken)
    shown = f"[{host}]:{door}" if ":" in host else f"{host}:{door}"
    key = known.reverse_key if known is not None else None
    return replace(machine, host="127.0.0.1", port=end, reverse=shown, reverse_key=key, reverse_port=port)


async def _let_in(options: Options, machine: Machine, fingerprint: str | None) -> tuple[Machine, str | None]:
    """Prove a machine; one that connects to us is waited for, and its key is kept.

    Raises:
        SynapticError: What is wrong, and what to do.
    """
    if machine.reverse is None:
        return machine, await _proved(options, machine, fingerprint)
    _require_ssh()
    token = cluster.new_token()
    async with cluster.through_door(machine, token=token, within=0) as door:
        note(options, f"run this on {machine.name}, and leave it running (it needs a key: ssh-keygen):")
        write_text(cluster.reverse_command(machine, token))
        sys.stdout.flush()
        if door is not None:
            await door.linked(_INVITED_SECONDS)
            machine = replace(machine, reverse_key=door.key)
        return machine, await _proved(options, machine, fingerprint)


def _add_node(options: Options, machine: Machine, url: str) -> None:
    """Name the Ollama of a machine in the settings."""
    path = settings_path(options.config_path)
    if all(node.url != url for node in stored_nodes(path)):
        voice = CliVoice(options)
        entry = {"url": url, "name": machine.name}
        added = asyncio.run(node_actions.add(voice, path, entry, os.environ, look=False))
        node_actions.mention_local(voice, added, os.environ)
        mention_origin(options, path, "nodes")


@machines.command("list")
@json_option
@with_options
def list_machines(options: Options) -> int:
    """List the machines; none is contacted."""
    known = cluster.machines()
    if options.json:
        write_json([asdict(one) for one in known])
    elif known:
        rows = [
            (
                one.name,
                f"{one.shown}:{one.port}",
                _amount(one.memory_gib, " GiB"),
                _amount(one.threads, ""),
                one.node_url or "",
            )
            for one in known
        ]
        write_table(("name", "reached as", "memory", "threads", "its Ollama is the node"), rows)
    else:
        write_text("no machine is lent yet: synaptic machines add user@host")
    return ExitCode.ANSWERED


@machines.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@with_options
def check(options: Options, names: tuple[str, ...]) -> int:
    """Start the worker of each machine, look at it and measure it, and end it again."""
    return _each(_chosen(names), lambda one: _proved(options, one, None))


@machines.command("upgrade")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@with_options
def upgrade(options: Options, names: tuple[str, ...]) -> int:
    """Bring the engine of this machine to each, where it has another one; older ones there are removed."""

    async def one(machine: Machine) -> None:
        engine = await current_engine()
        done = await cluster.upgrade(machine, engine, lambda text: note(options, f"{machine.name}: {text}"))
        brought = "has it now" if done.sent_bytes else "had it already"
        gone = f"; {plural(done.removed, 'older folder')} removed" if done.removed else ""
        write_text(f"{machine.name}: engine {engine.short_identity}, {brought}{gone}")

    return _each(_chosen(names, workers_only=True), one)


@machines.command("logs")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=20, show_default=True, help="Lines of each.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what they say, until Ctrl-C.")
def logs(names: tuple[str, ...], lines: int, *, follow: bool) -> None:
    """Show what the workers of machines said to this one; it is kept here, and no machine is contacted."""
    chosen = [service.Log(one.name, one.log_file) for one in _chosen(names, workers_only=True)]
    show_logs(lambda: chosen, lines, follow=follow)


@machines.command("remove")
@click.argument("name")
@config_option
@with_options
def remove(options: Options, name: str) -> int:
    """Use a machine no more, nor its Ollama. The engine stays there, in ~/.cache/synapticllamas."""
    machine = cluster.machine(name)
    path = settings_path(options.config_path)
    if machine.node_url in {node.url for node in stored_nodes(path)}:
        node_actions.remove(CliVoice(options), path, str(machine.node_url))
    cluster.forget(name)
    write_text(f"{name} is not used any more")
    return ExitCode.ANSWERED


def _chosen(names: Sequence[str], *, workers_only: bool = False) -> list[Machine]:
    """Return the machines of those names; all, where there are none.

    Raises:
        UsageError: If there is none, or none of such a name.
    """
    known = [cluster.machine(name) for name in names] or cluster.machines()
    chosen = [one for one in known if one.worker or not workers_only]
    if not chosen:
        what = "no machine is lent yet" if not known else "of these machines only the Ollama is used"
        raise UsageError(what, hint="synaptic machines add user@host")
    return chosen


def _each(chosen: Sequence[Machine], do: Callable[[Machine], Coroutine[Any, Any, object]]) -> int:
    """Do something with each machine; show what is wrong with one, and go on with the next. Return the exit code."""
    failed = 0
    for one in chosen:
        try:
            asyncio.run(do(one))
        except SynapticError as error:
            show_error(stderr_console(), error)
            failed += 1
    if failed == len(chosen):
        return ExitCode.NO_BACKEND
    return ExitCode.FAILED if failed else ExitCode.ANSWERED


async def _proved(options: Options, machine: Machine, fingerprint: str | None) -> str | None:
    """Show that a machine works: its engine, a worker, and the way to it. Return its Ollama's version, if it has one.

    Raises:
        SynapticError: What is wrong, and what to do.
    """
    _require_ssh()
    await _known(options, machine, fingerprint)
    if machine.worker:
        await _prove_worker(options, machine)
    if machine.ollama_port is None:
        return None
    async with cluster.connected(machine) as connection:
        version = await cluster.look_for_ollama(machine, connection, machine.ollama_port)
    if version is not None:
        write_text(f"{machine.name}: Ollama {version} at port {machine.ollama_port} there")
    elif not machine.worker or machine.node_port is not None:
        raise BackendUnavailable(
            f"no Ollama answers on {machine.name} at 127.0.0.1:{machine.ollama_port}",
            hint="start it there (ollama serve), or name its port: synaptic machines add ... --ollama PORT",
            backend="ollama",
            node=machine.name,
        )
    return version


def _require_ssh() -> None:
    if find_spec("asyncssh") is None:
        raise UsageError("machines are reached with asyncssh, which is not installed", hint=cluster.SSH_EXTRA)


async def _prove_worker(options: Options, machine: Machine) -> None:
    worker = cluster.RemoteWorker(machine, await current_engine())
    try:
        await worker.start(lambda text: note(options, f"{machine.name}: {text}"))
        if worker.facts is not None:
            write_text(f"{machine.name}: {machine_actions.facts_line(worker.facts)}")
        endpoint = Endpoint("127.0.0.1", machine.local_port)
        _, (look,) = await worker_actions.check([endpoint], allowed=(), measured=True)
        if not look.well:
            raise BackendUnavailable(look.reason, hint=look.hint, backend="distributed", node=machine.name)
        for line in look_lines(look, time.time()):
            write_text(f"{machine.name}: {line}")
    finally:
        await worker.aclose()


async def _known(options: Options, machine: Machine, fingerprint: str | None) -> None:
    """Have the key of a machine trusted: it is known, or a person compared it.

    Raises:
        UnknownHostKey: If it is neither.
    """
    try:
        async with cluster.connected(machine):
            return
    except cluster.UnknownHostKey as unknown:
        if fingerprint is None and sys.stdin.isatty() and not options.quiet:
            asked = f"The key of {machine.host} is not known yet: {unknown.fingerprint}\nIs it that machine's?"
            trusted = click.confirm(asked, err=True)
        else:
            trusted = fingerprint == unknown.fingerprint
        if not trusted:
            raise
        cluster.trust(unknown)
    async with cluster.connected(machine):
        pass


def _amount(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:g}{unit}"
