"""Pipelines as models: what the agents do is thinking, the answer is the text, and usage is that of all calls."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from synaptic.backends import features_of
from synaptic.errors import FeatureMissing, ModelNotFound, RequestRejected
from synaptic.messages import Delta, Finished, Message, ModelInfo, Restarted
from synaptic.pipeline import ClientText, answer_path
from synaptic.runtime import (
    RunStarted,
    StepFinished,
    StepRepaired,
    StepRetried,
    StepStarted,
    StepThought,
    TokenDelta,
)
from synaptic.server.gateway.run_usage import RunUsage
from synaptic.settings import PIPELINES
from synaptic.text import GrowingText, did_you_mean

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
    from pathlib import Path

    from synaptic.messages import ChatRequest, Chunk, Usage
    from synaptic.runtime import Event, RunResult, Session

_NAME: Final = "pipeline"


class PipelineModels:
    """The pipelines that are served.

    Args:
        session: Runs them.
        pipelines: By name: a built-in one's name, or the file of another.
    """

    def __init__(self, session: Session, pipelines: Mapping[str, str | Path]) -> None:
        self._session = session
        self._pipelines = pipelines

    @staticmethod
    def has(model: str | None) -> bool:
        """Return whether a model's name is that of a pipeline, served or not."""
        return model is not None and model.startswith(PIPELINES)

    @staticmethod
    def named(pipeline: str) -> str:
        """Return the name of a pipeline as a model's."""
        return PIPELINES + pipeline.removeprefix(PIPELINES)

    def models(self) -> list[ModelInfo]:
        """Return them as models."""
        return [ModelInfo(name=f"{PIPELINES}{name}") for name in self._pipelines]

    async def stream(
        self, request: ChatRequest, count: Callable[[Usage], None] = lambda _: None
    ) -> AsyncGenerator[Chunk, None]:
        """Yield what a run of the pipeline says; closing this, or cancelling its reader, cancels the run.

        ``count`` is told what the run has used, when it has ended before its end.

        Raises:
            ModelNotFound: If no such pipeline is served.
            RequestRejected: If the request asks for what only a model can do, or asks nothing.
            SynapticError: What made the run fail.
        """
        pipeline = self.find(request.model or "")
        _check(request)
        query, conversation = _question(request)
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.create_task(
            self._session.run(
                ClientText(query), pipeline=pipeline, conversation=conversation, on_event=events.put_nowait
            )
        )
        task.add_done_callback(lambda _: events.put_nowait(None))
        told, used = _Told(), RunUsage()
        try:
            while (event := await events.get()) is not None:
                used.hear(event)
                for chunk in told.of(event):
                    yield chunk
            result = await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while not events.empty() and (event := events.get_nowait()) is not None:
                used.hear(event)
            count(used.so_far)
        for chunk in told.ending(result, request.model):
            yield chunk

    def find(self, model: str) -> str | Path:
        """Return the pipeline that a model is: a built-in one's name, or a file.

        Raises:
            ModelNotFound: If no such pipeline is served.
        """
        name = model.removeprefix(PIPELINES).removesuffix(":latest")
        found = self._pipelines.get(name)
        if found is None:
            hint = did_you_mean(name, self._pipelines)
            raise ModelNotFound(f"model '{model}' not found: there is no pipeline {name!r}", hint=hint)
        return found


def _check(request: ChatRequest) -> None:
    """Refuse what a model is asked for and a pipeline decides itself.

    Raises:
        RequestRejected: If the request has any of it.
    """
    if missing := sorted(features_of(request)):
        raise FeatureMissing(
            f"a pipeline cannot do {', '.join(missing)}: its agents decide that themselves", missing=tuple(missing)
        )
    if request.schema is not None:
        raise FeatureMissing("a pipeline answers in the shape of its own result", missing=("format",))


def _question(request: ChatRequest) -> tuple[str, tuple[Message, ...]]:
    """Return the question, which is the last thing that the user said, and the turns before it.

    What the system is told stands before the question: agents have instructions of their own.
    """
    *before, last = request.messages or (Message("user", ""),)
    if last.role != "user" or not last.content.strip():
        raise RequestRejected("the last message must be the user's question")
    told = [message.content for message in before if message.role == "system" and message.content.strip()]
    query = "\n\n".join([*told, last.content])
    return query, tuple(message for message in before if message.role in {"user", "assistant"})


class _Told:
    """What of a run a client has got."""

    def __init__(self) -> None:
        self._answer: str | None = None
        self._text = GrowingText()

    def of(self, event: Event) -> Iterator[Chunk]:
        """Yield what an event tells: texts of steps once they are whole, and the answer as it is written."""
        match event:
            case RunStarted():
                self._answer = answer_path(event.plan.compiled)
            case StepStarted():
                yield Delta(thinking=f"{event.path}{_by(event.agent)} begins\n")
            case TokenDelta() if event.path == self._answer:
                self._text.add(event.text)
                yield Delta(event.text)
            case StepRetried() | StepRepaired() | StepThought() if event.path == self._answer and self._text:
                self._text = GrowingText()
                yield Restarted(2, "the step of the answer begins anew")
            case StepFinished() if event.result.id != self._answer:
                yield Delta(thinking=_ended(event))
            case _:
                pass

    def ending(self, result: RunResult, model: str | None) -> Iterator[Chunk]:
        """Yield what is still to be told once the run has ended.

        Raises:
            SynapticError: What made it fail.
        """
        if result.error is not None and result.status != "stopped":
            raise result.error
        answer = result.answer if isinstance(result.answer, str) else json.dumps(result.answer, ensure_ascii=False)
        told = str(self._text)
        if told.strip() == answer.strip():
            rest = ""
        elif answer.startswith(told):
            rest = answer[len(told) :]
        else:
            yield Restarted(2, "the answer is another one than what was written")
            rest = answer
        if rest:
            yield Delta(rest)
        cut = result.status == "stopped" or result.stop_reason == "length"
        yield Finished("length" if cut else "stop", usage=result.usage, model=model, node=_NAME)


def _by(agent: str | None) -> str:
    return f" ({agent})" if agent else ""


def _ended(event: StepFinished) -> str:
    result = event.result
    if result.status != "succeeded":
        why = result.error or result.stop_reason
        return f"{result.id}: {result.status}" + (f" ({why})\n" if why else "\n")
    output: Any = result.output
    if result.kind != "agent" or output is None:
        return ""
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return f"{result.id}: {text.strip()}\n\n"
