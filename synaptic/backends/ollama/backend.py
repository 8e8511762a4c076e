"""Client of one Ollama server. What its API means is decided in :mod:`synaptic.backends.ollama.api`."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil

from synaptic.backends.base import Capabilities
from synaptic.backends.http import (
    JsonObject,
    Origin,
    closed_client,
    drain,
    get_json,
    most_of_stream,
    ndjson,
    new_client,
    post_json,
    stream_request,
    upload,
    without_password,
)
from synaptic.backends.ollama.api import (
    FEATURES,
    NAME,
    Defaults,
    InstalledModel,
    can_think,
    chat_payload,
    choose_model,
    cut_prompt,
    default_url,
    host_url,
    is_loopback,
    keep_alive_value,
    merge_models,
    no_logprobs,
    read_embeddings,
    read_line,
    server_version,
    status_error,
    tool_called,
    trained_context,
)
from synaptic.backends.ollama.asked_context import context_to_ask, loaded_contexts, own_context
from synaptic.backends.ollama.continuing import is_left_open, render_payload, shown_turn
from synaptic.backends.ollama.pull import changing
from synaptic.backends.ollama.token_ratios import TokenRatios
from synaptic.backends.unwrapping import Habits
from synaptic.errors import (
    BackendError,
    BackendUnavailable,
    ModelNotFound,
    ProtocolError,
    RequestRejected,
    ServerError,
    StreamTruncated,
    Trouble,
)
from synaptic.models import LastTurn, has_model, name_key, pull_hint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    import httpx

    from synaptic.backends.base import ModelServer
    from synaptic.messages import ChatRequest, Delta, Embeddings, Finished, ModelInfo, ReplyChunk
    from synaptic.settings import Settings

PROBE_SECONDS = 1.0
CREATED = 201
LEAST_CONTEXT = 512
"""Tokens. A prompt of a multiple of it may have been cut; where nothing says at what, the server is asked."""
LISTING_SECONDS = 10.0
MEMORY_HOLDS_SECONDS = 1.0
"""How long what the server had in memory is taken for what it has."""

LOAD_SECONDS = 600.0
"""Twice what Ollama itself allows a load (``OLLAMA_LOAD_TIMEOUT``, 5 minutes): it may have to wait for its turn."""

CHECK_SECONDS = 2.0
"""A server that has accepted a connection and not named its models by then is not waited for."""

__all__ = ["OllamaBackend", "default_url"]


class _ModelContexts(NamedTuple):
    trained: int | None
    own: int | None


class OllamaBackend:
    """One Ollama server.

    Args:
        url: ``http://host:port``, or a host as in ``OLLAMA_HOST``; ``None`` follows that variable.
        num_ctx: Context length in tokens of requests that do not name one; ``None`` leaves it to the server.
        keep_alive: How long the model stays loaded after a call of a request that does not say.
        think: For requests that do not say; ``None`` leaves it to the model.
        temperature: For requests that do not say; ``None`` leaves it to the model.
        headers: Sent with every request; the way to send credentials.
        ca_file: Certificates in PEM that are believed instead of the system's.
        parallel: Calls that are sent at once; ``None`` sends every call.
        as_loaded: Whether no call asks for less context than its model is loaded with, or than its Modelfile names.
        shown: What people call the server, where they gave it a name; replies say so, errors say its address.
        client: Used instead of an own one, and left open.
    """

    name = NAME

    def __init__(
        self,
        url: str | None = None,
        *,
        num_ctx: int | None = None,
        keep_alive: str | None = None,
        think: bool | None = None,
        temperature: float | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: Path | None = None,
        parallel: int | None = None,
        as_loaded: bool = False,
        shown: str | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.url = default_url(os.environ) if url is None else url.rstrip("/") if "://" in url else host_url(url)
        self.node = without_password(self.url)
        self.shown = shown or self.node
        self._origin = Origin(NAME, self.node)
        self._defaults = Defaults(num_ctx=num_ctx, keep_alive=keep_alive, think=think, temperature=temperature)
        self._headers = headers
        self._ca_file = ca_file
        self._client = client
        self._owns_client = client is None
        self._closed = False
        self._default_model: str | None = None
        self._as_loaded = as_loaded
        self._contexts: dict[str, _ModelContexts] = {}
        self._digests: dict[str, str | None] = {}
        self._loaded: dict[str, int | None] = {}
        self._loaded_until = float("-inf")
        self._habits = Habits()
        self._ratios = TokenRatios()
        self.capabilities = Capabilities(
            capacity=parallel,
            place=self.shown,
            check=self.check,
            default_model=self.default_model,
            context_length=self.context_length,
            tokens_a_character=self.tokens_a_character,
            digest=self.digest,
            goes_on_with=self.is_known_to_go_on,
            features=FEATURES,
            show=self.show,
            embed=self.embed,
            servers=self.servers,
        )

    @classmethod
    def from_settings(cls, settings: Settings, url: str | None = None) -> Self:
        """Return a backend at ``url`` whose requests follow ``settings`` where they do not say otherwise."""
        return cls(
            url,
            num_ctx=settings.num_ctx,
            keep_alive=settings.keep_alive,
            think=settings.think,
            temperature=settings.temperature,
            parallel=1,
            as_loaded=True,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def stream(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        """Yield the reply to ``request``; the last chunk has the reason why it ends.

        Raises:
            ModelNotFound: If the model is not installed, or none is named and none is installed.
            ContextOverflow: If the server cut the prompt, although it was told not to.
            StreamTruncated: If the stream ends without ``done: true``.
            BackendError: For everything else that can go wrong, see :mod:`synaptic.errors`.
        """
        return self._of_default_model(request) if request.model is None else self._read(request)

    async def _of_default_model(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        named = replace(request, model=await self.default_model())
        async with aclosing(self._read(named)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _read(self, request: ChatRequest) -> AsyncGenerator[ReplyChunk, None]:
        model = name_key(request.model or "")
        if request.think is None and self._defaults.think is not None:
            request = replace(request, think=self._defaults.think)
        context = self._defaults.num_ctx if request.num_ctx is None else request.num_ctx
        return self._habits.read(request, model, self._raw, context=context)

    async def _raw(self, request: ChatRequest) -> AsyncGenerator[Delta | Finished, None]:
        """Yield the reply as the server sends it."""
        model = request.model or ""
        if self._as_loaded and (context := await self._context_to_ask(request, model)) != request.num_ctx:
            request = replace(request, num_ctx=context)
        call = stream_request(
            self._http(),
            "POST",
            "/api/chat",
            json=chat_payload(request, model, self._defaults),
            origin=self._origin,
            read_error=lambda status, body: status_error(status, body, model=model, node=self.node),
        )
        unread = None if request.unread is None else partial(self._unread, request, request.unread)
        tool: str | None = None
        finished: Finished | None = None
        begun = counted = False
        calls = 0
        most = most_of_stream(request.max_tokens)
        try:
            async with (
                call as reply,
                aclosing(ndjson(reply, origin=self._origin, most=most, unread=unread)) as lines,
            ):
                async for line in lines:
                    delta, finished = read_line(
                        line, request, model=model, node=self.node, shown=self.shown, begun=begun, calls_before=calls
                    )
                    begun = True
                    tool = tool_called(line) or tool
                    if delta is not None:
                        calls += len(delta.tool_calls)
                        counted = counted or bool(delta.logprobs) or not delta.text
                        if request.logprobs is not None and not counted:
                            raise no_logprobs(self.node)
                        yield delta
                    if finished is not None:
                        await drain(reply)
                        break
                else:
                    raise StreamTruncated(
                        f"{self.node} ended the stream of {model!r} without 'done'", backend=NAME, node=self.node
                    )
        except ModelNotFound:
            self._default_model = None
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if finished is not None and request.unread is not None:
                request.unread(finished)  # read, but not given on: the rest of the body was waited for
            raise
        if not request.truncate:
            await self._check_prompt_was_whole(request, finished)
        if finished.usage is not None:
            self._ratios.learn(name_key(model), request, finished.usage.prompt_tokens)
        yield self._last(request, finished, calls, tool)

    def _last(self, request: ChatRequest, finished: Finished, calls: int, tool: str | None) -> Finished:
        """Return the last chunk of a reply with so many calls of tools; ``tool`` is one that was called."""
        if calls and finished.finish_reason == "stop":
            finished = replace(finished, finish_reason="tool_calls")
        return finished if tool is None or request.tools else replace(finished, tool=tool)

    def _unread(self, request: ChatRequest, take: Callable[[Delta | Finished], None], line: JsonObject) -> None:
        """Give what a line says to the one who counts what nobody reads."""
        model = request.model or ""
        delta, finished = read_line(line, request, model=model, node=self.node, shown=self.shown, begun=True)
        for chunk in (delta, finished):
            if chunk is not None:
                take(chunk)

    async def _check_prompt_was_whole(self, request: ChatRequest, finished: Finished) -> None:
        """Refuse a reply to a prompt that the server cut: it then says that it has read a whole context of tokens.

        Servers from before October 2025 do not know that they were told not to cut.

        Raises:
            ContextOverflow: If it did.
        """
        read = finished.usage.prompt_tokens if finished.usage else 0
        context = self._defaults.num_ctx if request.num_ctx is None else request.num_ctx
        if context is None and read >= LEAST_CONTEXT and read % LEAST_CONTEXT == 0:
            with suppress(BackendError):
                context = await self.context_length(request)
        if context is not None and read >= context:
            raise cut_prompt(context, finished, node=self.node)

    async def models(self) -> list[ModelInfo]:
        """Return the installed models, with what is known of those that are loaded."""
        return [entry.info for entry in await self._installed()]

    async def check(self, model: str | None) -> None:
        """Check that the server answers and has ``model``, or with ``None`` any model.

        Raises:
            ModelNotFound: If it has not.
            BackendError: If the server does not answer in time, or something else does.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                models = await self.models()
        except TimeoutError as error:
            text = f"{self.node} accepts connections but did not answer in {CHECK_SECONDS:g} s"
            raise BackendUnavailable(text, backend=NAME, node=self.node) from error
        if not has_model(models, model):
            missing = f"does not have {model!r}" if model else "has no model"
            raise ModelNotFound(
                f"no node can serve {model or 'a model'} ({self.node}: {missing})",
                hint=pull_hint(model, [info.name for info in models]),
                backend=NAME,
                node=self.node,
            )

    async def default_model(self) -> str:
        """Return the model for requests that name none; it is chosen once.

        Raises:
            ModelNotFound: If nothing fit is installed.
        """
        if self._default_model is None:
            memory = _memory_bytes() if is_loopback(self.url) else None
            self._default_model = choose_model(await self._installed(), memory, node=self.node)
        return self._default_model

    async def context_length(self, request: ChatRequest) -> int | None:
        """Return the context that ``request`` would be served with; ``None`` where only the server knows.

        That is ``num_ctx``, or without one what a loaded model has; never more than the model was trained
        with, which the server cuts it down to.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        model = request.model or await self.default_model()
        wanted = self._defaults.num_ctx if request.num_ctx is None else request.num_ctx
        if wanted is None:
            listed = name_key(model)
            infos = [entry.info for entry in await self._installed()]
            wanted = next(
                (info.context_length for info in infos if name_key(info.name) == listed and info.loaded), None
            )
        trained = None if wanted is None else (await self._contexts_of(model)).trained
        return wanted if wanted is None or trained is None else min(wanted, trained)

    def tokens_a_character(self, request: ChatRequest) -> float | None:
        """Return how many tokens a character of the prompt is, as earlier calls of the model have shown."""
        model = request.model or self._default_model
        return None if model is None else self._ratios.of(name_key(model))

    async def digest(self, model: str | None) -> str | None:
        """Return what identifies the content of a model, as the server told when it was last asked for its models."""
        name = model or self._default_model
        return None if name is None else self._digests.get(name_key(name))

    async def version(self, within: float = PROBE_SECONDS) -> str:
        """Return the version of the server, asking for at most ``within`` seconds.

        Raises:
            BackendError: If it does not answer, or something else does.
        """
        return server_version(await self._list("/api/version", within), self.node)

    async def listings(self) -> tuple[JsonObject, JsonObject]:
        """Return ``/api/tags`` and ``/api/ps``; old servers have no ``/api/ps``, which is then empty.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        tags, loaded = await asyncio.gather(self._list("/api/tags"), self._list("/api/ps"), return_exceptions=True)
        if isinstance(tags, BaseException):
            raise tags
        if isinstance(loaded, (RequestRejected, ProtocolError)):
            loaded = {}
        if isinstance(loaded, BaseException):
            raise loaded
        return tags, loaded

    async def in_memory(self) -> JsonObject:
        """Return ``/api/ps``, asking for a second at most; it is empty where the server is too old for it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        try:
            return await self._list("/api/ps", PROBE_SECONDS)
        except (RequestRejected, ProtocolError):
            return {}

    async def show(self, model: str) -> JsonObject:
        """Return ``/api/show`` of a model; nothing where the server is too old for it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        try:
            shown = await self._ask("/api/show", {"model": model}, model, LISTING_SECONDS)
        except (RequestRejected, ProtocolError):
            return {}
        if can_think(shown):
            self._habits.thinks(name_key(model))
        return shown

    async def goes_on_with(self, request: ChatRequest) -> bool:
        """Return whether the server tells that its prompt for ``request`` ends in its last message: it is continued.

        The model is loaded for that, but generates nothing. A server that does not tell, or not yet, is a no.

        Raises:
            BackendError: If the server is not there, or does not have the model; see :mod:`synaptic.errors`.
        """
        model = request.model or await self.default_model()
        body = render_payload(request, model, self._defaults)
        try:
            answer = await self._ask("/api/chat", body, model, LOAD_SECONDS)
        except (RequestRejected, ProtocolError, ServerError):
            return False
        return is_left_open(answer, request)

    async def is_known_to_go_on(self, request: ChatRequest) -> bool:
        """Return whether the last message of ``request``, the assistant's, is continued: by its template, else asked.

        Raises:
            BackendError: As ``goes_on_with`` does.
        """
        model = request.model or await self.default_model()
        turn = shown_turn(await self.show(model))
        if turn is not LastTurn.UNKNOWN:
            return turn is LastTurn.OPEN
        if self._as_loaded:
            request = replace(request, num_ctx=await self._context_to_ask(request, model))
        return await self.goes_on_with(replace(request, model=model))

    async def embed(self, texts: Sequence[str], model: str | None) -> Embeddings:
        """Return the vectors of texts; one that is too long for the model is refused, not cut.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        name = model or await self.default_model()
        body: JsonObject = {"model": name, "input": list(texts), "truncate": False}
        answer = await self._ask("/api/embed", body, name, LOAD_SECONDS)
        return read_embeddings(answer, len(texts), model=name, node=self.node)

    async def load(self, model: str, *, num_ctx: int | None = None, keep_alive: str | None = None) -> None:
        """Have a model loaded: a request without a prompt, as Ollama documents it.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        body: JsonObject = {"model": model, "stream": False}
        if num_ctx is not None:
            body["options"] = {"num_ctx": num_ctx}
        kept = keep_alive_value(self._defaults.keep_alive if keep_alive is None else keep_alive)
        if kept is not None:
            body["keep_alive"] = kept
        await self._ask("/api/generate", body, model, LOAD_SECONDS)

    async def unload(self, model: str) -> None:
        """Have a model taken out of memory.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        await self._ask("/api/generate", {"model": model, "keep_alive": 0, "stream": False}, model, LISTING_SECONDS)

    async def servers(self) -> list[ModelServer]:
        """Return itself: its models can be changed."""
        return [self]

    async def change(self, method: str, path: str, body: Mapping[str, Any]) -> AsyncGenerator[JsonObject, None]:
        """Have the server change its models, and yield what it tells meanwhile; see :func:`changing`.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        try:
            async with aclosing(changing(self._http(), method, path, body, node=self.node)) as lines:
                async for line in lines:
                    yield line
        finally:  # what was known of its models may be wrong now
            self._default_model, self._loaded_until = None, float("-inf")
            self._contexts.clear()
            self._digests.clear()

    async def has_blob(self, digest: str) -> bool:
        """Return whether the server has a file that models can be made of.

        Raises:
            BackendError: The one that fits, see :mod:`synaptic.errors`.
        """
        path = f"/api/blobs/{digest}"
        try:
            async with stream_request(self._http(), "HEAD", path, origin=self._origin):
                return True
        except RequestRejected as error:
            if error.trouble is not Trouble.NO_API:
                raise
            return False  # it says so with 404, as it would say that it has no such route

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes]) -> bool:
        """Give the server a file; return whether it lacked it.

        Raises:
            RequestRejected: If the digest is not that of the file.
            BackendError: For everything else, see :mod:`synaptic.errors`.
        """
        path = f"/api/blobs/{digest}"
        return await upload(self._http(), path, pieces, origin=self._origin) == CREATED

    async def aclose(self) -> None:
        """Close the connections; a client that was handed in is left to its owner."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._owns_client:
            await client.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._closed:
            raise closed_client(self._origin)
        if self._client is None:
            self._client = new_client(self.url, headers=self._headers, ca_file=self._ca_file)
        return self._client

    async def _list(self, path: str, within: float = LISTING_SECONDS) -> JsonObject:
        return await get_json(self._http(), path, origin=self._origin, within=within)

    async def _ask(self, path: str, body: JsonObject, model: str, within: float) -> JsonObject:
        return await post_json(
            self._http(),
            path,
            body,
            origin=self._origin,
            within=within,
            read_error=lambda status, text: status_error(status, text, model=model, node=self.node),
        )

    async def _context_to_ask(self, request: ChatRequest, model: str) -> int | None:
        """Return the context that keeps the model loaded as it is, if that is enough, as far as the server tells."""
        wanted = self._defaults.num_ctx if request.num_ctx is None else request.num_ctx
        now, key = asyncio.get_running_loop().time(), name_key(model)
        try:
            if self._loaded_until < now:
                self._loaded = loaded_contexts(await self.in_memory())
                self._loaded_until = now + MEMORY_HOLDS_SECONDS
            known = await self._contexts_of(model)
        except BackendError:
            return wanted  # the call itself says what is wrong
        asked, _ = context_to_ask(wanted, loaded=self._loaded.get(key), own=known.own, trained=known.trained)
        self._loaded[key] = asked
        return asked

    async def _contexts_of(self, model: str) -> _ModelContexts:
        """Return the context that the model was trained with, and that of its Modelfile; they are asked for once."""
        known = self._contexts.get(model)
        if known is None:
            shown = await self.show(model)
            known = self._contexts[model] = _ModelContexts(trained_context(shown), own_context(shown))
        return known

    async def _installed(self) -> list[InstalledModel]:
        """Merge what is installed with what is loaded."""
        models = merge_models(*await self.listings())
        self._digests = {name_key(model.info.name): model.digest for model in models}
        return models


def _memory_bytes() -> int:
    return int(psutil.virtual_memory().total)
