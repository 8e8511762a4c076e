"""What the gateway tells Prometheus: one registry, in which no client can make new series without end."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from synaptic.bounded_names import OTHER, BoundedNames
from synaptic.errors import SynapticError
from synaptic.models import name_key
from synaptic.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from synaptic.backends import ShowsNodes
    from synaptic.messages import ModelInfo
    from synaptic.runtime import UsedCall

LISTED_SECONDS: Final = 10.0
"""How long a list of models holds, before a name that is not on it is a reason to ask for it again."""

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


class ModelNames:
    """Which models there are, so that no client's word becomes a label before a server has that model.

    Args:
        listed: Asks for them; raises a ``SynapticError`` where that fails.
    """

    def __init__(self, listed: Callable[[], Awaitable[Sequence[ModelInfo]]]) -> None:
        self._listed = listed
        self._known: frozenset[str] = frozenset()
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def look(self, model: str) -> None:
        """Begin to ask which models there are, if this one is not known and the list is old; returns at once."""
        if name_key(model) in self._known or time.monotonic() - self._asked_at < LISTED_SECONDS:
            return
        self._asked_at = time.monotonic()
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    def of(self, model: str) -> str:
        """Return the value of the label for a model."""
        return name if (name := name_key(model)) in self._known else OTHER

    async def settled(self) -> None:
        """Return once the list has come that was asked for."""
        if self._asking is not None:
            await self._asking

    async def aclose(self) -> None:
        """Ask no longer."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask(self) -> None:
        try:
            self._known = frozenset(name_key(model.name) for model in await self._listed())
        except SynapticError:
            return  # calls tell of it; what was known stays so


class NodeCollector(Collector):
    """How the nodes stand when they are asked for."""

    def __init__(self) -> None:
        self.nodes: Callable[[], ShowsNodes | None] = lambda: None

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of each node."""
        shows = self.nodes()
        statuses = [] if shows is None else shows.statuses()
        up = GaugeMetricFamily("synaptic_node_up", "Whether the node gets calls.", labels=["node"])
        running = GaugeMetricFamily("synaptic_node_requests_running", "Calls that the node serves.", labels=["node"])
        places = GaugeMetricFamily("synaptic_node_requests_limit", "Calls that it may serve at once.", labels=["node"])
        served = CounterMetricFamily("synaptic_node_requests", "Calls that it has served.", labels=["node"])
        failures = CounterMetricFamily("synaptic_node_failures", "Calls that it has failed.", labels=["node"])
        for status in statuses:
            up.add_metric([status.name], float(status.condition in {"up", "warming", "trying"}))
            running.add_metric([status.name], status.in_flight)
            places.add_metric([status.name], status.limit)
            served.add_metric([status.name], status.served)
            failures.add_metric([status.name], status.errors)
        waiting = GaugeMetricFamily("synaptic_requests_waiting", "The most calls that wait and one node could serve.")
        waiting.add_metric([], max((status.queued for status in statuses), default=0))
        yield from (up, running, places, served, failures, waiting)


class GatewayMetrics:
    """The metrics of one gateway.

    Attributes:
        models: Which of them may be labels.
        nodes: Is asked for the nodes of the backend that serves.
    """

    def __init__(self, listed: Callable[[], Awaitable[Sequence[ModelInfo]]]) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.models = ModelNames(listed)
        self.nodes = NodeCollector()
        registry.register(self.nodes)
        self._node_names, self._key_names = BoundedNames(), BoundedNames()
        build = Gauge("synaptic_build_info", "This program; always 1.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        running = Gauge("synaptic_requests_running", "Calls of clients under way.", ["dialect"], registry=registry)
        seconds = Histogram(
            "synaptic_request_seconds",
            "From the beginning of a call to its end.",
            ["model", "node", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        first = Histogram(
            "synaptic_time_to_first_token_seconds",
            "From the beginning of a call to the first piece of its reply.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        tokens = Counter(
            "synaptic_tokens", "Tokens, as nodes count them.", ["direction", "model", "node", "key"], registry=registry
        )
        self._continued = Counter("synaptic_continuations", "Replies that went on at another node.", registry=registry)
        self._restarted = Counter("synaptic_restarts", "Calls that were sent again.", registry=registry)
        responses = Counter(
            "synaptic_http_responses", "Answers to requests.", ["method", "route", "status"], registry=registry
        )
        # The library's own way from the values of labels to what counts for them costs more than the counting.
        self._running, self._seconds, self._first = cache(running.labels), cache(seconds.labels), cache(first.labels)
        self._tokens, self._responses = cache(tokens.labels), cache(responses.labels)

    def began(self, dialect: str, model: str) -> None:
        """Note that a call has begun."""
        self._running(dialect).inc()
        self.models.look(model)

    def continued(self) -> None:
        """Note that a reply goes on at another node."""
        self._continued.inc()

    def restarted(self) -> None:
        """Note that a call is sent again."""
        self._restarted.inc()

    def ended(self, call: UsedCall, first_seconds: float | None) -> None:
        """Note a call that has ended, and in how many seconds its first piece came."""
        self._running(call.dialect).dec()
        model, node = self.models.of(call.model), self._node_names.of(call.node)
        self._seconds(model, node, call.status).observe(call.seconds)
        if first_seconds is not None:
            self._first(model).observe(first_seconds)
        key = self._key_names.of(call.key)
        for direction, count in (("prompt", call.prompt_tokens), ("completion", call.completion_tokens)):
            if count:
                self._tokens(direction, model, node, key).inc(count)

    def answered(self, method: str, route: str, status: int) -> None:
        """Note an answer; ``route`` is one of the application's own."""
        self._responses(method, route, str(status)).inc()

    def rendered(self, accept: str) -> tuple[bytes, str]:
        """Return all that there is, and its content type, in the form that a scraper accepts."""
        encoder, kind = choose_encoder(accept)
        return encoder(self._registry), kind
