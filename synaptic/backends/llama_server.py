"""Client for llama.cpp's HTTP API, as ``llama-server`` and everything built on it speak it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from synaptic.backends.base import BackendContext, BackendKind, Capabilities, Finding
from synaptic.backends.http import (
    JsonObject,
    Origin,
    closed_client,
    ending,
    gave_up,
    get_json,
    get_json_objects,
    json_body,
    most_of_stream,
    new_client,
    post_json,
    sse,
    stream_request,
)
from synaptic.backends.unwrapping import Habits
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendNotReady,
    ConfigError,
    ContextOverflow,
    ProtocolError,
    RequestRejected,
    StreamFailed,
    StreamTruncated,
)
from synaptic.messages import ChatRequest, Delta, Finished, FinishReason, ModelInfo, ReplyChunk, Timings, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    import httpx

    from synaptic.backends.http import HttpReply

DEFAULT_NAME = "llama-server"
ASK_TIMEOUT = 10.0  # seconds for a question that needs no model
END_SECONDS = 2.0  # for what a server sends behind the reason of the end: its counts, "[DONE]", or nothing at all
MODEL = ""  # the one that a server serves, in what is remembered of it

REPETITION_GUARD = {
    "dry_multiplier": 0.8,
    "dry_base": 1.75,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 1024,
}
"""DRY: the longer a sequence that was there before, the less likely it goes on. Quotation marks, colons and line ends
break sequences, so that the keys of JSON may repeat; three tokens may repeat, so that names may."""


class LlamaServerBackend:
    """One server that serves the model it was started with; ``num_ctx`` and ``keep_alive`` are not its to choose.

    Args:
        url: ``http://host:port``.
        name: The backend's name in errors and results.
        node: Where calls are said to run; ``None`` for the address.
        api_key: Sent as a bearer token.
        client: To be used instead of an own one; it brings its own headers, and is not closed here.

    """

    def __init__(
        self,
        url: str,
        *,
        name: str = DEFAULT_NAME,
        node: str | None = None,
        api_key: str | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self._node = node or url
        self._headers = headers(api_key)
        self._given_client = client
        self._own_client: httpx.AsyncClient | None = None
        self._closed = False
        self._habits = Habits()
        self.capabilities = Capabilities(
            place=self._node,
            longer_context="start the server with a longer context",
            context_length=self.context_length,
            count_tokens=self.count_tokens,
            watched_stream=self.watched_stream,
        )

    def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply as it is generated; the server stops generating when the stream is closed.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        return self.watched_stream(request)

    def watched_stream(
        self, request: ChatRequest, step: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply, and tell ``step`` of everything that shows that the server works on it.

        Args:
            request: What is asked.
            step: Called with false when a part of the prompt was read, with true when something was generated.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        return self._habits.read(request, MODEL, partial(self._raw, step=step))

    async def _raw(
        self, request: ChatRequest, step: Callable[[bool], None] | None = None
    ) -> AsyncGenerator[Delta | Finished, None]:
        """Yield the reply as the server sends it."""
        payload = chat_payload(request)
        if step is not None:
            payload["return_progress"] = True
        call = stream_request(
            self._client(),
            "POST",
            "/v1/chat/completions",
            json=payload,
            backend=self.name,
            node=self._node,
            read_error=read_error,
        )
        reply = _Reply(self.name, self._node)
        try:
            async with call as response, aclosing(self._events(response, request)) as events:
                while (event := await reply.next_of(events)) is not None:
                    delta = reply.take(event)
                    if step is not None:
                        step("prompt_progress" not in event)
                    if delta is not None:
                        yield delta
        except StreamTruncated:
            if not reply.has_ended:
                raise
        yield reply.last_chunk(request.max_tokens)

    def _events(self, response: HttpReply, request: ChatRequest) -> AsyncGenerator[JsonObject, None]:
        """Return the events of a reply."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return self._whole(response)
        return sse(response, backend=self.name, node=self._node, most=most_of_stream(request.max_tokens))

    async def _whole(self, response: HttpReply) -> AsyncGenerator[JsonObject, None]:
        """Yield a reply that was not streamed, whatever was asked for, as the one event of a stream."""
        value = await json_body(response, backend=self.name, node=self._node)
        choices = value.get("choices")
        if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
            value = {**value, "choices": [{**choice, "delta": choice.get("message")} for choice in choices]}
        yield value

    async def models(self) -> list[ModelInfo]:
        """Return what the server has loaded.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        listing = await get_json(
            self._client(), "/v1/models", backend=self.name, node=self._node, within=ASK_TIMEOUT, read_error=read_error
        )
        try:
            return [model_info(entry) for entry in listing["data"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise self._nonsense("/v1/models", listing) from error

    async def health(self) -> bool:
        """Return whether the server is ready; ``False`` while it loads its model.

        Raises:
            BackendError: If nothing answers, or something else does.

        """
        try:
            await get_json(self._client(), "/health", backend=self.name, node=self._node, within=ASK_TIMEOUT)
        except BackendBusy:
            return False
        return True

    async def count_tokens(self, text: str) -> int:
        """Return how many tokens of the model ``text`` is.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        answer = await post_json(
            self._client(),
            "/tokenize",
            {"content": text},
            backend=self.name,
            node=self._node,
            within=ASK_TIMEOUT,
            read_error=read_error,
        )
        tokens = answer.get("tokens")
        if not isinstance(tokens, list):
            raise self._nonsense("/tokenize", answer)
        return len(tokens)

    async def goes_on_with(self, request: ChatRequest) -> bool:
        """Return whether the server tells that its prompt for ``request`` ends in its last message: it is continued.

        Another program with the same chat API, a template that refuses such a chat, no answer: all that is a no.
        """
        try:
            answer = await post_json(
                self._client(),
                "/apply-template",
                chat_payload(request),
                backend=self.name,
                node=self._node,
                within=ASK_TIMEOUT,
                read_error=read_error,
            )
        except BackendError:
            return False
        prompt, said = answer.get("prompt"), request.messages[-1].content
        return isinstance(prompt, str) and bool(said) and prompt.endswith(said)

    async def slots(self, *, within: float) -> list[JsonObject]:
        """Return what the server says of each of its slots, in its own words.

        Args:
            within: Seconds that it may take.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        return await get_json_objects(
            self._client(), "/slots", backend=self.name, node=self._node, within=within, read_error=read_error
        )

    async def generate_one_token(self, *, within: float) -> None:
        """Have one token generated, which shows more than that the server answers.

        Args:
            within: Seconds that it may take.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        await post_json(
            self._client(),
            "/completion",
            {"prompt": "Hello", "n_predict": 1, "temperature": 0.0, "cache_prompt": False},
            backend=self.name,
            node=self._node,
            within=within,
            read_error=read_error,
        )

    async def context_length(self, request: ChatRequest) -> int | None:  # noqa: ARG002  (the server's, for all alike)
        """Return the context of one slot, as the server was started; ``None`` if it does not say.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.

        """
        try:
            properties = await get_json(
                self._client(), "/props", backend=self.name, node=self._node, within=ASK_TIMEOUT, read_error=read_error
            )
        except RequestRejected:
            return None  # another program with the same chat API
        defaults = properties.get("default_generation_settings")
        length = defaults.get("n_ctx") if isinstance(defaults, dict) else None
        return length if isinstance(length, int) and length > 0 else None

    async def aclose(self) -> None:
        """Close the connections; a client that was handed in is left to its owner."""
        self._closed = True
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._closed:
            raise closed_client(Origin(self.name, self._node))
        if self._given_client is not None:
            return self._given_client
        if self._own_client is None:
            self._own_client = new_client(self.url, headers=self._headers)
        return self._own_client

    def _nonsense(self, path: str, answer: JsonObject) -> ProtocolError:
        return ProtocolError(
            f"{self._node}{path} answered with {json.dumps(answer)[:80]}, which llama-server never does",
            hint="is another program listening on that port?",
            backend=self.name,
            node=self._node,
        )


