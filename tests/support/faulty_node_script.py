"""What a scripted node has and says: its models, its timing, its faults, and the text that answers a request.

The text depends on the request alone, so that two copies of one call answer alike, two different calls do not, and a
reply that was continued elsewhere can be compared with the whole one token for token.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, TypeAlias, get_args

from chat_turns import Turn, said_before

from synaptic.backends.schema_sample import sample_value

Kind: TypeAlias = Literal[
    "ok",
    "error",  # 500 before the headers
    "busy_503",
    "loading",  # 500: the model is being loaded
    "unauthorised",  # 401
    "flaky",  # 500 with ``probability``
    "not_found",  # 404: the model is not there
    "slow",  # everything takes ``factor`` times as long
    "hang_before_headers",
    "slow_headers",  # a byte of the headers every ``seconds``, then as usual
    "hang_after_n",  # ``after`` tokens, then nothing
    "drop_after_n",  # ``after`` tokens, then RST, or FIN where ``reset`` is false
    "error_line_after_n",  # {"error": ...} under status 200
    "malformed_json",  # ``after`` tokens, then a line that is no JSON
    "no_done",  # all tokens and a proper end of the body, without done: true
    "lie_in_ps",  # what is loaded is not listed, what is not loaded is
    "refuse",  # the port refuses; open connections are cut
    "blackhole",  # connections are accepted and never read
]
BROKEN = "this is {no JSON\n"
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h))+")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How the node misbehaves.

    Attributes:
        after: How many tokens come before it; where a reply has fewer, it strikes before ``done``.
        factor: How many times slower everything is (``slow``).
        probability: Of failing (``flaky``).
        seconds: Between the bytes of slow headers; otherwise how long the node takes before the fault.
        reset: Whether a dropped connection ends with RST instead of FIN.
        times: How many calls it strikes; ``None`` for all.
        everything: Whether it strikes the listings too, not only chat, generate and embed.

    """

    kind: Kind = "ok"
    after: int = 2
    factor: float = 10.0
    probability: float = 0.5
    seconds: float = 0.0
    reset: bool = True
    times: int | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"no such fault: {self.kind!r}; there are {', '.join(get_args(Kind))}")


@dataclass(slots=True, kw_only=True)
class Model:
    """An installed model.

    ``vram_share_asked`` is what a load that names ``num_gpu`` gets, ``num_ctx`` the parameter of its Modelfile. Its
    digest is made of its name and its ``content``.
    """

    size: int = 1_000_000_000
    context: int = 8192
    capabilities: tuple[str, ...] = ("completion",)
    vram_share: float = 1.0
    vram_share_asked: float | None = None
    num_ctx: int | None = None
    content: str = ""


@dataclass(slots=True, kw_only=True)
class Config:
    """What the node has and how fast it is; seconds are for the call, the token of the prompt, the token of the reply.

    Attributes:
        models: By name. As a list of names they are models of the usual kind.
        loaded: Names of those that are loaded at the start, with the default context.
        load_seconds: What loading a model takes.
        warm_load_seconds: What it says that a loaded model took to load.
        tokens: How many tokens a reply has; ``None`` for as many as ``num_predict`` asks for.
        text: What every reply says, instead of a text that depends on the request.
        parallel: How many calls are served at once; the rest waits inside, first come, first served.
        max_queue: How many may wait; one more is refused with 503.
        max_loaded: How many models may be loaded; one more unloads the one that was idle longest.
        prefix_cache: Whether the beginning that a prompt shares with an earlier one costs nothing.
        default_context: Context of a load that does not say ``num_ctx``; such a call wants it back, as where
            ``OLLAMA_CONTEXT_LENGTH`` is set.
        version: What ``/api/version`` says.
        turn: What the template does with a last message of the assistant.
        renders: Whether it tells a prompt that it is asked for, as Ollama does since 2025.
        manages: Whether it has the routes that change models.
        library: What can be pulled: the bytes of each layer, by the model's full name. A layer waits in its middle
            until the node's gate is open.

    """

    models: dict[str, Model] = field(default_factory=lambda: {"m": Model()})
    loaded: tuple[str, ...] = ()
    load_seconds: float = 0.0
    warm_load_seconds: float = 0.0
    seconds_per_call: float = 0.0
    seconds_per_prompt_token: float = 0.0
    seconds_per_token: float = 0.0
    tokens: int | None = 8
    text: str | None = None
    parallel: int = 1
    max_queue: int = 512
    max_loaded: int = 3
    prefix_cache: bool = False
    default_context: int = 4096
    version: str = "0.12.6"
    turn: Turn = "open"
    renders: bool = True
    manages: bool = True
    library: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models = as_models(self.models)


