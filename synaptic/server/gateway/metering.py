"""What each call of a client has used: counted while it runs, noted when it ends, held against what its key may use."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Self

from synaptic.backends.pool import prompt_tokens
from synaptic.errors import SynapticError
from synaptic.messages import Continued, Delta, Finished, Restarted, Usage
from synaptic.runtime import RequestEnd, UsedCall
from synaptic.server.gateway.key_ring import key_asking
from synaptic.server.gateway.refusal import BUSY, Refusal
from synaptic.settings import PIPELINES
from synaptic.trace_context import TRACEPARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synaptic.messages import ChatRequest, Chunk
    from synaptic.runtime import CallStatus, RequestTeller, Teller
    from synaptic.server.gateway.metrics import GatewayMetrics

LONGEST_NAME: Final = 200  # characters of a model's name that are noted: clients may write anything

_DIALECT: ContextVar[str] = ContextVar("dialect", default="none")


def speaks(path: str, traceparent: str = "") -> None:
    """Note which API the request speaks that this task answers: its path says it.

    Args:
        path: Of the request.
        traceparent: What the client's trace is called, where this program tells of its own part in it.
    """
    if path.startswith("/v1/messages"):
        dialect = "anthropic"
    elif path.startswith("/v1/"):
        dialect = "openai"
    else:
        dialect = "ollama" if path.startswith("/api/") else "page"
    _DIALECT.set(dialect)
    TRACEPARENT.set(traceparent)


class CallMeter:
    """Counts the calls of all clients.

    Attributes:
        metrics: Are told of each call, once they are set.
        records: Whether calls are noted: the settings may have changed since the program was started.
        telemetry: Is told, too, where the session that serves has one.
        bounded: Is set by a call of a key that has a bound for the day.

    Args:
        note: Takes each call when it has ended.
        clock: The time, in seconds since the epoch.
    """

    def __init__(self, note: Callable[[UsedCall], None] | None = None, clock: Callable[[], float] = time.time) -> None:
        self._note = note
        self.records = True
        self.metrics: GatewayMetrics | None = None
        self.telemetry: Teller | None = None
        self._clock = clock
        self.bounded = asyncio.Event()
        self._day = 0.0
        self._used: Counter[str] = Counter()
        self._under_way: set[MeteredCall] = set()

    @property
    def day(self) -> float:
        """When the day of UTC began that it is, in seconds since the epoch."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        return now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()

    def used_before(self, tokens: Mapping[str, int]) -> None:
        """Take what keys, by name, are known to have used today: also before this program was started, or in others."""
        today = self._of_today()
        for name, used in tokens.items():
            today[name] = max(today[name], used)

    def begin(self, model: str | None, *, embeds: bool = False) -> MeteredCall:
        """Begin a call of the client whose request this task answers: a chat, or one that ``embeds``.

        Raises:
            Refusal: If its key has used up its tokens of today, those of calls under way included.
        """
        key = key_asking()
        if key is not None and key.tokens_a_day is not None:
            self.bounded.set()
            self._check(key.name, key.tokens_a_day)
        return MeteredCall(self, None if key is None else key.name, _DIALECT.get(), model, self._clock(), embeds=embeds)

    def under_way(self, call: MeteredCall, *, goes_on: bool) -> None:
        """Take that a call is under way, or is no longer."""
        if goes_on:
            self._under_way.add(call)
        else:
            self._under_way.discard(call)

    def ended(self, call: UsedCall, first_seconds: float | None) -> None:
        """Take a call that has ended, and in how many seconds its first piece came."""
        if self.metrics is not None:
            self.metrics.ended(call, first_seconds)
        if call.key is not None:
            self._of_today()[call.key] += call.tokens
        if self._note is not None and self.records:
            self._note(call)

    def now(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._clock()

    def _check(self, key: str, most: int) -> None:
        """Refuse a call of a key that has used up its tokens of today, or whose calls under way may have.

        Raises:
            Refusal: If it has.
        """
        used = self._of_today()[key]
        if used >= most:
            tomorrow = datetime.fromtimestamp(self._day, UTC) + timedelta(days=1)
            said = f"the key {key!r} has used its {most} tokens of today; it has new ones at 00:00 UTC"
            raise Refusal(BUSY, said, retry_after=max(1, round(tomorrow.timestamp() - self._clock())))
        if used + sum(call.tokens for call in self._under_way if call.key == key) >= most:
            said = f"the key {key!r} has calls under way that come to the rest of its {most} tokens of today"
            raise Refusal(BUSY, said, retry_after=1)

    def _of_today(self) -> Counter[str]:
        if (day := self.day) != self._day:
            self._day, self._used = day, Counter()
        return self._used


class MeteredCall:
    """One call, counted: use it as a context, in which it ends.

    Attributes:
        key: The name of the client's key.

    Until the node has said how many tokens a reply is, each piece that came counts as one: Ollama and ``llama-server``
    send a piece for each token.
    """

    def __init__(
        self, meter: CallMeter, key: str | None, dialect: str, model: str | None, began: float, *, embeds: bool
    ) -> None:
        self._meter = meter
        self._embeds = embeds
        self._teller: RequestTeller | None = None
        self.key, self._dialect, self._model, self._began = key, dialect, (model or "")[:LONGEST_NAME], began
        self._usage: Usage | None = None
        self._pieces = 0
        self._first_seconds: float | None = None
        self._node: str | None = None
        self._whole = False
        self._asked: tuple[ChatRequest, float | None] | None = None
        self._prompt = 0

    @property
    def tokens(self) -> int:
        """What it has come to so far: of a prompt that its node has not counted yet, an estimate."""
        if self._usage is not None:
            return self._usage.prompt_tokens + self._usage.completion_tokens
        return self._pieces + self._estimated_prompt()

    @property
    def model(self) -> str:
        """What was asked; "" where the call names none."""
        return self._model

    def __enter__(self) -> Self:
        self._meter.under_way(self, goes_on=True)
        if (metrics := self._meter.metrics) is not None:
            metrics.began(self._dialect, self._model)
        if (telemetry := self._meter.telemetry) is not None:
            self._teller = telemetry.request(self._dialect, self._model, embeds=self._embeds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        self._meter.under_way(self, goes_on=False)
        failed: CallStatus = "failed" if isinstance(error, SynapticError) else "cancelled"
        self._end("succeeded" if self._whole else failed, None if kind is None else kind.__name__)

    def asks(self, request: ChatRequest, tokens_a_character: float | None = None) -> None:
        """Note what was asked, for an estimate where the node does not count it to the end."""
        self._asked = request, tokens_a_character

    def _estimated_prompt(self) -> int:
        if self._asked is not None:
            asked, self._asked = self._asked, None  # other calls of the key ask for it, too
            self._prompt = prompt_tokens(*asked)
        return self._prompt

    def take(self, chunk: Chunk) -> None:
        """Take a chunk of the reply."""
        if isinstance(chunk, Delta):
            if chunk.text or chunk.thinking or chunk.tool_calls:
                self.piece(len(chunk.logprobs) or 1)
        elif isinstance(chunk, Finished):
            self.whole(chunk.usage, chunk.node)
        elif (metrics := self._meter.metrics) is not None:
            if isinstance(chunk, Continued):
                metrics.continued()
            elif isinstance(chunk, Restarted):
                metrics.restarted()

    def unread(self, chunk: Delta | Finished) -> None:
        """Take what the server had sent when the client left: it was generated, and has an end where it came so far."""
        if isinstance(chunk, Delta):
            self.take(chunk)
        elif chunk.usage is not None and chunk.usage.completion_tokens >= self._pieces:  # of the whole reply
            self._usage, self._node = chunk.usage, chunk.node

    def piece(self, tokens: int = 1) -> None:
        """Take a piece of the reply."""
        if self._first_seconds is None:
            self._first_seconds = max(0.0, self._meter.now() - self._began)
        self._pieces += tokens

    def so_far(self, usage: Usage) -> None:
        """Take what was counted until now, in the place of pieces."""
        self._usage = usage

    def whole(self, usage: Usage | None, node: str | None = None) -> None:
        """Take the end of a whole reply."""
        self._whole, self._usage, self._node = True, usage, node

    def _end(self, status: CallStatus, error: str | None) -> None:
        usage = self._usage or Usage(completion_tokens=self._pieces)
        estimate = self._estimated_prompt() if self._usage is None and self._pieces else 0
        seconds = max(0.0, self._meter.now() - self._began)
        if self._teller is not None:
            makes_run = self._model.startswith(PIPELINES)  # it tells of its own calls
            end = RequestEnd(status, usage, self._node, seconds, self._first_seconds, error, makes_run)
            self._teller.ended(end)
        self._meter.ended(
            UsedCall(
                at=self._began,
                key=self.key,
                dialect=self._dialect,
                model=self._model,
                node=self._node,
                status=status,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                estimated_tokens=estimate,
                seconds=seconds,
            ),
            self._first_seconds,
        )
