"""A session: settings, agents and one backend, kept over several runs; and the functions of the library."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from synaptic.agents import discover_agents
from synaptic.backends import (
    BackendContext,
    BackendNames,
    Routed,
    capabilities_of,
    create_backend,
    open_backend,
)
from synaptic.errors import PipelineError, Problem, UsageError
from synaptic.messages import (
    PRIORITIES,
    BackendNotice,
    BackendReport,
    ChatRequest,
    Message,
    ModelInfo,
    PriorityClass,
    Route,
    Timeouts,
)
from synaptic.pipeline import (
    CompileContext,
    Pipeline,
    Plan,
    attach,
    bind_inputs,
    calls_models,
    compile_pipeline,
    discover_tools,
    document_of,
    examine,
    named_models,
    refuse_unattended,
    width,
)
from synaptic.runtime.approval import approve_all
from synaptic.runtime.events import BackendReported, Event, EventHandler, RunResult
from synaptic.runtime.executor import Executor
from synaptic.runtime.long_input import Reading, divisions
from synaptic.runtime.policies import Stacks
from synaptic.settings import load_settings
from synaptic.text import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

    from synaptic.agents import Agent
    from synaptic.backends import Backend
    from synaptic.pipeline import Tool
    from synaptic.runtime.approval import Approver
    from synaptic.settings import Settings

SHOWN_CHARACTERS = 60
DEFAULT_PIPELINE = "research"
TRY_OUT_PIPELINE = "answer"

CONVERSATION_CHARACTERS = 2000
"""Of earlier turns, as much as this reaches every step that asks for it; about 500 tokens."""


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
        on_event: Gets every event of every run, and reports of the backend between runs.

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
        on_event: EventHandler | None = None,
    ) -> None:
        self._left_out = ""
        self._mentioned: set[str] = set()
        if settings is None:
            loaded = load_settings()
            settings, self._left_out = loaded.settings, loaded.left_out
        self.settings = settings
        self._given = backend
        self._extra_agents = dict(agents or {})
        self._extra_tools = dict(tools or {})
        self._approver = approver
        self._priority = priority
        self._listeners: list[EventHandler] = [on_event] if on_event else []
        self._routed: Routed | None = None
        self._capacity: int | None = None
        self._stacks: Stacks | None = None
        self._routing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def route(self) -> Route:
        """Return where calls go; asks the network the first time.

        Raises:
            BackendUnavailable: If nothing can serve the calls.
            ModelNotFound: If what answers lacks the model.

        """
        return (await self._open()).route

    @property
    def routed_backend(self) -> Backend | None:
        """The backend that calls go to; ``None`` before ``route`` or a run has chosen it."""
        return None if self._routed is None else self._routed.backend

    async def models(self) -> list[ModelInfo]:
        """Return the models that the backend can serve."""
        return await (await self._open()).backend.models()

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
        plan, context = await self._planned(query, pipeline, inputs, documents, model)
        reading = await self._reading(plan, context, conversation_text(conversation), count=False)
        return plan if reading is None else reading.planned(plan)

    async def _planned(
        self,
        query: str | None,
        pipeline: str | Path | Pipeline | None,
        inputs: Mapping[str, Any] | None,
        documents: Sequence[Mapping[str, str] | str],
        model: str | None,
    ) -> tuple[Plan, CompileContext]:
        """Return the plan of a run, as far as it does not hang on the length of its inputs."""
        book = discover_agents()
        self._mention("settings", self._left_out)
        self._mention("agents", book.left_out)
        context = CompileContext(
            agents={name: book[name] for name in book},
            given_agents=self._extra_agents,
            agent_models=self.settings.agent_models,
            tools=discover_tools(given=self._extra_tools),
            backends=BackendNames(),
            model=model,
        )
        chosen = _read(pipeline or self.settings.pipeline or await self.default_pipeline(), context)
        given = _with_query(query, inputs or {})
        attached = attach(chosen.spec, given, _documents(documents))
        bound = bind_inputs(chosen, attached.inputs, self.settings.pipeline_inputs)
        compiled = compile_pipeline(chosen, context)
        route = await self.route()
        if named_models(compiled.graph):
            # Only now: a pipeline that names no model asks no node what it has.
            models = [model.name for model in await self.models()]
            compiled = compile_pipeline(chosen, replace(context, models=models))
        if model is not None:
            route = replace(route, model=model)
        plan = Plan(pipeline=chosen, compiled=compiled, inputs=bound, route=route, attached=attached)
        return plan, context

    async def default_pipeline(self) -> str:
        """Return the pipeline where none is named: one call of a model that is there to try things out, else more.

        Raises:
            BackendUnavailable: If nothing can serve the calls.
            ModelNotFound: If what answers lacks the model.

        """
        can = capabilities_of((await self._open()).backend)
        return TRY_OUT_PIPELINE if can.for_trying else DEFAULT_PIPELINE

    async def _reading(self, plan: Plan, context: CompileContext, conversation: str, *, count: bool) -> Reading | None:
        """Return what is read before the first step, because it is too long; ``None`` where nothing is.

        Raises:
            ContextOverflow: If a prompt cannot fit; nothing was called.

        """
        stacks = self._backends(await self._open())
        run = {"id": "", "pipeline": plan.pipeline.name, "conversation": conversation}
        found = await divisions(plan, self._defaults(plan.route), run, stacks.sizes, count=count)
        return Reading.of(found, context) if found else None

    async def run(
        self,
        query: str | None = None,
        *,
        pipeline: str | Path | Pipeline | None = None,
        inputs: Mapping[str, Any] | None = None,
        documents: Sequence[Mapping[str, str] | str] = (),
        model: str | None = None,
        conversation: Sequence[Message] = (),
        on_event: EventHandler | None = None,
    ) -> RunResult:
        """Run a pipeline and return how it ended; a run that fails is a result, too.

        Args:
            query: The question: the pipeline's input of that name.
            pipeline: A built-in name, a file, or a loaded pipeline; default: the setting ``pipeline``.
            inputs: Further inputs.
            documents: Texts, or mappings with ``text`` and perhaps ``name``: for the pipeline's input of files, else
                behind the question.
            model: Goes before the pipeline's own default, not before what a step or an agent asks for.
            conversation: Earlier turns, oldest first; pipelines read them as ``{{ run.conversation }}``.
            on_event: Gets the events of this run.

        Raises:
            UsageError: If the pipeline, an agent or an input is wrong; nothing was called.
            BackendError: If nothing can serve the calls, or a prompt that is known already does not fit the model's
                context; nothing was called.

        """
        with self._listening(on_event):
            plan, context = await self._planned(query, pipeline, inputs, documents, model)
            if self._approver is None or self._approver is approve_all:
                refuse_unattended(plan.compiled.graph, accepted=self._approver is approve_all)
            routed = await self._open()
            can = capabilities_of(routed.backend)
            if self._stacks is None and can.resize is not None:
                self._capacity = can.resize(width(plan.compiled))
            if can.start is not None and calls_models(plan.compiled.graph):
                await can.start()
            earlier = conversation_text(conversation)
            reading = await self._reading(plan, context, earlier, count=True)
            executor = Executor(
                plan if reading is None else reading.planned(plan),
                self._backends(routed),
                self._defaults(plan.route),
                run_id=secrets.token_hex(4),
                emit=self._emit,
                conversation=earlier,
                approver=self._approver,
                prepare=can.prepare,
                reading=reading,
            )
            return await executor.run()

    async def aclose(self) -> None:
        """Close the backends that the session opened; their child processes end."""
        routed, self._routed = self._routed, None
        stacks, self._stacks = self._stacks, None
        if stacks is not None:
            await stacks.aclose()
        if routed is not None and self._given is None:
            await routed.backend.aclose()

    async def _open(self) -> Routed:
        async with self._routing:
            if self._routed is None:
                self._routed = await self._choose()
            return self._routed

    async def _choose(self) -> Routed:
        if self._given is None:
            return await open_backend(self.settings, self._report)
        models = await self._given.models()
        model = self.settings.model or (models[0].name if models else None)
        route = Route(self._given.name, None, model, "given by the caller")
        return Routed(self._given, route)

    def _backends(self, routed: Routed) -> Stacks:
        """Return the backends with their policies; the same ones for every run, so that limits hold over all."""
        if self._stacks is None:
            self._stacks = Stacks(
                routed.backend,
                self.settings,
                capacity=self._capacity,
                node=routed.route.node,
                open_backend=self._open_named,
                report=self._report,
            )
        return self._stacks

    def _open_named(self, name: str) -> Backend:
        """Return the backend that a step names, opened beside the one of the route."""
        return create_backend(name, BackendContext(self.settings, None, self._report))

    def _defaults(self, route: Route) -> ChatRequest:
        settings = self.settings
        return ChatRequest(
            messages=(),
            model=route.model,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            num_ctx=settings.num_ctx,
            keep_alive=settings.keep_alive,
            think=settings.think,
            timeouts=Timeouts(settings.first_token_timeout, settings.idle_timeout, settings.call_timeout),
            priority=PRIORITIES[self._priority],
        )

    @contextmanager
    def _listening(self, handler: EventHandler | None) -> Iterator[None]:
        if handler is None:
            yield
            return
        self._listeners.append(handler)
        try:
            yield
        finally:
            self._listeners.remove(handler)

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def _mention(self, about: str, left_out: str) -> None:
        """Say once what of the folder does not count, because it is not trusted."""
        if left_out and left_out not in self._mentioned:
            self._mentioned.add(left_out)
            self._report(BackendNotice(about, left_out, "warning"))

    def _report(self, report: BackendReport) -> None:
        self._emit(BackendReported(report))


def _with_query(query: str | None, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    if query is None:
        return inputs
    other = inputs.get("query", query)
    if other != query:
        one, two = (one_line(str(text), SHOWN_CHARACTERS) for text in (query, other))
        said = f"the question is given twice: {one!r}, and {two!r} as the input 'query'"
        raise UsageError(said, hint="give it once; a value with blanks needs quotes, as in -i 'query=two words'")
    return {**inputs, "query": query}


def _read(pipeline: str | Path | Pipeline, context: CompileContext) -> Pipeline:
    """Return the pipeline.

    Raises:
        PipelineError: With every mistake in its file, those of form and those of meaning together.

    """
    if isinstance(pipeline, Pipeline):
        return pipeline
    try:
        return Pipeline.find(pipeline)
    except PipelineError as exc:
        _, problems = examine(pipeline, context)
        if not problems:
            raise
        raise PipelineError.of(problems) from exc


def _documents(given: Sequence[Mapping[str, str] | str]) -> list[dict[str, str]]:
    """Return documents that are given as data.

    Raises:
        UsageError: With every one that is none.

    """
    found, problems = [], []
    for number, document in enumerate(given, 1):
        try:
            found.append(document_of(document))
        except ValueError as exc:
            problems.append(Problem(f"document {number} {exc}"))
    if problems:
        raise UsageError.of(problems)
    return found


def conversation_text(turns: Sequence[Message], limit: int = CONVERSATION_CHARACTERS) -> str:
    """Return the latest turns as text of at most about ``limit`` characters; "" if there are none.

    A long turn keeps its beginning: that is where an answer says what it is about.
    """
    lines: list[str] = []
    left = limit
    for turn in reversed(turns):
        if left <= 0:
            break
        who = "Person" if turn.role == "user" else "You"
        text = turn.content.strip()
        share = max(left // 2, 200)
        lines.append(f"{who}: {text if len(text) <= share else text[:share].rstrip() + ' …'}")
        left -= len(lines[-1])
    return "\n".join(["Earlier in this conversation:", *reversed(lines)]) if lines else ""


async def run(
    query: str | None = None,
    *,
    pipeline: str | Path | Pipeline | None = None,
    inputs: Mapping[str, Any] | None = None,
    documents: Sequence[Mapping[str, str] | str] = (),
    settings: Settings | None = None,
    backend: Backend | None = None,
    agents: Mapping[str, Agent] | None = None,
    tools: Mapping[str, Tool] | None = None,
    approver: Approver | None = None,
    model: str | None = None,
    conversation: Sequence[Message] = (),
    on_event: EventHandler | None = None,
) -> RunResult:
    """Answer one question with a graph of agents; see ``Session`` and ``Session.run``."""
    async with Session(settings, backend=backend, agents=agents, tools=tools, approver=approver) as session:
        return await session.run(
            query,
            pipeline=pipeline,
            inputs=inputs,
            documents=documents,
            model=model,
            conversation=conversation,
            on_event=on_event,
        )


def run_sync(query: str | None = None, **options: Any) -> RunResult:
    """Do what ``run`` does, from code that is not async.

    Raises:
        UsageError: If an event loop is already running here; ``await run(...)`` instead.

    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run(query, **options))
    raise UsageError("run_sync() was called where an event loop runs", hint="write: await synaptic.run(...)")


@asynccontextmanager
async def _running(
    query: str | None, options: dict[str, Any], events: asyncio.Queue[Event | None]
) -> AsyncIterator[asyncio.Task[RunResult]]:
    task = asyncio.create_task(run(query, on_event=events.put_nowait, **options))
    task.add_done_callback(lambda _: events.put_nowait(None))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def stream_events(query: str | None = None, **options: Any) -> AsyncIterator[Event]:
    """Yield the events of one run as they happen; leaving the loop early cancels the run.

    Takes the options of ``run``.

    Raises:
        SynapticError: What ``run`` raises. A run that fails ends with its ``RunFinished`` event instead.

    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    async with _running(query, options, events) as task:
        while (event := await events.get()) is not None:
            yield event
        await task
