"""Client for llama.cpp's HTTP API, as ``llama-server`` and everything built on it speak it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from synaptic.backends.base import (
    EVERY_FEATURE,
    BackendContext,
    BackendKind,
    Capabilities,
    Feature,
    Finding,
    check_features,
    features_of,
)
from synaptic.backends.completion_reply import CompletionReply
from synaptic.backends.http import (
    JsonObject,
    Origin,
    closed_client,
    count_in,
    get_json,
    get_json_objects,
    json_body,
    most_of_stream,
    name_in,
    new_client,
    post_json,
    sse,
    stream_request,
)
from synaptic.backends.openai_form import message_payload, request_payload, vectors_in
from synaptic.backends.unwrapping import Habits
from synaptic.errors import (
    BackendBusy,
    BackendError,
    BackendNotReady,
    ConfigError,
    ContextOverflow,
    ProtocolError,
    RequestRejected,
    StreamTruncated,
)
from synaptic.messages import (
    ChatRequest,
    Delta,
    Embeddings,
    Finished,
    ModelInfo,
    ReplyChunk,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    import httpx

    from synaptic.backends.http import HttpReply

DEFAULT_NAME = "llama-server"
EMBED_TIMEOUT = 600.0  # seconds for vectors of texts, which wait for a place behind other calls
ASK_TIMEOUT = 10.0  # seconds for a question that needs no model
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
        pictures: Whether the server may have been started with what reads them; it says itself whether it was.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = DEFAULT_NAME,
        node: str | None = None,
        api_key: str | None = None,
        client: httpx.AsyncClient | None = None,
        pictures: bool = True,
    ) -> None:
        self.name = name
        self.url = url
        self._node = node or url
        self._origin = Origin(name, self._node)
        self._headers = headers(api_key)
        self._given_client = client
        self._own_client: httpx.AsyncClient | None = None
        self._closed = False
        self._habits = Habits()
        self._lacks: frozenset[Feature] | None = None
        self.capabilities = Capabilities(
            place=self._node,
            longer_context="start the server with a longer context",
            context_length=self.context_length,
            count_tokens=self.count_tokens,
            count_prompt=self.count_prompt,
            watched_stream=self.watched_stream,
            goes_on_with=self.goes_on_with,
            features=EVERY_FEATURE - ({"options"} if pictures else {"images", "options"}),
            embed=self.embed,
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
        await self._check(request)
        payload = chat_payload(request)
        if step is not None:
            payload["return_progress"] = True
        call = stream_request(
            self._client(),
            "POST",
            "/v1/chat/completions",
            json=payload,
            origin=self._origin,
            read_error=read_error,
        )
        reply = CompletionReply(self.name, self._node, offered=bool(request.tools))
        try:
            unread = None if request.unread is None else partial(_unread, reply, request)
            async with call as response, aclosing(self._events(response, request, unread)) as events:
                while (event := await reply.next_of(events)) is not None:
                    delta = reply.take(event)
                    if step is not None:
                        step("prompt_progress" not in event)
                    if delta is not None:
                        yield delta
        except StreamTruncated:
            if not reply.has_ended:
                raise
        except (asyncio.CancelledError, GeneratorExit):
            if reply.has_ended and request.unread is not None:
                request.unread(reply.last_chunk(request.max_tokens))
            raise
        last = reply.last_chunk(request.max_tokens)
        if last.finish_reason == "stop" and request.tools and request.tool_choice not in {None, "auto", "none"}:
            raise RequestRejected(
                f"{self._node} answered without a call of a tool, which tool_choice demanded",
                hint="the server does not hold its model to it: ask another server, or leave tool_choice out",
                backend=self.name,
                node=self._node,
            )
        yield last

    async def _check(self, request: ChatRequest) -> None:
        """Refuse tools and pictures that the model's template or the server would leave out without a word.

        Raises:
            FeatureMissing: If the server says so; another program with the same API does not tell.
        """
        asked = features_of(request) & {"tools", "images"}
        if not asked:
            return
        if self._lacks is None:
            self._lacks = lacking(await self._properties())
        check_features(request, EVERY_FEATURE - self._lacks, backend=self.name)

    def _events(
        self, response: HttpReply, request: ChatRequest, unread: Callable[[JsonObject], None] | None
    ) -> AsyncGenerator[JsonObject, None]:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return self._whole(response)
        most = most_of_stream(request.max_tokens)
        return sse(response, origin=self._origin, most=most, unread=unread)

    async def _whole(self, response: HttpReply) -> AsyncGenerator[JsonObject, None]:
        """Yield a reply that was not streamed, whatever was asked for, as the one event of a stream."""
        value = await json_body(response, origin=self._origin)
        choices = value.get("choices")
        if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
            value = {**value, "choices": [{**choice, "delta": choice.get("message")} for choice in choices]}
        yield value

    async def models(self) -> list[ModelInfo]:
        """Return what the server has loaded.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        listing = await self._get("/v1/models")
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
            await self._get("/health")
        except BackendBusy:
            return False
        return True

    async def count_tokens(self, text: str) -> int:
        """Return how many tokens of the model ``text`` is.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        return await self._tokens(text, special=False)

    async def count_prompt(self, request: ChatRequest) -> int:
        """Return how many tokens the prompt of ``request`` is, as the model's template writes it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`; the template may refuse such a chat.
        """
        await self._check(request)
        answer = await self._post("/apply-template", chat_payload(request))
        if not isinstance(prompt := answer.get("prompt"), str):
            raise self._nonsense("/apply-template", answer)
        return await self._tokens(prompt, special=True)

    async def _tokens(self, text: str, *, special: bool) -> int:
        """Count the tokens of a text; with ``special``, also those that begin every prompt."""
        answer = await self._post("/tokenize", {"content": text, "add_special": special})
        tokens = answer.get("tokens")
        if not isinstance(tokens, list):
            raise self._nonsense("/tokenize", answer)
        return len(tokens)

    async def embed(self, texts: Sequence[str], model: str | None) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        body = {"input": list(texts), "encoding_format": "float", **({"model": model} if model else {})}
        answer = await self._post("/v1/embeddings", body, within=EMBED_TIMEOUT)
        rows, usage = answer.get("data"), answer.get("usage")
        told = [row.get("embedding") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None
        found = vectors_in(told)
        if found is None or len(found) != len(texts):
            raise self._nonsense("/v1/embeddings", answer)
        return Embeddings(found, count_in((usage if isinstance(usage, dict) else {}).get("prompt_tokens")), model)

    async def goes_on_with(self, request: ChatRequest) -> bool:
        """Return whether the server tells that its prompt for ``request`` ends in its last message: it is continued.

        Another program with the same chat API, a template that refuses such a chat, no answer: all that is a no.
        """
        try:
            answer = await self._post("/apply-template", chat_payload(request))
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
            self._client(), "/slots", origin=self._origin, within=within, read_error=read_error
        )

    async def generate_one_token(self, *, within: float) -> None:
        """Have one token generated, which shows more than that the server answers.

        Args:
            within: Seconds that it may take.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        await self._post(
            "/completion", {"prompt": "Hello", "n_predict": 1, "temperature": 0.0, "cache_prompt": False}, within=within
        )

    async def context_length(self, _: ChatRequest) -> int | None:
        """Return the context of one slot, as the server was started; ``None`` if it does not say.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        defaults = (await self._properties()).get("default_generation_settings")
        length = defaults.get("n_ctx") if isinstance(defaults, dict) else None
        return count_in(length) or None

    async def _properties(self) -> JsonObject:
        """Return ``/props``; nothing of another program with the same chat API."""
        try:
            return await self._get("/props")
        except RequestRejected:
            return {}

    async def _get(self, path: str) -> JsonObject:
        return await get_json(self._client(), path, origin=self._origin, within=ASK_TIMEOUT, read_error=read_error)

    async def _post(self, path: str, body: JsonObject, *, within: float = ASK_TIMEOUT) -> JsonObject:
        return await post_json(self._client(), path, body, origin=self._origin, within=within, read_error=read_error)

    async def aclose(self) -> None:
        """Close the connections; a client that was handed in is left to its owner."""
        self._closed = True
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._closed:
            raise closed_client(self._origin)
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


def _unread(reply: CompletionReply, request: ChatRequest, event: JsonObject) -> None:
    """Give what an event says to the one who counts what nobody reads."""
    assert request.unread is not None
    if (delta := reply.take(event)) is not None:
        request.unread(delta)


def llama_server_at(name: str, client: httpx.AsyncClient) -> LlamaServerBackend:
    """Return a backend that speaks to a server of ours, which has no pictures, through a client that stays open."""
    return LlamaServerBackend(name, name=name, node=name, client=client, pictures=False)


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
        "messages": [message_payload(message) for message in request.messages],
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
    payload.update(request_payload(request))
    if request.think is not None:
        # Templates have two names for the same thing: Qwen's, and that of Granite, DeepSeek and Kimi.
        thinks = bool(request.think)
        payload["chat_template_kwargs"] = {"enable_thinking": thinks, "thinking": thinks}
        if isinstance(request.think, str):
            payload["reasoning_effort"] = request.think
    return payload


def lacking(properties: JsonObject) -> frozenset[Feature]:
    """Return what ``/props`` says that the server's model cannot do: its template has no tools, it sees no pictures."""
    template, senses = properties.get("chat_template_caps"), properties.get("modalities")
    told: dict[Feature, bool] = {
        "tools": isinstance(template, dict) and template.get("supports_tools") is False,
        "images": isinstance(senses, dict) and senses.get("vision") is False,
    }
    return frozenset(feature for feature, is_missing in told.items() if is_missing)