@dataclass(frozen=True, slots=True)
class Script:
    """What answers one call; the first tokens may be ``repeated`` ones, which were not generated."""

    tokens: list[str]
    length: bool
    prompt: str
    repeated: int = 0


def as_models(models: Any) -> dict[str, Model]:
    """Return models from a mapping, a mapping of plain values (from JSON) or a list of names."""
    if not isinstance(models, dict):
        return {name: Model() for name in models}
    return {name: value if isinstance(value, Model) else Model(**value) for name, value in models.items()}


def reply_text(messages: list[dict[str, Any]], tokens: int) -> str:
    """Return the text that a node says to ``messages``, the assistant's turn at their end left out: so many words."""
    key = f"{zlib.crc32(json.dumps(messages, sort_keys=True).encode()):08x}"
    return " ".join(f"{key}.{number}" if number == 0 else f"w{number}" for number in range(tokens))


def split_tokens(text: str) -> list[str]:
    """Return ``text`` as words, each with the white space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


def count_tokens(text: str) -> int:
    """Return how many tokens a prompt counts: its words."""
    return len(text.split())


def write_script(config: Config, body: dict[str, Any]) -> Script:
    """Return what answers a call of ``/api/chat`` or ``/api/generate``.

    A conversation that ends with an assistant's turn is continued from there, unless the template closes that turn:
    then another answer comes. One that says something else than the text would have said is answered from the start, so
    that a mistake shows.
    """
    messages = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
    said = "" if config.turn == "closed" else said_before(messages)
    asked = messages[:-1] if said else messages
    limit = (body.get("options") or {}).get("num_predict")
    limit = limit if isinstance(limit, int) and limit >= 0 else None
    if isinstance(body.get("format"), dict):
        whole = json.dumps(sample_value(body["format"]))
    elif config.text is not None:
        whole = config.text
    else:
        words = config.tokens if config.tokens is not None else (8 if limit is None else limit + count_tokens(said))
        whole = reply_text(asked, words)
    rest = split_tokens(whole.removeprefix(said))
    cut = limit is not None and len(rest) > limit
    prompt = "\n".join(f"{message['role']}: {message['content']}" for message in messages)
    repeated = split_tokens(said) if config.turn == "jinja" else []
    return Script([*repeated, *(rest[:limit] if cut else rest)], cut, prompt, len(repeated))


def shared_tokens(prompt: str, earlier: list[str]) -> int:
    """Return how many tokens of ``prompt`` are the beginning of an earlier prompt too."""
    longest = max((sum(1 for _ in takewhile(same, zip(prompt, other, strict=False))) for other in earlier), default=0)
    return count_tokens(prompt[:longest])


def same(pair: tuple[str, str]) -> bool:
    """Tell whether both are the same character."""
    return pair[0] == pair[1]


def keep_alive_seconds(value: object) -> float:
    """Return ``keep_alive`` in seconds: a number, or a Go duration; negative means for ever.

    Raises:
        ValueError: As Ollama words it.

    """
    if value is None:
        return 300.0
    if isinstance(value, int | float):
        return float("inf") if value < 0 else float(value)
    text = str(value)
    if not DURATION.fullmatch(text.removeprefix("-")):
        raise ValueError(f'time: missing unit in duration "{text}"')
    seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text))
    return float("inf") if text.startswith("-") else seconds
