"""``synaptic machines install-service``: both ends come back by themselves after a reboot, under systemd."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from synaptic import cluster
from synaptic.errors import ExitCode, UsageError
from synaptic.processes import child_environment, own_folder, replace_file
from synaptic.settings import settings_path
from synaptic.text import one_line, reason_of
from synaptic.ui.commands.support import load, named_model, note
from synaptic.ui.options import settings_options, with_options
from synaptic.ui.screen import write_text

if TYPE_CHECKING:
    from synaptic.cluster import Machine
    from synaptic.ui.options import Options

_EPILOG: Final = """\b
As in:
  synaptic machines install-service          here: the model of the settings is loaded
                                             over the machines, and stays loaded
  synaptic machines install-service attic    there: a machine that was added with
                                             --reverse connects to this one
  synaptic machines install-service --print  only show the unit

\b
They are units of your own (systemctl --user), and start with the machine once
somebody has said there: loginctl enable-linger. Other machines need none: their
SSH server comes back by itself, and the workers are started from here."""
_PASSED_ON: Final = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "OLLAMA_MODELS")
_BUS: Final = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


@click.command("install-service", epilog=_EPILOG, short_help="Have systemd bring an end back after a reboot.")
@click.argument("name", required=False)
@click.option("--print", "only_print", is_flag=True, help="Show the unit, and install nothing.")
@settings_options
@with_options
def install_service(options: Options, name: str | None, *, only_print: bool) -> int:
    """Have systemd keep the model of the settings loaded here, or have the machine NAME connect to this one."""
    if name is not None:
        return _install_there(options, cluster.machine(name), only_print=only_print)
    settings = load(options).settings
    command = [sys.executable, "-P", "-m", "synaptic", "distributed", "start", "--foreground", "--quiet"]
    command += ["--config", str(settings_path(options.config_path).absolute())]
    command.append(named_model(None, settings, "config set model"))
    unit = cluster.service_here(command, {key: os.environ[key] for key in _PASSED_ON if key in os.environ})
    if only_print:
        write_text(unit.rstrip("\n"))
        return ExitCode.ANSWERED
    folder = Path.home() / cluster.UNITS
    try:
        own_folder(folder)
        replace_file(folder / cluster.HERE, unit.encode())
    except OSError as error:
        raise UsageError(f"{folder / cluster.HERE} cannot be written: {reason_of(error)}") from error
    write_text(f"{folder / cluster.HERE} is written")
    asyncio.run(_enable_here(options))
    return ExitCode.ANSWERED


async def _enable_here(options: Options) -> None:
    """Have systemd start the unit now and at each boot.

    Raises:
        UsageError: If it does not.
    """
    later = f"systemctl --user daemon-reload && systemctl --user enable --now {cluster.HERE}"
    program = shutil.which("systemctl")
    if program is None:
        raise UsageError("systemd is not there, so nothing starts the unit", hint=f"where it is: {later}")
    environment = child_environment({key: os.environ[key] for key in _BUS if key in os.environ})
    for words in (("daemon-reload",), ("enable", "--now", cluster.HERE)):
        process = await asyncio.create_subprocess_exec(
            program,
            "--user",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        said, _ = await process.communicate()
        if process.returncode:
            reason = one_line(said.decode(errors="replace")) or f"exit code {process.returncode}"
            raise UsageError(f"systemd does not start the unit: {reason}", hint=f"try it yourself: {later}")
    write_text(f"{cluster.HERE} runs; its log: journalctl --user -u {cluster.HERE}")
    note(options, "to have it start with the machine and not with your login: loginctl enable-linger")


def _install_there(options: Options, machine: Machine, *, only_print: bool) -> int:
    if machine.reverse is None:
        raise UsageError(
            f"{machine.name} needs no service: its SSH server is enough",
            hint="the unit of this machine is the one without a name: synaptic machines install-service",
        )
    unit = cluster.service_there(machine, cluster.reverse_words(machine))
    name = cluster.unit_there(machine)
    if only_print:
        write_text(unit.rstrip("\n"))
        return ExitCode.ANSWERED
    asyncio.run(cluster.install_unit(machine, name, unit))
    write_text(f"{machine.name}: {name} runs; the command that you started there by hand can end now")
    note(options, f"to have it start with {machine.name} and not with a login there: loginctl enable-linger")
    return ExitCode.ANSWERED
