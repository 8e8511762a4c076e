"""Vectors of many texts, from the nodes that have the model: a batch is divided, and the order is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synaptic.backends.pool.calls.waiter import Waiter
from synaptic.backends.pool.node import CallShape, judge
from synaptic.errors import BackendError
from synaptic.messages import Embeddings
from synaptic.models import full_name, name_key
from synaptic.waiting import CHARACTERS_A_TOKEN, all_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synaptic.backends.pool.calls.pool_call import PoolServices

TEXTS_A_CALL: Final = 32
"""So few that a batch of a few hundred keeps several nodes at work, so many that a request costs little beside them."""


async def embed_texts(pool: PoolServices, texts: Sequence[str], model: str) -> Embeddings:
    """Return the vectors of texts, in their order.

    Raises:
        BackendError: What the last node did wrong, or why there is none.
    """
    pieces = [texts[start : start + TEXTS_A_CALL] for start in range(0, len(texts), TEXTS_A_CALL)]
    found = await all_of(_piece(pool, piece, model) for piece in pieces)
    vectors = tuple(vector for piece in found for vector in piece.vectors)
    return Embeddings(vectors, sum(piece.prompt_tokens for piece in found), model)


async def _piece(pool: PoolServices, texts: Sequence[str], model: str) -> Embeddings:
    """Ask one node, and another one where that fails."""
    tokens = sum(map(len, texts)) // CHARACTERS_A_TOKEN
    shape = CallShape(name_key(model), prompt_tokens=tokens, output_tokens=0, asked=full_name(model))
    waiter = Waiter(shape, tag="embed")
    while True:
        lease = await pool.dispatcher.acquire(waiter)
        member = pool.members[lease.node.key]
        try:
            return await member.client.embed(texts, model)
        except BackendError as error:
            if not judge(error).elsewhere or waiter.attempt > pool.failovers:
                raise
            shape.tried |= {lease.node.key}
            waiter.attempt += 1
        finally:
            lease.release()