def from_context(context: BackendContext) -> LlamaServerBackend:
    """Return a backend for the address in ``context``, else for the coordinator in the settings.

    Raises:
        ConfigError: If there is no address.

    """
    url = context.url or context.settings.coordinator_url
    if url is None:
        raise ConfigError(
            "the backend 'llama-server' needs the address of a server",
            hint='set coordinator_url, for example "http://127.0.0.1:8080"',
        )
    return LlamaServerBackend(url)


async def examine(context: BackendContext) -> list[Finding]:
    """Return whether the server answers, and what it has loaded. One that is loading is waited for by the calls."""
    try:
        server = from_context(context)
    except ConfigError as exc:
        return [Finding(DEFAULT_NAME, "missing", exc.message, exc.hint)]
    try:
        names = ", ".join(model.name for model in await server.models())
    except BackendNotReady as exc:
        return [Finding(DEFAULT_NAME, "note", exc.message, exc.hint, answers=True)]
    except BackendError as exc:
        return [Finding(DEFAULT_NAME, "missing", exc.message, exc.hint)]
    finally:
        await server.aclose()
    return [Finding(DEFAULT_NAME, "ok", f"{server.url} has {names}", answers=True)]


KIND = BackendKind(
    name=DEFAULT_NAME,
    summary="a llama-server, or another server with its API, at `coordinator_url`",
    open=from_context,
    examine=examine,
)


