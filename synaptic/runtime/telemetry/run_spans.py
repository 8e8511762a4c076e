"""The spans of a run, made of its events: the run, its steps, and the calls of models that they make.

A step that calls a model is an ``invoke_agent`` with a ``chat`` inside for each request: a call that is sent again, or
asked again because of its reply, is another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args

from synaptic.messages import FinishReason, Message, Usage
from synaptic.runtime.events import (
    RunFinished,
    RunStarted,
    StepAsked,
    StepContinued,
    StepFinished,
    StepRepaired,
    StepResult,
    StepRetried,
    StepStarted,
)
from synaptic.runtime.step_paths import declared_path
from synaptic.runtime.telemetry import conventions as of
from synaptic.runtime.telemetry.span_steps import (
    Attributes,
    Measured,
    SpanBegins,
    SpanDropped,
    SpanEnds,
    SpanGains,
    SpanNotes,
    SpanStep,
    Value,
    address_of,
    known,
    span_name,
)
from synaptic.runtime.telemetry.told_content import answer_content, prompt_content, tool_content
from synaptic.waiting import steady_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synaptic.messages import ChatRequest
    from synaptic.pipeline import Plan
    from synaptic.runtime.events import Event

RUN: Final = ""
"""The key of the run; those of steps are their paths."""

_FINISHED: Final = frozenset(get_args(FinishReason))


@dataclass(slots=True)
class _Call:
    """One request of a step.

    Attributes:
        before: What the requests of the step before it have used.
        asked: Attributes that are also those of its metrics.
    """

    key: str
    began: float
    before: Usage
    asked: Attributes


class RunSpans:
    """What is to be done with spans as a run goes on; keeps what is open.

    Args:
        content: Whether prompts, answers and what quotes them are told, too.
        clock: The time, in seconds since the epoch, of what has none of its own.
    """

    def __init__(self, *, content: bool, clock: Callable[[], float] = steady_time) -> None:
        self._content = content
        self._clock = clock
        self._plan: Plan | None = None
        self._tools: dict[str, str] | None = None
        self._open: dict[str, _Call | None] = {}
        self._calls = 0
        self._readers: dict[type[Any], Callable[[Any], Iterable[SpanStep]]] = {
            RunStarted: self._run_started,
            StepStarted: self._started,
            StepAsked: self._asked,
            StepRetried: self._retried,
            StepContinued: self._continued,
            StepRepaired: self._repaired,
            StepFinished: self._finished,
            RunFinished: self._run_finished,
        }

    def read(self, event: Event) -> Iterable[SpanStep]:
        """Return what an event means; of most, nothing."""
        reader = self._readers.get(type(event))
        return () if reader is None else reader(event)

    def _run_started(self, event: RunStarted) -> Iterable[SpanStep]:
        if RUN in self._open:
            return
        self._open[RUN] = None
        plan, name = event.plan, event.plan.pipeline.name
        self._plan = plan
        about = {
            of.OPERATION: of.INVOKE_WORKFLOW,
            of.WORKFLOW: name,
            of.RUN_ID: event.run_id,
            of.CONVERSATION: event.descent.session,
        }
        query = plan.inputs.get("query")
        asked = tool_content(plan.inputs) if self._content and query is None else query
        content = _question(str(asked)) if self._content else {}
        name = span_name(of.INVOKE_WORKFLOW, name)
        yield SpanBegins(RUN, name, "internal", None, event.at, {**known(about), **content})

    def _started(self, event: StepStarted) -> Iterable[SpanStep]:
        path, tool = event.path, self._tool(event.path) if event.kind == "tool" else None
        calls = event.backend is not None
        about: dict[str, Value | None] = {of.STEP_PATH: path, of.STEP_KIND: event.kind, of.AGENT: event.agent}
        if calls:
            name = span_name(of.INVOKE_AGENT, event.agent)
            about |= {of.OPERATION: of.INVOKE_AGENT, of.PROVIDER: event.backend, of.REQUEST_MODEL: event.model}
        elif event.kind == "tool":
            name = span_name(of.EXECUTE_TOOL, tool)
            about |= {of.OPERATION: of.EXECUTE_TOOL, of.TOOL: tool, of.TOOL_TYPE: "function"}
        else:
            name = span_name(event.kind, declared_path(path).rpartition(".")[2])
        yield SpanBegins(path, name, "internal", self._around(path), event.at, known(about))
        self._open[path] = None
        if calls:
            asked = {of.OPERATION: of.CHAT, of.PROVIDER: event.backend, of.REQUEST_MODEL: event.model}
            yield self._call(path, 1, event.at, Usage(), known(asked))

    def _call(self, path: str, attempt: int, at: float, before: Usage, asked: Attributes) -> SpanBegins:
        self._calls += 1
        call = self._open[path] = _Call(f"{path}#{self._calls}", at, before, asked)
        attributes = {**asked, of.STREAM: True, of.ATTEMPT: attempt}
        return SpanBegins(call.key, span_name(of.CHAT, _text(asked, of.REQUEST_MODEL)), "client", path, at, attributes)

    def _asked(self, event: StepAsked) -> Iterable[SpanStep]:
        call = self._open.get(event.path)
        if event.request is not None and call is not None:
            content = prompt_content(event.request.messages) if self._content else {}
            yield SpanGains(call.key, {**_parameters(event.request), **content})
        elif event.tool is not None and self._content and event.path in self._open:
            yield SpanGains(event.path, {of.TOOL_ARGUMENTS: tool_content(event.arguments)})

    def _retried(self, event: StepRetried) -> Iterable[SpanStep]:
        call = self._open.get(event.path)
        if call is None:
            if event.path in self._open:
                yield SpanNotes(event.path, "retry", {of.ATTEMPT: event.attempt})
            return
        now = self._clock()
        yield from self._failed(call, now, event.error, Usage())
        asked = {**call.asked, **known({of.REQUEST_MODEL: event.model})}
        yield self._call(event.path, event.attempt, now, call.before, asked)

    def _repaired(self, event: StepRepaired) -> Iterable[SpanStep]:
        call = self._open.get(event.path)
        if call is None:
            return
        reply, now = event.reply, self._clock()
        usage = call.before if reply is None else reply.usage
        yield from self._failed(call, now, event.reason, _less(usage, call.before), "unusable_reply")
        attempt = 1 if reply is None else reply.attempts
        yield self._call(event.path, attempt + 1, now, usage, call.asked)

    def _continued(self, event: StepContinued) -> Iterable[SpanStep]:
        call = self._open.get(event.path)
        if call is not None:
            yield SpanNotes(call.key, of.CONTINUED, address_of(event.node))

    def _failed(
        self, call: _Call, at: float, said: str, used: Usage, error: str = of.OTHER_ERROR
    ) -> Iterable[SpanStep]:
        """End a call after which there is another one."""
        yield SpanEnds(call.key, at, _usage(used), error, said if self._content else "")
        yield from _measured(call, at, used, {of.ERROR_TYPE: error})

    def _finished(self, event: StepFinished) -> Iterable[SpanStep]:
        result, path = event.result, event.result.id
        if path not in self._open:
            return
        at = self._clock() if result.ended_at is None else result.ended_at
        failed = result.status == "failed" or result.error is not None
        error, message = (of.OTHER_ERROR, result.error or "") if failed else (None, "")
        message = message if self._content else ""
        call = self._open.pop(path)
        if call is not None:
            yield from self._call_ended(call, result, at, error, message)
        about = {
            of.STEP_STATUS: result.status,
            of.STOP_REASON: result.stop_reason,
            of.REUSED: (result.reused or result.cached) or None,
        }
        content: dict[str, Value] = {}
        if self._content and result.kind == "tool":
            content = {of.TOOL_RESULT: tool_content(result.output)}
        elif self._content and call is not None:
            content = answer_content(result.output, result.stop_reason)
        yield SpanEnds(path, at, {**known(about), **_usage(result.usage), **content}, error, message)

    def _call_ended(
        self, call: _Call, result: StepResult, at: float, error: str | None, message: str
    ) -> Iterable[SpanStep]:
        if result.cached or result.reused:
            yield SpanDropped(call.key)
            return
        used = _less(result.usage, call.before)
        about: dict[str, Value | None] = {
            of.RESPONSE_MODEL: result.model,
            of.FIRST_CHUNK: result.first_token_seconds,
            **address_of(result.node),
        }
        reason = result.stop_reason
        if reason in _FINISHED:
            about[of.FINISH_REASONS] = (str(reason),)
        content = answer_content(result.output, reason) if self._content else {}
        yield SpanEnds(call.key, at, {**known(about), **_usage(used), **content}, error, message)
        labels = {of.RESPONSE_MODEL: result.model, **address_of(result.node), of.ERROR_TYPE: error}
        yield from _measured(call, at, used, known(labels), result.first_token_seconds)

    def _run_finished(self, event: RunFinished) -> Iterable[SpanStep]:
        result = event.result
        if RUN not in self._open:
            return
        del self._open[RUN]
        for path, call in reversed(self._open.items()):  # steps that were cut off before they could say so
            yield from () if call is None else (SpanEnds(call.key, result.ended_at, {}),)
            yield SpanEnds(path, result.ended_at, {of.STEP_STATUS: "cancelled"})
        self._open.clear()
        about = known({of.RUN_STATUS: result.status, of.STOP_REASON: result.stop_reason})
        content = answer_content(result.answer, "stop") if self._content else {}
        error = None if result.error is None else type(result.error).__name__
        message = str(result.error) if self._content and result.error is not None else ""
        yield SpanEnds(RUN, result.ended_at, {**about, **_usage(result.usage), **content}, error, message)

    def _tool(self, path: str) -> str | None:
        """Return the name of the tool that a step calls; the rows of a plan take time, and few pipelines have tools."""
        if self._tools is None:
            rows = () if self._plan is None else self._plan.rows()
            self._tools = {row.path: row.what for row in rows if row.work == "tool"}
        return self._tools.get(declared_path(path))

    def _around(self, path: str) -> str:
        """Return the key of what a step is in: of ``refine[1].critique``, ``refine[1]`` or ``refine``, as is open."""
        while path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
            if path in self._open:
                return path
        return RUN


def _measured(
    call: _Call, at: float, used: Usage, labels: Attributes, first_seconds: float | None = None
) -> Iterable[SpanStep]:
    """Yield the metrics of a call that has ended."""
    labels = {**call.asked, **labels}
    yield Measured(of.DURATION, max(0.0, at - call.began), labels)
    if first_seconds is not None:
        yield Measured(of.TO_FIRST_CHUNK, first_seconds, labels)
    yield from token_measures(used, labels)


def token_measures(used: Usage, labels: Attributes) -> Iterable[SpanStep]:
    """Yield what was used, by its direction."""
    for direction, count in (("input", used.prompt_tokens), ("output", used.completion_tokens)):
        if count:
            yield Measured(of.TOKEN_USAGE, count, {**labels, of.TOKEN_TYPE: direction})


def _parameters(request: ChatRequest) -> dict[str, Value]:
    sampling = request.sampling
    return known(
        {
            of.MAX_TOKENS: request.max_tokens,
            of.TEMPERATURE: request.temperature,
            of.TOP_P: sampling.top_p,
            of.TOP_K: sampling.top_k,
            of.FREQUENCY_PENALTY: sampling.frequency_penalty,
            of.PRESENCE_PENALTY: sampling.presence_penalty,
            of.SEED: request.seed,
            of.STOP: request.stop,
            of.OUTPUT_TYPE: None if request.schema is None else "json",
        }
    )


def _question(text: str) -> dict[str, Value]:
    return prompt_content((Message("user", text),))


def _usage(usage: Usage) -> dict[str, Value]:
    if not usage.total_tokens:
        return {}
    found: dict[str, Value] = {of.INPUT_TOKENS: usage.prompt_tokens, of.OUTPUT_TOKENS: usage.completion_tokens}
    return {**found, of.CACHED_TOKENS: usage.cached_tokens} if usage.cached_tokens else found


def _less(usage: Usage, before: Usage) -> Usage:
    return Usage(
        max(0, usage.prompt_tokens - before.prompt_tokens),
        max(0, usage.completion_tokens - before.completion_tokens),
        max(0, usage.cached_tokens - before.cached_tokens),
    )


def _text(attributes: Attributes, name: str) -> str:
    return str(attributes.get(name, ""))
