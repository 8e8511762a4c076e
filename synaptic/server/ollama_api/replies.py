"""The JSON that goes out. Go leaves out what is empty or zero (``omitempty``), and so do we."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from synaptic.text import encode_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from synaptic.messages import TokenLogprob

Json: TypeAlias = dict[str, Any]

NANOSECONDS = 1_000_000_000


def line(value: Mapping[str, Any]) -> bytes:
    """Return ``value`` as one line of NDJSON."""
    return encode_json(value) + b"\n"


def whole(lines: list[Json], *, chat: bool) -> Json:
    """Return the lines of a stream as the one object that is sent without streaming: the last, with all that was said.

    Ollama gathers text, thinking, calls of tools and log-probabilities.
    """
    places = [line["message"] if chat else line for line in lines]
    name = "content" if chat else "response"
    last = dict(lines[-1])
    gathered: Json = {name: "".join(place.get(name, "") for place in places)}
    if thinking := "".join(place.get("thinking", "") for place in places):
        gathered["thinking"] = thinking
    if calls := [call for place in places for call in place.get("tool_calls", ())]:
        gathered["tool_calls"] = calls
    if logprobs := [entry for line in lines for entry in line.get("logprobs", ())]:
        last["logprobs"] = logprobs
    if chat:
        last["message"] = {**last["message"], **gathered}
    else:
        last |= gathered
    return last


def now() -> str:
    """Return the time in RFC 3339 with nanoseconds, in UTC."""
    seconds, rest = divmod(time.time_ns(), NANOSECONDS)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{_whole_second(seconds)}{fraction}Z"


@lru_cache(maxsize=2)
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def local_time(seconds: float) -> str:
    """Return a time in RFC 3339 with the local offset, as Ollama writes ``expires_at`` and ``modified_at``."""
    text = datetime.fromtimestamp(seconds, UTC).astimezone().isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the last line counts; durations are in nanoseconds."""

    total: int
    load: int
    prompt_tokens: int
    prompt: int
    tokens: int
    generation: int

    def to_json(self) -> Json:
        """Return the fields; what is zero is left out."""
        named = {
            "total_duration": self.total,
            "load_duration": self.load,
            "prompt_eval_count": self.prompt_tokens,
            "prompt_eval_duration": self.prompt,
            "eval_count": self.tokens,
            "eval_duration": self.generation,
        }
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """How one of the two endpoints names things.

    Attributes:
        model: The name that the request used; Ollama echoes it.
        chat: Whether text is a message (``/api/chat``) or a ``response`` (``/api/generate``).
    """

    model: str
    chat: bool

    def said(
        self, text: str, *, thinking: str = "", tool_calls: list[Json] | None = None, logprobs: list[Json] | None = None
    ) -> Json:
        """Return one line of a stream."""
        line: Json = {**self._head(text), "done": False}
        place = line["message"] if self.chat else line
        if thinking:
            place["thinking"] = thinking
        if tool_calls:
            place["tool_calls"] = tool_calls
        if logprobs:
            line["logprobs"] = logprobs
        return line

    def rendered(self, prompt: str) -> Json:
        """Return what tells a prompt instead of a reply."""
        return {**self.said(""), "_debug_info": {"rendered_template": prompt}}

    def ended(self, text: str, reason: str, metrics: Metrics | None = None, context: list[int] | None = None) -> Json:
        """Return the last line, or the only one; ``context`` are the tokens of the whole exchange."""
        return {**self._head(text), **ending(reason, metrics, context)}

    def _head(self, text: str) -> Json:
        body: Json = {"message": {"role": "assistant", "content": text}} if self.chat else {"response": text}
        return {"model": self.model, "created_at": now(), **body}


def ending(reason: str, metrics: Metrics | None = None, context: list[int] | None = None) -> Json:
    """Return what the last line has beyond others; ``context`` are the tokens of the whole exchange."""
    tail: Json = {"done": True, "done_reason": reason}
    if context:
        tail["context"] = context
    return {**tail, **(metrics.to_json() if metrics else {})}


def logprob_entries(entries: Iterable[TokenLogprob]) -> list[Json]:
    """Return log-probabilities as the lines of a reply have them."""
    told = [(entry, [_entry_of(other) for other in entry.top]) for entry in entries]
    return [{**_entry_of(entry), **({"top_logprobs": top} if top else {})} for entry, top in told]


def _entry_of(entry: TokenLogprob) -> Json:
    octets = {} if entry.bytes is None else {"bytes": list(entry.bytes)}
    return {"token": entry.token, "logprob": entry.logprob, **octets}


def human_number(count: int) -> str:
    """Return a number of parameters as Ollama shows it: 134.52M, 8.0B."""
    for scale, letter, digits in ((1e9, "B", 1), (1e6, "M", 2), (1e3, "K", 0)):
        if count >= scale:
            number = count / scale
            return f"{number:.{0 if number.is_integer() else digits}f}{letter}"
    return str(count)
