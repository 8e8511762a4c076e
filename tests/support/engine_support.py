"""Engines for tests: stand-ins made of scripts, a source distribution that builds one, the real one if it is here."""

import asyncio
import hashlib
import io
import os
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest

from synaptic.backends.distributed.engine.engine import Engine, EngineFiles, locate
from synaptic.backends.distributed.engine.source import EngineSource
from synaptic.backends.distributed.engine.store import look_at

# Asked when this is imported, before home is moved.
REAL_ENGINES = Path(platformdirs.user_cache_dir("synapticllamas")) / "engines"
COMMIT = "0c1e57098"
VERSION = f"0.4.1 (build 0, commit {COMMIT})"

NEEDS_CMAKE = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("ninja") is None or shutil.which("cc") is None,
    reason="needs cmake, ninja and a C compiler",
)

LLAMA_SERVER = """#!{python}
import os, socket, sys
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "starts"), "a") as log:
    log.write(os.getcwd() + " " + " ".join(sys.argv[1:]) + "\\n")
if "--version" in sys.argv:
    print("load_backend: loaded CPU backend from /x/libggml-cpu-haswell.so", file=sys.stderr)
    print("version: {version}", file=sys.stderr)
    print("built with a script", file=sys.stderr)
elif "--rpc" in sys.argv:
    endpoint = sys.argv[sys.argv.index("--rpc") + 1]
    host, port = endpoint.split(":")
    socket.create_connection((host, int(port))).close()
    print("Available devices:")
    print("  GPU0: a graphics card (1000 MiB, 900 MiB free)")
    print(f"  RPC0: {{endpoint}} (2000 MiB, 2000 MiB free)")
"""

RPC_SERVER = """#!{python}
import socket, sys
print("load_backend: loaded RPC backend from /x/libggml-rpc.so", file=sys.stderr)
print("load_backend: loaded CPU backend from /x/libggml-cpu-haswell.so", file=sys.stderr)
port = int(sys.argv[sys.argv.index("--port") + 1])
server = socket.create_server(("127.0.0.1", port))
print("{announcement}")
while True:
    client, _ = server.accept()
    print("Accepted client connection", flush=True)
    client.recv(1)
    client.close()
"""

SIGILL = "#!/bin/sh\nkill -ILL $$\n"
NO_RPC = """#!/bin/sh
case "$1" in
  --version) echo "version: 4242 (0c1e570)" ;;
  *) echo "error: invalid argument: --rpc" >&2; exit 1 ;;
esac
"""
DISAGREES = """#!/bin/sh
case "$1" in
  --version) echo "version: 4242 (0c1e570)" ;;
  *) echo "RPC server version mismatch: 7.0.0" >&2; echo "RPC handshake failed for $2" >&2; kill -ABRT $$ ;;
esac
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def llama_server(version: str = VERSION) -> str:
    return LLAMA_SERVER.format(python=sys.executable, version=version)


def rpc_server(rpc_version: str | None = "7.0.0") -> str:
    announcement = "Starting RPC server on 127.0.0.1" if rpc_version is None else f"Starting RPC server v{rpc_version}"
    return RPC_SERVER.format(python=sys.executable, announcement=announcement)


def stand_in(directory: Path, *, server: str | None = None, rpc: str | None = None) -> Path:
    """Write an engine made of scripts, with two libraries that are never loaded."""
    write_program(directory / "llama-server", server or llama_server())
    write_program(directory / "ggml-rpc-server", rpc or rpc_server())
    for name in ("libggml.so", "libggml-cpu-haswell.so", "libggml-cpu-zen4.so"):
        (directory / name).write_bytes(name.encode())
    return directory


def starts(directory: Path) -> list[str]:
    """How often llama-server was started, and how."""
    file = directory / "starts"
    return file.read_text().splitlines() if file.exists() else []


CMAKE_LISTS = """cmake_minimum_required(VERSION 3.14)
project(small C)
set(BIN ${CMAKE_BINARY_DIR}/bin)
file(MAKE_DIRECTORY ${BIN})
add_library(ggml SHARED ggml.c)
set_target_properties(ggml PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${BIN})
foreach(program llama-server ggml-rpc-server)
  add_custom_target(${program} COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_SOURCE_DIR}/${program} ${BIN}/${program})
  add_dependencies(${program} ggml)
