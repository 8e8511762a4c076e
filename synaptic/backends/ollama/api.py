"""What Ollama's API says and means: pure decisions over its JSON, its error texts and its addresses.

Facts that shape this file (Ollama of August 2026, ``api/types.go``, ``server/routes.go``, ``envconfig/config.go``):

- ``done: true`` is success, and so is a ``done_reason`` without it (streams of the MLX runner ended so); a failure in
  mid-stream is a line ``{"error": ...}`` under status 200.
- Durations are nanoseconds. ``keep_alive`` is a Go duration ("5m") or a number of seconds; "-1" as text is refused.
- A prompt that is longer than the context is cut under status 200, unless ``truncate`` is false: then that is an error.
  Servers from before October 2025 do not know the field.
- A request without ``num_ctx`` gets the server's default, and one with another ``num_ctx`` reloads the model: hence
  it is sent explicitly, and the same for every call.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from synaptic.backends.http import (
    Origin,
    count_in,
    ending,
    error_in_words,
    error_text,
    gave_up,
    is_name,
    name_in,
    seconds_in,
    stream_failed,
    text_in,
    texts_in,
)
from synaptic.backends.openai_form import read_logprobs, tools_payload, vectors_in
from synaptic.errors import (
    BackendError,
    ContextOverflow,
    FeatureMissing,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    StreamFailed,
    Trouble,
)
from synaptic.messages import (
    ChatRequest,
    Delta,
    Embeddings,
    Finished,
    FinishReason,
    ModelInfo,
    Timings,
    ToolCallDelta,
    Usage,
)
from synaptic.models import SUGGESTED_MODEL, full_name, name_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synaptic.backends.base import Feature
    from synaptic.backends.http import JsonObject
    from synaptic.messages import Message, ToolCall

MOST_MODELS = 4096
"""Of one server: a listing of 16 MB could name 60,000, and each is asked about."""

NAME = "ollama"
DEFAULT_PORT = 11434
REPEAT_PENALTY = 1.1
FEATURES: frozenset[Feature] = frozenset({"tools", "images", "logprobs", "stop", "sampling", "options"})
"""What Ollama's API has a field for. It has none for the choice of a tool."""

MEMORY_SHARE = 0.8
"""Part of the memory that weights may take: the rest is for the KV cache, compute buffers and everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request that does not say gets."""

    num_ctx: int | None = None
    keep_alive: str | None = None
    think: bool | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model of ``/api/tags``. Embedding models cannot chat; remote ones would send the prompt elsewhere.

    ``digest`` identifies its content; ``None`` where the server does not tell.
    """

    info: ModelInfo
    can_chat: bool = True
    remote: bool = False
    digest: str | None = None


def default_url(environ: Mapping[str, str]) -> str:
    """Return the address of the local server: what ``OLLAMA_HOST`` says, else port 11434 of this machine."""
    return host_url(environ.get("OLLAMA_HOST", ""))


def host_url(host: str) -> str:
    """Return the address that a value of ``OLLAMA_HOST`` means to a client, by the rules of Ollama's own.

    A scheme without a port means the scheme's port (``envconfig/config.go``). The addresses that a server binds to for
    "every interface" become the loopback address: a client cannot connect to them everywhere.
    """
    scheme, found, rest = host.strip().strip("\"'").rpartition("://")
    scheme = scheme.lower() if found else "http"
    authority, slash, path = rest.partition("/")
    userinfo, at, address = authority.rpartition("@")
    name, port = _split_port(address)
    if port is None:
        port = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT) if found else DEFAULT_PORT
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)  # noqa: S104 - not bound, replaced
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{userinfo}{at}{shown}:{port}{slash}{path}".rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether ``url`` is on this machine, as far as its text says."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def chat_payload(request: ChatRequest, model: str, defaults: Defaults = Defaults()) -> JsonObject:
    """Return the body of ``/api/chat``; what neither the request nor ``defaults`` set is left out."""
    sampling = request.sampling
    options: JsonObject = {
        **dict(request.options),
        "num_ctx": _first(request.num_ctx, defaults.num_ctx),
        "temperature": _first(request.temperature, defaults.temperature),
        "num_predict": request.max_tokens,
        "seed": request.seed,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": _first(sampling.repeat_penalty, REPEAT_PENALTY if request.repetition_guard else None),
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stop": list(request.stop) or None,
    }
    body = {
        "model": model,
        "messages": [message_payload(message) for message in request.messages],
        "tools": None if request.tool_choice == "none" else tools_payload(request) or None,
        "logprobs": None if request.logprobs is None else True,
        "top_logprobs": request.logprobs or None,
        "stream": True,
        "truncate": request.truncate,
        "format": None if request.schema is None else dict(request.schema),
        "options": {name: value for name, value in options.items() if value is not None},
        "keep_alive": keep_alive_value(_first(request.keep_alive, defaults.keep_alive)),
        "think": _first(request.think, defaults.think),
    }
    return {name: value for name, value in body.items() if value is not None}


def message_payload(message: Message) -> JsonObject:
    """Return a message as Ollama reads it: arguments of calls are objects there, and pictures have no kind."""
    said: JsonObject = {"role": message.role, "content": message.content}
    if not (message.thinking or message.images or message.tool_calls or message.tool_name or message.tool_call_id):
        return said  # nearly every one
    parts = {
        "thinking": message.thinking,
        "images": [image.data for image in message.images],
        "tool_calls": [
            {"id": call.id, "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.tool_calls
        ],
        "tool_name": message.tool_name,
        "tool_call_id": message.tool_call_id,
    }
    return said | {name: part for name, part in parts.items() if part}


def _arguments(call: ToolCall) -> JsonObject:
    """Return the arguments of a call as an object.

    Raises:
        RequestRejected: If their text is none.
    """
    if (values := call.values) is None:
        raise RequestRejected(f"the arguments of the call of {call.name} are no JSON object", backend=NAME)
    return values


def keep_alive_value(text: str | None) -> str | int | float | None:
    """Return ``keep_alive`` as Ollama reads it: text that is a mere number becomes a number, in seconds."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return text.strip()
    if not math.isfinite(number):
        return text.strip()
    return int(number) if number.is_integer() else number


