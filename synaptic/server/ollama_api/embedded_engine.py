"""One child process with one model in memory, and what can be asked of it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from synaptic.backends import headers, llama_server_at
from synaptic.backends.embedded import Parameters, launch, require_engine, usable_threads
from synaptic.backends.http import Origin, new_client, post_json, sse, stream_request
from synaptic.errors import (
    BackendError,
    BackendUnavailable,
    ProtocolError,
    RequestRejected,
    StreamError,
    StreamFailed,
)
from synaptic.server.ollama_api.refusals import Refusal, input_too_long, runner_failed, runner_stopped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import httpx

    from synaptic.backends.http import HttpReply
    from synaptic.processes import ChildProcess

NAME = "embedded"
_ORIGIN = Origin(NAME, NAME)
MOST_SCHEMAS = 256  # that are known to be enforced; then it begins anew
_FORCED = 1e6
CRASH_NOTICE = 1.0  # seconds from a cut connection to the news that the child is dead
_TOO_LONG = ("too large", "context size", "context length", "physical batch size")


class EmbeddedEngine:
    """A running child and the client that talks to it. Made by :meth:`start`, ended by :meth:`stop`."""

    def __init__(self, child: ChildProcess, client: httpx.AsyncClient) -> None:
        self._child = child
        self._client = client
        self._enforced: set[str] = set()
        self.chat = llama_server_at(NAME, client)
        """The engine's own chat API: tools, log-probabilities and all."""

    @classmethod
    async def start(
        cls,
        model: Path,
        *,
        name: str,
        context: int,
        slots: int,
        threads: int | None,
        shift: bool,
        on_exit: Callable[[ChildProcess], None],
    ) -> EmbeddedEngine:
        """Load a model; when cancelled, the child is gone before this returns.

        Args:
            model: Path of the GGUF file.
            name: What the model is called.
            context: Tokens for each call.
            slots: Calls at once.
            threads: Threads that compute; ``None`` for as many as make sense.
            shift: Whether a reply that fills the context goes on.
            on_exit: Called when the child ends by itself.

        Raises:
            BackendUnavailable: If the engine does not start; says why.
        """
        require_engine()
        key = secrets.token_urlsafe(24)
        parameters = Parameters(
            parent=os.getpid(),
            model=str(model),
            alias=name,
            api_key=key,
            slots=slots,
            slot_context=context,
            threads=threads or usable_threads(),
            embeddings=True,
            context_shift=shift,
        )
        child, url = await launch(parameters, on_exit=on_exit)
        return cls(child, new_client(url, headers=headers(key)))

    @property
    def running(self) -> bool:
        """Whether the child is there."""
        return self._child.running

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    async def stop(self) -> None:
        """End the child and wait until it is gone."""
        try:
            await self._client.aclose()
        finally:
            await self._child.stop()

    async def prompt_for(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the text that the model's own template makes of ``messages``.

        A last message of the assistant is left open: its text ends the prompt, byte for byte, so that the reply goes
        on from there. One that is empty is as good as none.
        """
        if messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"]:
            messages = messages[:-1]
        answer = await self._ask("/apply-template", {"messages": list(messages)})
        return str(answer["prompt"])

    async def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """Return the tokens of ``text``; with ``special``, those that begin every prompt come first."""
        answer = await self._ask("/tokenize", {"content": text, "add_special": special, "parse_special": True})
        return list(answer["tokens"])

    async def text(self, tokens: Sequence[int]) -> str:
        """Return the text of ``tokens``."""
        return str((await self._ask("/detokenize", {"tokens": list(tokens)}))["content"])

    async def embed(self, text: str) -> tuple[list[float], int]:
        """Return the embedding of ``text``, of length one, and its number of tokens.

        Raises:
            Refusal: If it is too long, or the engine fails.
        """
        try:
            answer = await self._ask("/v1/embeddings", {"input": text})
        except Refusal as refusal:
            raise (input_too_long() if any(part in refusal.message for part in _TOO_LONG) else refusal) from None
        return list(answer["data"][0]["embedding"]), int(answer["usage"]["prompt_tokens"])

    async def complete(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a completion, up to the one with ``stop``; closing this ends the generation.

        Raises:
            Refusal: If the engine refuses it, fails or dies.
        """
        answered = False
        try:
            async with (
                self._post("/completion", body) as reply,
                aclosing(sse(reply, origin=_ORIGIN)) as events,
            ):
                async for event in events:
                    answered = True
                    yield event
                    if event.get("stop"):
                        return
        except BackendError as error:
            raise await self._refusal(error, answered=answered) from error

    async def enforces(self, schema: Mapping[str, Any]) -> bool:
        """Tell whether a reply would be held to ``schema``; one that the engine cannot read it ignores without a word.

        It is made to say a letter with which no JSON begins. If it says something else, it was held to the schema.
        """
        known = hashlib.sha256(json.dumps(schema).encode()).hexdigest()
        if known in self._enforced:
            return True
        (letter,) = await self.tokens("z", special=False)
        body = {"prompt": [letter], "n_predict": 1, "temperature": 0, "logit_bias": [[letter, _FORCED]]}
        answer = await self._ask("/completion", {**body, "json_schema": schema})
        held = str(answer.get("content")) != "z"
        if held:
            if len(self._enforced) >= MOST_SCHEMAS:
                self._enforced.clear()
            self._enforced.add(known)
        return held

    async def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await post_json(self._client, path, body, origin=_ORIGIN, read_error=_raw_error)
        except BackendError as error:
            raise await self._refusal(error, answered=False) from error

    def _post(self, path: str, body: Mapping[str, Any]) -> AbstractAsyncContextManager[HttpReply]:
        return stream_request(self._client, "POST", path, json=body, origin=_ORIGIN, read_error=_raw_error)

    async def _refusal(self, error: BackendError, *, answered: bool) -> Refusal:
        """Return what Ollama says when its runner fails in this way."""
        if isinstance(error, _EngineError):
            return Refusal(error.status, error.message)
        if isinstance(error, StreamFailed):
            return runner_failed(error.message)
        broken = isinstance(error, (StreamError, BackendUnavailable, ProtocolError))
        # The next caller must find a dead child dead.
        dead = broken and await self._child.exited_within(CRASH_NOTICE)
        return runner_stopped() if dead and not answered else runner_failed("unexpected EOF")


class _EngineError(RequestRejected):
    """An error status of the engine; Ollama hands on the body as it is."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status = status


def _raw_error(status: int, body: bytes) -> BackendError:
    return _EngineError(status, body.decode("utf-8", "replace").strip())