def headers(api_key: str | None) -> dict[str, str]:
    """Return what is sent with every request.

    A connection is not used twice: the server closes it after every streamed reply although it announces
    ``Keep-Alive: timeout=5``, and the next request would race with that (one in ten was lost when tried).
    """
    authorization = {"authorization": f"Bearer {api_key}"} if api_key else {}
    return {"connection": "close", **authorization}


def chat_payload(request: ChatRequest) -> JsonObject:
    """Return ``request`` as the body of ``/v1/chat/completions``."""
    payload: JsonObject = {
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
    }
    chosen = {
        "model": request.model,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
    }
    payload.update({name: value for name, value in chosen.items() if value is not None})
    if request.schema is not None:
        schema = {"name": "output", "strict": True, "schema": request.schema}
        payload["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.repetition_guard:
        payload.update(REPETITION_GUARD)
    if request.think is not None:
        # Templates have two names for the same thing: Qwen's, and that of Granite, DeepSeek and Kimi.
        payload["chat_template_kwargs"] = {"enable_thinking": request.think, "thinking": request.think}
    return payload


def read_error(status: int, body: bytes) -> BackendError | None:
    """Return the error that llama-server means by a status and body, where it means more than the status says."""
    del status
    error = _error_field(body)
    if error.get("type") != "exceed_context_size_error":
        return None
    needed, available = error.get("n_prompt_tokens"), error.get("n_ctx")
    return ContextOverflow(
        f"the prompt is {needed} tokens, but the context is {available} tokens",
        hint="shorten the prompt, or start the server with a longer context",
    )


def model_info(entry: JsonObject) -> ModelInfo:
    """Return one entry of ``/v1/models``."""
    meta = entry.get("meta") or {}
    parameters = meta.get("n_params")
    return ModelInfo(
        name=entry["id"],
        size_bytes=meta.get("size"),
        context_length=meta.get("n_ctx") or meta.get("n_ctx_train"),
        parameter_size=None if parameters is None else short_count(parameters),
        quantization=meta.get("ftype"),
        loaded=True,
    )


def short_count(count: int) -> str:
    """Return a number of parameters as people write it: 135M, 1.5B."""
    billions = count / 1e9
    return f"{billions:.3g}B" if billions >= 1 else f"{count / 1e6:.0f}M"


class _Reply:
    """What a stream of events adds up to.

    Servers end a complete reply in several ways: with ``[DONE]``; with the reason of its end and nothing behind it
    (ik_llama.cpp, llama.cpp before September 2024, text-generation-inference before July 2024), the connection then
    closed or left open; with their counts alone. ``[DONE]`` without any of these is no sign: proxies write it below
    streams that broke.
    """

    def __init__(self, backend: str, node: str) -> None:
        self._backend = backend
        self._node = node
        self._model: str | None = None
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._tool: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the server has said why the reply ends."""
        return self._finish_reason is not None

    async def next_of(self, events: AsyncGenerator[JsonObject, None]) -> JsonObject | None:
        """Return the next event, ``None`` behind the last. Once the reply has ended, none is waited for in vain."""
        if not self.has_ended:
            return await anext(events, None)
        try:
            async with asyncio.timeout(END_SECONDS):
                return await anext(events, None)
        except TimeoutError:
            return None

    def take(self, event: JsonObject) -> Delta | None:
        """Note what ``event`` says; return its text, if it has some."""
        try:
            return self._take(event)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProtocolError(
                f"{self._node} sent an event that is not a chat completion: {json.dumps(event)[:80]}",
                backend=self._backend,
                node=self._node,
            ) from error

    def _take(self, event: JsonObject) -> Delta | None:
        self._model = event.get("model") or self._model
        if usage := event.get("usage"):
            self._usage = read_usage(usage)
        if timings := event.get("timings"):
            self._timings = read_timings(timings)
        if "choices" not in event and isinstance(event.get("message"), str):  # vLLM, and "event: error" of others
            text = f"{self._node} failed in mid-stream: {event['message']}"
            raise StreamFailed(text, backend=self._backend, node=self._node)
        choice = next((choice for choice in event["choices"] or () if not choice.get("index")), None)
        if choice is None:
            return None
        if reason := choice.get("finish_reason"):
            self._end(reason)
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or ():
            self._tool = (call.get("function") or {}).get("name") or self._tool or "?"
        text, thinking = text_and_thinking(delta.get("content"))
        text += str(delta.get("refusal") or "")  # OpenAI's field for what a model says instead of an answer
        thinking += str(delta.get("reasoning_content") or delta.get("reasoning") or "")
        return Delta(text, thinking) if text or thinking else None

    def _end(self, reason: str) -> None:
        how = ending(reason)
        if how == "failed":
            raise StreamFailed(gave_up(self._node, reason), backend=self._backend, node=self._node)
        self._finish_reason = how

    def last_chunk(self, limit: int | None) -> Finished:
        """Return the chunk that ends a complete reply; ``limit`` is how many tokens it could have."""
        if self._finish_reason is None and self._usage is not None and self._usage.completion_tokens:
            cut = limit is not None and self._usage.completion_tokens >= limit
            self._finish_reason = "length" if cut else "stop"
        if self._finish_reason is None:
            raise ProtocolError(
                f"{self._node} announced the end of a reply without saying why it ends",
                backend=self._backend,
                node=self._node,
            )
        return Finished(
            self._finish_reason,
            usage=self._usage,
            timings=self._timings,
            model=self._model,
            node=self._node,
            tool=self._tool,
        )


def text_and_thinking(content: Any) -> tuple[str, str]:
    """Return the answer's and the thinking's part of a message, which Mistral's API gives as a list of parts."""
    if not isinstance(content, list):
        return str(content or ""), ""
    text = "".join(str(part.get("text") or "") for part in content if part.get("type") != "thinking")
    thoughts = [part.get("thinking") for part in content if part.get("type") == "thinking"]
    return text, "".join(text_and_thinking(thought)[0] for thought in thoughts)


def read_usage(usage: JsonObject) -> Usage:
    """Return the counts in the form that OpenAI gave them."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage["completion_tokens"]),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


def read_timings(timings: JsonObject) -> Timings:
    """Return llama.cpp's own measurements, which are in milliseconds."""
    return Timings(prompt_seconds=timings["prompt_ms"] / 1000, generation_seconds=timings["predicted_ms"] / 1000)


def _error_field(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}
