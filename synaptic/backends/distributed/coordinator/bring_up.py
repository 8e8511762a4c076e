"""Bring a model up over its workers: find a placement, hold the workers, load, and prove that it serves."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from synaptic import paths
from synaptic.backends.distributed.coordinator.buffer_report import check_buffers
from synaptic.backends.distributed.coordinator.llama_process import HOST, LlamaProcess
from synaptic.backends.distributed.coordinator.load_channel import LoadClock
from synaptic.backends.distributed.coordinator.one_core import CoreWatch
from synaptic.backends.distributed.coordinator.states import WorkerStanding
from synaptic.backends.distributed.coordinator.supervision import RunningServer
from synaptic.backends.distributed.coordinator.watchdog import Watchdog
from synaptic.backends.distributed.engine import check_engine_knows, check_unchanged
from synaptic.backends.distributed.placement import (
    FEWEST_TOKENS,
    Readings,
    learn,
    place,
    place_apart,
    server_arguments,
    serving_needs,
    speed_of,
)
from synaptic.backends.distributed.workers import (
    Endpoint,
    LocalKey,
    ProbeLimits,
    ProtocolVersion,
    Worker,
    check_workers,
    resolve,
)
from synaptic.errors import BackendError, BackendUnavailable, CoordinatorFailed, NoPlacement, SynapticError, UsageError
from synaptic.messages import BackendNotice
from synaptic.models import check_model
from synaptic.processes import free_port
from synaptic.text import plural, rough_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping
    from collections.abc import Set as AbstractSet

    from synaptic.backends.distributed.coordinator.coordinators import Coordinators
    from synaptic.backends.distributed.coordinator.drafting import Drafting
    from synaptic.backends.distributed.coordinator.states import LoadProgress
    from synaptic.backends.distributed.coordinator.supervision import ServiceEnd
    from synaptic.backends.distributed.engine import Engine
    from synaptic.backends.distributed.placement import Offer, Placement
    from synaptic.backends.drafts import DraftTally
    from synaptic.models import ModelShape

RETURN_LIMITS: Final = ProbeLimits(resolve=2.0, connect=2.0, answer=2.0, whole=4.0)
RETURN_POLL: Final = 0.2  # seconds between two looks for a lost worker
RECOVERY_POLL: Final = 2.0  # the same, once it is clear that nothing goes on without it
RETURNED_POLL: Final = 5.0  # the same, while the others have its layers
OWN_RETURN: Final = 10.0  # seconds for a worker of ours that is being started again; half a second is usual
CLAIM_PATIENCE: Final = 10.0  # seconds that a check of a worker may hold up a start
STALL_LEAST: Final = 60.0
STALL_UNKNOWN: Final = 600.0
STALL_TIMES: Final = 2.0
FIRST_TOKEN: Final = 60.0  # seconds for the token that proves it, beside what is predicted for one


class BringUp:
    """Brings one model up, again and again.

    Args:
        shape: The model.
        coordinators: All of this program.
        drafting: Whether it drafts.
        name: What the coordinator is called.
        spare: Whether it does without workers rather than have another model make room.

    Attributes:
        placement: Where its layers are or were last.
        log_file: What ``llama-server`` says.
    """

    def __init__(
        self, shape: ModelShape, coordinators: Coordinators, drafting: Drafting, name: str, *, spare: bool
    ) -> None:
        self._name = name
        self._spare = spare
        self._drafting = drafting
        self.placement: Placement | None = None
        slug = re.sub(r"[^\w.-]+", "-", name.rsplit("/", 1)[-1]).rstrip("-")[-60:]
        self.log_file = paths.state_dir() / "logs" / f"coordinator-{slug}.log"
        self._shape = shape
        self._coordinators = coordinators
        self._lost_at: float | None = None
        self._hung = False
        self._away: AbstractSet[Endpoint] = frozenset()
        self._readings: Readings = {}

    def blame(self, end: ServiceEnd) -> None:
        """Remember that it was lost, so that the next start waits for the worker that went."""
        self._lost_at = time.monotonic()
        self._hung = end.hung

    def learn(self, tally: DraftTally, seconds: float) -> None:
        """Take note of how long a call took that had the workers for itself; the next placement knows it."""
        placement = self.placement
        if placement is None or placement.tokens_per_second is None or placement.draft_cost is None:
            return
        # As many tokens, without drafts, as the time was predicted for.
        tokens = tally.tokens - tally.accepted + tally.drafted * placement.draft_cost
        if tokens < FEWEST_TOKENS:
            return
        keys: dict[Endpoint, Endpoint | LocalKey] = {endpoint: endpoint for endpoint in placement.endpoints}
        for worker in self._coordinators.fleet.managed:
            if worker.endpoint in keys:
                keys[worker.endpoint] = LocalKey.of(worker.engine, worker.threads)
        learn(placement, self._readings, keys, seconds / tokens)

    @property
    def workers(self) -> tuple[Endpoint, ...]:
        """Which workers its layers are or were on last."""
        return self.placement.endpoints if self.placement else ()

    def standings(self) -> tuple[WorkerStanding, ...]:
        """Return how its workers stand, as far as that can be told without contacting them."""
        found = []
        for endpoint in self.workers:
            worker = self._coordinators.fleet.find(endpoint)
            if worker is None:
                found.append(WorkerStanding(endpoint=endpoint, managed=False, alive=None))
                continue
            facts = worker.facts()
            found.append(
                WorkerStanding(
                    endpoint=endpoint,
                    managed=True,
                    alive=facts.alive,
                    pid=worker.pid,
                    resident_bytes=facts.resident_bytes,
                    restarts=facts.restarts,
                    log_file=worker.log_file,
                )
            )
        return tuple(found)

    @asynccontextmanager
    async def serving(self, hear: Callable[[LoadProgress | None], None]) -> AsyncIterator[RunningServer]:
        """Bring it up, and take it down at the end of the block.

        Args:
            hear: Told when the load begins (``None``) and how far it is.

        Raises:
            SynapticError: Why it does not come up.
        """
        await check_model(self._shape.name, self._shape.files, self._coordinators.report, backend="distributed")
        engine = await self._coordinators.fleet.start()
        cores = CoreWatch()
        placement = await self._placed(engine)
        allowed = self._coordinators.settings.public_workers
        workers = [Worker(endpoint, await resolve(endpoint, allowed=allowed)) for endpoint in placement.endpoints]
        by = f"the coordinator of {self._name}"
        async with self._coordinators.registry.held(workers, by, patience=CLAIM_PATIENCE):
            hear(None)
            managed = [worker for worker in self._coordinators.fleet.managed if worker.endpoint in placement.endpoints]
            await asyncio.gather(*(worker.check_cache() for worker in managed))
            generations = {worker.endpoint: worker.generation for worker in managed}
            await check_unchanged(engine)
            drafts = await self._drafting.decide(engine, placement)
            process = await LlamaProcess.start(
                engine,
                server_arguments(placement, drafts=drafts),
                port=await asyncio.to_thread(free_port, HOST),
                log_file=self.log_file,
                cores=cores,
            )
            try:
                try:
                    await self._load(process, placement, generations, hear)
                except BackendError:
                    # The workers have their time to come back from the first loss on; a later one does not extend it.
                    self._lost_at = self._lost_at or time.monotonic()
                    raise
                self.placement = placement
                self._lost_at, self._hung = None, False
                yield RunningServer(
                    process,
                    placement,
                    Watchdog(_prompt_step(placement)),
                    generations,
                    {
                        (address, worker.endpoint.port): worker.endpoint
                        for worker in workers
                        for address in worker.addresses
                    },
                )
            finally:
                await process.stop()

    async def _load(
        self,
        process: LlamaProcess,
        placement: Placement,
        generations: Mapping[Endpoint, int],
        hear: Callable[[LoadProgress | None], None],
    ) -> None:
        """Wait until it serves, and have it prove that: each worker holds its share, and a token comes."""
        clock = LoadClock(self._shape.weight_bytes, time.monotonic())
        watching = [
            asyncio.create_task(worker.wait_change(generation))
            for endpoint, generation in generations.items()
            if (worker := self._coordinators.fleet.find(endpoint)) is not None
        ]
        loading = asyncio.create_task(
            process.loaded(lambda part: hear(clock.at(part, time.monotonic())), stall=_stall(placement))
        )
        try:
            done, _ = await asyncio.wait([loading, *watching], return_when=asyncio.FIRST_COMPLETED)
            if loading not in done:
                process.kill()  # it would wait for a worker that hangs, or abort in its own time
                raise BackendUnavailable("a worker was lost while the model was loading", backend="distributed")
            await loading
        finally:
            for task in (loading, *watching):
                task.cancel()
            await asyncio.gather(loading, *watching, return_exceptions=True)
        if complaint := check_buffers(placement, process.lines):
            self._coordinators.report(BackendNotice("distributed", complaint, "warning"))
        try:
            await process.client.generate_one_token(within=FIRST_TOKEN + _token_seconds(placement))
        except BackendError as error:
            diagnosis = await process.ended_within(1.0)
            why = str(diagnosis) if diagnosis else error.message
            raise BackendUnavailable(f"it was loaded, but generates nothing: {why}", backend="distributed") from error

    async def _placed(self, engine: Engine) -> Placement:
        """Return where the layers are to be, and have those workers."""
        if self._hung:
            await self._restart_managed()
        # A worker of ours that is being restarted still counts.
        await self._coordinators.fleet.settled(OWN_RETURN)
        if self._lost_at is not None and self.placement is not None:
            return await self._recovered(self.placement, self._lost_at, engine)
        await asyncio.to_thread(check_engine_knows, self._shape.file, self._shape.architecture, engine.files)
        return await self._new_placement(())

    async def _recovered(self, last: Placement, lost_at: float, engine: Engine) -> Placement:
        """Return the last placement once its workers are back, else one over the others.

        Where the model does not fit these, it waits on: a call that goes on late is better than one that failed.
        """
        settings = self._coordinators.settings
        waits_on = False
        while missing := await self._missing(last, engine.facts.rpc_version):
            gone = time.monotonic() - lost_at
            if gone > settings.worker_return_wait:
                try:
                    return await self._placed_without(missing)
                except CoordinatorFailed as error:
                    if gone > settings.worker_recovery_wait:
                        raise
                    if not waits_on:
                        until = rough_seconds(settings.worker_recovery_wait)
                        said = f"{error.message}; calls wait up to {until} for it to come back"
                        self._coordinators.report(BackendNotice("distributed", said, "warning"))
                        waits_on = True
            await asyncio.sleep(RECOVERY_POLL if waits_on else RETURN_POLL)
        return last

    async def _placed_without(self, missing: frozenset[Endpoint]) -> Placement:
        """Give the layers of workers that did not come back to the others."""
        names = ", ".join(str(endpoint) for endpoint in sorted(missing))
        gone = f"{names} did not come back"
        try:
            placement = await self._new_placement(missing)
        except NoPlacement as error:
            raise CoordinatorFailed(
                f"{gone}, and without it {error.message}", hint=error.hint, backend="distributed", worker=names
            ) from error
        self._away = self._away | missing
        moved = f"{gone}: its layers go to the other workers"
        ordered = any(backend.layers is not None for backend in self._coordinators.settings.rpc_backends)
        if ordered and not any(share.overridden for share in placement.shares):
            moved += ", and the numbers of layers that the settings give do not count meanwhile"
        self._coordinators.report(BackendNotice("distributed", moved, "warning"))
        return placement

    async def wait_returned(self) -> str:
        """Wait until a worker could serve again whose layers went to the others; return which, in words."""
        while True:
            await asyncio.sleep(RETURNED_POLL)
            if not self._away:
                continue
            with suppress(SynapticError):  # what cannot be looked at is not back
                offers = [self._offer(offer, ()) for offer in await self._coordinators.fleet.offers()]
                if back := {offer.endpoint for offer in offers if not offer.refusal} & self._away:
                    return ", ".join(str(endpoint) for endpoint in sorted(back))

    async def _new_placement(self, missing: Collection[Endpoint]) -> Placement:
        """Find a placement among the free workers; where there is none, wait for those of idle models."""
        coordinators, name, model = self._coordinators, self._name, self._shape.name
        until = time.monotonic() + OWN_RETURN
        while True:
            async with coordinators.placing:
                offers = [self._offer(offer, missing) for offer in await coordinators.fleet.offers()]
                try:
                    placement = await asyncio.to_thread(self._arranged, offers, missing)
                except NoPlacement:
                    if coordinators.fleet.unsettled and time.monotonic() < until:
                        await coordinators.fleet.settled(OWN_RETURN)  # one had ended, and that was only just noticed
                        continue
                    if self._spare or not coordinators.others_have_workers(model):
                        raise
                else:
                    coordinators.take(placement.endpoints, name)
                    self.placement = placement
                    if not missing:
                        self._leave_out(offers)
                    self._readings = {(offer.endpoint, offer.device): speed_of(offer).reading for offer in offers}
                    return placement
                victim = coordinators.longest_idle(model)
                if victim is not None:
                    await victim.stop()
                    continue
            await coordinators.wait_change()

    def _leave_out(self, offers: Collection[Offer]) -> None:
        """Say which workers of the settings are away; layers go to them once they are there."""
        named = {Endpoint(backend.host, backend.port) for backend in self._coordinators.settings.rpc_backends}
        free = {endpoint for endpoint in named if self._coordinators.owner(endpoint) is None}
        away = {at: offer.refusal for offer in offers if offer.refusal and (at := offer.endpoint) in free}
        if news := [refusal.split(" — ")[0] for at, refusal in away.items() if at not in self._away]:
            said = f"it does without {plural(len(news), 'worker')}: {'; '.join(news)}; see: synaptic workers check"
            self._coordinators.report(BackendNotice("distributed", said, "warning"))
        self._away = free & away.keys()

    def _arranged(self, offers: list[Offer], missing: Collection[Endpoint]) -> Placement:
        """Place the layers; the numbers that the settings order are wishes while a worker is away."""
        needs = serving_needs(self._shape, self._coordinators.settings, width=self._coordinators.width)
        try:
            unreached = self._coordinators.fleet.unreached()
            count = 1 if missing else self._coordinators.unplaced(self._name)
            return place_apart(self._shape, offers, needs, count, unreached=unreached)[0]
        except (NoPlacement, UsageError):
            if not missing or all(offer.layers is None for offer in offers):
                raise
            return place(self._shape, [replace(offer, layers=None) for offer in offers], needs)

    def _offer(self, offer: Offer, missing: Collection[Endpoint]) -> Offer:
        """Return an offer, refused if the worker belongs to another coordinator or was lost."""
        owner = self._coordinators.owner(offer.endpoint)
        if owner is not None and owner != self._name:
            return replace(offer, refusal=f"it serves {owner}")
        if offer.endpoint in missing and not offer.refusal:
            return replace(offer, refusal="it was lost, and did not come back")
        return offer

    async def _missing(self, placement: Placement, version: str) -> frozenset[Endpoint]:
        """Return the workers of a placement that could not serve now."""
        managed = {worker.endpoint: worker for worker in self._coordinators.fleet.managed}
        gone = {endpoint for endpoint in placement.endpoints if endpoint in managed and not managed[endpoint].running}
        external = [endpoint for endpoint in placement.endpoints if endpoint not in managed]
        looks = await check_workers(
            external,
            engine=ProtocolVersion.parse(version),
            allowed=self._coordinators.settings.public_workers,
            limits=RETURN_LIMITS,
        )
        return frozenset(gone | {look.endpoint for look in looks if not look.well})

    async def _restart_managed(self) -> None:
        """Restart our workers of the placement: one of them may hang, and which does not show."""
        for endpoint in self.workers:
            worker = self._coordinators.fleet.find(endpoint)
            if worker is not None:
                with suppress(BackendError):  # then it is missing
                    await worker.restart("nothing moved any more")


def _token_seconds(placement: Placement) -> float:
    """Return what a token is predicted to take, in seconds; one where nothing is known."""
    return 1 / placement.tokens_per_second if placement.tokens_per_second else 1.0


def _prompt_step(placement: Placement) -> float:
    """Return the most that a step of reading a prompt may take: no faster than generating as many tokens."""
    return _token_seconds(placement) * placement.needs.ubatch / 8


def _stall(placement: Placement) -> float:
    """Return how long a load may make no progress, in seconds: one tensor may be much of the model."""
    seconds = placement.load_seconds
    return STALL_UNKNOWN if seconds is None else max(STALL_LEAST, STALL_TIMES * seconds)