def read_line(
    line: JsonObject, request: ChatRequest, *, model: str, node: str, shown: str, begun: bool, calls_before: int = 0
) -> tuple[Delta | None, Finished | None]:
    """Return what one line of ``/api/chat`` adds to the reply, and the reply's end if the line announces it.

    Args:
        line: The line.
        request: What was asked.
        model: That it was sent to.
        node: Who answers: its address, for errors.
        shown: What people call it.
        begun: Whether another line came before it: the first one of another program is no broken reply.
        calls_before: Calls of tools that came in lines before it.

    Raises:
        StreamFailed: If the line reports an error that has no better name.
        ProtocolError: If the line is of another API.
    """
    if line.get("error"):
        text = error_text(json.dumps(line).encode())
        waits = error_in_words(text, Origin(NAME, node))
        raise (
            error_for(text, model=model, node=node)
            or waits
            or StreamFailed(stream_failed(text, node, begun=begun), backend=NAME, node=node)
        )
    message = line.get("message")
    done = line.get("done") is True or bool(text_in(line.get("done_reason")))
    if not isinstance(message, dict) and not done:
        if begun:
            raise ProtocolError(f"{node} sent a line without 'message' or 'done'", backend=NAME, node=node)
        raise _not_as_ollama("it sent a line without 'message' or 'done'", node, llama_server="choices" in line)
    parts = message if isinstance(message, dict) else {}
    text, thinking = text_in(parts.get("content")), text_in(parts.get("thinking"))
    calls = read_calls(parts.get("tool_calls"), first=calls_before) if request.tools else ()
    logprobs = () if request.logprobs is None else read_logprobs(line.get("logprobs"))
    delta = Delta(text, thinking, calls, logprobs) if text or thinking or calls or logprobs else None
    return delta, _finished(line, request, model=model, node=node, shown=shown) if done else None


def read_calls(calls: object, *, first: int) -> tuple[ToolCallDelta, ...]:
    """Return the calls of tools that a message has; each is whole. ``first`` is how many came before."""
    found: list[ToolCallDelta] = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = function.get("arguments")
            said = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
            place = first + len(found)
            found.append(ToolCallDelta(place, name_in(call.get("id")), name_in(function.get("name")), said))
    return tuple(found)


def _finished(line: JsonObject, request: ChatRequest, *, model: str, node: str, shown: str) -> Finished:
    return Finished(
        finish_reason(line, request, model=model, node=node),
        usage=Usage(count_in(line.get("prompt_eval_count")), count_in(line.get("eval_count"))),
        timings=Timings(
            load_seconds=seconds_in(line.get("load_duration"), a_second=1e9),
            prompt_seconds=seconds_in(line.get("prompt_eval_duration"), a_second=1e9),
            generation_seconds=seconds_in(line.get("eval_duration"), a_second=1e9),
        ),
        model=name_in(line.get("model")) or model,
        node=shown,
    )


