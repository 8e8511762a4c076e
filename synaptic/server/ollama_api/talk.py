"""One call of ``/api/chat`` or ``/api/generate``, from its fields to its lines."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from synaptic.server.ollama_api import refusals as errors
from synaptic.server.ollama_api.format_schema import begins_json, not_enforced, not_kept
from synaptic.server.ollama_api.generation import End, Part, engine_body, generate
from synaptic.server.ollama_api.prompts import LONGEST_TOKEN, chat_prompt, cut_prompt
from synaptic.server.ollama_api.replies import Json, Metrics, ReplyForm, logprob_entries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from synaptic.server.ollama_api.embedded_engine import EmbeddedEngine
    from synaptic.server.ollama_api.generation_options import GenerationOptions
    from synaptic.server.ollama_api.loading import Runner
    from synaptic.server.ollama_api.requests import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What a call asks for.

    Attributes:
        messages: Of the chat; those of ``/api/generate`` are made of its ``system`` and ``prompt``.
        raw: The prompt as it is, without the model's template; ``None`` where the template is used.
        before: Tokens of an earlier exchange (``context`` of ``/api/generate``).
        constraint: What ``format`` asks of the engine.
        wants: Capabilities that the model lacks and that were asked for.
        renders_only: Whether the prompt is wanted instead of a reply (``_debug_render_only``).
        logprobs: With how many alternatives each token is told; ``None`` where no log-probabilities are asked for.
    """

    chat: bool
    messages: list[dict[str, Any]]
    raw: str | None
    before: list[int]
    options: GenerationOptions
    constraint: dict[str, Any]
    keep_alive: float | None
    truncate: bool
    shift: bool
    thinks: bool
    wants: tuple[str, ...]
    model: str
    renders_only: bool
    logprobs: int | None

    @classmethod
    def of(cls, body: Body, *, chat: bool, vocabulary: int) -> Talk:
        """Read a call; ``vocabulary`` is the number of tokens that the model knows.

        Raises:
            Refusal: If a field is wrong, or is something that this server cannot do.
        """
        wanted = {"tools": body.items("tools") if chat else None, "insert": None if chat else body.text("suffix")}
        return cls(
            chat=chat,
            messages=body.messages() if chat else _generate_messages(body),
            raw=body.text("prompt") if not chat and body.switch("raw", default=False) else None,
            before=[] if chat else body.tokens("context", vocabulary),
            options=body.options(),
            constraint=body.constraint(),
            keep_alive=body.keep_alive(),
            truncate=body.switch("truncate", default=True),
            shift=body.switch("shift", default=True),
            thinks=body.thinks(),
            wants=tuple(capability for capability, value in wanted.items() if value),
            model=body.text("model"),
            renders_only=body.switch("_debug_render_only", default=False),
            logprobs=body.logprobs(),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked: the call loads or unloads the model."""
        return not self.messages

    def check_capabilities(self, name: str) -> None:
        """Refuse what the model cannot do.

        Raises:
            Refusal: If something of that kind was asked for.
        """
        if self.thinks:
            raise errors.no_thinking(self.model)
        for capability in self.wants:
            raise errors.lacks(name, capability)

    async def rendered(self, runner: Runner, voice: ReplyForm) -> Json:
        """Return the answer that tells the prompt.

        Raises:
            Refusal: If there is none.
        """
        return voice.rendered(await self._prompt(runner.engine, runner.options.context))

    async def lines(self, runner: Runner, voice: ReplyForm, *, started: int, loaded: int) -> AsyncGenerator[Json, None]:
        """Yield the lines of the reply.

        Args:
            runner: The model, claimed for as long as this runs.
            voice: How the endpoint names things.
            started: When the call came, in nanoseconds of the performance counter.
            loaded: When the model was there.

        Raises:
            Refusal: If it cannot be answered, or not to its end.
        """
        engine, context = runner.engine, runner.options.context
        prompt = await self._prompt(engine, context)
        said: list[str] = []
        async with runner.slots:
            ready: str | list[int] = prompt
            if self.truncate:
                ready = await cut_prompt(engine, prompt, context, keep=self.options.num_keep, shift=self.shift)
            elif len(prompt) > context * LONGEST_TOKEN:
                raise errors.prompt_too_long()
            if (schema := self.constraint.get("json_schema")) is not None and not await engine.enforces(schema):
                raise not_enforced(schema)
            body = engine_body(ready, self.options, context, self.constraint, logprobs=self.logprobs)
            async with aclosing(generate(engine, body)) as parts:
                async for part in parts:
                    said.append(part.text)
                    if isinstance(part, End):
                        end = part
                        whole = end.reason == "stop" and not self.options.stop
                        if self.constraint and not begins_json("".join(said), whole=whole):
                            raise not_kept()
                    else:
                        yield voice.said(part.text, logprobs=self._told(part))
        exchange = await self._exchange(engine, prompt, ready, "".join(said)) if self._returns_context else None
        total = time.perf_counter_ns() - started
        metrics = Metrics(total, loaded - started, end.prompt_tokens, end.prompt_duration, end.tokens, end.duration)
        yield voice.ended(end.text, end.reason, metrics, exchange)

    def _told(self, part: Part) -> list[Json]:
        """Return the log-probabilities of a part, without the one alternative where none was asked for."""
        bare = self.logprobs == 0
        return logprob_entries(replace(entry, top=()) if bare else entry for entry in part.logprobs)

    @staticmethod
    async def _exchange(engine: EmbeddedEngine, prompt: str, ready: str | list[int], said: str) -> list[int]:
        """Return the tokens of a prompt and its reply, of a prompt that was cut those that are left."""
        if isinstance(ready, str):
            return await engine.tokens(prompt + said, special=False)
        return ready[len(await engine.tokens("")) :] + await engine.tokens(said, special=False)

    @property
    def _returns_context(self) -> bool:
        return not self.chat and self.raw is None

    async def _prompt(self, engine: EmbeddedEngine, context: int) -> str:
        if self.raw is not None:
            return self.raw
        prompt = await chat_prompt(engine, self.messages, context, truncate=self.truncate)
        return await engine.text(self.before) + prompt if self.before else prompt


def _generate_messages(body: Body) -> list[dict[str, Any]]:
    system, prompt = body.text("system"), body.text("prompt")
    if body.switch("raw", default=False) and (body.text("template") or system or body.items("context")):
        raise errors.Refusal(errors.BAD_REQUEST, "raw mode does not support template, system, or context")
    if body.items("images"):
        raise errors.no_images()
    body.refuse("template")
    if not prompt:
        return []
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": prompt}]
