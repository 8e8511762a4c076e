"""From a prompt to the parts of a reply and how it ended."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synaptic.backends import read_logprobs
from synaptic.server.ollama_api.generation_options import GenerationOptions, repeat_window, token_budget
from synaptic.server.ollama_api.refusals import runner_failed, token_repeated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from synaptic.messages import TokenLogprob
    from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine

MOST_REPEATS = 100  # of one token in a row; more and Ollama gives the reply up


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a reply, and the log-probabilities of its tokens where they were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """How a reply ended. ``reason`` is "stop" or "length"; durations are in nanoseconds."""

    text: str
    reason: str
    prompt_tokens: int
    prompt_duration: int
    tokens: int
    duration: int


def engine_body(
    prompt: str | list[int],
    options: GenerationOptions,
    context: int,
    constraint: Mapping[str, Any],
    *,
    logprobs: int | None = None,
) -> dict[str, Any]:
    """Return the body of a completion: every parameter is said, so that none is the engine's own default."""
    return {
        "prompt": prompt,
        "stream": True,
        "cache_prompt": True,
        "n_predict": token_budget(options.num_predict, context),
        "n_keep": options.num_keep,
        "seed": options.seed,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "typical_p": options.typical_p,
        "repeat_last_n": repeat_window(options.repeat_last_n, context),
        "repeat_penalty": options.repeat_penalty,
        "presence_penalty": options.presence_penalty,
        "frequency_penalty": options.frequency_penalty,
        "stop": list(options.stop),
        "n_probs": 0 if logprobs is None else max(logprobs, 1),
        **constraint,
    }


async def generate(engine: EmbeddedEngine, body: Mapping[str, Any]) -> AsyncGenerator[Part | End, None]:
    """Yield the parts of a reply and, last, its end; closing this ends the generation.

    Raises:
        Refusal: If the engine refuses, fails, dies, or says one token over and over.
    """
    last, repeats = None, 0
    async with aclosing(engine.complete(body)) as events:
        async for event in events:
            text = str(event.get("content") or "")
            last, repeats = (last, repeats + 1) if text.strip() == last else (text.strip(), 0)
            if repeats > MOST_REPEATS:
                raise token_repeated()
            if event.get("stop"):
                yield end_of(event, text)
                return
            logprobs = read_logprobs(event.get("completion_probabilities"))
            if text or logprobs:
                yield Part(text, logprobs)
    raise runner_failed("unexpected EOF")


def end_of(event: Mapping[str, Any], text: str) -> End:
    """Return what the last event of a completion says."""
    timings = event.get("timings") or {}
    return End(
        text=text,
        reason="length" if event.get("stop_type") == "limit" else "stop",
        prompt_tokens=int(timings.get("prompt_n") or 0) + int(timings.get("cache_n") or 0),
        prompt_duration=_nanoseconds(timings.get("prompt_ms")),
        tokens=int(timings.get("predicted_n") or 0),
        duration=_nanoseconds(timings.get("predicted_ms")),
    )


def _nanoseconds(milliseconds: Any) -> int:
    return int(float(milliseconds or 0) * 1_000_000)