def tool_called(line: JsonObject) -> str | None:
    """Return the name of a tool that the model calls in a line: it was offered none, and so this is no answer."""
    message = line.get("message")
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(calls, list) or not calls or not isinstance(calls[0], dict):
        return None
    function = calls[0].get("function")
    return name_in(function.get("name")) or "?" if isinstance(function, dict) else "?"


def finish_reason(line: JsonObject, request: ChatRequest, *, model: str, node: str) -> FinishReason:
    """Return why a reply ends; old servers do not say, so the token limit is compared.

    Raises:
        StreamFailed: If the server only loaded or unloaded the model, which is not a reply, or gave the reply up.
    """
    reason = text_in(line.get("done_reason"))
    if reason in {"load", "unload"}:
        raise StreamFailed(f"{node} did {reason} {model!r} but generated nothing", backend=NAME, node=node)
    if not reason and request.max_tokens is not None and count_in(line.get("eval_count")) >= request.max_tokens:
        return "length"
    how = ending(reason)
    if how == "failed":
        raise StreamFailed(gave_up(node, reason), backend=NAME, node=node)
    return how


_LACKS: Final = re.compile(r"does not support (tools|insert|embeddings?|vision|completion|chat|generate)\b")


def status_error(status: int, body: bytes, *, model: str, node: str) -> BackendError | None:
    """Return Ollama's own meaning of an error's status and body, or ``None``: what every server says alike."""
    del status
    return error_for(error_text(body), model=model, node=node)


def error_for(text: str, *, model: str, node: str) -> BackendError | None:
    """Return the error that a message of Ollama's means, wherever it stands; ``None`` if it means nothing special."""
    lower = text.lower()
    said = f"{node}: {text}"
    if "model" in lower and "not found" in lower:
        return ModelNotFound(
            f"{node} does not have the model {model!r}", hint=f"ollama pull {model}", backend=NAME, node=node
        )
    if "more system memory" in lower or "out of memory" in lower:
        hint = "use a smaller model, or a smaller num_ctx"
        return RequestRejected(said, hint=hint, backend=NAME, node=node)
    if "exceed" in lower and any(f"context {word}" in lower for word in ("length", "size", "window")):
        return ContextOverflow(said, hint="raise num_ctx, or ask for less at once", backend=NAME, node=node)
    if "does not support thinking" in lower:
        hint = "leave 'think' unset for this model"
        return FeatureMissing(said, missing=("thinking",), hint=hint, backend=NAME, node=node)
    if (found := _LACKS.search(lower)) is not None:
        return FeatureMissing(said, missing=(found[1],), hint="take a model that can do that", backend=NAME, node=node)
    return None


def no_logprobs(node: str) -> RequestRejected:
    """Return the error for a server that does not know that log-probabilities were asked for."""
    return RequestRejected(
        f"{node} gave no log-probabilities",
        hint="update Ollama: it gives them since version 0.12.11",
        backend=NAME,
        node=node,
    )


def read_embeddings(answer: JsonObject, wanted: int, *, model: str, node: str) -> Embeddings:
    """Return the vectors in an answer of ``/api/embed``.

    Raises:
        ProtocolError: If they are not as many numbers as there were texts.
    """
    found = vectors_in(answer.get("embeddings"))
    if found is None or len(found) != wanted:
        raise ProtocolError(f"{node} answered without the embeddings of {wanted} texts", backend=NAME, node=node)
    return Embeddings(found, count_in(answer.get("prompt_eval_count")), name_in(answer.get("model")) or model)


def cut_prompt(context: int, end: Finished, *, node: str) -> ContextOverflow:
    """Return the error for a prompt of which the server has read the end alone."""
    return ContextOverflow(
        f"{node} cut the prompt to its context of {context} tokens without saying so, and answered the end of it",
        hint="raise num_ctx, ask for less at once, or update Ollama: since October 2025 it refuses such a prompt",
        backend=NAME,
        node=node,
        context=context,
        end=end,
    )


def merge_models(tags: JsonObject, loaded: JsonObject) -> list[InstalledModel]:
    """Return the models of ``/api/tags`` with what ``/api/ps`` knows of them; malformed entries are skipped."""
    running = {name_key(name): entry for name, entry in listed(loaded)}
    return [_installed(full_name(name), entry, running.get(name_key(name))) for name, entry in listed(tags)]


def trained_context(shown: JsonObject) -> int | None:
    """Return the context that a model was trained with, in tokens, from ``/api/show``; ``None`` if it does not say."""
    info = shown.get("model_info")
    info = info if isinstance(info, dict) else {}
    return count_in(info.get(f"{text_in(info.get('general.architecture'))}.context_length")) or None


