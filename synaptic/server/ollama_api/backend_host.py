"""Any backend behind Ollama's dialect."""

from __future__ import annotations

import hashlib
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from synaptic.backends import CallsSoFar
from synaptic.errors import BackendError, ModelNotFound, SynapticError
from synaptic.messages import Delta
from synaptic.models import full_name
from synaptic.server.gateway import BAD_REQUEST, PipelineModels, Refusal, http_failure, live, quoted
from synaptic.server.ollama_api import refusals as errors
from synaptic.server.ollama_api import tagged_names as names
from synaptic.server.ollama_api.at_nodes import change_at, meant, refused
from synaptic.server.ollama_api.chat_reading import read_chat, read_generate
from synaptic.server.ollama_api.replies import Json, Metrics, ReplyForm, ending, local_time, logprob_entries
from synaptic.text import excerpt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable

    from synaptic.backends import ModelServer
    from synaptic.messages import ChatRequest, Finished, ModelInfo, ToolCall
    from synaptic.server.gateway import ModelFront
    from synaptic.server.ollama_api.model_changes import BlobRequest, ModelChange
    from synaptic.server.ollama_api.ollama_host import Talked
    from synaptic.server.ollama_api.requests import Body

Told = TypeVar("Told")

NO_EXPIRY = 300.0  # seconds; what Ollama's own default is, where only the node knows


class BackendHost:
    """The models of a front.

    Args:
        front: Whatever serves them.
    """

    def __init__(self, front: ModelFront) -> None:
        self._front = front
        self._since = time.time()

    async def start(self) -> None:
        """Do nothing: servers are asked when they are needed."""

    async def aclose(self) -> None:
        """Do nothing: the front belongs to the server."""

    async def tags(self) -> list[Json]:
        """Return the models that can be asked for."""
        return [self._entry(model) for model in await _told(self._front.models())]

    def serves(self, model: str) -> bool:
        """Return whether a name is that of a pipeline or an alias: what no engine has, but the front."""
        return PipelineModels.has(model) or self._front.is_alias(model)

    async def own_tags(self) -> list[Json]:
        """Return the pipelines and the aliases alone."""
        return [self._entry(model) for model in await _told(self._front.models()) if self.serves(model.name)]

    async def running(self) -> list[Json]:
        """Return the models that are in memory somewhere."""
        until = local_time(time.time() + NO_EXPIRY)
        return [
            {**self._entry(model), "expires_at": until, "size_vram": 0, "context_length": model.context_length or 0}
            for model in await _told(self._front.models())
            if model.loaded
        ]

    async def show(self, name: str, *, verbose: bool) -> Json:
        """Return what is known of a model."""
        del verbose
        *preferred, last = await _told(self._front.chosen(name), name) or [name]
        for model in preferred:
            try:
                return await self._shown(model)
            except Refusal:
                continue
        return await self._shown(last)

    async def _shown(self, name: str) -> Json:
        if not PipelineModels.has(name) and (ask := (await _told(self._front.can())).show) is not None:
            shown = await _told(ask(name), name)
            if shown:
                return shown
        known = {full_name(model.name): model for model in await _told(self._front.models())}
        found = names.find(name, known)
        if found is None:
            raise errors.model_not_found(name)
        model = known[found]
        entry = self._entry(model)
        family = entry["details"]["family"] or "model"
        info: Json = {"general.architecture": family}
        if model.context_length:
            info[f"{family}.context_length"] = model.context_length
        return {
            "modelfile": f"FROM {model.name}\n",
            "template": "",
            "details": entry["details"],
            "model_info": info,
            "capabilities": await self._capabilities(model.name),
            "modified_at": entry["modified_at"],
        }

    async def talk(self, body: Body, *, chat: bool) -> Talked:
        """Return the answer of ``/api/chat`` or ``/api/generate``.

        Raises:
            Refusal: If a field is wrong, or the call fails before anything came.
        """
        request = read_chat(body) if chat else read_generate(body)
        voice = ReplyForm(body.text("model"), chat)
        if not request.messages:
            return await self._loaded(request, body, voice)
        if not body.switch("stream", default=True):
            return await self._whole(request, voice)
        return self._lines(request, voice)

    async def embed(self, body: Body) -> Json:
        """Return the vectors of texts."""
        started = time.perf_counter_ns()
        body.refuse("dimensions")
        texts = body.texts("input")
        if not texts:
            return {"model": body.text("model"), "embeddings": []}
        found = await _told(self._front.embed(texts, body.text("model")), body.text("model"))
        return {
            "model": body.text("model"),
            "embeddings": [list(vector) for vector in found.vectors],
            "total_duration": time.perf_counter_ns() - started,
            "prompt_eval_count": found.prompt_tokens,
        }

    async def embed_one(self, body: Body) -> Json:
        """Return the vector of one text."""
        if not body.text("prompt"):
            return {"embedding": []}
        found = await _told(self._front.embed([body.text("prompt")], body.text("model")), body.text("model"))
        return {"embedding": list(found.vectors[0])}

    async def change(self, wanted: ModelChange) -> AsyncGenerator[Json, None]:
        """Change models at the nodes, and yield what is told meanwhile.

        Raises:
            Refusal: If it is not done, or not everywhere.
        """
        for name in wanted.models:
            if self.serves(name):
                kind = "a pipeline" if PipelineModels.has(name) else "an alias"
                raise Refusal(BAD_REQUEST, f"{quoted(excerpt(name))} is {kind}, and no model that a node has")
        try:
            async with self._front.servers() as servers:
                chosen = meant(servers, wanted.node, only=wanted.path if wanted.for_one else "")
                async with aclosing(change_at(chosen, wanted)) as lines:
                    async for line in lines:
                        yield line
        except SynapticError as error:
            raise _refusal(error, "") from error

    async def has_blob(self, blob: BlobRequest) -> bool:
        """Return whether the one node that is meant has a file."""
        async with self._one_server(blob) as server:
            return await server.has_blob(blob.digest)

    async def put_blob(self, blob: BlobRequest, pieces: AsyncIterator[bytes]) -> bool:
        """Give a file to the one node that is meant, and return whether it lacked it."""
        async with self._one_server(blob) as server:
            return await server.put_blob(blob.digest, pieces)

    @asynccontextmanager
    async def _one_server(self, blob: BlobRequest) -> AsyncIterator[ModelServer]:
        """Give the node that is meant; what goes wrong at it is a refusal."""
        try:
            async with self._front.servers() as servers:
                (server,) = meant(servers, blob.node, only="/api/blobs")
                with refused():
                    yield server
        except BackendError as error:
            raise _refusal(error, "") from error

    async def _capabilities(self, name: str) -> list[str]:
        if PipelineModels.has(name):
            return ["completion", "thinking"]
        can = await _told(self._front.can())
        told = {"completion": True, "tools": "tools" in can.features, "vision": "images" in can.features}
        return [capability for capability, is_there in told.items() if is_there]

    async def _loaded(self, request: ChatRequest, body: Body, voice: ReplyForm) -> Json:
        """Return the answer to a call without a question, which asks for a model to be loaded."""
        known = [full_name(model.name) for model in await _told(self._front.models())]
        if (chosen := await _told(self._front.chosen(request.model or ""), request.model or "")) is not None:
            request = replace(request, model=chosen[0])
        elif names.find(request.model or "", known) is None:
            raise errors.model_not_found(request.model or "")
        if body.keep_alive() == 0:
            raise Refusal(BAD_REQUEST, "this gateway unloads nothing: its nodes do, by their keep_alive")
        prepare = (await _told(self._front.can())).prepare
        if prepare is not None:
            prepare(request)
        return voice.ended("", "load")

    async def _whole(self, request: ChatRequest, voice: ReplyForm) -> Json:
        """Return the answer that is not streamed; of it nothing was given, and so it may begin anew at another node."""
        started = time.perf_counter_ns()
        try:
            reply = await self._front.whole(request)
        except SynapticError as error:
            raise _refusal(error, voice.model) from error
        said = ReplyForm(reply.model, voice.chat).said(
            reply.text,
            thinking=reply.thinking,
            tool_calls=[_called(call) for call in reply.tool_calls],
            logprobs=logprob_entries(reply.logprobs),
        )
        return said | _end(reply.end, started)

    async def _lines(self, request: ChatRequest, voice: ReplyForm) -> AsyncGenerator[Json, None]:
        started = time.perf_counter_ns()
        calls = CallsSoFar()
        try:
            answer = await self._front.stream(request)
            async with aclosing(live(answer)) as chunks:
                async for chunk in chunks:
                    if answer.model not in {request.model, voice.model}:  # it was an alias
                        voice = replace(voice, model=answer.model)
                    if not isinstance(chunk, Delta):
                        if called := [_called(call) for call in calls.calls()]:
                            yield voice.said("", tool_calls=called)
                        yield voice.said("") | _end(chunk, started)
                        return
                    for delta in chunk.tool_calls:
                        calls.add(delta)
                    if chunk.text or chunk.thinking:
                        logprobs = logprob_entries(chunk.logprobs)
                        yield voice.said(chunk.text, thinking=chunk.thinking, logprobs=logprobs)
        except SynapticError as error:
            raise _refusal(error, voice.model) from error

    def _entry(self, model: ModelInfo) -> Json:
        name = full_name(model.name)
        return {
            "name": name,
            "model": name,
            "modified_at": local_time(self._since),
            "size": model.size_bytes or 0,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "",
                "families": None,
                "parameter_size": model.parameter_size or "",
                "quantization_level": model.quantization or "",
            },
        }


