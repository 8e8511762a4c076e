"""The span of one call of a client of the gateway, which the calls of nodes or the run that it makes are in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from synaptic.runtime.telemetry import conventions as of
from synaptic.runtime.telemetry.run_spans import token_measures
from synaptic.runtime.telemetry.span_steps import Measured, SpanBegins, SpanEnds, SpanStep, address_of, known, span_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synaptic.messages import Usage
    from synaptic.runtime.journal import CallStatus
    from synaptic.runtime.telemetry.span_steps import Value

REQUEST: Final = "request"
PROVIDER: Final = "synaptic"


@dataclass(frozen=True, slots=True)
class RequestEnd:
    """How a client's call ended.

    Attributes:
        makes_run: Whether a run answered it, which tells of its own calls.
        first_seconds: From its beginning to the first piece of its reply.
    """

    status: CallStatus
    usage: Usage
    node: str | None
    seconds: float
    first_seconds: float | None
    error: str | None
    makes_run: bool


class RequestSpans:
    """What is to be done with the span of one call.

    Args:
        api: The API that the client speaks.
        model: What it asks.
        embeds: Whether it asks for vectors.
    """

    def __init__(self, api: str, model: str, *, embeds: bool) -> None:
        operation = of.EMBEDDINGS if embeds else of.CHAT
        self._asked = known({of.OPERATION: operation, of.PROVIDER: PROVIDER, of.REQUEST_MODEL: model, of.API: api})
        self._name = span_name(operation, model)
        self._began = 0.0

    def begun(self, at: float) -> Iterable[SpanStep]:
        """Return what its beginning means."""
        self._began = at
        return (SpanBegins(REQUEST, self._name, "server", None, at, self._asked),)

    def ended(self, end: RequestEnd) -> Iterable[SpanStep]:
        """Return what its end means."""
        where: dict[str, Value | None] = {**address_of(end.node)}
        error = None if end.status != "failed" else end.error or of.OTHER_ERROR
        used = {of.INPUT_TOKENS: end.usage.prompt_tokens, of.OUTPUT_TOKENS: end.usage.completion_tokens}
        about = known({**where, **used, of.FIRST_CHUNK: end.first_seconds, of.RUN_STATUS: end.status})
        yield SpanEnds(REQUEST, self._began + end.seconds, about, error)
        labels = {**self._asked, **known({**where, of.ERROR_TYPE: error})}
        yield Measured(of.REQUEST_DURATION, end.seconds, labels)
        if end.first_seconds is not None:
            yield Measured(of.TO_FIRST_TOKEN, end.first_seconds, labels)
        if not end.makes_run:
            yield from token_measures(end.usage, labels)
