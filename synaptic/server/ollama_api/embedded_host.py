"""The embedded engine behind Ollama's dialect: loaded, shared and unloaded as Ollama does it."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from synaptic.backends.embedded import processors
from synaptic.messages import Usage
from synaptic.server.gateway import CallMeter
from synaptic.server.ollama_api import refusals as errors
from synaptic.server.ollama_api.generation_options import load_options
from synaptic.server.ollama_api.loading import expiry
from synaptic.server.ollama_api.model_changes import NODE_HEADER
from synaptic.server.ollama_api.prompts import LONGEST_TOKEN
from synaptic.server.ollama_api.pull_progress import pull_lines
from synaptic.server.ollama_api.replies import Json, ReplyForm
from synaptic.server.ollama_api.talk import Talk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from synaptic.server.gateway import MeteredCall
    from synaptic.server.ollama_api.catalogue import Catalogue
    from synaptic.server.ollama_api.loading import Runner, Scheduler
    from synaptic.server.ollama_api.model_changes import BlobRequest, ModelChange
    from synaptic.server.ollama_api.ollama_host import Talked
    from synaptic.server.ollama_api.requests import Body

EMBEDDED: Final = "embedded"
_UNCHANGED: Final = "the embedded model cannot be changed"
_NODES: Final = "name nodes in the settings for that"


class EmbeddedHost:
    """The model of the store, under its names.

    Args:
        catalogue: Which models there are.
        scheduler: Which are in memory.
        parallel: Calls at once for each model.
        context: Tokens of context, where a request does not say.
        meter: Counts what calls use.
    """

    def __init__(
        self, catalogue: Catalogue, scheduler: Scheduler, *, parallel: int, context: int, meter: CallMeter | None = None
    ) -> None:
        self._meter = meter or CallMeter()
        self._catalogue = catalogue
        self._scheduler = scheduler
        self._parallel = parallel
        self._context = context

    async def start(self) -> None:
        """Read the model's file now, if it is here: the first call should not pay for that."""
        if self._catalogue.names:
            self._catalogue.facts()

    async def aclose(self) -> None:
        """Unload all models."""
        await self._scheduler.aclose()

    async def tags(self) -> list[Json]:
        """Return the model, once for each of its names."""
        return self._catalogue.tags()

    async def running(self) -> list[Json]:
        """Return what is in memory."""
        return [
            self._catalogue.running(runner, parallel=self._parallel, expires_at=expiry(runner))
            for runner in self._scheduler.loaded
        ]

    async def show(self, name: str, *, verbose: bool) -> Json:
        """Return what the model's file says."""
        return self._catalogue.show(self._known(name), verbose=verbose)

    async def talk(self, body: Body, *, chat: bool) -> Talked:
        """Return the answer of ``/api/chat`` or ``/api/generate``.

        Raises:
            Refusal: If a field is wrong, or is something that the model cannot do.
            BackendUnavailable: If the model cannot be loaded.
        """
        started = time.perf_counter_ns()
        name = self._known(body.text("model"))
        talk = Talk.of(body, chat=chat, vocabulary=self._catalogue.facts().shape.vocabulary)
        voice = ReplyForm(body.text("model"), chat)
        if talk.is_empty and talk.keep_alive == 0:
            self._scheduler.expire(name)
            return voice.ended("", "unload")
        talk.check_capabilities(name)
        if not talk.is_empty and not talk.renders_only:
            call = self._meter.begin(body.text("model"))
            return self._lines(call, talk, voice, self._claim(name, body), started)
        async with self._claim(name, body) as runner:
            return voice.ended("", "load") if talk.is_empty else await talk.rendered(runner, voice)

    @staticmethod
    async def _lines(
        call: MeteredCall, talk: Talk, voice: ReplyForm, claim: AbstractAsyncContextManager[Runner], started: int
    ) -> AsyncGenerator[Json, None]:
        """Yield the lines of a call, counted; the model is claimed until this ends."""
        async with claim as runner:
            lines = talk.lines(runner, voice, started=started, loaded=time.perf_counter_ns())
            with call:
                async with aclosing(lines):
                    async for line in lines:
                        if line["done"]:
                            usage = Usage(line.get("prompt_eval_count", 0), line.get("eval_count", 0))
                            call.whole(usage, EMBEDDED)
                        else:
                            call.piece()
                        yield line

    async def embed(self, body: Body) -> Json:
        """Return the vectors of texts."""
        started = time.perf_counter_ns()
        body.refuse("dimensions")
        texts = body.texts("input")
        call = self._meter.begin(body.text("model"), embeds=True)
        async with self._claim(self._pulled(body.text("model")), body) as runner:
            load = time.perf_counter_ns() - started
            if not texts:
                return {"model": body.text("model"), "embeddings": []}
            with call:
                found = await embed_all(runner, texts, truncate=body.switch("truncate", default=True))
                call.whole(Usage(prompt_tokens=sum(count for _, count in found)), EMBEDDED)
            return {
                "model": body.text("model"),
                "embeddings": [vector for vector, _ in found],
                "total_duration": time.perf_counter_ns() - started,
                "load_duration": load,
                "prompt_eval_count": sum(count for _, count in found),
            }

    async def embed_one(self, body: Body) -> Json:
        """Return the vector of one text."""
        call = self._meter.begin(body.text("model"), embeds=True)
        async with self._claim(self._pulled(body.text("model")), body) as runner:
            if not body.text("prompt"):
                return {"embedding": []}
            async with runner.slots:
                with call:
                    vector, count = await _embed(runner, body.text("prompt"), truncate=False)
                    call.whole(Usage(prompt_tokens=count), EMBEDDED)
            return {"embedding": vector}

    async def change(self, wanted: ModelChange) -> AsyncGenerator[Json, None]:
        """Yield the progress of fetching the model; nothing else is done with it.

        Raises:
            Refusal: If something else is asked for, or a node.
            DownloadError: If it cannot be fetched.
        """
        if wanted.node is not None:
            raise errors.Refusal(errors.BAD_REQUEST, f"{NODE_HEADER}: the embedded model serves here, and no node")
        if wanted.action != "pull":
            raise errors.Refusal(errors.BAD_REQUEST, f"{_UNCHANGED}: no {wanted.action} here; {_NODES}")
        known = self._catalogue.find_in_library(wanted.models[0])
        async with aclosing(pull_lines(self._catalogue.store, known)) as lines:
            async for line in lines:
                yield line

    async def has_blob(self, blob: BlobRequest) -> bool:
        """Return false: no model is made here."""
        del blob
        return False

    async def put_blob(self, blob: BlobRequest, pieces: AsyncIterator[bytes]) -> bool:
        """Refuse: no model is made here.

        Raises:
            Refusal: Always.
        """
        del blob, pieces
        raise errors.Refusal(errors.BAD_REQUEST, f"{_UNCHANGED}: no blobs here; {_NODES}")

    def _claim(self, name: str, body: Body) -> AbstractAsyncContextManager[Runner]:
        options = load_options(
            body.options(),
            default_context=self._context,
            trained_context=self._catalogue.trained_context,
            processors=processors(),
            shift=body.switch("shift", default=True),
        )
        return self._scheduler.claim(name, options, body.keep_alive())

    def _known(self, name: str) -> str:
        found = self._catalogue.find(name)
        if found is None:
            raise errors.model_not_found(name)
        return found

    def _pulled(self, name: str) -> str:
        found = self._catalogue.find(name)
        if found is None:
            raise errors.model_not_pulled(name)
        return found


