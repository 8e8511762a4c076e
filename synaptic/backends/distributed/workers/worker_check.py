"""Check workers: who holds them, what they are, whether they fit together. Those that may be held are not contacted."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from synaptic.backends.distributed.workers.measure import measure
from synaptic.backends.distributed.workers.probe import DEFAULT_LIMITS, PublicWorker, ask_facts, conversation, resolve
from synaptic.backends.distributed.workers.protocol import NEWEST_MAJOR, Party, compatible
from synaptic.backends.distributed.workers.registry import CHECK, Worker, WorkerHeld, WorkerRegistry
from synaptic.backends.distributed.workers.who_talks import who_talks
from synaptic.backends.distributed.workers.worker_facts import recall, remember
from synaptic.errors import BackendBusy, BackendError, BackendUnavailable, ExitCode, ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from synaptic.backends.distributed.workers.probe import ProbeLimits, WorkerFacts
    from synaptic.backends.distributed.workers.protocol import Endpoint, ProtocolVersion
    from synaptic.backends.distributed.workers.worker_facts import KnownWorker

PATIENCE_SECONDS: Final = 30.0
"""How long a check waits for another check of the same worker."""

ENGINE: Final = "the engine of this machine"


class WorkerState(StrEnum):
    """How a worker is."""

    OK = "ok"
    HELD = "held"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    PUBLIC = "not private"
    PROTOCOL = "protocol error"
    MISMATCH = "mismatch"
    UNKNOWN_VERSION = "unknown version"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLook:
    """What a check of one worker told.

    Attributes:
        known: What is known of it now; of a worker that is held or does not answer, what was known before.
        fresh: Whether that was learned by this check.
        reason: Why it is not well, "" if it is.
        hint: What to do about that.
    """

    endpoint: Endpoint
    state: WorkerState
    known: KnownWorker | None
    fresh: bool
    reason: str = ""
    hint: str | None = None

    @property
    def well(self) -> bool:
        """Whether a coordinator could use it now."""
        return self.state is WorkerState.OK


@asynccontextmanager
async def held_for_check(
    endpoint: Endpoint,
    *,
    registry: WorkerRegistry,
    allowed: Collection[str] = (),
    limits: ProbeLimits = DEFAULT_LIMITS,
) -> AsyncIterator[Worker]:
    """Hold a worker that no coordinator holds, for the time of a block.

    Raises:
        PublicWorker: If it is in a public network, and not ``allowed``.
        BackendUnavailable: If its name does not resolve.
        WorkerHeld: If another process is recorded as its holder.
        BackendBusy: If a process of this machine is connected to it.
        UsageError: If it cannot be recorded who holds it.
    """
    worker = Worker(endpoint, await resolve(endpoint, allowed=allowed, within=limits.resolve))
    async with registry.held([worker], CHECK, patience=PATIENCE_SECONDS):
        who = await asyncio.to_thread(who_talks, worker)
        if who is not None:
            raise BackendBusy(
                f"{endpoint} is in use: {who} is connected to it; it was not contacted, because a worker serves one "
                "at a time",
                hint="stop that one first, or wait until it has ended",
                backend="distributed",
                node=str(endpoint),
            )
        yield worker


async def check_worker(
    endpoint: Endpoint,
    *,
    registry: WorkerRegistry | None = None,
    measuring: asyncio.Lock | None = None,
    allowed: Collection[str] = (),
    limits: ProbeLimits = DEFAULT_LIMITS,
) -> WorkerLook:
    """Return what a check of a worker tells, and keep it in the cache. Whatever is wrong with it is part of that.

    Args:
        endpoint: Which.
        registry: Who holds which worker; that of this person unless given.
        measuring: Measure it, too, while this is held: two at once would disturb each other.
        allowed: Hosts outside private networks that may be contacted.
        limits: How long to wait.

    Raises:
        UsageError: If it cannot be told or recorded who holds the worker.
    """
    known = recall(endpoint)
    contacted = False
    try:
        async with held_for_check(
            endpoint, registry=registry or WorkerRegistry(), allowed=allowed, limits=limits
        ) as worker:
            contacted = True
            async with conversation(endpoint, address=worker.addresses[0], limits=limits) as talk:
                known = remember(endpoint, facts := await ask_facts(talk))
                if measuring is not None and facts.devices:
                    async with measuring:
                        known = remember(endpoint, facts, await measure(talk, facts.devices))
    except BackendError as error:
        state = _state(error, contacted=contacted)
        return WorkerLook(
            endpoint=endpoint, state=state, known=known, fresh=False, reason=error.message, hint=error.hint
        )
    return _look(endpoint, known, facts)


async def check_workers(
    endpoints: Sequence[Endpoint],
    *,
    engine: ProtocolVersion | None = None,
    measured: bool = False,
    registry: WorkerRegistry | None = None,
    allowed: Collection[str] = (),
    limits: ProbeLimits = DEFAULT_LIMITS,
) -> list[WorkerLook]:
    """Return what a check of each worker tells, in their order; all are asked at once, and measured one by one.

    Args:
        endpoints: Which.
        engine: The version that the engine of this machine speaks, if there is one.
        measured: Whether to measure them.
        registry: Who holds which worker; that of this person unless given.
        allowed: Hosts outside private networks that may be contacted.
        limits: How long to wait.

    Raises:
        UsageError: If it cannot be told or recorded who holds a worker.
    """
    measuring = asyncio.Lock() if measured else None
    checks = [
        check_worker(one, registry=registry, measuring=measuring, allowed=allowed, limits=limits) for one in endpoints
    ]
    # Not a task group: its error would be a group, and one mistake is one error. The others end by themselves, soon.
    results = await asyncio.gather(*checks, return_exceptions=True)
    looks = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        looks.append(result)
    return compared(looks, engine)


def compared(looks: Sequence[WorkerLook], engine: ProtocolVersion | None) -> list[WorkerLook]:
    """Return the looks with those marked that do not speak the version of the others.

    Args:
        looks: What checks told.
        engine: What decides; without it, the version that most of the workers speak.
    """
    parties = {look.endpoint: _party(look) for look in looks if look.well and look.known is not None}
    if engine is not None:
        judge = Party(ENGINE, engine)
    elif parties:
        usual = Counter(party.version for party in parties.values()).most_common(1)[0][0]
        judge = next(party for party in parties.values() if party.version == usual)
    else:
        return list(looks)
    return [_judged(look, parties[look.endpoint], judge) if look.endpoint in parties else look for look in looks]


def verdict(looks: Sequence[WorkerLook]) -> ExitCode:
    """Return the exit code: 0 if all are well, 1 if some are, 3 if none is."""
    well = sum(look.well for look in looks)
    if well == len(looks):
        return ExitCode.ANSWERED
    return ExitCode.FAILED if well else ExitCode.NO_BACKEND


def _party(look: WorkerLook) -> Party:
    assert look.known is not None
    return Party(f"the worker {look.endpoint}", look.known.facts.version)


def _judged(look: WorkerLook, party: Party, judge: Party) -> WorkerLook:
    fit = compatible(party, judge)
    return look if fit else replace(look, state=WorkerState.MISMATCH, reason=fit.message, hint=fit.hint)


def _look(endpoint: Endpoint, known: KnownWorker | None, facts: WorkerFacts) -> WorkerLook:
    if facts.version.major > NEWEST_MAJOR:
        return WorkerLook(
            endpoint=endpoint,
            state=WorkerState.UNKNOWN_VERSION,
            known=known,
            fresh=True,
            reason=f"{endpoint} speaks RPC {facts.version}, which is newer than this program knows "
            f"(up to {NEWEST_MAJOR}.x), so its devices were not asked for",
            hint="use the llama.cpp of this program on that machine (synaptic engine install), or a newer program here",
        )
    return WorkerLook(endpoint=endpoint, state=WorkerState.OK, known=known, fresh=True)


def _state(error: BackendError, *, contacted: bool) -> WorkerState:
    if isinstance(error, WorkerHeld) or (isinstance(error, BackendBusy) and not contacted):
        return WorkerState.HELD
    if isinstance(error, BackendBusy):
        return WorkerState.SILENT
    if isinstance(error, PublicWorker):
        return WorkerState.PUBLIC
    if isinstance(error, BackendUnavailable):
        return WorkerState.UNREACHABLE
    assert isinstance(error, ProtocolError), error
    return WorkerState.PROTOCOL
