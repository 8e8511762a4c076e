"""A run's result as the one JSON document that ``--json`` prints."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synaptic.messages import Usage
    from synaptic.runtime.events import RunResult, StepResult


def run_document(result: RunResult) -> dict[str, Any]:
    """Return the result as JSON data; times are ISO 8601 in UTC, durations are seconds."""
    return {
        "run_id": result.run_id,
        "pipeline": result.pipeline,
        "status": result.status,
        "answer": result.answer,
        "steps": [step_document(step) for step in result.steps],
        "usage": _usage(result.usage),
        "stop_reason": result.stop_reason,
        "error": error_document(result.error),
        "started_at": timestamp(result.started_at),
        "ended_at": timestamp(result.ended_at),
    }


def step_document(step: StepResult) -> dict[str, Any]:
    """Return how a step ended as JSON data."""
    return {
        "id": step.id,
        "kind": step.kind,
        "agent": step.agent,
        "status": step.status,
        "model": step.model,
        "backend": step.backend,
        "node": step.node,
        "attempts": step.attempts,
        "usage": _usage(step.usage),
        "timings": {**asdict(step.timings), "first_token_seconds": step.first_token_seconds},
        "started_at": timestamp(step.started_at),
        "ended_at": timestamp(step.ended_at),
        "output": step.output,
        "error": step.error,
        "stop_reason": step.stop_reason,
        "cached": step.cached,
        "reused": step.reused,
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {**asdict(usage), "total_tokens": usage.total_tokens}


def error_document(error: Exception | None) -> dict[str, Any] | None:
    """Return what a run failed of as JSON data, and in which step."""
    if error is None:
        return None
    return {
        "type": type(error).__name__,
        "message": getattr(error, "message", str(error)),
        "step": getattr(error, "step", None),
    }


def timestamp(seconds: float | None) -> str | None:
    """Return a time as documents have it: ISO 8601 in UTC, to the millisecond."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
