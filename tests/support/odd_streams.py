"""Runs many command lines, each in a process whose standard streams are as a row says, at the price of a fork each.

    python odd_streams.py

Each line of its standard input is a list of rows in JSON, and is answered by a line: how each of them ended. A fork has
everything imported already. It makes its standard streams as the interpreter does at its start, and flushes
them as it does at its end; the rest of an end, which takes longer than the command, is left out.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import pkgutil
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

LONGEST = 60  # seconds for one command line; one that hangs is killed by the alarm and has no exit code


@dataclass(frozen=True)
class Streams:
    """What the standard streams are; the words are the functions of :func:`_opened`."""

    stdin: str = "nothing"
    stdout: str = "file"
    stderr: str = "file"
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Row:
    """A command line, what is piped in where its standard input is in order, its streams, more of its environment."""

    words: tuple[str, ...]
    piped: str = ""
    streams: Streams = Streams()
    environ: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a command line ended. Texts are what arrived in files, as Latin-1 so that each byte is a character."""

    code: int
    out: str
    err: str


def main() -> None:
    _import_everything()
    for line in iter(sys.stdin.readline, ""):
        rows = [Row(**{**row, "streams": Streams(**row["streams"])}) for row in json.loads(line)]
        sys.stdout.write(json.dumps([asdict(_ended(row)) for row in rows]) + "\n")
        sys.stdout.flush()


def _ended(row: Row) -> Ended:
    place = Path(mkdtemp())
    if (pid := os.fork()) == 0:
        _end(_run(row, place))
    _, status = os.waitpid(pid, 0)
    out, err = (_read(place / stream) for stream in ("stdout", "stderr"))
    shutil.rmtree(place)
    return Ended(os.waitstatus_to_exitcode(status), out, err)


def _run(row: Row, place: Path) -> int:
    import signal

    from synaptic.ui import cli

    signal.alarm(LONGEST)
    home = Path(os.environ["HOME"])
    shutil.copytree(home, place / "home")
    os.environ.update(
        HOME=str(place / "home"),
        XDG_CONFIG_HOME=str(place / "home" / ".config"),
        XDG_STATE_HOME=str(place / "state"),
        XDG_CACHE_HOME=str(place / "cache"),
        **dict(row.environ),
    )
    os.chdir(place / "home")
    for number, kind in enumerate((row.streams.stdin, row.streams.stdout, row.streams.stderr)):
        descriptor = _opened(kind, number, row, place)
        if descriptor is None:
            os.close(number)
        else:
            os.dup2(descriptor, number)
            os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (_standard(number, row.streams.encoding) for number in range(3))
    sys.argv = ["synaptic", *row.words]
    return cli.run(row.words)


def _end(code: int) -> NoReturn:
    """End as ``flush_std_files`` of CPython's pylifecycle.c does: a stream that cannot be flushed is code 120."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = 120
    os._exit(code)


def _opened(kind: str, number: int, row: Row, place: Path) -> int | None:
    files = {
        "nothing": (os.devnull, os.O_RDONLY),
        "broken": ("/proc/self/mem", os.O_RDONLY),  # reading it is an input/output error
        "file": (place / ("stdout" if number == 1 else "stderr"), os.O_WRONLY | os.O_CREAT),
        "write-only": (place / "written", os.O_WRONLY | os.O_CREAT),
        "full": ("/dev/full", os.O_WRONLY),
    }
    if kind == "closed":
        return None
    if kind in files and not (kind == "nothing" and row.piped):
        return os.open(*files[kind])
    reading, writing = os.pipe()
    if kind == "left":
        os.close(reading)
        return writing
    os.write(writing, row.piped.encode() if kind == "nothing" else "grün\n".encode(kind))  # a pipe holds 64 KiB
    os.close(writing)
    return reading


def _standard(number: int, encoding: str) -> io.TextIOWrapper | None:
    """Make a standard stream as ``create_stdio`` of CPython's pylifecycle.c does."""
    try:
        os.fstat(number)
    except OSError:
        return None
    mode = "rb" if number == 0 else "wb"
    errors = "backslashreplace" if number == 2 else "strict"
    return io.TextIOWrapper(os.fdopen(number, mode, closefd=False), encoding, errors, line_buffering=number == 2)


def _import_everything() -> None:
    from synaptic import backends, runtime, ui

    import_module("networkx")  # the package imports it late
    for package in (ui, runtime, backends):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    gc.disable()  # a collection would touch, and so copy, all that the forks share


def _read(path: Path) -> str:
    return path.read_bytes().decode("latin-1") if path.exists() else ""


if __name__ == "__main__":
    main()
