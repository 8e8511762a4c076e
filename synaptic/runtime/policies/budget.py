"""What a pipeline may use at most, counted while it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, assert_never

from synaptic.errors import BudgetExceeded
from synaptic.messages import Continued, Delta, Finished, Restarted, Shortened, ThoughtSoFar
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk


class Budget(Protocol):
    """Bounds on one pipeline; ``None`` is unbounded. ``tokens`` are those of prompts and replies together."""

    @property
    def tokens(self) -> int | None:
        """Tokens of all prompts and replies."""
        ...

    @property
    def calls(self) -> int | None:
        """Requests, retries and repairs included."""
        ...

    @property
    def seconds(self) -> float | None:
        """Time from the first step to the last."""
        ...


class BudgetMeter:
    """Counts what one pipeline inside a run has used, and says when it is too much.

    What is used is used by every pipeline around this one, too. Time is measured by the executor: the meter
    only knows the bound.

    Args:
        budget: The bounds; ``None`` sets none.
        parent: The meter of the pipeline around this one.

    Attributes:
        tokens: Used so far.
        most_tokens: How many there are; ``None`` is unbounded.
        most_calls: The same of calls.
        seconds: The same of time.
        reached: The bound that was reached, of tokens and calls.
        root: The meter of the outermost pipeline: one for each run.
        is_limited: Whether there is a bound on tokens or calls, here or further out.
    """

    def __init__(self, budget: Budget | None = None, parent: BudgetMeter | None = None) -> None:
        self.tokens = 0
        self.calls = 0
        self.most_tokens = None if budget is None else budget.tokens
        self.most_calls = None if budget is None else budget.calls
        self.seconds = None if budget is None else budget.seconds
        self.clock: asyncio.Timeout | None = None
        self.reached: str | None = None
        self._chain: tuple[BudgetMeter, ...] = (self,) if parent is None else (self, *parent.chain)
        self.root = self._chain[-1]
        self.is_limited = any(meter.most_tokens is not None or meter.most_calls is not None for meter in self._chain)

    @property
    def chain(self) -> tuple[BudgetMeter, ...]:
        """This meter and those around it, from the inside out."""
        return self._chain

    @property
    def spent(self) -> str | None:
        """Which bound was reached, here or further out, as ``budget: calls``; ``None`` where none was."""
        for meter in self._chain:
            late = meter.clock is not None and meter.clock.expired()
            if meter.reached is not None or late:
                return f"budget: {meter.reached or 'seconds'}"
        return None

    def begin_call(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            BudgetExceeded: If the calls or the tokens are used up, here or further out; nothing is counted then.
        """
        for meter in self._chain:
            if meter.most_calls is not None and meter.calls >= meter.most_calls:
                raise meter.used_up("calls", meter.most_calls)
            if meter.most_tokens is not None and meter.tokens >= meter.most_tokens:
                raise meter.used_up("tokens", meter.most_tokens)
        for meter in self._chain:
            meter.calls += 1

    def add_tokens(self, count: int) -> None:
        """Count tokens.

        Raises:
            BudgetExceeded: If they are more than there were; they are counted all the same.
        """
        self.correct_tokens(count)
        for meter in self._chain:
            if meter.most_tokens is not None and meter.tokens > meter.most_tokens:
                raise meter.used_up("tokens", meter.most_tokens)

    def correct_tokens(self, count: int) -> None:
        """Count tokens of a reply that is complete, fewer than none to take some back; never raises."""
        for meter in self._chain:
            meter.tokens += count

    def time_is_up(self) -> BudgetExceeded:
        """Return the error for a pipeline that has used up its seconds."""
        return self.used_up("seconds", f"{self.seconds:g}")

    def used_up(self, what: str, limit: int | str) -> BudgetExceeded:
        """Return the error that says so; from now on it is so."""
        self.reached = what
        return BudgetExceeded(f"the budget of {limit} {what} is used up", what=what, meter=self)


class Metered(BackendWrapper):
    """Counts calls and tokens, and ends a stream the moment the budget is used up.

    A delta counts as one token until the end of the reply says how many there were in the prompt and in the
    reply. A reply that is complete is never thrown away for the tokens of its prompt: the next call is refused.
    """

    def __init__(self, inner: Backend, meter: BudgetMeter) -> None:
        super().__init__(inner)
        self._meter = meter

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply.

        Raises:
            BudgetExceeded: If the budget is used up; before anything is sent, or in mid-stream.
        """
        return self._metered(request) if self._meter.is_limited else self.inner.stream(request)

    async def _metered(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        meter = self._meter
        meter.begin_call()
        counted = 0
        chunks = as_generator(self.inner.stream(request))
        try:
            async for chunk in chunks:
                match chunk:
                    case Delta() if chunk.text or chunk.thinking or chunk.tool_calls:
                        counted += 1
                        meter.add_tokens(1)
                    case Finished() if chunk.usage is not None:
                        meter.correct_tokens(chunk.usage.total_tokens - counted)
                    case Delta() | ThoughtSoFar() | Finished() | Restarted() | Continued() | Shortened():
                        pass
                    case _:
                        assert_never(chunk)
                yield chunk
        finally:
            await chunks.aclose()
