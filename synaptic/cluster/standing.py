"""How a machine stands: whether it is reached, what it is, and whether the engine of this machine is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synaptic.cluster.delivery import deliver, is_there, tidy
from synaptic.cluster.looking import look_at_machine
from synaptic.cluster.ssh import connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.backends.distributed import Engine
    from synaptic.cluster.looking import MachineFacts
    from synaptic.cluster.machine_list import Machine


@dataclass(frozen=True, slots=True)
class Standing:
    """How a machine stands.

    Attributes:
        facts: What it says of itself.
        engine_there: Whether it has the engine of this machine; ``None`` where this machine has none.
    """

    facts: MachineFacts
    engine_there: bool | None


async def standing_of(machine: Machine, engine: Engine | None) -> Standing:
    """Log in to a machine and look; nothing is started or written there.

    Raises:
        BackendUnavailable: If it is not reached, or the connection breaks.
        UsageError: If its key is not known.
    """
    async with connected(machine) as connection:
        facts = await look_at_machine(machine, connection)
        there = None if engine is None else await is_there(machine, facts, connection, engine)
        return Standing(facts, there)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade did.

    Attributes:
        sent_bytes: What had to be sent; 0 where the engine was there.
        removed: Folders of other engines that are gone.
    """

    sent_bytes: int
    removed: int


async def upgrade(machine: Machine, engine: Engine, say: Callable[[str], None]) -> Upgrade:
    """Bring the engine of this machine to another one, and remove those that were brought there before.

    Raises:
        BackendUnavailable: If it is not reached, or the connection breaks.
        EngineUnavailable: If the engine can neither be sent nor built there.
        UsageError: If its key is not known.
    """
    async with connected(machine) as connection:
        facts = await look_at_machine(machine, connection)
        there = await deliver(machine, facts, connection, engine, say)
        return Upgrade(there.sent_bytes, await tidy(machine, facts, connection, there.directory))
