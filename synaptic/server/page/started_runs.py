"""Runs that a person starts from the page: a question, a recorded run once more, one that goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synaptic.errors import SynapticError
from synaptic.pipeline import ClientText
from synaptic.runtime import Approval, RunStarted, read_run_before
from synaptic.server.gateway import NOT_FOUND, PipelineModels, Refusal, check_model
from synaptic.server.page.asked_person import AskedPerson, check_answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synaptic.runtime import ApprovalRequest, Event, EventHandler, RunBefore, RunResult, Session
    from synaptic.server.gateway import ModelFront
    from synaptic.server.page.page_bodies import AnswerBody, AskBody, RerunBody

    Begin = Callable[[Session, EventHandler, AskedPerson], Awaitable[RunResult]]


class StartedRuns:
    """Runs that go on whether the page stays open or not, until they end or the gateway does."""

    def __init__(self, front: ModelFront) -> None:
        self._front = front
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._people: dict[str, AskedPerson] = {}

    async def ask(self, body: AskBody) -> str:
        """Begin a run of a pipeline with a question; return its id.

        Raises:
            SynapticError: What ``Session.run`` raises before the run begins.
        """
        pipeline = self._front.pipelines.find(body.pipeline)

        async def begin(session: Session, hear: EventHandler, person: AskedPerson) -> RunResult:
            asked = ClientText(body.query)
            return await session.run(asked, pipeline=pipeline, model=body.model, on_event=hear, approver=person)

        return await self._started(begin, model=body.pipeline)

    async def rerun(self, run_id: str, body: RerunBody) -> str:
        """Begin a recorded run once more, whole or from a step on; return the id of the new one.

        Raises:
            SynapticError: What ``Session.fork`` and ``Session.run`` raise before the run begins.
        """

        async def begin(session: Session, hear: EventHandler, person: AskedPerson) -> RunResult:
            before = await _before(session, run_id)
            if body.at is not None:
                return await session.fork(run_id, at=body.at, model=body.model, on_event=hear, approver=person)
            told = before.beginning
            inputs = {name: value for name, value in told.inputs.items() if not told.documents or name != "query"}
            return await session.run(
                ClientText(told.question) if told.documents else None,
                pipeline=before.pipeline,
                inputs=inputs,
                documents=told.documents,
                model=body.model or told.descent.model,
                on_event=hear,
                approver=person,
            )

        return await self._started(begin)

    async def resume(self, run_id: str, decided: dict[str, Approval] | None = None) -> str:
        """Go on with a recorded run that did not come to its end; return its id.

        Args:
            run_id: Its id.
            decided: By the path of a step, what is decided of what it asks.

        Raises:
            SynapticError: What ``Session.resume`` raises before the run goes on.
        """

        async def begin(session: Session, hear: EventHandler, person: AskedPerson) -> RunResult:
            await _before(session, run_id)
            return await session.resume(run_id, on_event=hear, approver=person)

        return await self._started(begin, AskedPerson(decided))

    async def answer(self, run_id: str, body: AnswerBody) -> str:
        """Decide what a run waits for, also one whose process is gone, which goes on then; return its id.

        Raises:
            Refusal: If it asks nothing there, or that is no answer.
            SynapticError: What ``Session.answer`` and ``Session.resume`` raise before the run goes on.
        """
        given = Approval(body.decision, body.value, body.reason)
        if (person := self._people.get(run_id)) is not None:
            check_model(PipelineModels.named(person.pipeline))
            person.decide(body.step, given)
            return run_id
        if body.decision == "refused":  # which is kept by the run that fails of it
            return await self.resume(run_id, {body.step: given})

        async def decide(request: ApprovalRequest) -> Approval:
            check_answer(request, given)
            return given

        async def keep(session: Session) -> None:
            await _before(session, run_id)
            await session.answer(run_id, body.step, decide)

        await self._front.act(keep)
        return await self.resume(run_id)

    def cancel(self, run_id: str) -> None:
        """Cancel a run that was started here.

        Raises:
            Refusal: If there is none of that id.
        """
        task = self._tasks.get(run_id)
        if task is None:
            raise Refusal(NOT_FOUND, f"no run {run_id} that was started here is under way")
        task.cancel()

    async def aclose(self) -> None:
        """Cancel all of them, and wait for that."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _started(self, begin: Begin, person: AskedPerson | None = None, model: str = "pipeline") -> str:
        """Have a run begun in a task of its own; return its id once there is one. ``model`` is what the ledger says."""
        began: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def hear(event: Event) -> None:
            if isinstance(event, RunStarted) and not began.done():
                asked.pipeline = event.plan.pipeline.name
                began.set_result(event.run_id)

        asked = person or AskedPerson()
        call = self._front.meter.begin(model)

        async def act(session: Session) -> RunResult:
            with call:
                result = await begin(session, hear, asked)
                call.whole(result.usage)
            return result

        task = asyncio.ensure_future(self._front.act(act))
        waited: set[asyncio.Future[Any]] = {task, began}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not began.done():
            task.result()  # raises what was wrong
            raise SynapticError("the run ended before it began")
        run_id = began.result()
        self._tasks[run_id], self._people[run_id] = task, asked
        task.add_done_callback(lambda ended: self._ended(run_id, ended))
        return run_id

    def _ended(self, run_id: str, task: asyncio.Task[Any]) -> None:
        if self._tasks.get(run_id) is task:
            del self._tasks[run_id], self._people[run_id]
        if not task.cancelled():
            task.exception()  # a run that fails says so in its last event


async def _before(session: Session, run_id: str) -> RunBefore:
    """Return a recorded run, if the key of this request may ask its pipeline.

    Raises:
        JournalError: If there is none.
        Refusal: If the key may not.
    """
    await session.recorded()
    before = await asyncio.to_thread(read_run_before, run_id, to_go_on=False)
    check_model(PipelineModels.named(before.run.pipeline))
    return before
