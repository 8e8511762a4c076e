"""Units of systemd, of a person and not of the system, that bring both ends back after a reboot. Pure text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.cluster.machine_list import Machine

HERE: Final = "synaptic-distributed.service"
UNITS: Final = ".config/systemd/user"
"""Where a person's units are, below the home."""

_UNIT: Final = """\
[Unit]
Description={description}
After=network-online.target
StartLimitIntervalSec=0

[Service]
{environment}ExecStart={command}
Restart=always
RestartSec=5
TimeoutStopSec=40

[Install]
WantedBy=default.target
"""


def service_here(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return the unit that keeps the model of the settings loaded over the machines.

    Args:
        command: What loads it, and stays.
        environment: What differs from a person's usual one.
    """
    return _unit("SynapticLlamas: one model over several machines", command, environment)


def service_there(machine: Machine, command: Sequence[str]) -> str:
    """Return the unit with which a machine behind NAT connects to us.

    Args:
        machine: Which.
        command: What connects it.
    """
    return _unit(f"SynapticLlamas: lends this machine as {machine.name}", command, {})


def unit_there(machine: Machine) -> str:
    """Return the name of the unit on a machine."""
    return f"synaptic-lends-{machine.name}.service"


def _unit(description: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    lines = [f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environment.items()]
    words = " ".join(map(_quoted, command)).replace("$", "$$")
    return _UNIT.format(description=description, environment="".join(lines), command=words)


def _quoted(word: str) -> str:
    """Return a word as systemd reads it back: in quotation marks, its specifiers and escapes made plain."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{plain}"'
