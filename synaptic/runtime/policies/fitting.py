"""Prompts that do not fit the model's context: refused or shortened, as the step says, and never silently cut.

The backend's tokenizer counts where it has one. Where it has none, what is clearly too long is refused, what may be so
is left to the server to refuse (Ollama is told not to cut), and what is shortened is shortened by a careful estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from synaptic.errors import ContextOverflow
from synaptic.messages import Finished, Restarted, Shortened, Usage
from synaptic.runtime.policies.overflowing import REFUSE, OverflowRule, Refused, too_long
from synaptic.runtime.policies.prompt_size import (
    UNKNOWN,
    ContextLengths,
    TokenCounter,
    prompt_text,
    room_for_prompt,
    surely_fits,
)
from synaptic.runtime.policies.summarising import Summariser
from synaptic.runtime.policies.truncating import truncate_oldest
from synaptic.runtime.policies.wrapper import BackendWrapper, as_generator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk
    from synaptic.runtime.policies.summarising import KeptSummaries


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A request that fits, and what that took."""

    request: ChatRequest
    shortened: Shortened | None = None
    usage: Usage = Usage()


class Fitting(BackendWrapper):
    """Makes every prompt fit the context, or refuses it.

    Args:
        inner: What is asked, also for summaries; it can tell its context, and may have the tokenizer.
        overflow: What happens to a prompt that does not fit, and who says so.
        contexts: What is known of the backend's contexts; one object for all wrappers of one backend.
        summaries: Those that were made before.
    """

    def __init__(
        self,
        inner: Backend,
        overflow: OverflowRule = REFUSE,
        contexts: ContextLengths | None = None,
        summaries: KeptSummaries | None = None,
    ) -> None:
        super().__init__(inner)
        self._summaries = summaries
        self._rule = overflow
        self._contexts = contexts or ContextLengths(self.capabilities)

    def stream(self, request: ChatRequest) -> AsyncIterator[Chunk]:
        """Yield the reply; if the prompt was shortened, a :class:`~synaptic.messages.Shortened` comes first.

        Raises:
            ContextOverflow: If the prompt does not fit, before anything is sent; or if the server cut it, and the step
                does not allow that.
        """
        context = self._contexts.known(request)
        fits = context is None or (context != UNKNOWN and surely_fits(request, context))
        if fits and self._rule.how == "error":
            return self.inner.stream(request)
        return self._fitted_stream(request, context, fits=fits)

    async def _fitted_stream(self, request: ChatRequest, context: int | None, *, fits: bool) -> AsyncGenerator[Chunk]:
        """Yield the reply; where the server cut the prompt, the one to a prompt that fits what it was cut to."""
        if fits:
            chunks = as_generator(self.inner.stream(request))
        else:
            context = await self._contexts.of(request)
            chunks = as_generator(self._fitted_to(request, context))
        try:
            async for chunk in chunks:
                yield chunk
        except ContextOverflow as exc:
            self._contexts.forget(request)
            if self._rule.how == "error" or exc.context is None or exc.end is None:
                raise
            cut_to, end, reason = exc.context, exc.end, exc.message
        else:
            return
        finally:
            await chunks.aclose()
        if surely_fits(request, cut_to) or (context is not None and context <= cut_to):
            tokens = await TokenCounter(self.capabilities, request, asks=False).count(prompt_text(request.messages))
            yield Shortened("server", max(tokens, cut_to), cut_to)
            yield end
            return
        yield Restarted(2, reason)
        chunks = as_generator(self._fitted_to(request, cut_to))
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    async def _fitted_to(self, request: ChatRequest, context: int | None) -> AsyncGenerator[Chunk]:
        fitted = _Fitted(request)
        if context is not None and not surely_fits(request, context):
            fitted = await self._fit(request, context)
        if fitted.shortened is not None:
            yield fitted.shortened
        chunks = as_generator(self.inner.stream(fitted.request))
        try:
            async for chunk in chunks:
                if isinstance(chunk, Finished) and fitted.usage.total_tokens:
                    yield replace(chunk, usage=fitted.usage + (chunk.usage or Usage()))
                else:
                    yield chunk
        finally:
            await chunks.aclose()

    async def _fit(self, request: ChatRequest, context: int) -> _Fitted:
        counter = TokenCounter(self.capabilities, request)
        room = room_for_prompt(request, context)
        text = prompt_text(request.messages)
        tokens = await counter.count(text)
        if tokens <= room:
            return _Fitted(request)
        how = self._rule.how
        if how == "error":
            least, said = await counter.least(text)
            if least <= room:
                return _Fitted(request)
            raise self._too_long(request, context, said)
        if how == "truncate_oldest":
            shorter, usage = await truncate_oldest(request, room, counter), Usage()
        else:
            summariser = Summariser(self.inner, request, context, counter, self._summaries)
            shorter, usage = await summariser.fit(room), summariser.usage
        if shorter is None:
            raise self._too_long(request, context, f"{tokens}" if counter.exact else f"about {tokens}")
        after = await counter.count(prompt_text(shorter.messages))
        return _Fitted(shorter, Shortened(how, tokens, after), usage)

    def _too_long(self, request: ChatRequest, context: int, tokens: str) -> ContextOverflow:
        return too_long(Refused(request, context, tokens), self._rule, self.capabilities, self.name)
