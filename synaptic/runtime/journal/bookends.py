"""The first and the last event of a run as rows: what a plan is made of, and what became of the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from synaptic import errors
from synaptic import pipeline as pipelines
from synaptic.errors import RunError, SynapticError
from synaptic.messages import Route
from synaptic.runtime.events import Descent, EndedSteps, RunFinished, RunResult, RunStarted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.messages import Usage
    from synaptic.pipeline import Pipeline
    from synaptic.runtime.events import StepResult
    from synaptic.runtime.journal.encoding import Decoder, Encoder


@dataclass(frozen=True, slots=True)
class PipelineText:
    """A pipeline as it was when the run began.

    Attributes:
        source: What messages call the text: its file, where it has one.
        path: Its file; ``None`` for one that came as text.
    """

    name: str
    text: str
    source: str
    path: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestion:
    """What a person asked, before there is a plan for it.

    Attributes:
        run_id: Of the run that is to answer it.
        at: When, in seconds since the epoch.
        query: ``None`` where the pipeline takes none.
        pipeline: As it was named; ``None`` is the one that the backend decides.
        inputs: Those beside the question.
    """

    run_id: str
    at: float
    query: str | None
    pipeline: str | None
    inputs: Mapping[str, Any]
    documents: Sequence[Mapping[str, str]]
    descent: Descent


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What a run was begun with: enough to plan it again.

    Attributes:
        pipeline: What was run.
        used: The pipelines that it uses, and those that they use, by the path of the step.
        inputs: All inputs, with their defaults.
        question: The question alone, where documents stand behind it in the input ``query``.
        documents: Those documents.
        answer_step: The step whose text is the answer, if one is.
    """

    pipeline: PipelineText
    used: Mapping[str, PipelineText]
    inputs: Mapping[str, Any]
    route: Route
    question: str
    documents: tuple[Mapping[str, str], ...]
    descent: Descent
    answer_step: str | None = None

    @property
    def is_planned(self) -> bool:
        """Whether there was a plan: else it is an :class:`AskedQuestion`, and nothing of it was carried out."""
        return bool(self.pipeline.text)


def tell_question(asked: AskedQuestion, encoder: Encoder) -> dict[str, Any]:
    """Return as JSON, in the form of a first event, what stands in the place of one until there is a plan."""
    query = {} if asked.query is None else {"query": asked.query}
    return {
        "pipeline": {"name": asked.pipeline or "", "text": "", "source": ""},
        "inputs": encoder.value({**asked.inputs, **query}),
        "route": {"backend": "", "reason": ""},
        "question": encoder.text(asked.query or ""),
        "documents": encoder.value(list(asked.documents)),
        "descent": encoder.event(asked.descent),
    }


def tell_beginning(event: RunStarted, encoder: Encoder) -> dict[str, Any]:
    """Return the first event as JSON."""
    plan, descent = event.plan, event.descent
    steps = pipelines.every_step(plan.compiled.graph)
    works = ((path, getattr(step.worker.work, "pipeline", None)) for path, step in steps)
    found = ((path, work.pipeline) for path, work in works if isinstance(work, pipelines.CompiledPipeline))
    used = {path: pipeline for path, pipeline in found if isinstance(pipeline, pipelines.Pipeline)}
    told: dict[str, Any] = {
        "pipeline": _tell_pipeline(plan.pipeline, encoder),
        "inputs": encoder.value(dict(plan.inputs)),
        "route": {name: value for name, value in asdict(plan.route).items() if value is not None},
    }
    if used:
        told["used"] = {path: _tell_pipeline(pipeline, encoder) for path, pipeline in used.items()}
    if plan.attached is not None and plan.attached.documents:
        told["question"] = encoder.text(plan.attached.question)
        told["documents"] = encoder.value(list(plan.attached.documents))
    if plan.answer_step is not None:
        told["answer_step"] = plan.answer_step
    if descent != Descent():
        told["descent"] = encoder.event(descent)
    return told


def read_beginning(told: Mapping[str, Any], decoder: Decoder) -> Beginning:
    """Return what a run was begun with.

    Raises:
        JournalError: If a text of it is damaged.
    """
    used = {path: _read_pipeline(each, decoder) for path, each in told.get("used", {}).items()}
    route = {"node": None, "model": None, **told["route"]}
    return Beginning(
        pipeline=_read_pipeline(told["pipeline"], decoder),
        used=used,
        inputs=decoder.value(told["inputs"]),
        route=Route(**route),
        question=decoder.value(told.get("question", "")),
        documents=tuple(decoder.value(told["documents"])) if "documents" in told else (),
        descent=Descent(**{name: decoder.value(value) for name, value in told.get("descent", {}).items()}),
        answer_step=told.get("answer_step"),
    )


def _tell_pipeline(pipeline: Pipeline, encoder: Encoder) -> dict[str, Any]:
    path = None if pipeline.path is None else str(pipeline.path.absolute())
    told = {"name": pipeline.name, "text": encoder.text(pipeline.document.text), "source": pipeline.document.source}
    return told if path is None else {**told, "path": path}


def _read_pipeline(told: Mapping[str, Any], decoder: Decoder) -> PipelineText:
    return PipelineText(told["name"], decoder.value(told["text"]), told["source"], told.get("path"))


def tell_end(event: RunFinished, encoder: Encoder) -> dict[str, Any]:
    """Return the last event as JSON; the steps are told by events of their own."""
    result = event.result
    told: dict[str, Any] = {
        "status": result.status,
        "answer": encoder.value(result.answer),
        "usage": encoder.event(result.usage),
        "stop_reason": result.stop_reason,
        "started_at": result.started_at,
        "ended_at": result.ended_at,
    }
    error = result.error
    if error is not None:
        message = error.message if isinstance(error, SynapticError) else str(error)
        hint, step = getattr(error, "hint", None), getattr(error, "step", None)
        told["error"] = {"type": type(error).__name__, "message": encoder.cleaned(message)}
        told["error"] |= {name: value for name, value in (("hint", hint), ("step", step)) if value is not None}
    return told


def read_end(
    told: Mapping[str, Any], run_id: str, pipeline: str, steps: Sequence[StepResult], decoder: Decoder
) -> RunFinished:
    """Return the last event of a run.

    Raises:
        JournalError: If a text of it is damaged.
    """
    usage: Usage = decoder.event("Usage", told["usage"])
    return RunFinished(
        RunResult(
            run_id=run_id,
            pipeline=pipeline,
            status=told["status"],
            answer=decoder.value(told["answer"]),
            steps=EndedSteps(steps),
            usage=usage,
            stop_reason=told["stop_reason"],
            started_at=told["started_at"],
            ended_at=told["ended_at"],
            error=_read_error(told["error"]) if "error" in told else None,
        )
    )


def _read_error(told: Mapping[str, Any]) -> SynapticError:
    """Return the error; one that is not ours, or not known any more, comes back as a ``RunError``."""
    kind = getattr(errors, told["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, SynapticError)):
        error: SynapticError = RunError(f"{told['type']}: {told['message']}")
    else:
        # What some of them have beside their message is not kept.
        error = kind.__new__(kind)
        SynapticError.__init__(error, told["message"], hint=told.get("hint"))
    error.step = told.get("step")
    return error
