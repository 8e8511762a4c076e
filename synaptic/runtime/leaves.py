"""The leaves of a run that is recorded: each is looked up in the past before it is done, and said to be asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synaptic.backends import capabilities_of
from synaptic.runtime.events import ApprovalGiven, StepAsked, StepSummarised
from synaptic.runtime.past import call_key, decision_key, summary_key, tool_key
from synaptic.runtime.turnstile import Turnstile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Usage
    from synaptic.pipeline import CompiledCall, Tool
    from synaptic.runtime.approval import ApprovalRequest
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.past import Begun, Done, Past


class Leaves:
    """Finds leaves in the past of one run.

    Args:
        past: What may be taken.
        ledger: Takes the events.
        settled: Returns once all that was said is recorded; ``None`` where nothing is.
    """

    def __init__(self, past: Past, ledger: Ledger, settled: Callable[[], Awaitable[None]] | None = None) -> None:
        self._past = past
        self._ledger = ledger
        self._settled = settled
        self._turnstile = Turnstile()
        self._digests: dict[str, str | None] = {}

    async def call(
        self, path: str, call: CompiledCall, request: ChatRequest, backend: Backend
    ) -> tuple[Done | None, Begun]:
        """Return what came of an agent's call; ``None`` if the model must be asked, and what is known of that."""
        digest_of = capabilities_of(backend).digest
        digest = None if digest_of is None else await digest_of(request.model)
        asked = StepAsked(path, call_key(request, call), request=request, digest=digest)
        self._digests[path] = digest
        return await self._found(asked), self._past.begun(path, asked.key, digest)

    def summary(self, request: ChatRequest) -> tuple[str, Usage] | None:
        """Return a summary of a part of a prompt, and what it took; ``None`` if it must be made."""
        found = self._past.summary(request.tag, summary_key(request, self._digests.get(request.tag)))
        return None if found is None else (found.content, found.usage)

    def summarised(self, request: ChatRequest, summary: str, usage: Usage) -> None:
        """Say what a part of a prompt was summarised to."""
        key = summary_key(request, self._digests.get(request.tag))
        self._ledger.emit(StepSummarised(request.tag, key, summary, usage))

    async def tool(self, path: str, tool: Tool, arguments: Mapping[str, Any]) -> Done | None:
        """Return what came of a tool's call; ``None`` if it must be made."""
        found = await self._found(_of_tool(path, tool, arguments))
        if found is None and not tool.idempotent:
            await self._is_recorded()
        return found

    def was_open(self, path: str, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Return whether the tool was called with these arguments, and it is not known how that ended."""
        return self._past.was_open(path, tool_key(tool.name, arguments))

    async def tool_again(self, path: str, tool: Tool, arguments: Mapping[str, Any]) -> None:
        """Say that a person lets a tool be called again: what the person decided holds for one call."""
        self._ledger.asked(replace(_of_tool(path, tool, arguments), again=True))
        await self._is_recorded()

    async def _is_recorded(self) -> None:
        """Return once it is in the journal that a tool is about to be called."""
        if self._settled is not None:
            await self._settled()

    async def decision(self, request: ApprovalRequest) -> tuple[str, Done | None]:
        """Return the key of a decision, and what the person decided; ``None`` if that must be asked."""
        key = decision_key(request)
        done = self._past.taken(request.path, key)
        await self._in_order(done)
        if done is not None and done.decision is not None:
            self._ledger.emit(
                ApprovalGiven(request.path, request.what, done.decision, done.output, key=key, reused=True)
            )
        return key, done

    async def _found(self, asked: StepAsked) -> Done | None:
        """Return what came of a leaf, after saying what it asks."""
        done = self._past.taken(asked.path, asked.key, asked.digest)
        changed = () if done is not None else self._past.changes(asked)
        self._ledger.asked(replace(asked, changed=changed) if changed else asked)
        await self._in_order(done)
        if done is not None:
            self._ledger.reuses(asked.path)
        return done

    async def _in_order(self, done: Done | None) -> None:
        """Return when it is the turn of what came of a leaf; what is new comes behind all that is known."""
        if done is not None:
            await self._turnstile.pass_as(done.order)
        elif not self._past.is_spent or not self._turnstile.is_empty:
            await self._turnstile.pass_as()


def _of_tool(path: str, tool: Tool, arguments: Mapping[str, Any]) -> StepAsked:
    return StepAsked(path, tool_key(tool.name, arguments), tool=tool.name, arguments=arguments)
