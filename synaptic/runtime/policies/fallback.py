"""Asking another model where the first one fails for good."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from synaptic.errors import BackendError
from synaptic.messages import Restarted
from synaptic.runtime.policies.wrapper import Attempts, BackendWrapper, as_generator

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from synaptic.backends import Backend
    from synaptic.messages import ChatRequest, Chunk


class FallingBack(BackendWrapper):
    """Asks the next model once the one before has failed with a :class:`~synaptic.errors.BackendError`.

    Every model gets the retries of its own. A prompt that does not fit one model's context may fit the next one's. A
    budget that is used up ends the call: the model did not fail.

    Args:
        inner: What is asked.
        models: Asked in this order after the request's own model.
    """

    def __init__(self, inner: Backend, models: Sequence[str]) -> None:
        super().__init__(inner)
        self._models = tuple(models)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Chunk]:
        """Yield the reply of the first model that gives one; a ``Restarted`` names the next model.

        Raises:
            BackendError: The last model's, if all of them fail; its message says which were asked.
        """
        models = tuple(dict.fromkeys((request.model, *self._models)))
        attempts = Attempts()
        for number, model in enumerate(models, start=1):
            begun = request.begun if model == request.model else ""
            chunks = as_generator(self.inner.stream(replace(request, model=model, begun=begun)))
            try:
                async for chunk in chunks:
                    yield attempts.counted(chunk)
            except BackendError as exc:
                if len(models) == 1:
                    raise
                if number == len(models):
                    raise _saying_who_was_asked(exc, models) from exc
                reason = exc.message
            else:
                return
            finally:
                await chunks.aclose()
            yield Restarted(attempts.another(), reason, 0.0, model=models[number])


def _saying_who_was_asked(error: BackendError, models: Sequence[str | None]) -> BackendError:
    """Return a copy of the error; the error itself may be raised again by its owner."""
    names = ", ".join(model or "the backend's own model" for model in models)
    told = copy.copy(error)
    told.message = f"{error.message} (models asked: {names})"
    told.args = (told.message,)
    return told
