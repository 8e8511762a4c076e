"""Aliases: names that stand for the first of several models which is there, can do what is asked, and answers."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from synaptic.errors import BackendBusy, BackendError, FeatureMissing, ModelNotFound, RequestRejected
from synaptic.messages import Delta, Finished
from synaptic.models import name_key
from synaptic.settings import models_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from typing import TypeVar

    from synaptic.messages import ChatRequest, Chunk, ModelInfo

    Made = TypeVar("Made")


class ReplyUnderWay:
    """A reply under way.

    Attributes:
        model: Which model gives it: the one that was asked for; of an alias, once something came, the one that answers.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._chunks: AsyncGenerator[Chunk, None]

    def of(self, chunks: AsyncGenerator[Chunk, None]) -> ReplyUnderWay:
        """Take the chunks, and return this."""
        self._chunks = chunks
        return self

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """End the call."""
        await self._chunks.aclose()


def alias_infos(aliases: Mapping[str, Sequence[str]], models: Sequence[ModelInfo]) -> list[ModelInfo]:
    """Return the aliases as models, each with what is known of the first of its models that is there."""
    there = {name_key(model.name): model for model in models}
    infos = []
    for alias in aliases:
        found = next((there[key] for name in models_of(aliases, alias) or () if (key := name_key(name)) in there), None)
        if found is not None:
            infos.append(replace(found, name=alias))
    return infos


def present(alias: str, names: Sequence[str], models: Sequence[ModelInfo], context: int | None = None) -> list[str]:
    """Return those of an alias's models that are there, and can have so many tokens of context.

    Raises:
        ModelNotFound: If none is there.
        FeatureMissing: If none of them can.
    """
    there = {name_key(model.name): model for model in models}
    found = [name for name in names if name_key(name) in there]
    if not found:
        raise ModelNotFound(
            f"model '{alias}' not found: it stands for {', '.join(names)}, and none of them is there",
            hint=f"synaptic models pull {names[0]}",
        )
    longest = {name: there[name_key(name)].context_length for name in found}
    able = [name for name in found if context is None or (longest[name] or context) >= context]
    if not able:
        raise FeatureMissing(
            f"no model of {alias!r} has a context of {context} tokens: {', '.join(found)}", missing=("num_ctx",)
        )
    return able


async def first_to_answer(
    answer: ReplyUnderWay,
    names: Sequence[str],
    request: ChatRequest,
    stream: Callable[[ChatRequest], AsyncIterator[Chunk]],
) -> AsyncGenerator[Chunk, None]:
    """Yield the reply of the first model that gives one; what fails behind its first token is passed on.

    Raises:
        BackendError: What kept them from it.
    """
    failures: list[tuple[str, BackendError]] = []
    for name in names:
        begun = False
        try:
            async with aclosing(cast("AsyncGenerator[Chunk, None]", stream(replace(request, model=name)))) as chunks:
                async for chunk in chunks:
                    if not begun and isinstance(chunk, Delta | Finished):
                        begun, answer.model = True, name
                    yield chunk
        except BackendError as error:
            if begun or is_of_the_request(error):
                raise
            failures.append((name, error))
        else:
            return
    raise _together(failures)


async def first_that_does(names: Sequence[str], do: Callable[[str], Awaitable[Made]]) -> Made:
    """Return what the first model makes that does not fail.

    Raises:
        BackendError: What kept them from it.
    """
    failures: list[tuple[str, BackendError]] = []
    for name in names:
        try:
            return await do(name)
        except BackendError as error:
            if is_of_the_request(error):
                raise
            failures.append((name, error))
    raise _together(failures)


def is_of_the_request(error: BackendError) -> bool:
    """Return whether every model would refuse the request: it is wrong. What one model lacks, another may have."""
    return isinstance(error, RequestRejected) and not isinstance(error, FeatureMissing)


def _together(failures: Sequence[tuple[str, BackendError]]) -> BackendError:
    """Return one error for those of all models: one that passes by itself, if there is one."""
    busy = [error for _, error in failures if isinstance(error, BackendBusy)]
    told = min(busy, key=lambda error: error.retry_after or 0) if busy else failures[0][1]
    if len(failures) > 1:
        told.message = "; ".join(f"{name}: {error.message}" for name, error in failures)
        told.args = (told.message,)
    return told
