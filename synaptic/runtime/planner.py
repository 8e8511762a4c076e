"""What a session would do with a question: its pipeline compiled, with inputs and agents, for its backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synaptic.agents import discover_agents
from synaptic.backends import BackendNames, capabilities_of
from synaptic.messages import PRIORITIES, ChatRequest, PriorityClass, Route, Timeouts
from synaptic.pipeline import (
    Attached,
    CompileContext,
    Pipeline,
    Plan,
    attach,
    bind_inputs,
    compile_pipeline,
    discover_tools,
    misspelt_defaults,
    named_models,
    width,
)
from synaptic.runtime.earlier_turns import MOST_TOKENS, NO_TURNS, earlier_turns, room_for_turns
from synaptic.runtime.given import read_documents, read_pipeline, refuse_others, with_query
from synaptic.runtime.long_input import Reading, divisions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from synaptic.agents import Agent
    from synaptic.messages import Message
    from synaptic.pipeline import Tool
    from synaptic.runtime.earlier_turns import EarlierTurns
    from synaptic.runtime.opened_backend import OpenedBackend

DEFAULT_PIPELINE = "research"
TRY_OUT_PIPELINE = "answer"


class Planner:
    """Compiles what a session is asked; calls no model.

    Args:
        opened: What answers the calls, with the settings of the session.
        mention: Told what was left out of what is read: of what kind, and the words.
        agents: Added to the ones that are found, by name.
        tools: Added to the installed ones.
        steady: The agents that there are, in the place of those in files; a pipeline is then compiled once.
        priority: Of the calls.
        runs_at_once: Runs that will be made at the same time.
        left_out: What was left out of the settings, in words.
    """

    def __init__(
        self,
        opened: OpenedBackend,
        mention: Callable[[str, str], None],
        *,
        agents: Mapping[str, Agent],
        tools: Mapping[str, Tool],
        steady: Mapping[str, Agent] | None,
        priority: PriorityClass,
        runs_at_once: int,
        left_out: str,
    ) -> None:
        self._opened = opened
        self._mention = mention
        self._extra_agents = agents
        self._extra_tools = tools
        self._steady = steady
        self._priority = priority
        self._runs_at_once = runs_at_once
        self._left_out = left_out
        self._planned_before: tuple[Plan, CompileContext] | None = None

    async def planned(
        self,
        query: str | None,
        pipeline: str | Path | Pipeline | None,
        inputs: Mapping[str, Any] | None,
        documents: Sequence[Mapping[str, str] | str],
        model: str | None,
    ) -> tuple[Plan, CompileContext]:
        """Return the plan of a run, as far as it does not hang on the length of its inputs."""
        refuse_others(pipeline=pipeline, inputs=inputs, model=model)
        before = self._planned_before
        if before is not None and before[0].pipeline is pipeline and before[1].model == model:
            plan, context = before
            attached, bound = self._bound(plan.pipeline, query, inputs, documents)
            return replace(plan, inputs=bound, attached=attached), context
        context = self.context(model)
        chosen = read_pipeline(pipeline or self._opened.settings.pipeline or await self.default_pipeline(), context)
        attached, bound = self._bound(chosen, query, inputs, documents)
        plan = await self.compiled(chosen, context, bound, attached, model)
        if self._steady is not None:
            self._planned_before = plan, context
        return plan, context

    def _bound(
        self,
        pipeline: Pipeline,
        query: str | None,
        inputs: Mapping[str, Any] | None,
        documents: Sequence[Mapping[str, str] | str],
    ) -> tuple[Attached, dict[str, Any]]:
        attached = attach(pipeline.spec, with_query(query, inputs or {}), read_documents(documents))
        defaults = self._opened.settings.pipeline_inputs
        for line in misspelt_defaults(pipeline, defaults):
            self._mention("settings", line)
        return attached, bind_inputs(pipeline, attached.inputs, defaults)

    def context(self, model: str | None) -> CompileContext:
        """Return what a pipeline may name."""
        self._mention("settings", self._left_out)
        agents = self._steady
        if agents is None:
            book = discover_agents()
            self._mention("agents", book.left_out)
            agents = {name: book[name] for name in book}
        return CompileContext(
            agents=agents,
            given_agents=self._extra_agents,
            agent_models=self._opened.settings.agent_models,
            tools=discover_tools(given=self._extra_tools),
            backends=BackendNames(),
            model=model,
        )

    async def compiled(
        self,
        pipeline: Pipeline,
        context: CompileContext,
        inputs: Mapping[str, Any],
        attached: Attached,
        model: str | None,
    ) -> Plan:
        """Return the plan of a pipeline with its inputs; ``model`` serves what names none."""
        compiled = compile_pipeline(pipeline, context)
        route = await self._opened.route()
        if named_models(compiled.graph):
            # Only now: a pipeline that names no model asks no node what it has.
            models = [model.name for model in await (await self._opened.open()).backend.models()]
            compiled = compile_pipeline(pipeline, replace(context, models=models))
        if model is not None:
            route = replace(route, model=model)
        return Plan(pipeline=pipeline, compiled=compiled, inputs=inputs, route=route, attached=attached)

    async def default_pipeline(self) -> str:
        """Return the pipeline where none is named: one call of a model that is there to try things out, else more."""
        can = capabilities_of((await self._opened.open()).backend)
        return TRY_OUT_PIPELINE if can.for_trying else DEFAULT_PIPELINE

    async def earlier(self, plan: Plan, conversation: Sequence[Message], *, count: bool) -> EarlierTurns:
        """Return what of the conversation the prompts have room for."""
        if not conversation:
            return NO_TURNS
        stacks = await self._opened.stacks()
        room = await room_for_turns(plan, self.defaults(plan.route), stacks.sizes, count=count)
        return earlier_turns(conversation, MOST_TOKENS if room is None else room, heard=room is not None)

    async def reading(self, plan: Plan, context: CompileContext, conversation: str, *, count: bool) -> Reading | None:
        """Return what is read before the first step, because it is too long; ``None`` where nothing is.

        Raises:
            ContextOverflow: If a prompt cannot fit; nothing was called.
        """
        stacks = await self._opened.stacks()
        run = {"id": "", "pipeline": plan.pipeline.name, "conversation": conversation}
        found = await divisions(plan, self.defaults(plan.route), run, stacks.sizes, count=count)
        return Reading.of(found, context) if found else None

    async def size(self, plan: Plan) -> None:
        """Have the backend become as large as the plan can use it; how wide that is takes networkx to find out."""
        await self._opened.size(lambda: width(plan.compiled) * self._runs_at_once)

    def defaults(self, route: Route) -> ChatRequest:
        """Return a call as the settings want it, without messages."""
        settings = self._opened.settings
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
