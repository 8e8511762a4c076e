"""Calls of agents: which model, with which bounds, and what becomes of several samples or a choice."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from synaptic.agents import IntegerType, NumberType
from synaptic.messages import Timeouts
from synaptic.pipeline.graph import CallPolicy, CompiledCall, CompiledSamples
from synaptic.pipeline.templates import Template

if TYPE_CHECKING:
    from synaptic.agents import Agent, Shape
    from synaptic.pipeline.checking import SourceFile, View
    from synaptic.pipeline.kinds.kind import Outline
    from synaptic.pipeline.spec import Select, StepKeys
    from synaptic.text import KeyPath

DEFAULT_JUDGES = ("judge", "critic")
"""The agents that rate samples where the step does not say: the first of them that there is."""

_RATE = """\
{{ prompt }}

This is an answer to the above. Rate it:

{{ candidate }}
"""
_MERGE = """\
{{ prompt }}

Several answers were given to the above:
{% for candidate in candidates %}

Answer {{ loop.index }}:
{{ candidate }}
{% endfor %}

Write the one answer that is right and complete: take the best of each, and leave out what is wrong.
"""

_Origin: TypeAlias = Literal["", "step", "agent_models", "agent", "defaults"]


class _Model(NamedTuple):
    name: str | None
    origin: _Origin


def compile_call(
    file: SourceFile, outline: Outline, agent: Agent, prompt: Template, shape: Shape | None, *, view: View
) -> CompiledCall:
    """Return the step's call. What the step leaves out comes from the agent, then from the pipeline's defaults."""
    spec, defaults = outline.spec, file.defaults
    model = _model(file, spec.model, agent)
    _check_models(file, outline, agent, model)
    most, usual = _limits(file, spec.max_tokens, agent, shape)
    return CompiledCall(
        agent=agent,
        prompt=prompt,
        shape=shape,
        model=model.name,
        model_origin=model.origin,
        temperature=_first(spec.temperature, agent.temperature, defaults.temperature),
        max_tokens=most,
        usual_tokens=usual,
        num_ctx=defaults.num_ctx,
        timeouts=_timeouts(file, spec),
        repairs=_first(spec.retry.repairs, defaults.retry.repairs),
        policy=_policy(file, spec),
        hears=file.conversation and view.hears(prompt.references),
    )


def compile_samples(file: SourceFile, outline: Outline, call: CompiledCall | None) -> CompiledSamples | None:
    """Return how one answer comes of the step's samples, or ``None`` after reporting that no agent can judge them."""
    spec = outline.spec
    select: Select = spec.select or "best"
    if spec.samples is None:
        return None
    judge: CompiledCall | None = None
    if select != "vote":
        path: KeyPath = (*outline.path, "judge" if spec.judge else "samples")
        name = spec.judge or (_default_judge(file) if select == "best" else spec.agent or "")
        # The step's own agent was looked for already.
        agent = outline.agent if name == spec.agent and not spec.judge else file.find_agent(name, path)[0]
        if agent is None or call is None or not (select == "merge" or _rates(file, agent, path)):
            return None
        judge = _judge(file, outline, call, agent, merges=select == "merge")
    return CompiledSamples(count=spec.samples, select=select, judge=judge)


def _default_judge(file: SourceFile) -> str:
    known = (name for name in DEFAULT_JUDGES if name in file.local or name in file.agents)
    return next(known, DEFAULT_JUDGES[0])


def _rates(file: SourceFile, agent: Agent, path: KeyPath) -> bool:
    fields = agent.output.root.fields if agent.output is not None else ()
    if any(part.name == "score" and isinstance(part.type, (NumberType, IntegerType)) for part in fields):
        return True
    message = f"the agent {agent.name!r} cannot rate samples: its output has no number 'score'"
    file.report.at_value(message, path, "name another one with 'judge', or write 'select: vote' or 'select: merge'")
    return False


def _judge(file: SourceFile, outline: Outline, call: CompiledCall, agent: Agent, *, merges: bool) -> CompiledCall:
    # The judge is asked where the samples came from, so the step's model is the one that is there.
    spec, defaults = outline.spec, file.defaults
    own = _Model(spec.model, "step") if spec.model and agent.model is None else _model(file, None, agent)
    if agent is not outline.agent:
        path = (*outline.path, "judge" if spec.judge else "samples")
        file.check_agent_model(agent, path, routed=spec.backend is None)
    shape = outline.shape if merges else agent.output
    most, usual = _limits(file, call.max_tokens if merges else None, agent, shape)
    return CompiledCall(
        agent=agent,
        prompt=_judge_prompt(merges=merges),
        shape=shape,
        model=own.name,
        model_origin=own.origin,
        temperature=_first(agent.temperature, defaults.temperature),
        max_tokens=most,
        usual_tokens=usual,
        num_ctx=call.num_ctx,
        timeouts=call.timeouts,
        repairs=call.repairs,
        policy=call.policy,
    )


@cache
def _judge_prompt(*, merges: bool) -> Template:
    return Template.compile(_MERGE if merges else _RATE)


def _model(file: SourceFile, named: str | None, agent: Agent) -> _Model:
    """Return the model: the step's, the person's own for the agent, the agent's, else the pipeline's default."""
    chosen = file.context.agent_models.get(agent.name)
    default = file.defaults.model
    if named:
        return _Model(named, "step")
    if chosen:
        return _Model(chosen, "agent_models")
    if agent.model:
        return _Model(agent.model, "agent")
    # What the caller asks for is the run's own model, and goes before the pipeline's default.
    return _Model(default, "defaults") if default and file.context.model is None else _Model(None, "")


def _check_models(file: SourceFile, outline: Outline, agent: Agent, model: _Model) -> None:
    spec, path = outline.spec, outline.path
    file.check_backend(spec.backend, (*path, "backend"))
    routed = spec.backend is None  # which models another backend has is not known here
    if model.origin == "step":
        file.check_model(model.name, (*path, "model"), routed=routed)
    elif model.origin == "agent":
        file.check_agent_model(agent, outline.agent_path, routed=routed)
    elif model.origin == "defaults":
        file.check_model(model.name, ("defaults", "model"), routed=routed)
    for index, fallback in enumerate(spec.fallback_models):
        file.check_model(fallback, (*path, "fallback_models", index), routed=routed)


def _limits(file: SourceFile, named: int | None, agent: Agent, shape: Shape | None) -> tuple[int | None, int | None]:
    """Return the longest reply in tokens, and the one that the person's own settings go before."""
    limit = _first(named, agent.max_tokens, file.defaults.max_tokens)
    return (None, limit) if named is None and shape is None and agent.is_shipped else (limit, None)


def _policy(file: SourceFile, spec: StepKeys) -> CallPolicy:
    defaults = file.defaults
    causes = _first(spec.retry.on, defaults.retry.on)
    return CallPolicy(
        backend=spec.backend,
        attempts=_first(spec.retry.attempts, defaults.retry.attempts),
        retry_on=None if causes is None else frozenset(causes),
        fallback_models=tuple(spec.fallback_models),
        cache_seconds=spec.cache,
        overflow=spec.overflow or defaults.overflow,
    )


def _timeouts(file: SourceFile, spec: StepKeys) -> Timeouts:
    own, defaults = spec.timeout, file.defaults.timeout
    return Timeouts(
        first_token=_first(own.first_token, defaults.first_token),
        idle=_first(own.idle, defaults.idle),
        total=_first(own.total, defaults.total),
    )


_T = TypeVar("_T")


def _first(*values: _T | None) -> _T | None:
    return next((value for value in values if value is not None), None)
