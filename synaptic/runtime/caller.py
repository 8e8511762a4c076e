"""One step's call of a model, from its template to its event; and what a person is asked meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from synaptic.errors import BudgetExceeded, NotApproved, OutputInvalid, SynapticError
from synaptic.pipeline import fill
from synaptic.runtime.agent_call import REPAIRS, CallRecord, build_request, call_agent
from synaptic.runtime.approval import Approval, ApprovalRequest
from synaptic.runtime.events import ApprovalAsked, ApprovalGiven
from synaptic.runtime.failure import StepFailed, why_cut
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from synaptic.agents import Shape
    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Route
    from synaptic.pipeline import CallPolicy, CompiledCall, CompiledStep, StepKind
    from synaptic.runtime.approval import Approver
    from synaptic.runtime.events import StepStatus, UnusableReply
    from synaptic.runtime.leaves import Leaves
    from synaptic.runtime.ledger import Ledger
    from synaptic.runtime.list_feed import ListFeed
    from synaptic.runtime.past import Done
    from synaptic.runtime.policies import Bounds
    from synaptic.runtime.scope import StepContext


ANSWERS: Final = 5
"""How often a question is asked: an answer that does not fit is asked for again, but a program may never learn."""


class Backends(Protocol):
    """Gives for a step's policy the backend with that policy around it."""

    def of(self, policy: CallPolicy, bounds: Bounds) -> Backend:
        """Return the backend; cheap, as it is asked for every call."""
        ...


