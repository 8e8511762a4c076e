"""Loads the models of the next steps while a step runs, so that a run that changes models does not wait for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from synaptic.messages import ChatRequest
    from synaptic.pipeline import CompiledStep, Graph


class WarmAhead:
    """Tells the backend which models will be wanted next.

    Args:
        prepare: Begins to load a request's model; returns at once.
        defaults: What holds where a step does not say otherwise.
    """

    def __init__(self, prepare: Callable[[ChatRequest], None], defaults: ChatRequest) -> None:
        self._prepare = prepare
        self._defaults = defaults
        self._next: dict[int, tuple[Graph, dict[str, tuple[ChatRequest, ...]]]] = {}

    def step_begins(self, graph: Graph, step: CompiledStep) -> None:
        """Have the models of the steps that wait for ``step`` loaded, where they are not the one that it uses."""
        known = self._next.get(id(graph))
        if known is None:
            known = self._next[id(graph)] = graph, self._requests(graph)  # kept, so that no other one gets its id
        for request in known[1].get(step.id, ()):
            self._prepare(request)

    def _requests(self, graph: Graph) -> dict[str, tuple[ChatRequest, ...]]:
        """Return for each step the requests to prepare."""
        found: dict[str, dict[str | None, ChatRequest]] = {}
        for step in graph.steps.values():
            call = step.call
            if call is None or call.policy.backend is not None:
                continue
            request = replace(
                self._defaults,
                model=call.model or self._defaults.model,
                num_ctx=call.num_ctx or self._defaults.num_ctx,
            )
            for need in step.needs:
                before = graph.steps[need].call
                if before is None or (before.model or self._defaults.model) != request.model:
                    found.setdefault(need, {})[request.model] = request
        return {name: tuple(requests.values()) for name, requests in found.items()}