async def _told(asked: Awaitable[Told], model: str = "") -> Told:
    """Return what is awaited; an error as Ollama's dialect tells it."""
    try:
        return await asked
    except SynapticError as error:
        raise _refusal(error, model) from error


def _refusal(error: SynapticError, model: str) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ModelNotFound) and model:
        return errors.model_not_found(model)
    failure = http_failure(error)
    status = errors.UNAVAILABLE if failure.status == errors.BUSY else failure.status  # what Ollama says of a full queue
    return Refusal(status, failure.message, retry_after=failure.retry_after)


def _end(end: Finished, started: int) -> Json:
    """Return what the last line has beyond others, for a call that began at that time."""
    reason = "length" if end.finish_reason == "length" else "stop"
    return ending(reason, _metrics(end, time.perf_counter_ns() - started))


def _metrics(end: Finished, total: int) -> Metrics:
    usage, timings = end.usage, end.timings

    def nanoseconds(seconds: float | None) -> int:
        return int((seconds or 0) * 1e9)

    return Metrics(
        total,
        nanoseconds(timings.load_seconds if timings else None),
        usage.prompt_tokens if usage else 0,
        nanoseconds(timings.prompt_seconds if timings else None),
        usage.completion_tokens if usage else 0,
        nanoseconds(timings.generation_seconds if timings else None),
    )


def _called(call: ToolCall) -> Json:
    return {"function": {"name": call.name, "arguments": call.values or {}}}