class Caller:
    """Makes the calls of one run.

    Args:
        ledger: Takes the events.
        backends: Where calls go.
        defaults: What holds where nothing else says otherwise.
        route: Where the run was routed to.
        approver: Asks a person.
        leaves: Finds what was done before; ``None`` where the run is not recorded.
    """

    def __init__(
        self,
        ledger: Ledger,
        backends: Backends,
        defaults: ChatRequest,
        route: Route,
        approver: Approver | None,
        *,
        leaves: Leaves | None = None,
    ) -> None:
        self.ledger = ledger
        self.leaves = leaves
        self._backends = backends
        self._defaults = defaults
        self._route = route
        self._approver = approver

    async def make(
        self,
        step: CompiledStep,
        call: CompiledCall,
        context: StepContext,
        *,
        feed: ListFeed | None = None,
        seed: int | None = None,
        kind: StepKind = "agent",
        read: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Make one call and return its output.

        Args:
            step: The step that the call belongs to.
            call: What is called.
            context: Where in the run, and what the templates see.
            feed: Gets a list of the output while it is written.
            seed: Tells samples of one prompt apart.
            kind: What the events call the step.
            read: Makes the step's output of the call's.

        Raises:
            StepFailed: If it failed for good; its event says so.
            BudgetExceeded: If a budget was used up meanwhile.
        """
        path = context.path
        record = CallRecord(agent=call.agent.name, started_at=steady_time(), feed=feed)
        try:
            request = await self._request(step, call, context, seed)
            backend = self._begin(call, request, record, context, kind)
            output = await self._output(call, request, backend, record)
            if step.approve:
                output = await self.approved_output(step, path, output, call.shape)
            if read is not None:
                output = read(output)
        except asyncio.CancelledError:
            reason = why_cut(self.ledger, context)
            self.ledger.called(path, kind, "cancelled", record.left, record, stop_reason=reason)
            raise
        except BudgetExceeded as exc:
            if exc.what != "seconds":
                record.refused()
            self.ledger.called(path, kind, "cancelled", record.left, record, stop_reason=f"budget: {exc.what}")
            raise
        except SynapticError as exc:
            status: StepStatus = "skipped" if step.on_error == "skip" else "failed"
            self.ledger.called(path, kind, status, record.left, record, error=exc)
            raise StepFailed(path, exc) from exc
        self.ledger.called(path, kind, "succeeded", output, record)
        return output

    async def _output(self, call: CompiledCall, request: ChatRequest, backend: Backend, record: CallRecord) -> Any:
        """Return what came of the call before, else what the model says; raises as :func:`call_agent` does."""
        known: Sequence[UnusableReply] = ()
        if self.leaves is not None:
            done, begun = await self.leaves.call(request.tag, call, request, backend)
            if done is not None:
                record.reuse(done)
                return done.output
            record.before = begun.said
            known = begun.unusable
            if begun.said:
                request = replace(request, begun=begun.said, begun_pieces=begun.pieces)
        repairs = REPAIRS if call.repairs is None else call.repairs
        return await call_agent(backend, request, call.shape, record, self.ledger.emit, repairs=repairs, known=known)

    async def _request(
        self, step: CompiledStep, call: CompiledCall, context: StepContext, seed: int | None
    ) -> ChatRequest:
        variables, path = context.scope.variables, context.path
        prompt, values = call.message(variables, where=path)
        if call.policy.overflow == "error":
            values = ()
        if step.approve in ("prompt", "both"):
            edited = await self._approved(ApprovalRequest(path=path, what="prompt", value=prompt))
            prompt, values = (prompt, values) if edited == prompt else (str(edited), ())
        request = build_request(
            call, prompt, path, self._defaults, values=values, priority=step.priority, rank=context.rank
        )
        return request if seed is None else replace(request, seed=seed)

    def _begin(
        self, call: CompiledCall, request: ChatRequest, record: CallRecord, context: StepContext, kind: StepKind
    ) -> Backend:
        """Return the backend of the call, after saying that the step begins."""
        backend = self._backends.of(call.policy, context.scope.bounds)
        record.backend = backend.name
        record.model = request.model
        record.node = self._route.node if call.policy.backend is None else None
        record.started_at = self.ledger.started(
            context.path, kind, record.agent, backend=backend.name, model=request.model
        )
        return backend

    async def approved_output(self, step: CompiledStep, path: str, output: Any, shape: Shape | None = None) -> Any:
        """Return the output as the person wants it, where the step asks for that.

        Raises:
            NotApproved: If the person refused, or no person can be asked.
            OutputInvalid: If an edited output does not fit its shape.
        """
        if step.approve not in ("output", "both"):
            return output
        return await self._approved(ApprovalRequest(path=path, what="output", value=output, shape=shape))

    async def answer(self, path: str, question: str, *, proposed: Any = None, shape: Shape | None = None) -> Any:
        """Return the person's answer to a question, the ``proposed`` one where no person can be asked.

        An answer that does not fit is asked for again; a proposed one that does not is not proposed.

        Raises:
            NotApproved: If the person refused to answer, or accepted an answer that is not there.
            OutputInvalid: If the answer did not fit, also the last of :data:`ANSWERS`.
        """
        request = ApprovalRequest(path=path, what="answer", value=proposed, shape=shape, question=question)
        proposal = _Proposal.of(request)
        key, done = await self._decided(request)
        if done is not None:
            return done.output
        if self._approver is None:
            if self.leaves is not None and proposal.value is None:  # it can be answered later
                self.ledger.emit(ApprovalAsked(path, "answer", question, proposed, key))
            hint = (
                None
                if self.leaves is None
                else f"to answer it: synaptic runs answer {self.ledger.run_id} {path} ANSWER"
            )
            return proposal.taken(f"{path} needs an answer, and no person can be asked here", hint)
        self.ledger.emit(ApprovalAsked(path, "answer", question, proposed, key))
        if proposal.wrong is not None:
            request = replace(request, value=None, problem=proposal.wrong.message)
        for left in reversed(range(ANSWERS)):
            given = await self._approver(request)
            try:
                value = _answered(given, proposal, request)
            except (NotApproved, OutputInvalid) as exc:
                if not left or given.decision != "edited":
                    self.ledger.emit(ApprovalGiven(path, "answer", "refused", key=key))
                    raise
                request = replace(request, problem=exc.message)
            else:
                self.ledger.emit(ApprovalGiven(path, "answer", given.decision, value, key))
                return value
        raise AssertionError("the last answer fits, or raises")

    async def _approved(self, request: ApprovalRequest) -> Any:
        """Return the value as the person wants it; raises as :meth:`approved_output` does."""
        path, what = request.path, request.what
        key, done = await self._decided(request)
        if done is not None:
            return done.output
        self.ledger.emit(ApprovalAsked(path, what, value=request.value, key=key))
        if self._approver is None:
            raise NotApproved(f"nobody is there to approve the {what} of {path}")
        answer: Approval = await self._approver(request)
        if answer.decision == "refused":
            self.ledger.emit(ApprovalGiven(path, what, "refused", key=key))
            reason = f": {answer.reason}" if answer.reason else ""
            raise NotApproved(f"the {what} of {path} was refused{reason}")
        value = request.value if answer.decision == "accepted" else answer.value
        if answer.decision == "edited":
            value = request.fitted(value)
        self.ledger.emit(ApprovalGiven(path, what, answer.decision, value, key))
        return value

    async def _decided(self, request: ApprovalRequest) -> tuple[str | None, Done | None]:
        """Return the key of a decision and what was decided before, both ``None`` where the run is not recorded."""
        return (None, None) if self.leaves is None else await self.leaves.decision(request)


@dataclass(frozen=True, slots=True)
class _Proposal:
    """The answer that a question has without a person.

    Attributes:
        value: ``None`` where there is none.
        wrong: Why what the pipeline proposes is no answer.
    """

    value: Any
    wrong: OutputInvalid | None = None

    @classmethod
    def of(cls, request: ApprovalRequest) -> _Proposal:
        """Return the proposal, checked."""
        if request.value is None:
            return cls(None)
        try:
            return cls(request.fitted(request.value))
        except OutputInvalid as exc:
            what = exc.message.replace("the answer", "it")
            return cls(None, OutputInvalid(f"the default of {request.path} is not an answer: {what}", text=exc.text))

    def taken(self, missing: str, hint: str | None = None) -> Any:
        """Return the answer.

        Raises:
            NotApproved: If there is none; ``missing`` says so.
            OutputInvalid: If what is proposed is none.
        """
        if self.wrong is not None:
            raise self.wrong
        if self.value is None:
            raise NotApproved(missing, hint=hint)
        return self.value


def _answered(given: Approval, proposal: _Proposal, request: ApprovalRequest) -> Any:
    """Return the answer that a decision stands for.

    Raises:
        NotApproved: If it is none.
        OutputInvalid: If it does not fit.
    """
    if given.decision == "edited":
        return request.fitted(given.value)
    missing = f"the question of {request.path} was not answered"
    if given.decision == "accepted":
        return proposal.taken(missing)
    raise NotApproved(f"{missing}: {given.reason}" if given.reason else missing)


def values_of(bindings: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
    """Return the arguments of a tool or the inputs of a sub-pipeline, filled in.

    Raises:
        PipelineError: If a template has no good value.
    """
    variables = context.scope.variables
    return {name: fill(value, variables, where=f"{context.path}.with.{name}") for name, value in bindings.items()}
