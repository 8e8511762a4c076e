"""Schedulers over simulated machines: ours, which is the pool's own code without its sockets, and the usual ones."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING

from sides.pool_sim_world import PRIORITIES, Machine, SimCall
from synaptic.backends.pool.calls.waiter import Waiter
from synaptic.backends.pool.index import WORTHWHILE, Shortlist
from synaptic.backends.pool.learned.prefixes import Prefixes
from synaptic.backends.pool.learned.rates import Rates, Sample, median_rates
from synaptic.backends.pool.node.state import CallShape, ModelState, NodeState
from synaptic.backends.pool.policy import Pick, Reservations, pick
from synaptic.waiting import PriorityQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from sides.pool_sim_world import Clock

LOOK_AHEAD = 10_000
HEADS = 1
HEADS_LOOK = 16
MEASURED_EVERY = 16
SMALL = 16
SMALL_LOOK_AHEAD = 64
PEER_SECONDS = 10.0
CONTEXT = 8192


def node_of(machine: Machine) -> NodeState:
    """Return what a scheduler knows of a machine at the start: its models and which one is loaded, not its speed."""
    state = NodeState(machine.key, f"node-{machine.key}", limit=machine.limit, cap=machine.limit)
    state.memory_bytes = machine.memory
    for name, size in machine.sizes.items():
        resident = name in machine.resident
        state.models[name] = ModelState(
            name, size, resident=resident, loaded_bytes=size if resident else 0, loaded_context=CONTEXT
        )
    return state


class Ours:
    """The picker, its index, its reservations, the queue, the learned rates and the prefixes, tied together.

    In a small pool, every change has the whole queue decided anew, as the pool's dispatcher does it. With thousands of
    nodes, hundreds of calls wait on purpose for a faster one; so there a change has only those decided anew who wait
    for the node that has changed, and a pass over all is made now and then. While no place is free, all stay in order.

    Args:
        machines: What there is to serve the calls.
        clock: Of the simulation.
        rng: Chooses among equals.
        done: Is told of each call that has ended.
        tell: Is told when a machine has a call of ours more, or one less.
        reconsider: Seconds between two passes over all.

    """

    def __init__(
        self,
        machines: list[Machine],
        clock: Clock,
        rng: Random,
        done: Callable[[SimCall], None],
        *,
        tell: Callable[[Ours, int, int], None] = lambda _ours, _key, _more: None,
        reconsider: float = 1.0,
    ) -> None:
        self.machines = machines
        self._reconsider = reconsider
        self.nodes = [node_of(machine) for machine in machines]
        self.waiting: PriorityQueue[Waiter] = PriorityQueue()
        self.free = sum(node.cap for node in self.nodes)
        self.picks = 0
        self.pick_seconds = 0.0
        self._calls: dict[Waiter, SimCall] = {}
        self._clock = clock
        self._rng = rng
        self._done = done
        self._tell = tell
        self._shortlist = Shortlist(self.nodes) if len(self.nodes) > WORTHWHILE else None
        self._prefixes = Prefixes()
        self._peers: dict[str, tuple[float, Rates]] = {}
        self._ahead = Reservations()
        self._awaiting: dict[int, list[Waiter]] = {}
        self._awaited: dict[Waiter, int] = {}
        self._pass_is_due = False

    def submit(self, call: SimCall) -> None:
        """Give the call to a node, or have it wait."""
        shape = CallShape(
            call.model,
            prompt_tokens=call.prompt,
            output_tokens=call.expected,
            num_ctx=CONTEXT,
            cached=self._prefixes.cached(call.model, call.chain),
        )
        waiter = Waiter(shape, priority=PRIORITIES[call.kind])
        self._calls[waiter] = call
        if self.free <= 0 or not self._decide(waiter):
            self.waiting.add(waiter)
            self._have_a_pass()

    def polled(self) -> None:
        """Learn which models each machine has in memory, as ``/api/ps`` tells it."""
        for machine, node in zip(self.machines, self.nodes, strict=True):
            for name, state in node.models.items():
                resident = name in machine.resident and machine.loading.get(name, 0.0) <= self._clock.now
                if state.resident != resident:
                    self._resident(machine.key, name, resident=resident)
            self._touch(node)

    def told(self, key: int, more: int) -> None:
        """Take note that another scheduler has a call more on a machine, or one less."""
        self.nodes[key].elsewhere += more
        self._touch(self.nodes[key])

    def _pick(self, shape: CallShape, ahead: Reservations) -> Pick:
        self.picks += 1
        measured = self.picks % MEASURED_EVERY == 0
        begin = time.thread_time() if measured else 0.0
        nodes = self.nodes if self._shortlist is None else self._shortlist.candidates(shape, self._rng, ahead)
        chosen = pick(shape, nodes, self._clock.now, ahead, self._rng, self._peer_rates(shape.model))
        if measured:
            self.pick_seconds += MEASURED_EVERY * (time.thread_time() - begin)
        return chosen

    def _grant(self, call: SimCall, node: NodeState, chosen: Pick) -> None:
        now = self._clock.now
        state = node.models[call.model]
        end = now + chosen.seconds
        node.claim(call.model, end)
        self.free -= 1
        if node.in_flight > node.cap:
            raise AssertionError(f"{node.name} has {node.in_flight} calls, {node.cap} are allowed")
        if not state.resident:
            state.loading_until = state.loading_until or end - state.rates.seconds(call.prompt, call.expected)
        self._prefixes.note(node.key, call.model, call.chain)
        self._touch(node)
        self._tell(self, node.key, 1)
        call.granted = now
        self.machines[node.key].take(call, lambda call, sample: self._ended(call, sample, node, end))

    def _ended(self, call: SimCall, sample: Sample, node: NodeState, end: float) -> None:
        node.release(call.model, end)
        self._tell(self, node.key, -1)
        self.free += 1
        state = node.models[call.model]
        state.rates.learn(sample, self._clock.now)
        machine = self.machines[node.key]
        if not state.resident or len(machine.resident) != sum(one.resident for one in node.models.values()):
            for name in node.models:
                self._resident(node.key, name, resident=name in machine.resident)
        self._touch(node)
        self._done(call)
        if self.waiting:
            self._freed(node)

    def _resident(self, key: int, name: str, *, resident: bool) -> None:
        state = self.nodes[key].models[name]
        if state.resident and not resident:
            self._prefixes.forget(key, name)
        state.resident = resident
        state.loaded_bytes = state.size_bytes or 0 if resident else 0
        if resident:
            state.loading_until = 0.0

    def _touch(self, node: NodeState) -> None:
        if self._shortlist is not None:
            self._shortlist.touch(node)

    def _decide(self, waiter: Waiter) -> bool:
        """Give a call to a node, or have it wait for one; return which."""
        before = self._awaited.pop(waiter, None)
        if before is not None:
            self._ahead.forget(self.nodes[before])
        chosen = self._pick(waiter.shape, self._ahead)
        if chosen.node is not None:
            self._grant(self._calls.pop(waiter), chosen.node, chosen)
            return True
        if chosen.awaited is not None:
            self._ahead.reserve(chosen.awaited, self._clock.now + chosen.seconds)
            self._awaiting.setdefault(chosen.awaited.key, []).append(waiter)
            self._awaited[waiter] = chosen.awaited.key
        return False

    def _freed(self, node: NodeState) -> None:
        """Have those decide anew who wait for ``node``; where nobody takes it, the first of the queue that could."""
        if len(self.nodes) <= SMALL:
            self._decide_anew(SMALL_LOOK_AHEAD)
            return
        self._ahead.forget(node)
        expected = sorted({one for one in self._awaiting.pop(node.key, ()) if self._awaited.get(one) == node.key})
        if expected[HEADS:]:
            self._awaiting[node.key] = expected[HEADS:]
        self._decide_all(expected[:HEADS])
        if node.in_flight < node.cap and self.waiting and not expected:
            queue = self.waiting.in_order(LOOK_AHEAD)
            able = (one for one in islice(queue, HEADS_LOOK) if one.shape.model in node.models)
            self._decide_all(list(islice(able, HEADS)))

    def _decide_all(self, waiters: Iterable[Waiter]) -> None:
        served = []
        for waiter in waiters:
            if self.free <= 0:
                break
            if self._decide(waiter):
                served.append(waiter)
        for waiter in served:
            self.waiting.remove(waiter, served=True)

    def _have_a_pass(self) -> None:
        if not self._pass_is_due:
            self._pass_is_due = True
            self._clock.at(self._clock.now + self._reconsider, self._run_pass)

    def _run_pass(self) -> None:
        self._pass_is_due = False
        self._decide_anew(LOOK_AHEAD)
        if self.waiting:
            self._have_a_pass()

    def _decide_anew(self, look_ahead: int) -> None:
        self._ahead = Reservations()
        self._awaiting.clear()
        self._awaited.clear()
        self._decide_all(self.waiting.in_order(look_ahead))

    def _peer_rates(self, model: str) -> Rates:
        now = self._clock.now
        known = self._peers.get(model)
        if known is None or known[0] < now:
            rates = (state.rates for node in self.nodes if (state := node.models.get(model)) is not None)
            known = self._peers[model] = (now + PEER_SECONDS, median_rates(rates))
        return known[1]


class Simple:
    """A balancer that binds each call when it comes: to whom, its name says."""

    def __init__(
        self, name: str, machines: list[Machine], clock: Clock, rng: Random, done: Callable[[SimCall], None]
    ) -> None:
        self.waiting: list[SimCall] = []
        self._choose = {
            "round robin": self._round_robin,
            "random": self._random,
            "least connections": self._least,
            "two choices": self._two,
        }[name]
        self._machines: dict[str, list[Machine]] = {}
        for machine in machines:
            for model in machine.sizes:
                self._machines.setdefault(model, []).append(machine)
        self._own = [0] * len(machines)
        self._turn = dict.fromkeys(self._machines, rng.randrange(len(machines)))
        self._clock = clock
        self._rng = rng
        self._done = done

    def submit(self, call: SimCall) -> None:
        """Give the call to a node."""
        machine = self._choose(call.model, self._machines[call.model])
        self._own[machine.key] += 1
        call.granted = self._clock.now
        machine.take(call, lambda call, _sample: self._ended(call, machine))

    def polled(self) -> None:
        """Learn nothing: these look at their own calls only."""

    def _ended(self, call: SimCall, machine: Machine) -> None:
        self._own[machine.key] -= 1
        self._done(call)

    def _round_robin(self, model: str, machines: list[Machine]) -> Machine:
        self._turn[model] += 1
        return machines[self._turn[model] % len(machines)]

    def _random(self, _model: str, machines: list[Machine]) -> Machine:
        return self._rng.choice(machines)

    def _least(self, _model: str, machines: list[Machine]) -> Machine:
        draw = self._rng.random
        return min(machines, key=lambda machine: (self._own[machine.key] / machine.limit, draw()))

    def _two(self, _model: str, machines: list[Machine]) -> Machine:
        one, other = self._rng.choice(machines), self._rng.choice(machines)
        return min(one, other, key=lambda machine: self._own[machine.key] / machine.limit)
