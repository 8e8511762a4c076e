"""Build an engine on a machine where ours does not run: from the source that we bring, with the tools that are there.

Only the RPC server is built, for that machine's own processor: some thirty files. What was compiled stays, so a build
that was broken off goes on. As with a worker, the shell there has to hear of us; where it does not, the build ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed import engine as engines
from synaptic.cluster.remote_engine import BUILT, FOLDER, RemoteEngine, unusable
from synaptic.cluster.ssh import SHELL_SECONDS, SILENCE, beat, said, shell, shell_words
from synaptic.processes import cause_of, sha256_of
from synaptic.text import one_line, size

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncssh

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.looking import MachineFacts
    from synaptic.cluster.machine_list import Machine

KEPT_LINES: Final = 400
_LONGEST_LINE: Final = 1000
_BUILD_SECONDS: Final = 4 * 3600.0
"""A small board takes one hour."""
_STEP: Final = 0.1
"""Share of the build after which the next line says how far it is."""
_ENDED: Final = "the build has ended with "
_MANAGERS: Final = ("apt-get", "dnf", "pacman", "zypper", "apk", "brew")

_RUNS: Final = 'cd "$1" 2>/dev/null && ./"$2" --help >/dev/null 2>&1'
_TOOLS: Final = f"""
has() {{ for tool; do command -v "$tool" >/dev/null 2>&1 && return 0; done; return 1; }}
has cmake || echo cmake
has c++ g++ clang++ || echo c++
has cc gcc clang || echo cc
has ninja make gmake || echo make
for manager in {" ".join(_MANAGERS)}; do has "$manager" && echo "manager=$manager"; done
exit 0
"""
_SOURCE_IS: Final = 'cd "$1" 2>/dev/null || exit 0; sha256sum source.tar.gz || shasum -a 256 source.tar.gz; exit 0'
_TAKE_SOURCE: Final = (
    'mkdir -p "$1" && cd "$1" && cat > source.part && rm -rf source build && mv source.part source.tar.gz'
)
_NAME: Final = 'mkdir -p "$2" && mv "$1/build/$3" "$2/$3" && rm -rf "$1"'

# $1 the directory, $2 how many at once, $3 the target. It becomes the build tool, which ends its compilers with itself.
_BUILD: Final = """
cd "$1" || exit 1
before=$(cat pid 2>/dev/null)
if [ -n "$before" ]; then
  kill "$before" 2>/dev/null
  while kill -0 "$before" 2>/dev/null; do sleep 1; done
fi
echo $$ >pid
if [ ! -d source ]; then
  rm -rf unpacked && mkdir unpacked && (cd unpacked && gzip -dc ../source.tar.gz | tar xf -) || exit 1
  mv unpacked source || exit 1
fi
export LC_ALL=C NINJA_STATUS='[%f/%t] '
tool=ninja generator=Ninja
if ! command -v ninja >/dev/null 2>&1; then
  tool=make generator='Unix Makefiles'
  [ -e unfinished ] && rm -rf build  # make takes a file that is half written for a whole one
fi
: >unfinished
cmake -S source -B build -G "$generator" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=ON \
  -DGGML_RPC=ON -DGGML_RPC_RDMA=OFF -DGGML_ALL_WARNINGS=OFF || exit 1
exec nice "$tool" -C build -j "$2" "$3"
"""
# $1 the script above, $2 seconds of silence, then its arguments.
_GUARD: Final = f"""
script=$1 silence=$2
shift 2
trap '' PIPE
(sh -c "$script" sh "$@" </dev/null 2>&1; status=$?; rm -f "$1/pid"; echo "{_ENDED}$status") &
bomb=
while read -r word; do
  [ -n "$bomb" ] && kill "$bomb" 2>/dev/null
  (sleep "$silence"; kill "$(cat "$1/pid")"; kill -9 $$) >/dev/null 2>&1 &
  bomb=$!
