"""Put a unit of systemd on another machine, and have it run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.cluster.service_units import UNITS
from synaptic.cluster.ssh import BACKEND, connected, said, shell
from synaptic.errors import BackendUnavailable
from synaptic.text import one_line

if TYPE_CHECKING:
    from synaptic.cluster.machine_list import Machine

# A session over SSH may lack the variable by which systemctl finds the person's systemd.
_INSTALL: Final = f"""
cd "$HOME" && mkdir -p {UNITS} && cat > {UNITS}/"$1" || exit 1
export XDG_RUNTIME_DIR="${{XDG_RUNTIME_DIR:-/run/user/$(id -u)}}"
systemctl --user daemon-reload && systemctl --user enable --now "$1"
"""


async def install_unit(machine: Machine, name: str, unit: str) -> None:
    """Write a unit of the account there, and start it now and at each boot.

    Raises:
        BackendUnavailable: If the machine is not reached, or systemd does not start the unit.
        UsageError: If its key is not known.
    """
    async with connected(machine) as connection:
        with said(machine):
            code, text = await shell(connection, _INSTALL, name, stdin=unit.encode())
    if code:
        raise BackendUnavailable(
            f"{machine.name} does not start the unit: {one_line(text) or f'exit code {code}'}",
            hint=f"the unit is there, in {UNITS}; start it there: systemctl --user enable --now {name}",
            backend=BACKEND,
            node=machine.name,
        )