def can_think(shown: JsonObject) -> bool:
    """Tell whether ``/api/show`` names thinking among what a model can do."""
    return "thinking" in texts_in(shown.get("capabilities"))


def server_version(answer: JsonObject, node: str) -> str:
    """Return what ``/api/version`` says.

    Raises:
        ProtocolError: If it says something else: LM Studio, for one, answers 200 to what it does not have.
    """
    if isinstance(answer.get("version"), str):
        return name_in(answer["version"])
    raise _not_as_ollama(error_text(json.dumps(answer).encode()) if answer else "", node)


def _not_as_ollama(said: str, node: str, *, llama_server: bool = False) -> ProtocolError:
    """Return the error for an answer that no Ollama gives."""
    hint = "is it the address of an Ollama?"
    if llama_server:
        hint = 'it answers as llama-server does: name it as coordinator_url, with "backend": "llama-server"'
    message = f"{node} answers, but not as Ollama does" + (f": {said}" if said else "")
    error = ProtocolError(message, hint=hint, backend=NAME, node=node)
    error.trouble = Trouble.NO_API
    return error


def choose_model(installed: Sequence[InstalledModel], memory_bytes: int | None, *, node: str) -> str:
    """Return the model to use where none is named: a loaded one, else the largest that fits.

    Args:
        installed: From :func:`merge_models`.
        memory_bytes: What the server's machine has; ``None`` where that is unknown.
        node: The server's address, for the error.

    Raises:
        ModelNotFound: If there is none; the hint says what to pull.
    """
    usable = [entry.info for entry in installed if entry.can_chat and not entry.remote]
    if not usable:
        raise ModelNotFound(
            f"no model is installed at {node}", hint=f"ollama pull {SUGGESTED_MODEL}", backend=NAME, node=node
        )
    limit = math.inf if memory_bytes is None else memory_bytes * MEMORY_SHARE
    fitting = [info for info in usable if info.loaded or (info.size_bytes or 0) <= limit]
    if not fitting:
        smallest = min(usable, key=lambda info: info.size_bytes or 0)
        raise ModelNotFound(
            f"none of the models installed at {node} fits into {limit / 1e9:.1f} GB of memory; "
            f"the smallest is {smallest.name} with {(smallest.size_bytes or 0) / 1e9:.1f} GB",
            hint=f"ollama pull {SUGGESTED_MODEL}, or name a model to use it all the same",
            backend=NAME,
            node=node,
        )
    return max(fitting, key=lambda info: (info.loaded, info.size_bytes or 0, info.name)).name


def _installed(name: str, entry: JsonObject, running: JsonObject | None) -> InstalledModel:
    details = entry.get("details")
    details = details if isinstance(details, dict) else {}
    families = [text_in(details.get("family")), *texts_in(details.get("families"))]
    capabilities = texts_in(entry.get("capabilities"))
    info = ModelInfo(
        name=name,
        size_bytes=count_in(entry.get("size")) or None,
        context_length=count_in(running.get("context_length")) or None if running else None,
        parameter_size=name_in(details.get("parameter_size")) or None,
        quantization=name_in(details.get("quantization_level")) or None,
        loaded=running is not None,
    )
    embeds = any("bert" in family or "embed" in family for family in families) or "embed" in name
    can_chat = "completion" in capabilities if capabilities else not embeds
    remote = bool(entry.get("remote_host") or entry.get("remote_model"))
    return InstalledModel(info, can_chat=can_chat, remote=remote, digest=text_in(entry.get("digest")) or None)


def listed(listing: JsonObject) -> list[tuple[str, JsonObject]]:
    """Return the models of a listing by their names; what is malformed, or no name that can be shown, is left out."""
    models = listing.get("models")
    found = [entry for entry in models[:MOST_MODELS] if isinstance(entry, dict)] if isinstance(models, list) else []
    named = ((entry.get("name") or entry.get("model"), entry) for entry in found)
    return [(name, entry) for name, entry in named if is_name(name)]


def _split_port(address: str) -> tuple[str, int | None]:
    """Split ``host:port``, ``[v6]:port`` and bare forms of either; a port that is none counts as absent."""
    if address.startswith("["):
        name, _, rest = address[1:].partition("]")
        digits = rest.removeprefix(":")
    elif address.count(":") == 1:
        name, _, digits = address.partition(":")
    else:
        name, digits = address, ""
    port = int(digits) if digits.isdecimal() else 0
    return name, port if 0 < port <= 65535 else None


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value