done
[ -n "$bomb" ] && kill "$bomb" 2>/dev/null
kill "$(cat "$1/pid" 2>/dev/null)" 2>/dev/null
exit 0
"""


async def built_there(facts: MachineFacts, connection: asyncssh.SSHClientConnection) -> RemoteEngine | None:
    """Return the engine that was built there, if it is there and runs."""
    place = _place(facts)
    code, _ = await shell(connection, _RUNS, place, engines.TARGET)
    return None if code else RemoteEngine(place, engines.TARGET, 0)


async def build_there(
    machine: Machine,
    facts: MachineFacts,
    connection: asyncssh.SSHClientConnection,
    engine: Engine,
    say: Callable[[str], None],
) -> RemoteEngine:
    """Return the engine that was built there, built now if it is not yet.

    Args:
        machine: Where.
        facts: What it is.
        connection: To it.
        engine: Ours, whose version it has to be.
        say: Told how far it is.

    Raises:
        EngineUnavailable: If tools are missing there, the source cannot be had, or the build fails.
        BackendUnavailable: If the connection breaks; what was built so far stays.
    """
    if engine.facts.commit != engines.LLAMA_CPP.commit:
        raise unusable(
            machine,
            f"is {facts.system or 'of an unknown kind'}, and the engine of this machine, of another llama.cpp than "
            f"{engines.LLAMA_CPP.commit}, cannot be built there",
            "use the one that synaptic engine install builds, on every machine alike",
        )
    final = _place(facts)
    part = f"{final}.part"
    with said(machine):
        if (there := await built_there(facts, connection)) is not None:
            return there
        await _check_tools(machine, connection)
        source = await engines.worker_source()
        sent = source.stat().st_size
        digest = await asyncio.to_thread(sha256_of, source)
        if digest not in (await shell(connection, _SOURCE_IS, part))[1]:
            say(f"sending the source of the engine, {size(sent)}")
            code, text = await shell(connection, _TAKE_SOURCE, part, stdin=await asyncio.to_thread(source.read_bytes))
            if code:
                raise unusable(machine, f"does not take the source of the engine: {one_line(text)}")
        await _build(machine, facts, connection, part, say)
        await shell(connection, _NAME, part, final, engines.TARGET)
        if (there := await built_there(facts, connection)) is None:
            raise unusable(machine, "cannot run the engine that was built there")
    return RemoteEngine(there.directory, there.program, sent)


async def _check_tools(machine: Machine, connection: asyncssh.SSHClientConnection) -> None:
    _, text = await shell(connection, _TOOLS)
    words = text.split()
    missing = [word for word in words if "=" not in word]
    manager = next((word.partition("=")[2] for word in words if "=" in word), None)
    if missing:
        hint = f"there, {engines.package_hint(missing, manager)}; then try again"
        raise unusable(machine, f"has to build the engine, and lacks {', '.join(missing)}", hint)


async def _build(
    machine: Machine,
    facts: MachineFacts,
    connection: asyncssh.SSHClientConnection,
    part: str,
    say: Callable[[str], None],
) -> None:
    """Have it built, and say every tenth how far that is."""
    jobs = engines.default_jobs(facts.processors, facts.free_bytes or facts.memory_bytes or 1 << 62)
    say(f"building the engine there, {jobs} at once; it is kept for the next time")
    words = shell_words(_GUARD, _BUILD, str(SILENCE), part, str(jobs), engines.TARGET)
    async with asyncio.timeout(SHELL_SECONDS):
        process = await connection.create_process(words, stderr=-2)
    beating = asyncio.create_task(beat(process))
    meter, told, tail = engines.BuildMeter(), 0.0, deque[str](maxlen=KEPT_LINES)
    status = ""
    try:
        async with asyncio.timeout(_BUILD_SECONDS):
            async for line in process.stdout:
                if line.startswith(_ENDED):
                    status = line.removeprefix(_ENDED).strip()
                    break
                tail.append(line.rstrip("\n")[:_LONGEST_LINE])
                if meter.read(line) and meter.share >= told + _STEP:
                    told = meter.share
                    say(f"building the engine there, {told:.0%}")
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        process.close()
    if status != "0":
        ended = "the connection broke" if not status else cause_of(tail) or "the tools did not say why"
        hint = f"what was built so far is kept there; try again: synaptic machines upgrade {machine.name}"
        raise unusable(machine, f"did not build the engine: {ended}", hint)


def _place(facts: MachineFacts) -> str:
    return f"{facts.home}/{FOLDER}/{BUILT}{engines.worker_source_key()}"