def read_error(status: int, body: bytes) -> BackendError | None:
    """Return the error that llama-server means by a status and body, where it means more than the status says."""
    del status
    error = _error_field(body)
    if error.get("type") != "exceed_context_size_error":
        return None
    needed, available = count_in(error.get("n_prompt_tokens")), count_in(error.get("n_ctx"))
    return ContextOverflow(
        f"the prompt is {needed or '?'} tokens, but the context is {available or '?'} tokens",
        hint="shorten the prompt, or start the server with a longer context",
    )


def model_info(entry: JsonObject) -> ModelInfo:
    """Return one entry of ``/v1/models``."""
    meta = entry.get("meta") or {}
    parameters = count_in(meta.get("n_params"))
    return ModelInfo(
        name=name_in(entry["id"]) or "?",
        size_bytes=count_in(meta.get("size")) or None,
        context_length=count_in(meta.get("n_ctx")) or count_in(meta.get("n_ctx_train")) or None,
        parameter_size=short_count(parameters) if parameters else None,
        quantization=name_in(meta.get("ftype")) or None,
        loaded=True,
    )


def short_count(count: int) -> str:
    """Return a number of parameters as people write it: 135M, 1.5B."""
    billions = count / 1e9
    return f"{billions:.3g}B" if billions >= 1 else f"{count / 1e6:.0f}M"


def _error_field(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}
