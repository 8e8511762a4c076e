"""Bring the engine of this machine to another one, by what is in its files; what is there already is not sent."""

from __future__ import annotations

import asyncio
import io
import platform
import tarfile
from typing import TYPE_CHECKING, Final

from synaptic.cluster.building import build_there, built_there
from synaptic.cluster.remote_engine import BUILT, FOLDER, SENT, RemoteEngine, unusable
from synaptic.cluster.ssh import said, shell
from synaptic.processes import sha256_of
from synaptic.text import one_line, size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import asyncssh

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.looking import MachineFacts
    from synaptic.cluster.machine_list import Machine

# Whole files that are there with the right content need not come again; a folder gets its name when all are right.
_WHAT_IS_THERE: Final = (
    'cd "$1" 2>/dev/null || exit 0; sha256sum -- * 2>/dev/null || shasum -a 256 -- * 2>/dev/null; exit 0'
)
_UNPACK: Final = 'mkdir -p "$1" && cd "$1" && tar xf -'
_TRY: Final = 'cd "$1" && LD_LIBRARY_PATH="$1" ./"$2" --help >/dev/null'
_NAME: Final = 'rm -rf "$2" && mv "$1" "$2"'
_REMOVE: Final = 'rm -rf "$1"'
_TIDY: Final = f"""
cd "$1" || exit 0
for folder in {SENT}* {BUILT}*; do
  case "$folder" in "$2"|"$2".*|"{SENT}*"|"{BUILT}*") ;; *) rm -rf "$folder" && echo "$folder" ;; esac
done
"""


async def deliver(
    machine: Machine,
    facts: MachineFacts,
    connection: asyncssh.SSHClientConnection,
    engine: Engine,
    say: Callable[[str], None],
) -> RemoteEngine:
    """Return the engine there, sent if it is not yet; on a machine of another kind, or where it does not run, built.

    Only the RPC server and its libraries are sent, into a folder of the account's cache named by their content.

    Args:
        machine: Where.
        facts: What it is.
        connection: To it.
        engine: Ours.
        say: Told when something is sent.

    Raises:
        EngineUnavailable: If it can neither be sent nor built there.
        BackendUnavailable: If the connection breaks.
    """
    if facts.system != _here():
        return await build_there(machine, facts, connection, engine, say)
    files = _files(engine)
    digests = await asyncio.to_thread(_digests, files)
    program = engine.files.rpc_server.name
    final = _place(facts, engine)
    part = f"{final}.{machine.name}.part"  # its own: machines may share a home
    with said(machine):
        if await _present(connection, final) == digests:
            return RemoteEngine(final, program, 0)
        if (there := await built_there(facts, connection)) is not None:  # because this one does not run there
            return there
        parts = await _present(connection, part)
        missing = {name: path for name, path in files.items() if parts.get(name) != digests[name]}
        archive = await asyncio.to_thread(_archive, missing)
        say(f"sending the engine, {size(len(archive))}")
        await shell(connection, _UNPACK, part, stdin=archive)
        if await _present(connection, part) != digests:
            raise unusable(machine, "has other bytes in the engine's files than were sent: is its disk full?")
        code, text = await shell(connection, _TRY, part, program)
        if code:
            say(f"cannot run the engine of this machine ({one_line(text) or f'exit code {code}'}): it is built there")
            await shell(connection, _REMOVE, part)
            return await build_there(machine, facts, connection, engine, say)
        if await _present(connection, final) != digests:
            await shell(connection, _NAME, part, final)
        else:
            await shell(connection, _REMOVE, part)
    return RemoteEngine(final, program, len(archive))


async def is_there(
    machine: Machine, facts: MachineFacts, connection: asyncssh.SSHClientConnection, engine: Engine
) -> bool:
    """Return whether the engine is there, byte for byte, or one that was built for that machine; nothing is sent.

    Raises:
        BackendUnavailable: If the connection breaks.
    """
    digests = await asyncio.to_thread(_digests, _files(engine))
    with said(machine):
        if facts.system == _here() and await _present(connection, _place(facts, engine)) == digests:
            return True
        return await built_there(facts, connection) is not None


async def tidy(machine: Machine, facts: MachineFacts, connection: asyncssh.SSHClientConnection, kept: str) -> int:
    """Remove what was sent or built there before, but for the folder that is kept; return how many folders went.

    Raises:
        BackendUnavailable: If the connection breaks.
    """
    with said(machine):
        _, text = await shell(connection, _TIDY, f"{facts.home}/{FOLDER}", kept.rpartition("/")[2])
    return len(text.split())


def _here() -> str:
    return f"{platform.system()} {platform.machine()}"


def _place(facts: MachineFacts, engine: Engine) -> str:
    return f"{facts.home}/{FOLDER}/{SENT}{engine.identity[:16]}"


def _digests(files: dict[str, Path]) -> dict[str, str]:
    return {name: sha256_of(path) for name, path in files.items()}


def _files(engine: Engine) -> dict[str, Path]:
    """Return the RPC server and the libraries of ggml under every name that one of them may be looked up by."""
    found = {engine.files.rpc_server.name: engine.files.rpc_server}
    for folder in {library.parent for library in engine.files.libraries}:
        found |= {path.name: path for path in sorted(folder.iterdir()) if path.name.startswith("libggml")}
    return found


def _archive(files: dict[str, Path]) -> bytes:
    """Return the files as an archive, links followed: a name is a file there."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", dereference=True) as archive:
        for name, path in files.items():
            archive.add(path, arcname=name)
    return target.getvalue()


async def _present(connection: asyncssh.SSHClientConnection, folder: str) -> dict[str, str]:
    _, text = await shell(connection, _WHAT_IS_THERE, folder)
    rows = (line.split("  ", 1) for line in text.splitlines())
    return {row[1]: row[0] for row in rows if len(row) > 1}
