"""What is learned of a model's speed on a node: exponentially weighted means (EWMA) of what its calls took.

A call's expected time is ``overhead + prompt tokens / prompt rate + output tokens / output rate``. A rate is the mean
number of tokens over the mean of the seconds that they took, so that a call counts by its size: a reply of three tokens
that came at once does not make a node fast. The overhead takes up whatever the two rates do not explain, so that the
expectation is right on average also where a server does not say how long it spent on what.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHT = 0.25
"""Of the newest sample. Mesh-LLM weighs 1/8 after 256 samples, LiteLLM keeps ten; a home node changes faster."""

STALE_SECONDS = 600.0
"""After so long without a sample, a slow node is taken for one like its peers: otherwise it would get no call that
could show that it has recovered."""

UNMEASURABLE = 1e-6
"""Seconds that say nothing of a rate."""

KEPT_FIRST_TOKENS = 64
FEW_SAMPLES = 8
MOST_PEERS = 256


@dataclass(slots=True, frozen=True)
class Sample:
    """One complete call, in seconds and tokens.

    Attributes:
        first_token: From sending the request to its first text, loading of the model included.
        total: To the end.
        load: Of ``first_token``, what the server says it spent loading; 0 where it had the model in memory, whatever it
            says then.
        prompt: What the server says it spent on the prompt; ``None`` if it does not say.
        output: The same for the output.
        read: Part of the prompt that the server really read, 0 to 1: what it had in its cache took no time. ``None``
            where that is not known; then the sample says nothing of the prompt rate.
    """

    first_token: float
    total: float
    prompt_tokens: int
    output_tokens: int
    load: float = 0.0
    prompt: float | None = None
    output: float | None = None
    read: float | None = 1.0


@dataclass(slots=True, eq=False)
class _Ratio:
    """Mean tokens over mean seconds, both exponentially weighted."""

    tokens: float = 0.0
    seconds: float = 0.0

    def learn(self, tokens: float, seconds: float) -> float:
        """Return the new ratio."""
        if self.seconds == 0.0:
            self.tokens, self.seconds = tokens, seconds
        else:
            self.tokens += WEIGHT * (tokens - self.tokens)
            self.seconds += WEIGHT * (seconds - self.seconds)
        return self.tokens / self.seconds


@dataclass(slots=True, eq=False)
class Rates:
    """The learned speed of one model on one node; 0 is "not known yet".

    Attributes:
        prompt_rate: Prompt tokens a second.
        output_rate: Output tokens a second.
        overhead: Seconds of a call that the rates do not explain.
        first_token: Seconds to the first token, without loading.
        samples: Calls that this was learned from.
        learned_at: When the latest one was, by the clock of the picker; infinite if that was not said.
        first_tokens: The latest times to the first token, for percentiles.
    """

    prompt_rate: float = 0.0
    output_rate: float = 0.0
    overhead: float = 0.0
    first_token: float = 0.0
    load_seconds: float = 0.0
    samples: int = 0
    learned_at: float = inf
    first_tokens: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_FIRST_TOKENS))
    _prompt: _Ratio = field(default_factory=_Ratio)
    _output: _Ratio = field(default_factory=_Ratio)
    _unexplained: float = 0.0

    def learn(self, sample: Sample, now: float = inf) -> None:
        """Take one complete call in, at the time ``now``."""
        load = sample.load
        first = max(0.0, sample.first_token - load)
        prompt = first if sample.prompt is None else sample.prompt
        read = sample.prompt_tokens * (sample.read or 0.0)
        output = sample.total - sample.first_token if sample.output is None else sample.output
        if read > 0 and prompt > UNMEASURABLE:
            self.prompt_rate = self._prompt.learn(read, prompt)
        if sample.output_tokens > 0 and output > UNMEASURABLE:
            self.output_rate = self._output.learn(sample.output_tokens, output)
        explained = self.seconds(read, sample.output_tokens) - self.overhead + (prompt if sample.read is None else 0.0)
        self._unexplained = self._mean(self._unexplained, sample.total - load - explained)
        self.overhead = max(0.0, self._unexplained)
        self.first_token = self._mean(self.first_token, first)
        self.first_tokens.append(first)
        if load:
            self.load_seconds = self._mean(self.load_seconds, load)
        self.samples += 1
        self.learned_at = now

    def took_at_least(self, first_token: float) -> None:
        """Take in a call that was given up while it had no token yet, after ``first_token`` seconds."""
        if first_token > self.first_token:
            self._unexplained += WEIGHT * (first_token - self.first_token)
            self.overhead = max(0.0, self._unexplained)
            self.first_token = self._mean(self.first_token, first_token)
            self.samples += 1

    def seconds(self, prompt_tokens: float, output_tokens: float) -> float:
        """Return how long such a call is expected to take once it is served."""
        prompt = prompt_tokens / self.prompt_rate if self.prompt_rate else 0.0
        output = output_tokens / self.output_rate if self.output_rate else 0.0
        return self.overhead + prompt + output

    def first_token_quantile(self, share: float) -> float | None:
        """Return the time to the first token that ``share`` of the latest calls met; ``None`` below a few samples."""
        if len(self.first_tokens) < FEW_SAMPLES:
            return None
        ordered = sorted(self.first_tokens)
        return ordered[min(len(ordered), max(1, ceil(share * len(ordered)))) - 1]

    def _mean(self, old: float, new: float) -> float:
        return new if self.samples == 0 or old == 0.0 else old + WEIGHT * (new - old)


def median_rates(known: Iterable[Rates]) -> Rates:
    """Return what a node that has no samples yet is taken for: the median of its peers, field by field.

    The first few hundred that have samples stand for all of a large pool.
    """
    peers = list(islice((rates for rates in known if rates.samples), MOST_PEERS))
    if not peers:
        return Rates()
    return Rates(
        prompt_rate=_median(rates.prompt_rate for rates in peers),
        output_rate=_median(rates.output_rate for rates in peers),
        overhead=_median(rates.overhead for rates in peers),
        first_token=_median(rates.first_token for rates in peers),
        load_seconds=_median(rates.load_seconds for rates in peers),
    )


def _median(values: Iterable[float]) -> float:
    ordered = sorted(value for value in values if value > 0)
    return ordered[len(ordered) // 2] if ordered else 0.0
