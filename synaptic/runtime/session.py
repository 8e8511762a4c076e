"""A session: settings, agents and one backend, kept over several runs; and the functions of the library."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from synaptic.backends import capabilities_of
from synaptic.errors import UsageError
from synaptic.messages import (
    BackendNotice,
    BackendReport,
    Message,
    ModelInfo,
    PriorityClass,
    Route,
)
from synaptic.pipeline import (
    CallPolicy,
    Pipeline,
    Plan,
    calls_models,
    compile_pipeline,
    refuse_unattended,
)
from synaptic.runtime import journal, telemetry
from synaptic.runtime.answering import answered, left_behind
from synaptic.runtime.approval import approve_all
from synaptic.runtime.asked_run import AskedRun, recorder_of
from synaptic.runtime.events import Descent, Event, EventHandler, RunResult, ignore_event
from synaptic.runtime.executor import Executor
from synaptic.runtime.given import read_pipeline, refuse_others
from synaptic.runtime.listeners import Listeners
from synaptic.runtime.opened_backend import OpenedBackend
from synaptic.runtime.planner import Planner
from synaptic.runtime.recorded import FRESH
from synaptic.runtime.rehearsal import rehearse
from synaptic.runtime.runs_before import Changes, GoingOn, RunBefore, at_work, claimed, give_back, read_run_before
from synaptic.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from synaptic.agents import Agent
    from synaptic.backends import Backend
    from synaptic.pipeline import Tool
    from synaptic.runtime.approval import Approver
    from synaptic.settings import Settings


class Session:
    """Owns a backend over several runs; use it with ``async with``.

    Args:
        settings: Default: what the files and the environment say.
        backend: Used as it is, instead of routing; the caller closes it.
        agents: Added to the ones that are found, by name.
        tools: Python functions that pipelines may call, added to the installed ones.
        approver: Asks a person to approve or to answer; without one, a pipeline that cannot do without is refused.
        priority: Of the session's calls, among all that wait for a node: a person who waits goes before a run, and a
            run before a batch.
        runs_at_once: Runs that will be made at the same time; an engine that is started for them is as large as that.
        steady: For many runs of one pipeline: the agents that there are, in the place of those in files, which are
            then not read with every run; nor is the pipeline compiled again for other inputs.
        on_event: Gets every event of every run, and reports of the backend between runs.

    Raises:
        ConfigError: If the settings want telemetry, and it cannot be had.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        backend: Backend | None = None,
        agents: Mapping[str, Agent] | None = None,
        tools: Mapping[str, Tool] | None = None,
        approver: Approver | None = None,
        priority: PriorityClass = "run",
        runs_at_once: int = 1,
        steady: Mapping[str, Agent] | None = None,
        on_event: EventHandler | None = None,
    ) -> None:
        refuse_others(settings=settings, backend=backend, agents=agents, tools=tools, approver=approver)
        refuse_others(priority=priority, runs_at_once=runs_at_once, steady=steady)
        left_out = ""
        if settings is None:
            loaded = load_settings()
            settings, left_out = loaded.settings, loaded.left_out
        self._opened = OpenedBackend(settings, backend, self._report)
        self._extra_tools = dict(tools or {})
        self._planner = Planner(
            self._opened,
            self._mention,
            agents=dict(agents or {}),
            tools=self._extra_tools,
            steady=steady,
            priority=priority,
            runs_at_once=runs_at_once,
            left_out=left_out,
        )
        self._approver = approver
        self._listeners = Listeners(on_event)
        self.telemetry = telemetry.open_telemetry(settings, self._listeners)
        self._recorder: journal.Recorder | None = None

    @property
    def settings(self) -> Settings:
        """What it goes by; what is changed counts from then on, but for backends that are open."""
        return self._opened.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._opened.settings = settings

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def watch(self, begin: Callable[[], EventHandler]) -> None:
        """Have each run from now on heard by a listener of its own, which ``begin`` makes."""
        self._listeners.watch(begin)

    async def route(self) -> Route:
        """Return where calls go; asks the network the first time.

        Raises:
            BackendUnavailable: If nothing can serve the calls.
            ModelNotFound: If what answers lacks the model.
        """
        return await self._opened.route()

    @property
    def routed_backend(self) -> Backend | None:
        """The backend that calls go to; ``None`` before ``route`` or a run has chosen it."""
        return self._opened.backend

    async def direct(self) -> Backend:
        """Return the backend for calls that are no part of a run, with bounds on their time and ``model_parallel``.

        Raises:
            BackendUnavailable: If nothing can serve the calls.
            ModelNotFound: If what answers lacks the model.
        """
        return await self._opened.direct()

    async def models(self) -> list[ModelInfo]:
        """Return the models that the backend can serve."""
        return await (await self._opened.open()).backend.models()

    async def recorded(self, *, on_event: EventHandler | None = None) -> None:
        """Wait until the record of runs has all that was said so far; ``on_event`` hears if it could not be written."""
        if self._recorder is not None:
            with self._listeners.reported_to(on_event):
                await self._recorder.settled()

    async def default_pipeline(self) -> str:
        """Return the pipeline where none is named: one call of a model that is there to try things out, else more.

        Raises:
            BackendUnavailable: If nothing can serve the calls.
            ModelNotFound: If what answers lacks the model.
        """
        return await self._planner.default_pipeline()

    async def context_length(self) -> int | None:
        """Return how many tokens the model takes, prompt and reply together; ``None`` where that is not known."""
        sizes = (await self._opened.stacks()).sizes(CallPolicy())
        return await sizes.contexts.of(self._planner.defaults(await self.route()))

    async def plan(
        self,
        query: str | None = None,
        *,
        pipeline: str | Path | Pipeline | None = None,
        inputs: Mapping[str, Any] | None = None,
        documents: Sequence[Mapping[str, str] | str] = (),
        model: str | None = None,
        conversation: Sequence[Message] = (),
    ) -> Plan:
        """Return what a run would do; no model is called, and tokens are estimated.

        Takes the options of ``run``.

        Raises:
            UsageError: If the pipeline, an agent or an input is wrong.
            BackendError: If nothing can serve the calls, or a prompt cannot fit the model's context.
        """
        plan, context = await self._planner.planned(query, pipeline, inputs, documents, model)
        earlier = await self._planner.earlier(plan, conversation, count=False)
        reading = await self._planner.reading(plan, context, earlier.text, count=False)
        return plan if reading is None else reading.planned(plan)

    def check(self, pipeline: str | Path | Pipeline) -> Pipeline:
        """Check a pipeline in full and return it; nothing is asked and no model is called.

        Raises:
            PipelineError: With every mistake.
        """
        refuse_others(pipeline=pipeline)
        context = self._planner.context(None)
        chosen = read_pipeline(pipeline, context)
        compile_pipeline(chosen, context)
        return chosen

    async def run(
        self,
        query: str | None = None,
        *,
        pipeline: str | Path | Pipeline | None = None,
        inputs: Mapping[str, Any] | None = None,
        documents: Sequence[Mapping[str, str] | str] = (),
        model: str | None = None,
        conversation: Sequence[Message] = (),
        session: str | None = None,
        after: str | None = None,
        title: str = "",
        instead: str | None = None,
        last: str | None = None,
        files: Sequence[str] = (),
        run_id: str | None = None,
        on_event: EventHandler | None = None,
        approver: Approver | None = None,
    ) -> RunResult:
        """Run a pipeline and return how it ended; a run that fails is a result, too.

        Args:
            query: The question: the pipeline's input of that name.
            pipeline: A built-in name, a file, or a loaded pipeline; default: the setting ``pipeline``.
            inputs: Further inputs.
            documents: Texts, or mappings with ``text`` and perhaps ``name``: for the pipeline's input of files, else
                behind the question.
            model: Goes before the pipeline's own default, not before what a step or an agent asks for.
            conversation: Earlier turns, oldest first: every call that asks the question gets them, unless the pipeline
                says ``conversation: false``. Where they do not fit, the older ones are shortened or left out.
            session: The kept conversation that the run is a turn of; an id as ``new_run_id`` makes them.
            after: The run that was the turn before.
            title: What stands for the question in that conversation, where that is not the question itself.
            instead: The run of the same turn, which stays part of the conversation unless this one has an answer.
            last: The run that was begun last in that conversation: where another program has begun one since, this one
                begins a conversation of its own. ``None`` looks at nothing.
            files: What every question of that conversation is about, so that it is known later; ``documents`` has them.
            run_id: What the run is called, so that the caller knows that before it begins: one of ``new_run_id``.
            on_event: Gets the events of this run.
            approver: Is asked in the place of the session's.

        Raises:
            UsageError: If the pipeline, an agent or an input is wrong; nothing was called.
            BackendError: If nothing can serve the calls, or a prompt that is known already does not fit the model's
                context; nothing was called.
        """
        refuse_others(conversation=conversation, session=session, after=after, title=title, instead=instead, last=last)
        refuse_others(files=files, run_id=run_id)
        with self._listeners.heard_by(on_event):
            plan, context = await self._planner.planned(query, pipeline, inputs, documents, model)
            if (decides := approver or self._approver) is None or decides is approve_all:
                refuse_unattended(plan.compiled.graph, accepted=decides is approve_all)
            await self._planner.size(plan)
            earlier = await self._planner.earlier(plan, conversation, count=False)
            turn = Descent(session=session, after=after, instead=instead, title=title, last=last)
            descent = replace(turn, files=tuple(files or ()), conversation=earlier.text, model=model)
            begun, defaults = run_id or journal.new_run_id(), self._planner.defaults(plan.route)
            asked = AskedRun(begun, plan, context, defaults, descent, approver=decides)
            return await self._execute(asked, conversation)

    async def resume(
        self,
        run_id: str,
        *,
        pipeline: str | Path | Pipeline | None = None,
        force: bool = False,
        on_event: EventHandler | None = None,
        approver: Approver | None = None,
    ) -> RunResult:
        """Go on with a recorded run that did not end; what it has done is taken from the journal.

        Args:
            run_id: Its id, or a beginning or an end of that.
            pipeline: Goes on in the place of the pipeline as it was when the run began.
            force: Take the pipeline's file as it is now, unless something that has ended would be done again.
            on_event: Gets the events of this run.
            approver: Is asked in the place of the session's.

        Raises:
            JournalError: If there is no such run, it succeeded, or its record cannot be read.
            RunOwned: If another process works on it.
            UsageError: What ``run`` raises; with ``force`` also if something would be done again.
            BackendError: What ``run`` raises.
        """
        refuse_others(pipeline=pipeline)
        with self._listeners.heard_by(on_event):
            async with claimed(run_id, self.recorded) as before:
                if before.beginning.is_planned:
                    now = before.file_now() if force else pipeline
                    return await self._go_on(before.resumed(keeps=force), now, approver)
                return await self.run(**before.asked(pipeline), approver=approver)

    async def fork(
        self,
        run_id: str,
        *,
        at: str,
        inputs: Mapping[str, Any] | None = None,
        model: str | None = None,
        settings: Collection[str] = (),
        on_event: EventHandler | None = None,
        approver: Approver | None = None,
    ) -> RunResult:
        """Run a recorded run once more from a step on; what had ended before that is taken as it was.

        Args:
            run_id: Its id, or a beginning or an end of that.
            at: The path of the step that is done again, such as ``write`` or ``refine[2].critique``.
            inputs: Those that are others from there on.
            model: Another one, from there on.
            settings: Names of settings that hold as this session has them, not as they were in that run.
            on_event: Gets the events of the new run.
            approver: Is asked in the place of the session's.

        Raises:
            JournalError: If there is no such run, or its record cannot be read.
            UsageError: If the run has no such step; and what ``run`` raises.
            BackendError: What ``run`` raises.
        """
        refuse_others(at=at, inputs=inputs, model=model, changed=settings)
        with self._listeners.heard_by(on_event):
            before = await self._run_before(run_id)
            going = before.forked(at, Changes(inputs or {}, model, frozenset(settings)))
            return await self._go_on(going, approver=approver)

    async def rerun(
        self,
        run_id: str,
        *,
        pipeline: str | Path | Pipeline | None = None,
        inputs: Mapping[str, Any] | None = None,
        model: str | None = None,
        settings: Collection[str] = (),
        on_event: EventHandler | None = None,
    ) -> RunResult:
        """Run a recorded run once more, with changes: only the steps that they reach are done again.

        Takes the options of ``fork``.

        Raises:
            JournalError: If there is no such run, or its record cannot be read.
            UsageError: What ``run`` raises.
            BackendError: What ``run`` raises.
        """
        refuse_others(pipeline=pipeline, inputs=inputs, model=model, changed=settings)
        with self._listeners.heard_by(on_event):
            before = await self._run_before(run_id)
            return await self._go_on(before.again(Changes(inputs or {}, model, frozenset(settings))), pipeline)

    async def answer(self, run_id: str, step: str, decide: Approver) -> None:
        """Have a person decide what a recorded run waits for, and record it; ``resume`` then goes on with it.

        Args:
            run_id: Its id, or a beginning or an end of that.
            step: The path of the step that asks.
            decide: Is given what is asked, and returns the decision.

        Raises:
            JournalError: If there is no such run, or its record cannot be read.
            RunOwned: If another process works on it: it is asked there.
            UsageError: If the run asks nothing there, or nothing is recorded.
            NotApproved: If the person refused.
            OutputInvalid: If the answer does not fit its shape.
        """
        async with claimed(run_id, self.recorded) as before:
            if (recorder := self._kept_by()) is None:
                raise UsageError("the answer cannot be kept: the setting 'journal' is off")
            await recorder.add(await answered(before, step, decide, self._extra_tools))
            await asyncio.to_thread(give_back, left_behind(before, step))

    async def _run_before(self, run_id: str) -> RunBefore:
        await self.recorded()
        return await asyncio.to_thread(read_run_before, run_id, to_go_on=False)

    async def _go_on(
        self, going: GoingOn, pipeline: str | Path | Pipeline | None = None, approver: Approver | None = None
    ) -> RunResult:
        """Run what goes on from a recorded run."""
        context = self._planner.context(going.descent.model)
        if pipeline is None:
            context = replace(context, kept=going.before.used_texts)
            for what in going.before.changed_files():
                self._report(BackendNotice("journal", f"{what} since the run began; it goes on as it was then"))
        chosen = going.before.pipeline if pipeline is None else read_pipeline(pipeline, context)
        plan = await self._planner.compiled(
            chosen, context, *going.inputs(chosen), going.descent.model or going.route_model
        )
        defaults = going.defaults(self._planner.defaults(plan.route))
        await self._planner.size(plan)
        begun, decides = going.run_id or journal.new_run_id(), approver or self._approver
        return await self._execute(AskedRun(begun, plan, context, defaults, going.descent, going, decides))

    async def _execute(self, asked: AskedRun, conversation: Sequence[Message] = ()) -> RunResult:
        """Record what is asked, make the backend ready, and carry it out."""
        if asked.is_recorded:
            made = await self._prepared(asked, conversation)
            return await made(emit=self._recorded()[1]).run()
        with at_work(asked.run_id, claimed_before=True):
            record, emit = self._recorded()
            with asked.recorded(record, emit):
                made = await self._prepared(asked, conversation)
                await asked.is_kept(self.recorded)
            return await made(emit=emit).run()

    async def _prepared(self, asked: AskedRun, conversation: Sequence[Message]) -> Callable[..., Executor]:
        """Start the backend and return what makes the executor, once it is told who hears of the run."""
        plan, descent, going = asked.plan, asked.descent, asked.going
        can = capabilities_of((await self._opened.open()).backend)
        if can.start is not None and calls_models(plan.compiled.graph):
            await can.start()
        earlier = await self._planner.earlier(plan, conversation, count=True)
        if conversation:
            descent = replace(descent, conversation=earlier.text)
        reading = await self._planner.reading(plan, asked.context, descent.conversation, count=True)
        made = partial(
            Executor,
            plan if reading is None else reading.planned(plan),
            await self._opened.stacks(),
            asked.defaults,
            run_id=asked.run_id,
            descent=descent,
            reading=reading,
        )
        if going is not None and going.keeps:
            await rehearse(lambda hear: made(emit=hear), going.before.resumed().past)
        kept = self.settings.journal != "off"
        return partial(
            made,
            shortened=earlier.shortened,
            approver=asked.approver,
            prepare=can.prepare,
            past=going.past if going is not None else FRESH if kept else None,
            settled=self.recorded if kept else None,
            full=self.settings.journal == "full",
        )

    def _recorded(self) -> tuple[EventHandler, EventHandler]:
        """Return what records the events of one run, and what also tells them to those who listen."""
        if (recorder := self._kept_by()) is None:
            return ignore_event, self._listeners.emit
        record = recorder.begin().handle

        def emit(event: Event) -> None:
            record(event)
            self._listeners.emit(event)

        return record, emit

    def _kept_by(self) -> journal.Recorder | None:
        """Return what records runs; ``None`` where nothing is to."""
        if self.settings.journal == "off":
            return None
        self._recorder = self._recorder or recorder_of(self.settings, self._listeners.report)
        return self._recorder

    async def aclose(self) -> None:
        """Close the backends that the session opened; their child processes end."""
        recorder, self._recorder = self._recorder, None
        try:
            await self._opened.aclose()
        finally:
            if recorder is not None:
                await recorder.aclose()
            if self.telemetry is not None:
                await self.telemetry.aclose()

    def _mention(self, about: str, left_out: str) -> None:
        if notice := self._listeners.to_mention(about, left_out):
            self._report(notice)

    def _report(self, report: BackendReport) -> None:
        if self._recorder is not None:
            self._recorder.reported(report)
        self._listeners.report(report)