endforeach()
EXTRA
"""

# A compilation that never ends, and writes its process id into a file.
_COMPILATION = """
add_custom_command(OUTPUT endless COMMAND sh ${CMAKE_SOURCE_DIR}/SCRIPT ${CMAKE_SOURCE_DIR}/../..)
add_custom_target(endless_target DEPENDS endless)
add_dependencies(endless_target ggml)
add_dependencies(ggml-rpc-server endless_target)
"""
ENDLESS = _COMPILATION.replace("SCRIPT", "compile.sh")
# One that ends when there is a file "go" beside the builds.
WAITS = _COMPILATION.replace("SCRIPT", "wait.sh")
COMPILE = """echo $$ > "$1/compiler.part"
mv "$1/compiler.part" "$1/compiler.pid"
exec sleep 1000
"""
WAIT = """echo $$ > "$1/compiler.part"
mv "$1/compiler.part" "$1/compiler.pid"
until test -e "$1/go"; do sleep 0.05; done
touch endless
"""


@dataclass(frozen=True)
class Sdist:
    """A source distribution in a directory, and its pin."""

    archive: Path
    source: EngineSource


def sdist(
    directory: Path, *, extra: str = "", code: str = "int ggml(void) { return 7; }\n", server: str | None = None
) -> Sdist:
    """Write a source distribution that holds a tree which CMake builds an engine of scripts from."""
    root = "small_llama-1.0"
    tree = f"{root}/vendor/llama.cpp"
    files = {
        f"{root}/PKG-INFO": "Metadata-Version: 2.1\nName: small-llama\nVersion: 1.0\n",
        # A backend that is nowhere: pip must not look for it.
        f"{root}/pyproject.toml": '[build-system]\nrequires = ["no-such-package-anywhere"]\n'
        'build-backend = "scikit_build_core.build"\n',
        f"{root}/setup.py": "raise SystemExit('code of the archive was run')\n",
        f"{tree}/CMakeLists.txt": CMAKE_LISTS.replace("EXTRA", extra),
        f"{tree}/ggml.c": code,
        f"{tree}/compile.sh": COMPILE,
        f"{tree}/wait.sh": WAIT,
        f"{tree}/llama-server": server or llama_server(),
        f"{tree}/ggml-rpc-server": rpc_server(),
        f"{tree}/docs/large.md": "not needed",
    }
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / "small_llama-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            member.mode = 0o755 if name.endswith("server") else 0o644
            member.mtime = 1_700_000_000
            tar.addfile(member, io.BytesIO(text.encode()))
    return Sdist(archive, pin(archive, tree))


def pin(archive: Path, tree: str = "small_llama-1.0/vendor/llama.cpp") -> EngineSource:
    content = archive.read_bytes()
    return EngineSource(
        name="small-llama",
        version="1.0",
        commit=COMMIT,
        archive_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        tree=tree,
        unneeded=("docs",),
    )


def use_only(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """Let pip look into one directory, and nowhere else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))


def real_files() -> EngineFiles:
    """The files of the engine that `synaptic engine install` put into the user's cache."""
    manifests = sorted(REAL_ENGINES.glob("[!.]*/engine.json"))
    if not manifests:
        pytest.skip("no engine is installed (synaptic engine install)")
    return locate(manifests[-1].parent)


@pytest.fixture
def real_engine() -> Engine:
    """The real engine, if one is installed on this machine."""
    return asyncio.run(look_at(real_files(), "built", afresh=True))