async def embed_all(runner: Runner, texts: list[str], *, truncate: bool) -> list[tuple[list[float], int]]:
    """Return the embedding of each text with its number of tokens; one that is too long is cut where it may be.

    Raises:
        Refusal: If one is too long, or the engine fails.
    """
    found = []
    for text in texts:
        async with runner.slots:
            try:
                found.append(await _embed(runner, text, truncate=truncate))
            except errors.Refusal as refusal:
                if refusal.status != errors.BAD_REQUEST or not truncate:
                    raise
                tokens = await runner.engine.tokens(text[: _most_characters(runner)])
                shorter = await runner.engine.text(tokens[: runner.options.context - 2])  # as if it added BOS and EOS
                found.append(await runner.engine.embed(shorter))
    return found


def _most_characters(runner: Runner) -> int:
    return runner.options.context * LONGEST_TOKEN


async def _embed(runner: Runner, text: str, *, truncate: bool) -> tuple[list[float], int]:
    """Return what the engine makes of a text; what cannot fit, however long its tokens are, is not sent to it.

    Raises:
        Refusal: If it is too long and may not be cut, or the engine fails.
    """
    most = _most_characters(runner)
    if len(text) > most and not truncate:
        raise errors.input_too_long()
    return await runner.engine.embed(text[:most])
